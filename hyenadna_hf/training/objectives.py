"""Training objectives of language models: their data, losses and metrics."""

import math
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F
from torch.utils.data import ConcatDataset, IterableDataset
from transformers import (
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
    EvalPrediction,
    PretrainedConfig,
    PreTrainedTokenizerBase,
)

from ..data.collators import PaddingCollator
from ..data.pretraining import MaskedPretrainingCollator, MaskedStream, MaskedWindows, PretrainingCollator
from ..data.sequence import IGNORED
from ..errors import InputError
from .loss import SmoothedCausalLoss, WeightedLoss
from .runs import OUR_TYPES

MLM_PROBABILITY = 0.15


class Objective:
    """
    Predict the next base, with a causal model. Base class of other objectives.

    Attributes:
        name: Value of `--objective`.
        auto_class: Auto class of the models.
        bits, perplexity, bases: Names of the metrics, see [`~Objective.metrics`].
        purpose: Purpose of the training, for the model card.
    """

    name = "clm"
    auto_class: Any = AutoModelForCausalLM
    bits, perplexity, bases = "bits_per_base", "perplexity", "bases"
    purpose = "to predict the next one"

    def check_config(self, model: str, config: PretrainedConfig) -> None:
        """Raise an `InputError` if the configuration of `--model` needs another objective."""
        if getattr(config, "bidirectional", False):
            raise InputError(
                f"--objective clm: {model} is bidirectional and would see the base to predict; give --objective mlm."
            )

    def config_fields(self) -> dict[str, Any]:
        """Return the configuration fields of a published size."""
        return {}

    def settings(self) -> dict[str, Any]:
        """Return the settings to record in `pretraining.json`."""
        return {"objective": self.name}

    def train_stream(self, stream: IterableDataset, seed: int) -> IterableDataset:
        """Return the training examples of a stream of windows."""
        return stream

    def evaluation_set(self, windows: ConcatDataset) -> ConcatDataset | MaskedWindows:
        """Return the examples of held-out windows, the same in every run."""
        return windows

    def collator(self, tokenizer: PreTrainedTokenizerBase) -> PaddingCollator:
        """Return the collator of training and evaluation."""
        return PretrainingCollator(tokenizer)

    def smoothed_loss(self, label_smoothing: float) -> SmoothedCausalLoss | WeightedLoss:
        """Return the `compute_loss_func` of a Trainer with label smoothing."""
        return SmoothedCausalLoss(label_smoothing)

    def row_losses(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Compute the sum of the losses, in nats, and the number of predicted bases of each row, shape `(batch, 2)`."""
        return _row_losses(logits[:, :-1], labels[:, 1:])

    def metrics(self, output: EvalPrediction) -> dict[str, float]:
        """Compute bits per base, perplexity and the number of predicted bases of a split from the row losses."""
        nats, bases = np.asarray(output.predictions, dtype=np.float64).sum(0)
        return {self.bits: nats / bases / math.log(2), self.perplexity: math.exp(nats / bases), self.bases: int(bases)}


class MaskedObjective(Objective):
    """
    Predict masked bases from both sides, with a bidirectional model.

    In training, masks are as in [`~hyenadna_hf.data.collators.MaskedCollator`]. In evaluation, they are the same in
    every run, and all predicted bases become [MASK].

    Args:
        probability: Fraction of the bases to predict.
    """

    name = "mlm"
    auto_class: Any = AutoModelForMaskedLM
    bits, perplexity, bases = "bits_per_masked_base", "masked_perplexity", "masked_bases"

    def __init__(self, probability: float) -> None:
        if not 0 < probability < 1:
            raise InputError(f"--mlm_probability {probability}: give a fraction between 0 and 1, such as 0.15.")
        self.probability = probability
        self.purpose = f"to predict masked ones, {100 * probability:.3g} % of all"

    def check_config(self, model: str, config: PretrainedConfig) -> None:
        if config.model_type in OUR_TYPES and not getattr(config, "bidirectional", False):
            raise InputError(
                f"--objective mlm: {model} is causal and sees one side of a masked base only; give a published size, "
                'or a model with "bidirectional": true in its config.json.'
            )

    def config_fields(self) -> dict[str, Any]:
        return {"bidirectional": True}

    def settings(self) -> dict[str, Any]:
        return {"objective": self.name, "mlm_probability": self.probability}

    def train_stream(self, stream: IterableDataset, seed: int) -> IterableDataset:
        return MaskedStream(stream, self.probability, seed)

    def evaluation_set(self, windows: ConcatDataset) -> ConcatDataset | MaskedWindows:
        return MaskedWindows(windows, self.probability)

    def collator(self, tokenizer: PreTrainedTokenizerBase) -> PaddingCollator:
        return MaskedPretrainingCollator(tokenizer)

    def smoothed_loss(self, label_smoothing: float) -> SmoothedCausalLoss | WeightedLoss:
        return WeightedLoss(label_smoothing=label_smoothing)

    def row_losses(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        return _row_losses(logits, labels)


def find_objective(name: str, mlm_probability: float | None = None) -> Objective:
    """
    Return the objective of a command.

    Args:
        name: `clm` or `mlm`.
        mlm_probability: Fraction of the bases to predict. Defaults to 0.15 for `mlm`, and must be `None` for `clm`.

    Raises:
        InputError: If an argument is invalid.
    """
    if name not in ("clm", "mlm"):
        raise InputError(f"--objective {name}: choose clm (the next base) or mlm (masked bases).")
    if name == "mlm":
        return MaskedObjective(MLM_PROBABILITY if mlm_probability is None else mlm_probability)
    if mlm_probability is not None:
        raise InputError(f"--mlm_probability {mlm_probability}: --objective clm masks no bases; omit it.")
    return Objective()


def _row_losses(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    losses = F.cross_entropy(logits.flatten(0, 1).float(), labels.flatten(), reduction="none")
    return torch.stack([losses.view(len(labels), -1).sum(1), (labels != IGNORED).sum(1)], dim=1)
