"""
How far back a language model uses its context: loss by the amount of context, and segments that are repeated.

All losses are in bits per base, with probabilities over A, C, G and T, so that a model without knowledge gives 2. Only
the forward strand is read.
"""

from collections.abc import Callable, Iterable, Sequence

import numpy as np

from ..data.sequence import BASES, normalise
from ..errors import InputError
from .likelihood import BaseLikelihood, skipped_bases

MOST_AMBIGUOUS = 0.1  # share of other letters than A, C, G and T in a window
SHORTEST = 100  # default of the shortest distance
LEVEL = 95  # percent of an interval


def window_starts(sequence: str, window: int, count: int, overlap: bool) -> list[int]:
    """
    Place windows evenly over a sequence.

    Args:
        sequence: IUPAC nucleotide codes. Windows in which more than a tenth of the letters are not A, C, G or T are
            left out.
        window: Bases of a window, at most those of the sequence.
        count: Number of windows.
        overlap: Whether windows may overlap where the sequence is too short for `count` of them. Without overlap, there
            are fewer windows then.

    Returns:
        The first base of each window, 0-based, in order.
    """
    free = len(sequence) - window
    count = min(count, free + 1 if overlap else len(sequence) // window)
    starts = np.linspace(0, free, count).round().astype(int).tolist() if count > 1 else [free // 2]
    return [start for start in starts if skipped_bases(sequence[start : start + window]) <= MOST_AMBIGUOUS * window]


def context_bins(window: int, bos: bool = False) -> np.ndarray:
    """
    Return the bins of the amount of context of the bases of a window: 1, 2 to 3, 4 to 7 and so on.

    Args:
        window: Bases of a window.
        bos: Whether the first base, without other bases as context, is scored.

    Returns:
        The smallest context of each bin, and at the end `window`, of shape `(bins + 1,)`.
    """
    doubled = [1 << power for power in range(window.bit_length()) if 1 << power < window]
    return np.array([*([0] if bos else []), *doubled, window])


def bits_by_context(
    likelihood: BaseLikelihood,
    windows: Iterable[str],
    bins: np.ndarray,
    advance: Callable[[int], None] = lambda _: None,
) -> np.ndarray:
    """
    Sum the loss of the bases of windows by the number of bases before each.

    Args:
        likelihood: Scoring function.
        windows: Sequences of one length.
        bins: Bins of [`context_bins`] for this length.
        advance: Called with 1 after each window.

    Returns:
        Sums of bits and numbers of scored bases, of shape `(windows, 2, bins)`, float64.
    """
    sums = []
    for _, values in likelihood.stream(windows, lambda text: text):
        bits = -values.astype(np.float64) / np.log(2)
        scored = ~np.isnan(bits)
        parts = (np.where(scored, bits, 0), scored.astype(np.float64))
        sums.append([np.add.reduceat(part, bins[:-1]) for part in parts])
        advance(1)
    return np.array(sums).reshape(-1, 2, len(bins) - 1)


def default_distances(window: int, segment: int) -> list[int]:
    """Return the distances 100, 200, 400 and so on that fit into a window, and the largest one that does."""
    largest = window - segment
    doubled = (SHORTEST << power for power in range(max(1, largest).bit_length()))
    return [distance for distance in doubled if segment <= distance < largest] + [largest]


def repeat_segment(window: str, segment: str, distance: int | None = None, first: str | None = None) -> str:
    """
    Replace the end of a window by a segment, and bases before it by a first copy of the segment.

    Args:
        window: Real sequence.
        segment: Segment to write into it.
        distance: Bases from the start of the first copy to that of the second, at least the length of the segment.
            Defaults to no first copy.
        first: Bases to write in place of the first copy, as many as the segment has. Defaults to the segment.

    Returns:
        A sequence of the length of `window`.
    """
    last = len(window) - len(segment)
    if distance is None:
        return window[:last] + segment
    if not len(segment) <= distance <= last:
        raise InputError(
            f"distance={distance}: give {len(segment)} to {last:,}, so that both copies are in a window of "
            f"{len(window):,} bases and do not overlap."
        )
    start = last - distance
    return window[:start] + (first or segment) + window[start + len(segment) : last] + segment


def random_segments(count: int, length: int, seed: int) -> list[str]:
    """Draw segments in which each base is A, C, G or T with the same probability."""
    letters = np.random.default_rng(seed).integers(len(BASES), size=(count, length))
    return ["".join(BASES[letter] for letter in row) for row in letters]


def shuffled_segments(segments: Sequence[str], seed: int) -> list[str]:
    """Shuffle the bases of each segment."""
    random = np.random.default_rng(seed)
    return ["".join(random.permutation([*segment])) for segment in segments]


def real_segments(sequence: str, starts: Sequence[int], window: int, length: int, seed: int) -> list[str]:
    """
    Draw a segment of a sequence for each window, from outside the window and without ambiguous bases.

    Args:
        sequence: IUPAC nucleotide codes.
        starts: First base of each window, 0-based.
        window: Bases of a window.
        length: Bases of a segment.
        seed: Random seed.

    Raises:
        InputError: If there is no such segment.
    """
    random = np.random.default_rng(seed)
    letters = np.frombuffer(normalise(sequence).encode("ascii"), np.uint8)
    others = np.concatenate([[0], np.cumsum(~np.isin(letters, [*BASES.encode()]))])
    places = np.flatnonzero(others[length:] == others[:-length])  # segments without ambiguous bases
    segments = []
    for start in starts:
        outside = places[(places + length <= start) | (places >= start + window)]
        if not len(outside):
            raise InputError(
                f"--needles real: no {length} bases outside a window of {window:,} are all A, C, G or T; give a longer "
                "--region or a smaller --window."
            )
        place = int(random.choice(outside))
        segments.append(normalise(sequence[place : place + length]))
    return segments


def bits_of_repeats(
    likelihood: BaseLikelihood,
    windows: Sequence[str],
    segments: Sequence[str],
    shuffled: Sequence[str],
    distances: Sequence[int],
    advance: Callable[[int], None] = lambda _: None,
) -> np.ndarray:
    """
    Compute the loss of segments at the end of windows, without a first copy, with one, and with a shuffled one.

    A first copy also tells the model about the composition of the segment, as a shuffled one does.

    Args:
        likelihood: Scoring function.
        windows: Real sequences.
        segments: A segment of A, C, G and T for each window.
        shuffled: The same segments in another order of bases.
        distances: Distances of the first copy (see [`repeat_segment`]).
        advance: Called with 1 after each sequence that the model has read.

    Returns:
        Bits per base of each segment, float64, of shape `(windows, 1 + 2 * distances)`: without a first copy, with one
        at each distance, and with a shuffled one at each distance.
    """
    readings = (
        (repeat_segment(window, segment, distance, first), len(segment))
        for window, segment, other in zip(windows, segments, shuffled, strict=True)
        for first, distance in (
            (None, None),
            *((first, distance) for first in (segment, other) for distance in distances),
        )
    )
    bits = []
    for (_, length), values in likelihood.stream(readings, lambda reading: reading[0]):
        bits.append(-values[-length:].astype(np.float64).mean() / np.log(2))
        advance(1)
    return np.array(bits).reshape(-1, 1 + 2 * len(distances))


def ratio_interval(sums: np.ndarray, counts: np.ndarray, samples: int, seed: int) -> tuple[float, float]:
    """
    Compute the 95 % interval of a mean by bootstrap over windows.

    Args:
        sums: Sum of each window, of shape `(windows,)`.
        counts: Number of values of each window, of the same shape.
        samples: Number of bootstrap samples.
        seed: Random seed.

    Returns:
        The percentiles 2.5 and 97.5 of the mean over samples of windows; NaN for fewer than two windows or no samples.
    """
    number = len(sums)
    if number < 2 or not samples:
        return np.nan, np.nan
    drawn = np.random.default_rng(seed).multinomial(number, [1 / number] * number, size=samples)
    with np.errstate(invalid="ignore"):
        means = (drawn @ sums) / (drawn @ counts)
    if np.isnan(means).all():
        return np.nan, np.nan
    low, high = np.nanpercentile(means, [(100 - LEVEL) / 2, (100 + LEVEL) / 2])
    return float(low), float(high)
