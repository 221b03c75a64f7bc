"""Linear models on k-mer counts: baselines that ignore positions."""

from sklearn.base import BaseEstimator
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.multiclass import OneVsRestClassifier
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import MaxAbsScaler


def kmer_classifier(k: int = 6, multi_label: bool = False) -> Pipeline:
    """
    Build a classifier of sequences from counts of overlapping k-mers, ignoring case.

    Args:
        k: Length of the k-mers, in bases.
        multi_label: Fit one model per label; labels are rows of 0 and 1.

    Returns:
        A pipeline for `fit(sequences, labels)` and `predict(sequences)`. It divides counts by their largest value in
        the training data and applies logistic regression with an L2 penalty (C = 0.1).
    """
    linear = LogisticRegression(C=0.1, max_iter=1000)
    return _kmer_pipeline(k, OneVsRestClassifier(linear) if multi_label else linear)


def kmer_regressor(k: int = 6) -> Pipeline:
    """
    Build a regressor of numbers from counts of overlapping k-mers, ignoring case.

    Args:
        k: Length of the k-mers, in bases.

    Returns:
        A pipeline for `fit(sequences, numbers)` and `predict(sequences)`. It divides counts by their largest value in
        the training data and applies ridge regression (alpha = 10, the penalty of [`kmer_classifier`]).
    """
    return _kmer_pipeline(k, Ridge(alpha=10.0))


def _kmer_pipeline(k: int, estimator: BaseEstimator) -> Pipeline:
    return make_pipeline(CountVectorizer(analyzer="char", ngram_range=(k, k)), MaxAbsScaler(), estimator)
