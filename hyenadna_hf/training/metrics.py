"""Metrics of classification and regression."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial

import numpy as np
from scipy.special import softmax
from scipy.stats import pearsonr, spearmanr
from sklearn.metrics import (
    accuracy_score,
    average_precision_score,
    f1_score,
    matthews_corrcoef,
    mean_squared_error,
    r2_score,
    roc_auc_score,
)

from ..data.sequence import IGNORED

CLASSIFICATION_METRICS: dict[str, Callable[..., float]] = {
    "accuracy": accuracy_score,
    "mcc": matthews_corrcoef,
    "f1": partial(f1_score, average="macro", zero_division=0),
    "f1_weighted": partial(f1_score, average="weighted", zero_division=0),
}
REGRESSION_METRICS = ("pearson", "spearman", "r2", "mse")


def classification_metrics(
    predictions: Sequence[int] | np.ndarray,
    labels: Sequence[int] | np.ndarray,
    names: Iterable[str] = ("accuracy", "mcc", "f1"),
) -> dict[str, float]:
    """
    Compute metrics of single-label classification over a whole split.

    Args:
        predictions: Predicted classes.
        labels: True classes.
        names: Metrics to compute: `accuracy`, Matthews correlation coefficient `mcc`, `f1` averaged over the classes,
            or `f1_weighted`, averaged with the sizes of the classes as weights.

    Returns:
        Values by name.
    """
    return {name: float(CLASSIFICATION_METRICS[name](labels, predictions)) for name in names}


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


def regression_metrics(predictions: np.ndarray, labels: np.ndarray, names: Sequence[str]) -> dict[str, float]:
    """
    Compute metrics of regression over a whole split.

    Args:
        predictions: Predicted numbers, shape `(rows, targets)`.
        labels: True numbers, shape `(rows, targets)`.
        names: Names of the targets.

    Returns:
        `pearson` and `spearman`, the correlations; `r2`, the coefficient of determination; and `mse`, the mean squared
        error: with several targets, their means over the targets, and each as `METRIC_NAME`. A correlation is 0 if all
        predictions are equal, like the Matthews coefficient, and NaN, like R2, if all labels are equal.
    """
    predictions, labels = np.asarray(predictions, float), np.asarray(labels, float)
    by_target = [_target_metrics(predictions[:, i], labels[:, i]) for i in range(len(names))]
    metrics = {metric: float(np.mean([target[metric] for target in by_target])) for metric in REGRESSION_METRICS}
    if len(names) > 1:
        metrics |= {
            f"{metric}_{name}": target[metric]
            for metric in REGRESSION_METRICS
            for name, target in zip(names, by_target)
        }
    return metrics


def _target_metrics(predictions: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    has_labels = np.ptp(labels) > 0
    correlation = 0.0 if has_labels else float("nan")
    is_varied = has_labels and np.ptp(predictions) > 0
    return {
        "pearson": float(pearsonr(predictions, labels)[0]) if is_varied else correlation,
        "spearman": float(spearmanr(predictions, labels)[0]) if is_varied else correlation,
        "r2": float(r2_score(labels, predictions)) if has_labels else float("nan"),
        "mse": float(mean_squared_error(labels, predictions)),
    }


def token_metrics(scores: np.ndarray, labels: np.ndarray, names: Sequence[str]) -> dict[str, float]:
    """
    Compute metrics of the classification of positions over a whole split.

    Args:
        scores: Logits, shape `(..., labels)`.
        labels: Class numbers of shape `(...)`, or zeros and ones of shape `(..., labels)`; -100 is ignored.
        names: Names of the labels.

    Returns:
        Macro-averaged `f1` of the class with the highest score, or of each label at a logit threshold of 0; `auprc`,
        the mean area under the precision-recall curve (average precision) over the labels; and `auprc_NAME` for each
        label. The first class, the background, has none. Areas of labels that never occur are NaN and do not enter
        the mean.
    """
    multi_label = labels.shape == scores.shape
    scores = scores.reshape(-1, len(names))
    is_used = labels.reshape(len(scores), -1)[:, 0] != IGNORED
    scores = scores[is_used]
    if multi_label:
        labels = labels.reshape(-1, len(names))[is_used]
        truth, f1 = labels, f1_score(labels, scores > 0, average="macro", zero_division=0)
        columns = range(len(names))
    else:
        labels = labels.reshape(-1)[is_used]
        truth, columns = labels[:, None] == np.arange(len(names)), range(1, len(names))
        f1 = f1_score(labels, scores.argmax(-1), labels=np.arange(len(names)), average="macro", zero_division=0)
        scores = softmax(scores.astype(float), axis=-1)
    areas = {
        names[i]: float(average_precision_score(truth[:, i], scores[:, i])) if truth[:, i].any() else float("nan")
        for i in columns
    }
    known = [area for area in areas.values() if not np.isnan(area)]
    return {
        "f1": float(f1),
        "auprc": float(np.mean(known)) if known else float("nan"),
        **{f"auprc_{name}": area for name, area in areas.items()},
    }


def token_metric_names(names: Sequence[str], multi_label: bool) -> list[str]:
    """List the metrics of [`token_metrics`] for which higher is better."""
    return ["f1", "auprc", *(f"auprc_{name}" for name in (names if multi_label else names[1:]))]


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
