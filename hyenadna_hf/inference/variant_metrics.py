"""
Metrics of variant scores, with confidence intervals by bootstrap over positions.

Variants of one position share most of what a score and a label depend on, so whole positions are drawn with
replacement (a cluster bootstrap), and the interval is that of the percentiles 2.5 and 97.5. All scores are drawn alike.
"""

import numpy as np
from scipy.stats import spearmanr
from sklearn.metrics import average_precision_score, roc_auc_score

LEVEL = 95  # percent
DRAWN_AT_ONCE = 1 << 22  # weights held in memory


def auroc(scores, positive):
    """Area under the ROC curve; NaN if all variants are of one class."""
    return float(roc_auc_score(positive, scores)) if 0 < positive.sum() < len(positive) else np.nan


def auprc(scores, positive):
    """Average precision; NaN if all variants are of one class."""
    return float(average_precision_score(positive, scores)) if 0 < positive.sum() < len(positive) else np.nan


def spearman(scores, target):
    """Spearman's rank correlation; NaN if either is constant."""
    if len(scores) < 2 or np.ptp(scores) == 0 or np.ptp(target) == 0:
        return np.nan
    return float(spearmanr(scores, target).statistic)


def weighted_auroc(scores, positive, weights):
    """
    [`auroc`] of many samples with replacement.

    Args:
        scores (`np.ndarray` of shape `(variants,)`): Higher for those that are more likely positive.
        positive (`np.ndarray` of shape `(variants,)`): Booleans.
        weights (`np.ndarray` of shape `(samples, variants)`): How often each variant is in each sample.

    Returns:
        `np.ndarray` of shape `(samples,)`, NaN where a sample has one class.
    """
    positives, negatives = (_sums(scores, weights * chosen)[0] for chosen in (positive, ~positive))
    below = negatives.cumsum(1) - negatives
    with np.errstate(invalid="ignore"):
        return (positives * (below + negatives / 2)).sum(1) / (positives.sum(1) * negatives.sum(1))


def weighted_auprc(scores, positive, weights):
    """[`auprc`] of many samples with replacement; see [`weighted_auroc`]."""
    positives, negatives = (_sums(-scores, weights * chosen)[0] for chosen in (positive, ~positive))
    found, seen = positives.cumsum(1), (positives + negatives).cumsum(1)
    precision = np.divide(found, seen, out=np.zeros_like(found), where=seen > 0)
    with np.errstate(invalid="ignore"):
        area = (positives * precision).sum(1) / positives.sum(1)
    return np.where(negatives.sum(1) > 0, area, np.nan)


def weighted_spearman(scores, target, weights):
    """[`spearman`] of many samples with replacement, `target` being numbers; see [`weighted_auroc`]."""
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


def metrics_of_variants(scores, labels, clusters, bootstrap=1000, seed=0):
    """
    Metrics of several scores of the same variants, each over the variants that have that score and a label.

    Args:
        scores (`dict[tuple[str, str], np.ndarray]`): Score and model to the values, of shape `(variants,)`, higher for
            those that are more likely positive; NaN where there is none.
        labels (`dict[str, np.ndarray]`): By metric, a key of `METRICS`, what it is computed with: 1 for positive and 0
            for negative variants, or for `spearman` numbers; NaN where there is none.
        clusters (`np.ndarray` of shape `(variants,)`): Number of the position of each variant.
        bootstrap (`int`, defaults to 1000): Samples; 0 for no intervals.
        seed (`int`, defaults to 0): Of the samples.

    Returns:
        `list[dict]`: `score`, `model`, `metric`, `value`, `low` and `high` (the interval of 95 %), and `n`, the number
        of variants. NaN where a metric is not defined.
    """
    samples = _Samples(clusters, bootstrap, seed)
    rows = []
    for (score, model), values in scores.items():
        for metric, label in labels.items():
            known = ~np.isnan(values) & ~np.isnan(label)
            of_known = values[known], label[known] if metric == "spearman" else label[known] == 1
            value_of, weighted = METRICS[metric]
            drawn = [weighted(*of_known, weights[:, known]) for weights in samples] if known.any() else []
            low, high = _interval(np.concatenate(drawn)) if drawn else (np.nan, np.nan)
            rows.append(
                {
                    "score": score,
                    "model": model,
                    "metric": metric,
                    "value": value_of(*of_known),
                    "low": low,
                    "high": high,
                    "n": int(known.sum()),
                }
            )
    return rows


class _Samples:
    """How often each variant is in each sample, some samples at a time; the same whenever they are iterated over."""

    def __init__(self, clusters, number, seed):
        names, self.codes = np.unique(clusters, return_inverse=True)
        self.clusters, self.number, self.seed = len(names), number, seed

    def __iter__(self):
        random = np.random.default_rng(self.seed)
        at_once = max(1, DRAWN_AT_ONCE // max(1, len(self.codes)))
        for start in range(0, self.number, at_once):
            drawn = random.integers(self.clusters, size=(min(at_once, self.number - start), self.clusters))
            counts = np.stack([np.bincount(row, minlength=self.clusters) for row in drawn])
            yield counts[:, self.codes].astype(np.float64)


def _interval(values):
    values = values[~np.isnan(values)]
    if not len(values):
        return np.nan, np.nan
    return tuple(float(bound) for bound in np.percentile(values, [(100 - LEVEL) / 2, (100 + LEVEL) / 2]))


def _sums(values, weights):
    """Sums of weights over equal values, `(samples, distinct values)` in rising order, and the number of each value."""
    distinct, codes = np.unique(values, return_inverse=True)
    order = np.argsort(codes, kind="stable")
    starts = np.searchsorted(codes[order], np.arange(len(distinct)))
    return np.add.reduceat(weights[:, order], starts, axis=1), codes


def _ranks(values, weights):
    """Mean rank of each value in each sample, of shape `(samples, variants)`."""
    sums, codes = _sums(values, weights)
    return (sums.cumsum(1) - sums / 2 + 0.5)[:, codes]
