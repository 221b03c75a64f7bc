"""Metrics of classification: the one place of their arithmetic."""

import numpy as np
import torch
from sklearn.metrics import accuracy_score, f1_score, matthews_corrcoef, roc_auc_score


def classification_metrics(predictions, labels: torch.Tensor) -> dict[str, float]:
    """
    Metrics of single-label classification over a whole split.

    Args:
        predictions: Predicted and true classes.
        labels: Predicted and true classes.

    Returns:
        `accuracy`, Matthews correlation coefficient `mcc`, and macro-averaged `f1`.
    """
    return {
        "accuracy": float(accuracy_score(labels, predictions)),
        "mcc": float(matthews_corrcoef(labels, predictions)),
        "f1": float(f1_score(labels, predictions, average="macro", zero_division=0)),
    }


def multilabel_metrics(
    scores: np.ndarray, labels: np.ndarray, groups: dict[str, list[int]] | None = None
) -> dict[str, float]:
    """
    Metrics of multi-label classification over a whole split.

    Args:
        scores: Logits, shape `(rows, labels)`.
        labels: 0 and 1, shape `(rows, labels)`.
        groups: Columns of each group of labels.

    Returns:
        `auroc`, the median over the labels; macro-averaged `f1` of what has a logit above 0; and what
        [`auroc_by_group`] gives, if there are groups.
    """
    labels = np.asarray(labels)
    return {
        "auroc": _median(label_aurocs(scores, labels)),
        "f1": float(f1_score(labels, np.asarray(scores) > 0, average="macro", zero_division=0)),
        **(auroc_by_group(scores, labels, groups) if groups else {}),
    }


def metrics_of_scores(scores, labels: torch.Tensor, groups=None):
    """[`classification_metrics`] of the highest score for classes, [`multilabel_metrics`] for rows of 0 and 1."""
    if np.ndim(labels) == 1:
        return classification_metrics(scores.argmax(-1), labels)
    return multilabel_metrics(scores, labels, groups)


def metric_names(multi_label, groups=None):
    """Names of what [`metrics_of_scores`] gives and is better the higher it is."""
    if not multi_label:
        return ["accuracy", "mcc", "f1"]
    return ["auroc", "f1", *(f"auroc_{group}" for group in groups or ())]


def label_aurocs(scores, labels: torch.Tensor) -> np.ndarray:
    """
    Area under the ROC curve of each label.

    Args:
        scores: As those of [`auroc_by_group`].
        labels: As those of [`auroc_by_group`].

    Returns:
        `np.ndarray` of shape `(labels,)`, with `nan` for a label that is the same in every row.
    """
    scores, labels = np.asarray(scores), np.asarray(labels)
    both = (labels.min(0) == 0) & (labels.max(0) == 1)
    return np.array([roc_auc_score(labels[:, i], scores[:, i]) if both[i] else np.nan for i in range(len(both))])


def class_auroc(probabilities: np.ndarray, labels: np.ndarray, classes: np.ndarray) -> float:
    """
    Area under the ROC curve of classes: the mean of that of each class against the others.

    Args:
        probabilities: Scores of each class, shape `(rows, classes)`.
        labels: The true classes, shape `(rows,)`.
        classes: Which class each column is of, shape `(classes,)`.

    Returns:
        `float`, over the classes that are among `labels`.
    """
    return float(np.nanmean(label_aurocs(probabilities, np.asarray(labels)[:, None] == classes)))


def auroc_by_group(scores: np.ndarray, labels: np.ndarray, groups: dict[str, list[int]]) -> dict[str, float]:
    """
    Median area under the ROC curve over the labels of each group, as chromatin profiles are reported.

    Args:
        scores: Logits or probabilities, shape `(rows, labels)`.
        labels: 0 and 1, shape `(rows, labels)`.
        groups: Columns of each group (`CHROMATIN_GROUPS` for DeepSEA's 919 labels).

    Returns:
        `auroc_GROUP` for each group, and `labels_without_auroc`, the number of labels that are the same in every row
        and left out. A group of which nothing is left is `nan`.
    """
    areas = label_aurocs(scores, labels)
    metrics = {f"auroc_{group}": _median(areas[list(columns)]) for group, columns in groups.items()}
    left_out = sum(int(np.isnan(areas[list(columns)]).sum()) for columns in groups.values())
    return {**metrics, "labels_without_auroc": left_out}


def _median(areas):
    found = areas[~np.isnan(areas)]
    return float(np.median(found)) if len(found) else float("nan")
