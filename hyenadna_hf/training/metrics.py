"""Metrics of classification."""

import numpy as np
from sklearn.metrics import accuracy_score, f1_score, matthews_corrcoef, roc_auc_score


def classification_metrics(predictions, labels):
    """
    Metrics of single-label classification over a whole split.

    Args:
        predictions, labels (sequences of `int`): Predicted and true classes.

    Returns:
        `dict[str, float]`: `accuracy`, Matthews correlation coefficient `mcc`, and macro-averaged `f1`.
    """
    return {
        "accuracy": float(accuracy_score(labels, predictions)),
        "mcc": float(matthews_corrcoef(labels, predictions)),
        "f1": float(f1_score(labels, predictions, average="macro", zero_division=0)),
    }


def auroc_by_group(scores, labels, groups):
    """
    Median area under the ROC curve over the labels of each group, as chromatin profiles are reported.

    Args:
        scores (`np.ndarray` of shape `(rows, labels)`): Logits or probabilities.
        labels (`np.ndarray` of shape `(rows, labels)`): 0 and 1.
        groups (`dict[str, list[int]]`): Columns of each group (`CHROMATIN_GROUPS` for DeepSEA's 919 labels).

    Returns:
        `dict[str, float]`: `auroc_GROUP` for each group, and `labels_without_auroc`, the number of labels that are the
        same in every row and left out. A group of which nothing is left is `nan`.
    """
    labels = np.asarray(labels)
    both = (labels.min(0) == 0) & (labels.max(0) == 1)
    metrics = {}
    for group, columns in groups.items():
        kept = [column for column in columns if both[column]]
        areas = [roc_auc_score(labels[:, column], scores[:, column]) for column in kept]
        metrics[f"auroc_{group}"] = float(np.median(areas)) if areas else float("nan")
    metrics["labels_without_auroc"] = int(sum(not both[column] for columns in groups.values() for column in columns))
    return metrics
