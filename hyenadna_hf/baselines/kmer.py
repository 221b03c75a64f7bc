"""Linear model on k-mer counts: a baseline that ignores positions."""

from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression
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
    return make_pipeline(
        CountVectorizer(analyzer="char", ngram_range=(k, k)),
        MaxAbsScaler(),
        OneVsRestClassifier(linear) if multi_label else linear,
    )
