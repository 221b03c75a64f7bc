"""Constants that affect speed and memory only; results differ by rounding at most."""

from typing import NamedTuple


class Tuning(NamedTuple):
    """
    Thresholds at which one way of computing takes over from another, and sizes of pieces.

    Measured on two CPU cores with `benchmarks/speed.py`. Positions are counted over all rows of a batch.
    """

    # Paths on a CPU: see `choose_plan`.
    whole_below: int = 256  # positions: fewer are computed whole
    graph: int = 1 << 24  # positions * width * layers: training keeps a graph up to here, then computes in pieces
    row_positions: int = 4096  # positions in a group of rows
    pieces_from: int = 16_384  # positions: from here on in pieces, unless a graph is kept
    kept_bytes: int = 17 << 20  # spectra of one block: one kernel of width 256 for 8,192 positions

    # Pieces.
    positions: int = 1024  # positions in a matrix product
    channels: int = 16  # channels transformed together
    short_transforms: int = 1 << 18  # more channels if their transforms have at most this many numbers
    long_transforms: int = 1 << 23  # fewer channels if their transforms have more numbers than this
    small_gates: int = 1 << 23  # numbers: gates up to this size are computed for all channels at once
    gates_share: int = 4  # larger ones for 1 / gates_share of the channels at a time
    feature_positions: int = 8192  # lags of filter features computed together

    # Transforms.
    least_size: int = 32  # shorter transforms save nothing, and their rounding depends on the alignment of the weights
    least_prefix: int = 64  # positions: see `LongConvolution`

    # Generation.
    cache_block: int = 32  # positions summed directly; shorter transforms cost more than they save
    cache_ahead: int = 8  # look ahead by 1 / cache_ahead of the positions seen, at least cache_ahead blocks
    cache_transforms: int = 1 << 20  # numbers transformed together: they fit into the caches of a CPU


TUNING = Tuning()
