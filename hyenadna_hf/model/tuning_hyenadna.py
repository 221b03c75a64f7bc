"""The constants that speed and memory depend on; no result does, but for rounding."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Tuning:
    """
    Where one way of computing takes over from another, and how large pieces are.

    The values were measured on two CPU cores with `benchmarks/speed.py`. "Positions" are those of all rows of a batch.
    """

    # Paths on a CPU: see `choose_plan`.
    whole_below: int = 256  # positions
    graph: int = 1 << 24  # positions times width times layers, up to which training keeps a graph in place of pieces,
    row_positions: int = 4096  # of so many positions a group of rows
    pieces_from: int = 16_384  # positions, where a graph is not kept
    kept_bytes: int = 17 << 20  # of spectra, a block: one kernel of width 256 for 8,192 positions

    # Pieces.
    positions: int = 1024  # of a matrix product
    channels: int = 16  # transformed together,
    short_transforms: int = 1 << 18  # more if all of them have no more numbers than this,
    long_transforms: int = 1 << 23  # fewer if they have more than this
    small_gates: int = 1 << 23  # numbers in the gates of all channels, up to which they are made at once;
    gates_share: int = 4  # else one channel in so many at a time
    feature_positions: int = 8192  # of a kernel's features

    # Transforms.
    least_size: int = 32  # shorter transforms save nothing, and their rounding depends on where weights lie in memory
    least_beginning: int = 64  # positions: see `LongConvolution`

    # Generation.
    cache_block: int = 32  # positions that are summed directly; shorter transforms cost more than they save
    cache_ahead: int = 8  # look ahead by a share of what was seen, and by as many blocks at least
    cache_transforms: int = 1 << 20  # numbers in the transforms of several channels: what stays in a CPU's caches


TUNING = Tuning()
