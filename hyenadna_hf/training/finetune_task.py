"""A task of `hyenadna finetune`: what depends on the kind of labels."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any, ClassVar

import numpy as np
import torch
from rich.console import Console
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from .finetune_arguments import ClassifierArguments, DataArguments, FinetuneArguments

Baselines = dict[str, tuple[dict[str, float], float]]  # test metrics and training time in seconds, by name


class Task(ABC):
    """
    Labels that a model learns: the data, the outputs of the model, metrics and baselines.

    `hyenadna finetune` makes one for the value of `--task`, which reads the data and checks its own arguments.

    Args:
        model_args: Model arguments of the command.
        data_args: Data arguments of the command.
        training_args: Training arguments of the command.
        console: Console of the main process, silent in others.

    Attributes:
        source: Name of the data in `results.json`.
        names: Names of the classes, labels, targets or tracks.
        metric_names: Metrics for which higher is better.
        config_fields: Configuration fields of the model.
        longest: Longest input in tokens, for baselines that are built for one length; `None` if it is not known.
        auto_class: Auto class of the model.
        shown_metrics: Metrics of the printed table, the first of which sorts the rows; `None` for all.

    Raises:
        InputError: If the data or an argument is invalid.
    """

    auto_class: ClassVar[Any]
    shown_metrics: ClassVar[tuple[str, ...] | None] = None
    source: str
    names: list[str]
    metric_names: list[str]
    config_fields: dict[str, Any]
    longest: int | None

    def __init__(
        self,
        model_args: ClassifierArguments,
        data_args: DataArguments,
        training_args: FinetuneArguments,
        console: Console,
    ) -> None:
        self.model_args, self.data_args, self.training_args = model_args, data_args, training_args
        self.console = console

    @abstractmethod
    def prepare_model(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, origin: str) -> str:
        """
        Fit the data and the output layer of a model to each other.

        Args:
            model: Model to train.
            tokenizer: Its tokenizer.
            origin: Phrase that describes the origin of the weights.

        Returns:
            The phrase, with the weights that start anew.

        Raises:
            InputError: If the model does not suit the data.
        """

    @abstractmethod
    def collators(self, tokenizer: PreTrainedTokenizerBase) -> tuple[Any, Any]:
        """Build the data collators for evaluation and for training."""

    @abstractmethod
    def print_data(self) -> None:
        """Print the size of the data and what is worth knowing about it."""

    @abstractmethod
    def examples(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> Mapping[str, Any]:
        """Return tokens and labels of `train`, `validation` and `test`, and print what is worth knowing about them."""

    @abstractmethod
    def class_weights(self) -> torch.Tensor:
        """Compute weights of the loss that balance the classes of train."""

    def restore(self, outputs: np.ndarray) -> np.ndarray:
        """Convert outputs or labels of training to the units of the data."""
        return outputs

    def saving(self, model: nn.Module) -> AbstractContextManager[None]:
        """Return the context in which the trained model is saved."""
        return nullcontext()

    @abstractmethod
    def measure(self, outputs: np.ndarray, labels: np.ndarray) -> dict[str, float]:
        """Compute the metrics of outputs and labels in the units of the data."""

    @abstractmethod
    def sizes(self) -> dict[str, Any]:
        """Return the fields of `results.json` on the data."""

    @abstractmethod
    def compare(self, device: torch.device, seed: int) -> Baselines:
        """Train baselines on train and measure them on test."""

    @abstractmethod
    def purpose(self) -> str:
        """Return a phrase for the model card: what the model was fine-tuned to do."""

    @abstractmethod
    def title(self) -> str:
        """Return the title of the table of results."""

    @abstractmethod
    def first_inputs(self, tokenizer: PreTrainedTokenizerBase) -> Mapping[str, torch.Tensor]:
        """Tokenize the first test example as a user of the checkpoint would."""

    @abstractmethod
    def describe_first(self, outputs: torch.Tensor) -> str:
        """Name the first test example and its predicted `outputs`, in a clause that ends before their error."""
