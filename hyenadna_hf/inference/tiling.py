"""Sequences longer than a model reads at once, cut into overlapping tiles."""

from collections.abc import Iterator
from typing import NamedTuple


class Tile(NamedTuple):
    """What the model reads, `[start, end)`, and the part whose results are kept, `[keep_start, keep_end)`; 0-based."""

    start: int
    end: int
    keep_start: int
    keep_end: int

    @property
    def kept(self):
        """The kept part as a slice of the tile's own positions."""
        return slice(self.keep_start - self.start, self.keep_end - self.start)


def tiles(length: int, window: int, stride: int) -> Iterator[Tile]:
    """
    Tiles whose kept parts cover a sequence, each position once.

    Tiles are `window` long and begin every `stride` positions; the last one ends where the sequence ends, so that it is
    as long as the others. Of two neighbours each gives its half of their overlap. A sequence no longer than `window` is
    one tile.

    Args:
        length: Of the sequence.
        window: Length of a tile, at least 1.
        stride: From the beginning of a tile to that of the next, 1 to `window`.
        [`Tile`]
    """
    keep = 0
    for start in range(0, length - window, stride):
        following = min(start + stride, length - window)
        middle = (following + start + window) // 2
        yield Tile(start, start + window, keep, middle)
        keep = middle
    yield Tile(max(0, length - window), length, keep, length)
