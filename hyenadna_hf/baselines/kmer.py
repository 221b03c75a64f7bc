"""A linear model on k-mer counts: what can be told without knowing where anything stands."""

from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.multiclass import OneVsRestClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MaxAbsScaler


def kmer_classifier(k=6, multi_label=False):
    """
    A classifier of sequences by the counts of their overlapping k-mers, in either case.

    Args:
        k (`int`, defaults to 6): Length of the k-mers, in bases.
        multi_label (`bool`, defaults to `False`): Whether labels are rows of 0 and 1: a model for each label then.

    Returns:
        `sklearn.pipeline.Pipeline` with `fit(sequences, labels)` and `predict(sequences)`: counts divided by their
        largest value in training, then logistic regression with an L2 penalty (C = 0.1).
    """
    linear = LogisticRegression(C=0.1, max_iter=1000)
    return make_pipeline(
        CountVectorizer(analyzer="char", ngram_range=(k, k)),
        MaxAbsScaler(),
        OneVsRestClassifier(linear) if multi_label else linear,
    )
