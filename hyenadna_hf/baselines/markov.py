"""A Markov model of DNA: the next base from the bases just before it, by counting."""

import math

import numpy as np

from ..data.sequence import BASES, token_ids
from ..model.tokenization_hyenadna import VOCABULARY

_BASE_OF_ID = np.full(max(VOCABULARY.values()) + 1, -1)
_BASE_OF_ID[[VOCABULARY[base] for base in BASES]] = range(4)


class MarkovModel:
    """
    Probability of a base given the `order` bases before it, with pseudo-counts spread over the four bases as the model
    of the next lower order predicts them; below order 0 they are equally likely.

    Args:
        order (`int`): Bases before; memory is 4**(order + 1) numbers of 8 bytes (134 MB for 11).
        pseudo_count (`float`, defaults to 64): What the lower order counts against the observations of a context. The
            default is the best power of 4 on held-out human sequence for order 11; order 5 is indifferent.
    """

    def __init__(self, order, pseudo_count=64.0):
        self.order, self.pseudo_count = order, pseudo_count
        self.counts = np.zeros((4**order, 4))

    def fit(self, sequences):
        """
        Count.

        Args:
            sequences (iterable of `str`): DNA in either case; a window that is not all A, C, G and T counts nothing.

        Returns:
            [`MarkovModel`], itself.
        """
        for sequence in sequences:
            words = self._words(sequence)
            self.counts += np.bincount(words[words >= 0], minlength=4 ** (self.order + 1)).reshape(-1, 4)
        return self

    def probabilities(self):
        """Of each base (columns) after each context (rows): `np.ndarray` of shape `(4**order, 4)`."""
        probabilities = np.full((1, 4), 0.25)
        for order in range(self.order + 1):
            # Contexts that end alike are one context of the lower order: the last letters are the low digits.
            counts = self.counts.reshape(-1, 4**order, 4).sum(0)
            below = np.tile(probabilities, (len(counts) // len(probabilities), 1))
            probabilities = (counts + self.pseudo_count * below) / (counts.sum(1, keepdims=True) + self.pseudo_count)
        return probabilities

    def bits_per_base(self, sequences):
        """
        Mean surprise at the bases that have `order` bases A, C, G or T before them.

        Args:
            sequences (iterable of `str`): DNA in either case.

        Returns:
            `tuple[float, int]`: bits a base, and how many bases that is the mean of.
        """
        surprise = -np.log(self.probabilities()).ravel()
        total, scored = 0.0, 0
        for sequence in sequences:
            words = self._words(sequence)
            words = words[words >= 0]
            total, scored = total + surprise[words].sum(), scored + len(words)
        return total / scored / math.log(2), scored

    def _words(self, sequence):
        """The number of each word of `order + 1` bases, first base highest; -1 where it is not all A, C, G and T."""
        bases = _BASE_OF_ID[token_ids(sequence)]
        length = max(0, len(bases) - self.order)
        words, valid = np.zeros(length, np.int64), np.ones(length, bool)
        for i in range(self.order + 1):
            some = bases[i : i + length]
            words = 4 * words + some
            valid &= some >= 0
        return np.where(valid, words, -1)
