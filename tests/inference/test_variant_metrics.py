import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import spearmanr
from sklearn.metrics import average_precision_score, roc_auc_score

from hyenadna_hf.inference.variant_metrics import METRICS, metrics_of_variants


def of_repeated(metric, scores, label, weights):
    """The metric of rows that are repeated, by scikit-learn or scipy."""
    rows = np.repeat(np.arange(len(scores)), weights)
    if metric == "spearman":
        return spearmanr(scores[rows], label[rows]).statistic
    return {"auroc": roc_auc_score, "auprc": average_precision_score}[metric](label[rows], scores[rows])


@settings(max_examples=60)
@given(st.data(), st.sampled_from(sorted(METRICS)), st.integers(2, 40))
def test_weighted_metrics_are_those_of_repeated_rows(data, metric, number):
    """With ties, and with rows that are not drawn."""
    draw = np.random.default_rng(data.draw(st.integers(0, 1 << 30)))
    scores, weights = draw.integers(0, data.draw(st.integers(2, 50)), number) / 7, draw.integers(0, 4, (3, number))
    label = draw.integers(0, 9, number) / 3 if metric == "spearman" else draw.random(number) < 0.4
    found = METRICS[metric][1](scores, label, weights.astype(float))
    assert found.shape == (3,)
    for value, row in zip(found, weights):
        drawn = [np.unique(values[row > 0]) for values in (scores, label)]
        defined = len(drawn[1]) > 1 and (metric != "spearman" or len(drawn[0]) > 1)
        assert value == pytest.approx(of_repeated(metric, scores, label, row), abs=1e-9) if defined else np.isnan(value)


def example(number=300):
    draw = np.random.default_rng(0)
    clusters = np.sort(draw.integers(0, number // 3, number))
    effect = draw.normal(size=number // 3)[clusters]  # what variants of a position share
    score = effect + 0.3 * draw.normal(size=number)
    label = (effect + 0.3 * draw.normal(size=number) > 0.5).astype(float)
    return score, label, effect + draw.normal(size=number), clusters


def test_values_and_intervals():
    score, label, target, clusters = example()
    score[:9], label[9:20] = np.nan, np.nan
    rows = metrics_of_variants(
        {("llr", "a"): score}, {"auroc": label, "auprc": label, "spearman": target}, clusters, 400, seed=1
    )
    assert [row["metric"] for row in rows] == ["auroc", "auprc", "spearman"]
    assert [row["n"] for row in rows] == [280, 280, 291]
    for row in rows:
        known = ~np.isnan(score) & ~np.isnan(target if row["metric"] == "spearman" else label)
        of_known = target[known] if row["metric"] == "spearman" else label[known] == 1
        once = np.ones(known.sum(), int)
        assert row["value"] == pytest.approx(of_repeated(row["metric"], score[known], of_known, once), abs=1e-12)
        assert row["low"] < row["value"] < row["high"]
        # By hand: positions drawn with replacement.
        draw, names = np.random.default_rng(5), np.unique(clusters)
        values = []
        for _ in range(400):
            counts = np.bincount(draw.integers(len(names), size=len(names)), minlength=len(names))
            weights = counts[np.searchsorted(names, clusters)][known]
            values.append(of_repeated(row["metric"], score[known], of_known, weights))
        assert (row["low"], row["high"]) == pytest.approx(np.percentile(values, [2.5, 97.5]), abs=0.02)


def test_intervals_are_wider_than_those_of_independent_variants():
    score, label, _, clusters = example(900)
    (shared,) = metrics_of_variants({("s", "m"): score}, {"auroc": label}, clusters, 300)
    (alone,) = metrics_of_variants({("s", "m"): score}, {"auroc": label}, np.arange(900), 300)
    assert shared["value"] == alone["value"]
    assert shared["high"] - shared["low"] > 1.2 * (alone["high"] - alone["low"])


def test_memory_and_seed(monkeypatch):
    """Samples are the same however many are held at once, and differ by their seed."""
    score, label, _, clusters = example()
    arguments = {("s", "m"): score}, {"auroc": label}, clusters, 50
    whole = metrics_of_variants(*arguments, seed=3)
    assert metrics_of_variants(*arguments, seed=4) != whole
    monkeypatch.setattr("hyenadna_hf.inference.variant_metrics.BATCH_WEIGHTS", 1000)
    assert metrics_of_variants(*arguments, seed=3) == whole


def test_undefined_metrics_are_nan():
    same, score = np.ones(6), np.arange(6.0)
    labels = {"auroc": same, "auprc": same, "spearman": same}
    for row in metrics_of_variants({("s", "m"): score, ("t", "m"): score * np.nan}, labels, np.arange(6), 20):
        assert np.isnan([row["value"], row["low"], row["high"]]).all()
        assert row["n"] == (6 if row["score"] == "s" else 0)
    (row,) = metrics_of_variants({("s", "m"): score}, {"spearman": score}, np.arange(6), bootstrap=0)
    assert row["value"] == pytest.approx(1) and np.isnan([row["low"], row["high"]]).all()
