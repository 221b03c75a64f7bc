"""Classifiers of probes, against direct use of scikit-learn."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression, RidgeClassifier
from sklearn.metrics import accuracy_score, f1_score, matthews_corrcoef, roc_auc_score
from sklearn.neighbors import KNeighborsClassifier
from sklearn.preprocessing import StandardScaler

from hyenadna_hf.probing.classifiers import GRIDS, METRICS, draw_rows, fit_and_evaluate

MAKE = {
    "logistic": lambda value: LogisticRegression(C=value, max_iter=2000),
    "ridge": lambda value: RidgeClassifier(alpha=value),
    "forest": lambda value: RandomForestClassifier(500, random_state=3, min_samples_leaf=value, n_jobs=1),
    "knn": lambda value: KNeighborsClassifier(n_neighbors=value),
}


def data(classes, seed=0, sizes=(40, 30, 50)):
    rng = np.random.default_rng(seed)
    embedded, labels = {}, {}
    for split, size in zip(("train", "validation", "test"), sizes):
        labels[split] = np.arange(size) % classes
        embedded[split] = rng.normal(size=(size, 5)) * [1, 10, 1, 1, 0.1] + labels[split][:, None] * [0.7, 0, 0, 0, 0]
    return embedded, labels


def metrics_of(classifier, features, labels, classes):
    """The metrics by scikit-learn alone."""
    predicted = classifier.predict(features)
    has_probabilities = hasattr(classifier, "predict_proba")
    scores = classifier.predict_proba(features) if has_probabilities else classifier.decision_function(features)
    if classes == 2:
        area = roc_auc_score(labels, scores[:, 1] if has_probabilities else scores)
    else:
        area = np.mean([roc_auc_score(labels == number, scores[:, number]) for number in range(classes)])
    return {
        "accuracy": accuracy_score(labels, predicted),
        "mcc": matthews_corrcoef(labels, predicted),
        "f1": f1_score(labels, predicted, average="macro"),
        "f1_weighted": f1_score(labels, predicted, average="weighted"),
        "auroc": area,
    }


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("kind", GRIDS)
@pytest.mark.filterwarnings("ignore:.*ill-defined")
def test_metrics_of_the_parameter_that_is_best_on_validation(kind, classes):
    embedded, labels = data(classes)
    scaler = StandardScaler().fit(embedded["train"])
    scaled = {split: values if kind == "forest" else scaler.transform(values) for split, values in embedded.items()}
    name, values = GRIDS[kind]
    found = {}
    for value in [min(value, 40) for value in values] if kind == "knn" else values:
        classifier = MAKE[kind](value).fit(scaled["train"], labels["train"])
        found[value] = {
            split: metrics_of(classifier, scaled[split], labels[split], classes) for split in ("validation", "test")
        }
    best = max(found, key=lambda value: found[value]["validation"]["mcc"])  # the first of equal ones
    fit = fit_and_evaluate(kind, embedded, labels, "mcc", seed=3)
    assert fit.parameter == f"{name}={best:g}"
    for split in ("validation", "test"):
        assert list(fit.metrics[split]) == list(METRICS)
        assert fit.metrics[split] == pytest.approx(found[best][split], abs=1e-9)


def test_test_labels_choose_nothing():
    """Whatever they are, parameter and validation are the same."""
    embedded, labels = data(2)
    fits = [
        fit_and_evaluate("logistic", embedded, {**labels, "test": np.roll(labels["test"], shift)}, "auroc")
        for shift in (0, 1)
    ]
    assert fits[0].parameter == fits[1].parameter
    assert fits[0].metrics["validation"] == fits[1].metrics["validation"]
    assert fits[0].metrics["test"] != fits[1].metrics["test"]


@pytest.mark.parametrize("kind", ["logistic", "ridge", "knn"])
def test_few_rows(kind):
    embedded, labels = data(2)
    rows = np.array([0, 1, 4, 7])
    few = {**embedded, "train": embedded["train"][rows]}, {**labels, "train": labels["train"][rows]}
    assert fit_and_evaluate(kind, embedded, labels, rows=rows) == fit_and_evaluate(kind, *few)
    if kind == "knn":
        assert fit_and_evaluate(kind, *few).parameter in ("n_neighbors=1", "n_neighbors=4")


@given(st.lists(st.integers(0, 3), min_size=8, max_size=40), st.integers(0, 5), st.integers(0, 9))
def test_draws_have_so_many_of_each_class_and_none_twice(labels, shots, seed):
    labels = np.array(labels)
    counts = np.unique(labels, return_counts=True)[1]
    shots = min(shots, counts.min())
    draws = list(draw_rows(labels, shots, 3, seed))
    for rows in draws:
        assert len(set(rows)) == len(rows)
        assert (np.unique(labels[rows], return_counts=True)[1] == (shots or counts)).all()
    assert all((a == b).all() for a, b in zip(draws, draw_rows(labels, shots, 3, seed)))
