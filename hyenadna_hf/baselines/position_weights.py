"""Position weight matrices around each base: a baseline for labels of every base."""

from collections.abc import Iterable

import numpy as np

from ..data.sequence import IGNORED, NUCLEOTIDE_IDS

_FIRST, _LETTERS = min(NUCLEOTIDE_IDS), len(NUCLEOTIDE_IDS)


class PositionWeights:
    """
    Score each base by the log-odds of the letters around it, independent of each other (naive Bayes).

    Args:
        labels: Number of labels.
        flank: Bases on either side that are read.
        multi_label: Whether a base may have several labels.
    """

    def __init__(self, labels: int, flank: int = 20, multi_label: bool = False) -> None:
        self.labels, self.flank, self.multi_label = labels, flank, multi_label
        self._letters: np.ndarray = np.zeros(
            (labels, 2 * flank + 1, _LETTERS), np.int64
        )  # around the bases of each label
        self._all_letters: np.ndarray = np.zeros((2 * flank + 1, _LETTERS), np.int64)
        self._bases: np.ndarray = np.zeros(labels, np.int64)
        self._all_bases = 0

    def fit(self, examples: Iterable[tuple[np.ndarray, np.ndarray]]) -> "PositionWeights":
        """
        Count letters around the bases of each label.

        Args:
            examples: Token ids of shape `(length,)`, with class numbers of shape `(length,)` or zeros and ones of shape
                `(length, labels)`; -100 is ignored.
        """
        for ids, labels in examples:
            is_used = labels.reshape(len(ids), -1)[:, 0] != IGNORED
            windows, labels = self._windows(ids)[is_used], labels[is_used]
            groups = [labels[:, i] == 1 for i in range(self.labels)] if self.multi_label else None
            self._all_bases += len(labels)
            self._bases += labels.astype(np.int64).sum(0) if groups else np.bincount(labels, minlength=self.labels)
            for offset, letters in enumerate(windows.T):
                self._all_letters[offset] += np.bincount(letters, minlength=_LETTERS)
                if groups:
                    counts = np.stack([np.bincount(letters[group], minlength=_LETTERS) for group in groups])
                else:
                    counts = np.bincount(labels * _LETTERS + letters, minlength=self.labels * _LETTERS)
                self._letters[:, offset] += counts.reshape(self.labels, _LETTERS)
        return self

    def predict(self, ids: np.ndarray) -> np.ndarray:
        """
        Score the bases of a sequence.

        Args:
            ids: Token ids, shape `(length,)`.

        Returns:
            Scores of shape `(length, labels)`: log-odds of each label, or without `multi_label` the logarithm of its
            joint probability with the letters.
        """
        weights, prior = _log_shares(self._letters), np.log(self._bases + 1)
        if self.multi_label:
            weights = weights - _log_shares(self._all_letters - self._letters)
            prior = prior - np.log(self._all_bases - self._bases + 1)
        else:
            prior = prior - np.log(self._all_bases + self.labels)
        windows = self._windows(ids)
        offsets = np.arange(windows.shape[1])
        return np.stack([prior[i] + weights[i][offsets, windows].sum(-1) for i in range(self.labels)], axis=-1)

    def _windows(self, ids: np.ndarray) -> np.ndarray:
        """Return the letters around each base, shape `(length, 2 * flank + 1)`; N beyond the ends."""
        padded = np.pad(np.asarray(ids) - _FIRST, self.flank, constant_values=_LETTERS - 1)
        return np.lib.stride_tricks.sliding_window_view(padded, 2 * self.flank + 1)


def _log_shares(counts: np.ndarray) -> np.ndarray:
    """Return logarithms of the shares of letters, with one more of each letter than was counted."""
    return np.log((counts + 1) / (counts + 1).sum(-1, keepdims=True))
