"""Classification metrics."""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from sklearn.metrics import accuracy_score, f1_score, matthews_corrcoef, roc_auc_score


def classification_metrics(
    predictions: Sequence[int] | np.ndarray, labels: Sequence[int] | np.ndarray
) -> dict[str, float]:
    """
    Compute metrics of single-label classification over a whole split.

    Args:
        predictions: Predicted classes.
        labels: True classes.

    Returns:
        `accuracy`, Matthews correlation coefficient `mcc`, and macro-averaged `f1`.
    """
    return {
        "accuracy": float(accuracy_score(labels, predictions)),
        "mcc": float(matthews_corrcoef(labels, predictions)),
        "f1": float(f1_score(labels, predictions, average="macro", zero_division=0)),
    }


def multilabel_metrics(
    scores: np.ndarray, labels: np.ndarray, groups: Mapping[str, Iterable[int]] | None = None
) -> dict[str, float]:
    """
    Compute metrics of multi-label classification over a whole split.

    Args:
        scores: Logits, shape `(rows, labels)`.
        labels: Zeros and ones, shape `(rows, labels)`.
        groups: Columns of each group of labels.

    Returns:
        `auroc`, the median over the labels; macro-averaged `f1` at a logit threshold of 0; and the metrics of
        [`auroc_by_group`] if groups are given.
    """
    labels = np.asarray(labels)
    return {
        "auroc": _median(label_aurocs(scores, labels)),
        "f1": float(f1_score(labels, np.asarray(scores) > 0, average="macro", zero_division=0)),
        **(auroc_by_group(scores, labels, groups) if groups else {}),
    }


def metrics_of_scores(
    scores: np.ndarray, labels: np.ndarray, groups: Mapping[str, Iterable[int]] | None = None
) -> dict[str, float]:
    """
    Compute [`classification_metrics`] of the highest score for classes, or [`multilabel_metrics`] for rows of 0 and 1.
    """
    if np.ndim(labels) == 1:
        return classification_metrics(scores.argmax(-1), labels)
    return multilabel_metrics(scores, labels, groups)


def metric_names(multi_label: bool, groups: Iterable[str] | None = None) -> list[str]:
    """List the metrics of [`metrics_of_scores`] for which higher is better."""
    if not multi_label:
        return ["accuracy", "mcc", "f1"]
    return ["auroc", "f1", *(f"auroc_{group}" for group in groups or ())]


def label_aurocs(scores: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """
    Compute the area under the ROC curve of each label.

    Args:
        scores: Logits or probabilities, shape `(rows, labels)`.
        labels: Zeros and ones, shape `(rows, labels)`.

    Returns:
        Areas of shape `(labels,)`, NaN for a label that is the same in every row.
    """
    scores, labels = np.asarray(scores), np.asarray(labels)
    has_both = (labels.min(0) == 0) & (labels.max(0) == 1)
    return np.array(
        [roc_auc_score(labels[:, i], scores[:, i]) if has_both[i] else np.nan for i in range(len(has_both))]
    )


def class_auroc(probabilities: np.ndarray, labels: np.ndarray, classes: np.ndarray) -> float:
    """
    Compute the mean over the classes of the area under the ROC curve of each class against the others.

    Args:
        probabilities: Scores of each class, shape `(rows, classes)`.
        labels: True classes, shape `(rows,)`.
        classes: Class of each column, shape `(classes,)`.

    Returns:
        The mean over the classes that occur in `labels`.
    """
    return float(np.nanmean(label_aurocs(probabilities, np.asarray(labels)[:, None] == classes)))


def auroc_by_group(scores: np.ndarray, labels: np.ndarray, groups: Mapping[str, Iterable[int]]) -> dict[str, float]:
    """
    Compute the median area under the ROC curve over the labels of each group, as reported for chromatin profiles.

    Args:
        scores: Logits or probabilities, shape `(rows, labels)`.
        labels: Zeros and ones, shape `(rows, labels)`.
        groups: Columns of each group (`CHROMATIN_GROUPS` for DeepSEA's 919 labels).

    Returns:
        `auroc_GROUP` for each group, and `labels_without_auroc`, the number of skipped labels that are the same in
        every row. A group without remaining labels is NaN.
    """
    areas = label_aurocs(scores, labels)
    metrics = {f"auroc_{group}": _median(areas[list(columns)]) for group, columns in groups.items()}
    skipped = sum(int(np.isnan(areas[list(columns)]).sum()) for columns in groups.values())
    return {**metrics, "labels_without_auroc": skipped}


def _median(areas: np.ndarray) -> float:
    valid = areas[~np.isnan(areas)]
    return float(np.median(valid)) if len(valid) else float("nan")
