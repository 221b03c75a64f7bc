"""`hyenadna finetune --task classification` and `--task regression`: labels of whole sequences."""

from abc import abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from datasets import DatasetDict, Sequence, Value
from rich.markup import escape
from torch import nn
from transformers import (
    AutoModelForSequenceClassification,
    DataCollatorWithPadding,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from ..data.collators import ClassificationCollator
from ..data.labelled import value_lengths
from ..data.leakage import leakage_summary, split_by_similarity
from ..errors import InputError
from ..model.tokenization_hyenadna import SPECIAL_TOKENS_MODES
from .classifier import has_nucleotide_tokens, is_hyenadna, longest_input, tokenize, words
from .comparison import compare, compare_regressors, targets_of
from .finetune_data import label_columns, load_data
from .finetune_task import Baselines, Task
from .loss import balanced_weights
from .metrics import REGRESSION_METRICS, metric_names, metrics_of_scores, regression_metrics
from .recipes import recipe_of
from .regression import TargetScale, output_layer, prepare_outputs

MOST_NAMES = 20  # labels that are named, not counted


class SequenceTask(Task):
    """
    Labels of whole sequences.

    Attributes:
        data: Sequences and their labels.
        max_length: Longest input, in tokens; `None` without a limit.
    """

    auto_class = AutoModelForSequenceClassification
    data: DatasetDict
    max_length: int | None

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        args, seed = self.data_args, self.training_args.seed
        self.source = args.dataset
        self.data, self.names = load_data(args, seed)
        if args.split_by_similarity:
            self.data = split_by_similarity(self.data, args.validation_fraction, args.test_fraction, seed)
        self.longest = args.max_length or self._find_longest()

    def _find_longest(self) -> int:
        """Return the number of tokens of the longest sequence, at one token per base."""
        special = len(SPECIAL_TOKENS_MODES[self.model_args.special_tokens_mode][0].split()) - 1
        return special + max(int(value_lengths(split, "sequence").max(initial=0)) for split in self.data.values())

    def prepare_model(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, origin: str) -> str:
        length, limit = self.data_args.max_length, longest_input(model.config, tokenizer)
        if length is not None and not 1 <= length <= (limit or length):
            raise InputError(
                f"--max_length {length}: give 1 to {limit or 'any number of'} tokens, the limit of "
                f"{self.model_args.model}."
            )
        self.max_length = limit if length is None else length
        return origin

    def collators(self, tokenizer: PreTrainedTokenizerBase) -> tuple[Any, Any]:
        probability = self.data_args.reverse_complement
        if has_nucleotide_tokens(tokenizer):
            return ClassificationCollator(tokenizer), ClassificationCollator(tokenizer, reverse_complement=probability)
        if probability:
            raise InputError(
                f"--reverse_complement {probability}: {self.model_args.model} does not use HyenaDNA's tokens, one per "
                "nucleotide; omit it."
            )
        return (DataCollatorWithPadding(tokenizer),) * 2

    def print_data(self) -> None:
        counts = ", ".join(f"{len(split):,} {name}" for name, split in self.data.items())
        self.console.print(f"[bold]Data[/bold] {escape(self.source)}: {counts}; {self._describe_names()}")
        # Splits by similarity share no sequences.
        may_leak = self.training_args.process_index == 0 and not self.data_args.split_by_similarity
        if may_leak and (leakage := leakage_summary(self.data)):
            self.console.print(f"[yellow]{escape(leakage)}[/yellow]")

    @abstractmethod
    def _describe_names(self) -> str:
        """Name or count the classes, labels or targets."""

    def examples(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> DatasetDict:
        if self.data_args.recipe:
            self.console.print(f"[bold]Recipe[/bold] {self.data_args.recipe}")
        elif published := recipe_of(self.source):
            self.console.print(f"There are published settings for {published}; --recipe auto uses them.")
        fields = self.model_args.config_fields()
        if fields and not is_hyenadna(model):
            ignored = ", ".join(f"--{name}" for name in fields)
            self.console.print(f"{ignored}: ignored, because this is a {model.config.model_type} model, not HyenaDNA.")
        tokens = tokenize(self.data, tokenizer, self.max_length, self.model_args.kmer)
        lengths = np.concatenate([value_lengths(split, "input_ids") for split in tokens.values()])
        if full_length := np.count_nonzero(lengths == self.max_length):
            self.console.print(
                f"{full_length:,} sequences fill the {self.max_length:,} tokens of the model; longer ones are "
                "truncated."
            )
        return tokens

    def class_weights(self) -> torch.Tensor:
        return balanced_weights(targets_of(self.data["train"]), len(self.names))

    def sizes(self) -> dict[str, Any]:
        return {
            "recipe": self.data_args.recipe,
            "sequences": {name: len(split) for name, split in self.data.items()},
        }

    def title(self) -> str:
        return f"Held-out test split: {len(self.data['test']):,} sequences"

    def first_inputs(self, tokenizer: PreTrainedTokenizerBase) -> Mapping[str, torch.Tensor]:
        return tokenizer(
            words(self.data["test"][0]["sequence"], self.model_args.kmer),
            truncation=self.max_length is not None,
            max_length=self.max_length,
            return_tensors="pt",
        )

    def describe_first(self, outputs: torch.Tensor) -> str:
        example = self.data["test"][0]
        return f"{example['sequence'][:24]}... is {self._describe_prediction(outputs, example)}; its logits"

    @abstractmethod
    def _describe_prediction(self, outputs: torch.Tensor, example: dict[str, Any]) -> str:
        """Name the predicted and the true label."""


class ClassificationTask(SequenceTask):
    """One class, or several labels, per sequence."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.multi_label = "labels" in self.data["train"].column_names
        self.groups = label_columns(self.data_args.label_groups, self.names, self.multi_label)
        self.metric_names = metric_names(self.multi_label, self.groups)
        problem_type = "multi_label_classification" if self.multi_label else "single_label_classification"
        self.config_fields = {"problem_type": problem_type}

    def _describe_names(self) -> str:
        count = f"{len(self.names):,} labels"
        return count if self.multi_label else f"classes {escape(', '.join(self.names))}"

    def examples(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> DatasetDict:
        tokens = super().examples(model, tokenizer)
        return _with_floats(tokens) if self.multi_label else tokens

    def measure(self, outputs: np.ndarray, labels: np.ndarray) -> dict[str, float]:
        return metrics_of_scores(outputs, labels, self.groups)

    def compare(self, device: torch.device, seed: int) -> Baselines:
        return compare(self.data, device, seed, self.groups)

    def purpose(self) -> str:
        return f"classify {_join(self.names)}"

    def _describe_prediction(self, outputs: torch.Tensor, example: dict[str, Any]) -> str:
        if self.multi_label:
            probability, predicted = outputs.sigmoid().max(-1)
            truth = ", ".join(name for name, label in zip(self.names, example["labels"]) if label) or "none"
        else:
            probability, predicted = outputs.softmax(-1).max(-1)
            truth = self.names[example["label"]]
        name = escape(self.names[int(predicted)])
        return f"[bold]{name}[/bold] with probability {probability:.3f} (truth: {escape(truth)})"


class RegressionTask(SequenceTask):
    """
    One or several numbers per sequence.

    Attributes:
        scale: Scale of the targets in training.
    """

    shown_metrics = REGRESSION_METRICS  # those of single targets are in results.json
    scale: TargetScale

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.loss = self.model_args.regression_loss or "mse"
        self.metric_names = list(REGRESSION_METRICS[:-1])
        self.config_fields = {"problem_type": "regression", "regression_loss": self.loss}

    def prepare_model(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, origin: str) -> str:
        is_sharded = bool(self.training_args.fsdp or self.training_args.deepspeed)
        targets = targets_of(self.data["train"])
        source = self.model_args.model
        self.scale, origin = prepare_outputs(model, self.loss, targets, self.names, source, origin, is_sharded)
        return super().prepare_model(model, tokenizer, origin)

    def _describe_names(self) -> str:
        few = len(self.names) <= MOST_NAMES
        return f"targets {escape(', '.join(self.names))}" if few else f"{len(self.names):,} targets"

    def examples(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> DatasetDict:
        tokens = (
            super()
            .examples(model, tokenizer)
            .map(
                lambda batch: {"labels": self.scale.standardise(np.asarray(batch["labels"]))},
                batched=True,
                keep_in_memory=True,
            )
        )
        return _with_floats(tokens)

    def restore(self, outputs: np.ndarray) -> np.ndarray:
        return self.scale.restore(outputs)

    @contextmanager
    def saving(self, model: nn.Module) -> Iterator[None]:
        """Fold the scale of the targets into the output layer."""
        layer = output_layer(model, len(self.names))
        if layer is None:
            yield
            return
        self.scale.restore_outputs(layer)
        yield
        self.scale.standardise_outputs(layer)

    def measure(self, outputs: np.ndarray, labels: np.ndarray) -> dict[str, float]:
        return regression_metrics(outputs, labels, self.names)

    def compare(self, device: torch.device, seed: int) -> Baselines:
        return compare_regressors(self.data, self.names, self.loss, device, seed)

    def purpose(self) -> str:
        outputs = "rates" if self.loss == "poisson" else "numbers"
        return f"predict {_join(self.names)}; its outputs are {outputs} in the units of the data"

    def _describe_prediction(self, outputs: torch.Tensor, example: dict[str, Any]) -> str:
        number, truth = float(outputs[0]), example["labels"][0]
        return f"[bold]{escape(self.names[0])} {number:.4g}[/bold] (truth: {truth:.4g})"


def _join(names: list[str]) -> str:
    return ", ".join(names) if len(names) <= MOST_NAMES else f"{len(names):,} labels"


def _with_floats(tokens: DatasetDict) -> DatasetDict:
    return tokens.cast_column("labels", Sequence(Value("float32")))  # for the loss
