"""
Metrics of variant scores, with confidence intervals from a cluster bootstrap.

Variants at one position share most of their context, so the bootstrap draws positions with replacement. Intervals are
between the percentiles 2.5 and 97.5. All scores use the same samples.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
from scipy.stats import spearmanr
from sklearn.metrics import average_precision_score, roc_auc_score

LEVEL = 95  # percent
BATCH_WEIGHTS = 1 << 22  # weights in memory


def auroc(scores: np.ndarray, positive: np.ndarray) -> float:
    """Compute the area under the ROC curve; NaN if all variants have one label."""
    return float(roc_auc_score(positive, scores)) if 0 < positive.sum() < len(positive) else np.nan


def auprc(scores: np.ndarray, positive: np.ndarray) -> float:
    """Compute the average precision; NaN if all variants have one label."""
    return float(average_precision_score(positive, scores)) if 0 < positive.sum() < len(positive) else np.nan


def spearman(scores: np.ndarray, target: np.ndarray) -> float:
    """Compute Spearman's rank correlation; NaN if scores or targets are constant."""
    if len(scores) < 2 or np.ptp(scores) == 0 or np.ptp(target) == 0:
        return np.nan
    return float(spearmanr(scores, target).statistic)


def weighted_auroc(scores: np.ndarray, positive: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """
    Compute [`auroc`] for many samples with replacement.

    Args:
        scores: Scores of shape `(variants,)`, higher for variants that are more likely positive.
        positive: Boolean labels of shape `(variants,)`.
        weights: Count of each variant in each sample, of shape `(samples, variants)`.

    Returns:
        Values of shape `(samples,)`, NaN for samples with one label only.
    """
    positives, negatives = (_sums(scores, weights * chosen)[0] for chosen in (positive, ~positive))
    below = negatives.cumsum(1) - negatives
    with np.errstate(invalid="ignore"):
        return (positives * (below + negatives / 2)).sum(1) / (positives.sum(1) * negatives.sum(1))


def weighted_auprc(scores: np.ndarray, positive: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Compute [`auprc`] for many samples with replacement, as [`weighted_auroc`] does."""
    positives, negatives = (_sums(-scores, weights * chosen)[0] for chosen in (positive, ~positive))
    true_positives, predicted = positives.cumsum(1), (positives + negatives).cumsum(1)
    precision = np.divide(true_positives, predicted, out=np.zeros_like(true_positives), where=predicted > 0)
    with np.errstate(invalid="ignore"):
        area = (positives * precision).sum(1) / positives.sum(1)
    return np.where(negatives.sum(1) > 0, area, np.nan)


def weighted_spearman(scores: np.ndarray, target: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Compute [`spearman`] for many samples with replacement, as [`weighted_auroc`] does, for numeric targets."""
    ranks = [_ranks(values, weights) for values in (scores, target)]
    total = weights.sum(1, keepdims=True)
    with np.errstate(invalid="ignore"):
        x, y = (rank - (weights * rank).sum(1, keepdims=True) / total for rank in ranks)
        return (weights * x * y).sum(1) / np.sqrt((weights * x * x).sum(1) * (weights * y * y).sum(1))


METRICS = {
    "auroc": (auroc, weighted_auroc),
    "auprc": (auprc, weighted_auprc),
    "spearman": (spearman, weighted_spearman),
}


def metrics_of_variants(
    scores: dict[tuple[str, str], np.ndarray],
    labels: dict[str, np.ndarray],
    clusters: np.ndarray,
    bootstrap: int = 1000,
    seed: int = 0,
) -> list[dict[str, Any]]:
    """
    Compute metrics of several scores of the same variants, each over the variants with that score and a label.

    Args:
        scores: Values of shape `(variants,)` for each score and model, higher for variants that are more likely
            positive, NaN for missing values.
        labels: Labels of shape `(variants,)` for each metric, a key of `METRICS`: 1 and 0, or numbers for `spearman`;
            NaN for missing labels.
        clusters: Number of the position of each variant, of shape `(variants,)`.
        bootstrap: Number of samples; 0 for no intervals.
        seed: Seed of the samples.

    Returns:
        Rows with `score`, `model`, `metric`, `value`, `low` and `high` (the 95 % interval), and `n`, the number of
        variants. Undefined values are NaN.
    """
    samples = _Samples(clusters, bootstrap, seed)
    rows = []
    for (score, model), values in scores.items():
        for metric, label in labels.items():
            has_both = ~np.isnan(values) & ~np.isnan(label)
            arrays = values[has_both], label[has_both] if metric == "spearman" else label[has_both] == 1
            value_of, weighted = METRICS[metric]
            resampled = [weighted(*arrays, weights[:, has_both]) for weights in samples] if has_both.any() else []
            low, high = _interval(np.concatenate(resampled)) if resampled else (np.nan, np.nan)
            rows.append(
                {
                    "score": score,
                    "model": model,
                    "metric": metric,
                    "value": value_of(*arrays),
                    "low": low,
                    "high": high,
                    "n": int(has_both.sum()),
                }
            )
    return rows


class _Samples:
    """Iterate over batches of samples, as counts of each variant; every iteration yields the same samples."""

    def __init__(self, clusters: np.ndarray, number: int, seed: int) -> None:
        names, self.codes = np.unique(clusters, return_inverse=True)
        self.clusters, self.number, self.seed = len(names), number, seed

    def __iter__(self) -> Iterator[np.ndarray]:
        random = np.random.default_rng(self.seed)
        batch_size = max(1, BATCH_WEIGHTS // max(1, len(self.codes)))
        for start in range(0, self.number, batch_size):
            clusters = random.integers(self.clusters, size=(min(batch_size, self.number - start), self.clusters))
            counts = np.stack([np.bincount(row, minlength=self.clusters) for row in clusters])
            yield counts[:, self.codes].astype(np.float64)


def _interval(values: np.ndarray) -> tuple[float, ...]:
    values = values[~np.isnan(values)]
    if not len(values):
        return np.nan, np.nan
    return tuple(float(bound) for bound in np.percentile(values, [(100 - LEVEL) / 2, (100 + LEVEL) / 2]))


def _sums(values: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Sum weights over equal values, `(samples, distinct values)` in ascending order, and number the values."""
    distinct, codes = np.unique(values, return_inverse=True)
    order = np.argsort(codes, kind="stable")
    starts = np.searchsorted(codes[order], np.arange(len(distinct)))
    return np.add.reduceat(weights[:, order], starts, axis=1), codes


def _ranks(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Compute the mean rank of each value in each sample, of shape `(samples, variants)`."""
    sums, codes = _sums(values, weights)
    return (sums.cumsum(1) - sums / 2 + 0.5)[:, codes]
