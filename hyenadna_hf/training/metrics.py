"""Metrics of classification."""

from sklearn.metrics import accuracy_score, f1_score, matthews_corrcoef


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
