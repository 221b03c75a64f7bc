import evaluate
import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from hyenadna_hf.training.evaluation import Accuracy, GroupedAUROC, MacroF1, MatthewsCorrelation
from hyenadna_hf.training.metrics import auroc_by_group, classification_metrics, metric_names, metrics_of_scores


def test_combined_over_batches_they_are_those_of_the_whole_split():
    rng = np.random.default_rng(0)
    predictions, references = rng.integers(0, 3, (2, 50)).tolist()
    metric = evaluate.combine([Accuracy(), MatthewsCorrelation(), MacroF1()])
    for start in range(0, 50, 20):
        batch = slice(start, start + 20)
        metric.add_batch(predictions=predictions[batch], references=references[batch])
    assert metric.compute() == pytest.approx(classification_metrics(predictions, references))


def test_auroc_by_group_over_batches():
    rng = np.random.default_rng(0)
    scores, labels = rng.normal(size=(40, 4)).astype(np.float32), rng.integers(0, 2, (40, 4))
    groups = {"TF": [0, 2, 3], "DHS": [1]}
    metric = GroupedAUROC()
    for start in (0, 20):
        metric.add_batch(predictions=scores[start : start + 20], references=labels[start : start + 20])
    found = metric.compute(groups=groups)
    assert found == pytest.approx(auroc_by_group(scores, labels, groups))
    assert found["auroc_DHS"] == pytest.approx(roc_auc_score(labels[:, 1], scores[:, 1]))


def test_metrics_of_scores():
    scores = np.array([[1.0, 2.0], [3.0, -1.0], [-1.0, -2.0]])
    assert metrics_of_scores(scores, np.array([1, 0, 1]))["accuracy"] == pytest.approx(2 / 3)
    labels = np.array([[1, 1], [0, 0], [0, 0]])
    found = metrics_of_scores(scores, labels, {"first": [0], "both": [0, 1]})
    assert found["auroc"] == pytest.approx(np.median([0.5, 1.0])) and found["auroc_first"] == 0.5
    assert found["f1"] == pytest.approx(np.mean([2 / 3, 1.0]))
    assert {*metric_names(True, ["first", "both"]), "labels_without_auroc"} == set(found)
