"""Split sequences that are longer than the model's input into overlapping tiles."""

from collections.abc import Iterator
from typing import NamedTuple


class Tile(NamedTuple):
    """
    The interval `[start, end)` that the model reads, and the part `[keep_start, keep_end)` whose results are kept;
    0-based.
    """

    start: int
    end: int
    keep_start: int
    keep_end: int

    @property
    def kept(self) -> slice:
        """The kept part as a slice of the positions within the tile."""
        return slice(self.keep_start - self.start, self.keep_end - self.start)


def tiles(length: int, window: int, stride: int) -> Iterator[Tile]:
    """
    Split a sequence into tiles whose kept parts cover each position once.

    Tiles have `window` positions and start every `stride` positions; the last one is shifted to end with the sequence.
    Two neighbours are stitched in the middle of their overlap. A sequence that is not longer than `window` is one tile.

    Args:
        length: Length of the sequence.
        window: Length of a tile, at least 1.
        stride: Distance from the start of a tile to the next, 1 to `window`.

    Yields:
        Tiles in order.
    """
    keep = 0
    for start in range(0, length - window, stride):
        following = min(start + stride, length - window)
        middle = (following + start + window) // 2
        yield Tile(start, start + window, keep, middle)
        keep = middle
    yield Tile(max(0, length - window), length, keep, length)
