"""Classifiers on embeddings, with hyper-parameters chosen on validation."""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression, RidgeClassifier
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from ..training.metrics import CLASSIFICATION_METRICS, class_auroc, classification_metrics

# Hyper-parameter of each classifier, and the values to choose from on validation.
GRIDS: dict[str, tuple[str, tuple[float, ...]]] = {
    "logistic": ("C", (0.001, 0.01, 0.1, 1.0, 10.0)),
    "ridge": ("alpha", (1.0, 10.0, 100.0, 1000.0, 10_000.0)),
    "forest": ("min_samples_leaf", (1, 4)),
    "knn": ("n_neighbors", (1, 5, 15, 50)),
}
METRICS = (*CLASSIFICATION_METRICS, "auroc")


def make_classifier(kind: str, value: float, seed: int = 0) -> Any:
    """
    Build a classifier of scikit-learn. All but the forest standardise the embeddings first.

    Args:
        kind: A key of `GRIDS`.
        value: Value of its hyper-parameter.
        seed: Random seed of the forest.
    """
    name, _ = GRIDS[kind]
    if kind == "forest":
        return RandomForestClassifier(500, random_state=seed, n_jobs=-1, **{name: value})
    classes: dict[str, Any] = {"ridge": RidgeClassifier, "knn": KNeighborsClassifier}
    classifier = LogisticRegression(max_iter=2000, C=value) if kind == "logistic" else classes[kind](**{name: value})
    return make_pipeline(StandardScaler(), classifier)


@dataclass(frozen=True)
class Fit:
    """
    Result of [`fit_and_evaluate`].

    Attributes:
        parameter: Chosen hyper-parameter, such as `C=0.1`.
        metrics: Metrics by name for each of the splits `validation` and `test`.
    """

    parameter: str
    metrics: dict[str, dict[str, float]]


def fit_and_evaluate(
    kind: str,
    embedded: Mapping[str, np.ndarray],
    labels: Mapping[str, np.ndarray],
    metric: str = "accuracy",
    rows: Any = slice(None),
    seed: int = 0,
) -> Fit:
    """
    Fit a classifier for each value of its hyper-parameter, choose one on validation, and evaluate it on test.

    Args:
        kind: A key of `GRIDS`.
        embedded: Embeddings of the splits `train`, `validation` and `test`, of shape `(sequences, width)`.
        labels: Class numbers of the same splits.
        metric: Metric to choose by, one of `METRICS`. Of equal values, the first is chosen.
        rows: Indices of the training rows. Defaults to all.
        seed: Random seed of the forest.
    """
    name, values = GRIDS[kind]
    features, targets = embedded["train"][rows], labels["train"][rows]
    if kind == "knn":  # no more neighbours than training sequences
        values = tuple(dict.fromkeys(min(value, len(targets)) for value in values))
    best: tuple[float, Any, float] | None = None
    for value in values:
        classifier = make_classifier(kind, value, seed).fit(features, targets)
        found = evaluate(classifier, embedded["validation"], labels["validation"], [metric])[metric]
        if best is None or found > best[0]:
            best = found, classifier, value
    assert best is not None
    _, classifier, value = best
    metrics = {split: evaluate(classifier, embedded[split], labels[split]) for split in ("validation", "test")}
    return Fit(f"{name}={value:g}", metrics)


def evaluate(
    classifier: Any, embedded: np.ndarray, labels: np.ndarray, names: Collection[str] = METRICS
) -> dict[str, float]:
    """
    Compute metrics of a fitted classifier.

    Args:
        classifier: Classifier with `predict_proba` or `decision_function`.
        embedded: Embeddings of shape `(sequences, width)`.
        labels: True classes, of shape `(sequences,)`.
        names: Metrics to compute: those of [`classification_metrics`], and `auroc` (for several classes, the mean of
            each against the others).

    Returns:
        Values by name.
    """
    if hasattr(classifier, "predict_proba"):
        scores = classifier.predict_proba(embedded)
    else:
        scores = classifier.decision_function(embedded)
        scores = np.stack([-scores, scores], 1) if scores.ndim == 1 else scores
    predicted = classifier.classes_[scores.argmax(1)]
    found = classification_metrics(predicted, labels, [name for name in names if name in CLASSIFICATION_METRICS])
    if "auroc" in names:
        found["auroc"] = class_auroc(scores, labels, classifier.classes_)
    return found


def draw_rows(labels: np.ndarray, shots: int, draws: int, seed: int) -> Iterator[np.ndarray]:
    """Draw the indices of `shots` sequences of each class, `draws` times; 0 shots select all sequences."""
    random = np.random.default_rng(seed)
    classes = [np.flatnonzero(labels == label) for label in np.unique(labels)]
    for _ in range(draws):
        yield np.concatenate([random.choice(rows, shots or len(rows), replace=False) for rows in classes])
