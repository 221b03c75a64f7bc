import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from hyenadna_hf.training.metrics import auroc_by_group, classification_metrics, metric_names, metrics_of_scores


def test_auroc_by_group():
    rng = np.random.default_rng(0)
    scores, labels = rng.normal(size=(40, 4)).astype(np.float32), rng.integers(0, 2, (40, 4))
    labels[:, 3] = 1  # the same in every row
    found = auroc_by_group(scores, labels, {"TF": [0, 2, 3], "DHS": [1], "HM": [3]})
    areas = [roc_auc_score(labels[:, i], scores[:, i]) for i in range(3)]
    assert found["auroc_TF"] == pytest.approx((areas[0] + areas[2]) / 2)
    assert found["auroc_DHS"] == pytest.approx(areas[1])
    assert np.isnan(found["auroc_HM"]) and found["labels_without_auroc"] == 2


def test_classification_metrics():
    metrics = classification_metrics([0, 0, 1, 1], [0, 1, 1, 1])
    assert metrics == {"accuracy": 0.75, "mcc": pytest.approx(0.5774, abs=1e-4), "f1": pytest.approx(0.7333, abs=1e-4)}


def test_metrics_of_scores():
    scores = np.array([[1.0, 2.0], [3.0, -1.0], [-1.0, -2.0]])
    assert metrics_of_scores(scores, np.array([1, 0, 1]))["accuracy"] == pytest.approx(2 / 3)
    labels = np.array([[1, 1], [0, 0], [0, 0]])
    found = metrics_of_scores(scores, labels, {"first": [0], "both": [0, 1]})
    assert found["auroc"] == pytest.approx(np.median([0.5, 1.0])) and found["auroc_first"] == 0.5
    assert found["f1"] == pytest.approx(np.mean([2 / 3, 1.0]))
    assert {*metric_names(True, ["first", "both"]), "labels_without_auroc"} == set(found)
