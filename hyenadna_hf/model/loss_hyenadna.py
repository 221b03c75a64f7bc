"""Outputs and losses of the prediction heads, which make one prediction per sequence or per position."""

import torch
from torch import Tensor
from torch.nn import functional as F

from .configuration_hyenadna import HyenaDNAConfig
from .padding_hyenadna import fill_masked

IGNORED = -100  # label that losses ignore


def predict_outputs(scores: Tensor, config: HyenaDNAConfig) -> Tensor:
    """
    Convert the scores of the output layer to the outputs of a head.

    Args:
        scores: Scores of shape `(..., num_labels)`.
        config: Configuration of the model.

    Returns:
        Rates, the exponentials of the scores, for regression with the Poisson loss. Otherwise the scores themselves:
        logits of classes, or numbers in the units of the labels.
    """
    return scores.exp() if is_poisson(config) else scores


def is_poisson(config: HyenaDNAConfig) -> bool:
    """Return whether a model predicts the rates of Poisson distributions."""
    return config.problem_type == "regression" and config.regression_loss == "poisson"


def align_labels(labels: Tensor, length: int, attention_mask: Tensor | None = None) -> Tensor:
    """
    Align labels of positions with the outputs.

    Args:
        labels: Labels of the last positions, shape `(batch, positions)` or `(batch, positions, num_labels)`.
        length: Number of outputs per row. The first ones, of a soft prompt, have no labels.
        attention_mask: Mask of shape `(batch, length)`; labels of masked positions are ignored.

    Returns:
        Labels with `length` positions, -100 where they are ignored.
    """
    missing = max(length - labels.shape[1], 0)
    labels = F.pad(labels, (0, 0) * (labels.dim() - 2) + (missing, 0), value=IGNORED)
    return labels if attention_mask is None else fill_masked(labels, attention_mask != 0, IGNORED)


def prediction_loss(
    logits: Tensor, labels: Tensor, config: HyenaDNAConfig, num_items_in_batch: Tensor | int | None = None
) -> Tensor:
    """
    Compute the loss of a head, in at least float32.

    The loss is cross-entropy for single-label classification, binary cross-entropy for multi-label classification, and
    for regression the squared error or, with `config.regression_loss="poisson"`, the negative log-likelihood of Poisson
    distributions without its constant term, `rate - label * log(rate)`. If `config.problem_type` is not set, it is
    inferred like in transformers, and recorded: regression for one label, single-label classification for integers,
    otherwise multi-label classification.

    Args:
        logits: Outputs of shape `(..., num_labels)`.
        labels: Integers of shape `(...)` for single-label classification, otherwise numbers of shape
            `(..., num_labels)`, or `(...)` with one label. -100 is ignored.
        config: Configuration of the model.
        num_items_in_batch: Divide the sum of the losses by this number. Defaults to the number of labels that are not
            ignored.

    Returns:
        The loss, a scalar.

    Raises:
        ValueError: If the shape of the labels does not match.
    """
    labels = labels.to(logits.device)
    if config.problem_type is None:
        is_class = labels.dtype in (torch.long, torch.int)
        classification = "single_label_classification" if is_class else "multi_label_classification"
        config.problem_type = "regression" if config.num_labels == 1 else classification
    is_single_label = config.problem_type == "single_label_classification"
    shape = logits.shape[:-1] if is_single_label else logits.shape
    if labels.numel() != shape.numel():
        raise ValueError(
            f"labels of shape {tuple(labels.shape)}: problem_type={config.problem_type!r} with "
            f"num_labels={config.num_labels} needs labels of shape {tuple(shape)} for these inputs."
        )
    logits, labels = logits.to(torch.promote_types(logits.dtype, torch.float32)), labels.reshape(shape)
    is_ignored = labels == IGNORED
    if is_single_label:
        losses = F.cross_entropy(logits.flatten(0, -2), labels.flatten(), ignore_index=IGNORED, reduction="sum")
    else:
        losses = _elementwise_losses(logits, labels.to(logits.dtype), config).masked_fill(is_ignored, 0.0)
    return losses.sum() / ((~is_ignored).sum() if num_items_in_batch is None else num_items_in_batch)


def _elementwise_losses(outputs: Tensor, labels: Tensor, config: HyenaDNAConfig) -> Tensor:
    if config.problem_type == "multi_label_classification":
        return F.binary_cross_entropy_with_logits(outputs, labels, reduction="none")
    if is_poisson(config):
        return F.poisson_nll_loss(outputs, labels, log_input=False, reduction="none")
    return F.mse_loss(outputs, labels, reduction="none")
