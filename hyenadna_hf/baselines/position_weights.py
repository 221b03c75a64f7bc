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
        # Of bases with and without each label; one more of each letter, and of each label, than was counted.
        self._letters = np.ones((2, labels, 2 * flank + 1, _LETTERS))
        self._bases = np.ones((2, labels))

    def fit(self, examples: Iterable[tuple[np.ndarray, np.ndarray]]) -> "PositionWeights":
        """
        Count letters around the bases of each label.

        Args:
            examples: Token ids of shape `(length,)`, with class numbers of shape `(length,)` or zeros and ones of shape
                `(length, labels)`; -100 is ignored.
        """
        for ids, labels in examples:
            if not self.multi_label:
                one_hot = np.eye(self.labels)[np.where(labels == IGNORED, 0, labels)]
                labels = np.where((labels == IGNORED)[:, None], IGNORED, one_hot)
            is_used = labels[:, 0] != IGNORED
            windows = self._windows(ids)[is_used]
            for number in range(self.labels):
                has_label = labels[is_used, number] == 1
                for side, chosen in enumerate((has_label, ~has_label)):
                    self._bases[side, number] += chosen.sum()
                    for offset in range(windows.shape[1]):
                        letters = np.bincount(windows[chosen, offset], minlength=_LETTERS)
                        self._letters[side, number, offset] += letters
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
        letters = np.log(self._letters / self._letters.sum(-1, keepdims=True))
        bases = np.log(self._bases / self._bases.sum(0 if self.multi_label else 1, keepdims=True))
        weights, prior = letters[0], bases[0]
        if self.multi_label:
            weights, prior = weights - letters[1], prior - bases[1]
        windows = self._windows(ids)
        offsets = np.arange(windows.shape[1])
        return np.stack([prior[i] + weights[i][offsets, windows].sum(-1) for i in range(self.labels)], axis=-1)

    def _windows(self, ids: np.ndarray) -> np.ndarray:
        """Return the letters around each base, shape `(length, 2 * flank + 1)`; N beyond the ends."""
        padded = np.pad(np.asarray(ids) - _FIRST, self.flank, constant_values=_LETTERS - 1)
        return np.lib.stride_tricks.sliding_window_view(padded, 2 * self.flank + 1)
