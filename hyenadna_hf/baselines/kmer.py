"""A linear model on k-mer counts: what can be told without knowing where anything stands."""

from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MaxAbsScaler


def kmer_classifier(k=6):
    """
    A classifier of sequences by the counts of their overlapping k-mers, in either case.

    Args:
        k (`int`, defaults to 6): Length of the k-mers, in bases.

    Returns:
        `sklearn.pipeline.Pipeline` with `fit(sequences, labels)` and `predict(sequences)`: counts divided by their
        largest value in training, then logistic regression with an L2 penalty (C = 0.1).
    """
    return make_pipeline(
        CountVectorizer(analyzer="char", ngram_range=(k, k)), MaxAbsScaler(), LogisticRegression(C=0.1, max_iter=1000)
    )
