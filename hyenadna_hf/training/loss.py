"""Losses with class weights and label smoothing, for the stock Trainer."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch.nn import functional as F

from ..data.sequence import IGNORED


def balanced_weights(labels: np.ndarray, classes: int | None = None) -> torch.Tensor:
    """
    Compute weights that balance the classes or, with several labels, the positives and negatives of each label.

    Args:
        labels: Class numbers, shape `(rows,)`, or zeros and ones, shape `(rows, labels)`.
        classes: Number of classes. Defaults to the largest class number plus 1.

    Returns:
        Weights rows / (classes * rows of the class), shape `(classes,)`, or negatives / positives, shape `(labels,)`; 1
        for classes and labels that never occur.
    """
    labels = np.asarray(labels)
    if labels.ndim == 1:
        return weights_of_counts(np.bincount(labels, minlength=classes or 0), len(labels), multi_label=False)
    return weights_of_counts(labels.sum(0, dtype=np.int64), len(labels), multi_label=True)


def weights_of_counts(counts: np.ndarray, rows: int, multi_label: bool) -> torch.Tensor:
    """
    Compute the weights of [`balanced_weights`] from counts.

    Args:
        counts: Number of rows with each class or label, shape `(labels,)`.
        rows: Number of rows.
        multi_label: Whether a row may have several labels.
    """
    at_least_one = np.maximum(counts, 1)
    weights = (rows - counts) / at_least_one if multi_label else rows / (len(counts) * at_least_one)
    return torch.tensor(np.where(counts == 0, 1.0, weights), dtype=torch.float32)


@dataclass
class WeightedLoss:
    """
    Cross-entropy with class weights, or binary cross-entropy with a weight for the positives of each label.

    Labels are those of sequences or of positions, with -100 where there is none. The sum of the weighted losses is
    divided by the number of labels, not the sum of the weights, so that accumulated and distributed gradients equal
    those of the whole batch. For use as `compute_loss_func` of the Trainer, which then does not apply its own label
    smoothing.

    Args:
        weights: Result of [`balanced_weights`]. Defaults to 1 for all.
        label_smoothing: Fraction of the target distributed evenly over the classes, as in
            `torch.nn.functional.cross_entropy`. With several labels, 0 and 1 become `label_smoothing / 2` and
            `1 - label_smoothing / 2`.
    """

    weights: torch.Tensor | None = None
    label_smoothing: float = 0.0

    def __call__(
        self,
        outputs: Mapping[str, torch.Tensor],
        labels: torch.Tensor,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> torch.Tensor:
        logits = outputs["logits"].float()
        weights = None if self.weights is None else self.weights.to(logits.device)
        is_ignored = labels == IGNORED
        if labels.shape == logits.shape[:-1]:
            smoothing, logits = self.label_smoothing, logits.flatten(0, -2)
            loss = F.cross_entropy(logits, labels.flatten(), weights, reduction="sum", label_smoothing=smoothing)
        else:
            targets = torch.lerp(labels.float(), logits.new_tensor(0.5), self.label_smoothing)
            losses = F.binary_cross_entropy_with_logits(logits, targets, reduction="none", pos_weight=weights)
            loss = losses.masked_fill(is_ignored, 0.0).sum()
        return loss / ((~is_ignored).sum() if num_items_in_batch is None else num_items_in_batch)


@dataclass
class SmoothedCausalLoss:
    """
    Loss of a causal language model with label smoothing, for use as `compute_loss_func` of the Trainer.

    It equals the Trainer's own label smoothing except in two cases. It is divided by the number of all accumulated
    labels in transformers 4, too. And it supports soft prompts, for which the Trainer's own fails: there are then fewer
    labels than logits, and the prompt predicts the first label. Labels after masked positions must be -100, as in
    [`~hyenadna_hf.data.collators.CausalCollator`].

    Args:
        label_smoothing: Fraction of the target distributed evenly over the tokens.
    """

    label_smoothing: float

    def __call__(
        self,
        outputs: Mapping[str, torch.Tensor],
        labels: torch.Tensor,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> torch.Tensor:
        logits = outputs["logits"].float()
        labels = F.pad(labels, (logits.shape[1] - labels.shape[1], 0), value=IGNORED)[:, 1:]
        loss = F.cross_entropy(
            logits[:, :-1].flatten(0, 1), labels.flatten(), reduction="sum", label_smoothing=self.label_smoothing
        )
        return loss / ((labels != IGNORED).sum() if num_items_in_batch is None else num_items_in_batch)
