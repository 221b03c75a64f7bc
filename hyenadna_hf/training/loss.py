"""Losses that weigh classes and smooth labels, for the stock Trainer."""

from dataclasses import dataclass

import numpy as np
import torch
from torch.nn import functional as F

from ..data.sequence import IGNORED


def balanced_weights(labels: np.ndarray, classes: int | None = None) -> torch.Tensor:
    """
    Weights with which every class counts the same, or for several labels, their positives as much as their negatives.

    Args:
        labels: Numbers of classes, or 0 and 1, shape `(rows,)` or `(rows, labels)`.
        classes: How many classes; by default those that occur.

    Returns:
        `torch.Tensor` of shape `(classes,)`, rows / (classes * rows of the class), or `(labels,)`, negatives /
        positives; 1 for what never occurs.
    """
    labels = np.asarray(labels)
    if labels.ndim == 1:
        counts = np.bincount(labels, minlength=classes or 0)
        weights = len(labels) / (len(counts) * np.maximum(counts, 1))
    else:
        counts = labels.sum(0, dtype=np.int64)
        weights = (len(labels) - counts) / np.maximum(counts, 1)
    return torch.tensor(np.where(counts == 0, 1.0, weights), dtype=torch.float32)


@dataclass
class WeightedLoss:
    """
    Cross-entropy with a weight a class, or binary cross-entropy with a weight for the positives of each label.

    The sum of the weighted losses is divided by the number of labels, not of weights, so that accumulated and
    distributed gradients are those of the whole batch. A `compute_loss_func` of Trainer, which leaves its own label
    smoothing out then.

    Args:
        weights: As [`balanced_weights`] gives them; by default all are 1.
        label_smoothing: Share of the target that goes to all classes alike, as in `torch.nn.functional.cross_entropy`.
            With several labels each is a choice of two: 0 and 1 become `label_smoothing / 2` and
            `1 - label_smoothing / 2`.
    """

    weights: torch.Tensor | None = None
    label_smoothing: float = 0.0

    def __call__(self, outputs, labels: torch.Tensor, num_items_in_batch=None):
        logits = outputs["logits"].float()
        weights = None if self.weights is None else self.weights.to(logits.device)
        if labels.dim() == 1:
            loss = F.cross_entropy(logits, labels, weights, reduction="sum", label_smoothing=self.label_smoothing)
        else:
            targets = torch.lerp(labels.float(), logits.new_tensor(0.5), self.label_smoothing)
            loss = F.binary_cross_entropy_with_logits(logits, targets, reduction="sum", pos_weight=weights)
        return loss / (labels.numel() if num_items_in_batch is None else num_items_in_batch)


@dataclass
class SmoothedCausalLoss:
    """
    The loss of a causal language model with smoothed labels, a `compute_loss_func` of Trainer.

    What the Trainer's own label smoothing gives, and in two cases more: it is divided by the number of all accumulated
    labels in transformers 4, too; and behind a soft prompt, where the Trainer's own fails, there are fewer labels than
    logits, and the prompt predicts the first. Labels behind masked positions must be -100, as those of
    [`~hyenadna_hf.data.collators.CausalCollator`] are.

    Args:
        label_smoothing: Share of the target that goes to all tokens alike.
    """

    label_smoothing: float

    def __call__(self, outputs, labels: torch.Tensor, num_items_in_batch=None):
        logits = outputs["logits"].float()
        labels = F.pad(labels, (logits.shape[1] - labels.shape[1], 0), value=IGNORED)[:, 1:]
        loss = F.cross_entropy(
            logits[:, :-1].flatten(0, 1), labels.flatten(), reduction="sum", label_smoothing=self.label_smoothing
        )
        return loss / ((labels != IGNORED).sum() if num_items_in_batch is None else num_items_in_batch)
