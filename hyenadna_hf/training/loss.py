"""Losses that weigh classes, for the stock Trainer."""

from dataclasses import dataclass

import numpy as np
import torch
from torch.nn import functional as F


def balanced_weights(labels, classes=None):
    """
    Weights with which every class counts the same, or for several labels, their positives as much as their negatives.

    Args:
        labels (`np.ndarray` of shape `(rows,)` or `(rows, labels)`): Numbers of classes, or 0 and 1.
        classes (`int`, *optional*): How many classes; by default those that occur.

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
    distributed gradients are those of the whole batch. A `compute_loss_func` of Trainer.

    Args:
        weights (`torch.Tensor`): As [`balanced_weights`] gives them.
    """

    weights: torch.Tensor

    def __call__(self, outputs, labels, num_items_in_batch=None):
        logits = outputs["logits"].float()
        weights = self.weights.to(logits.device)
        if labels.dim() == 1:
            loss = F.cross_entropy(logits, labels, weights, reduction="sum")
        else:
            loss = F.binary_cross_entropy_with_logits(logits, labels.float(), reduction="sum", pos_weight=weights)
        return loss / (labels.numel() if num_items_in_batch is None else num_items_in_batch)
