"""Windows of a genome as token ids, for pretraining."""

from bisect import bisect_right
from collections.abc import Collection
from itertools import accumulate, pairwise
from pathlib import Path

import numpy as np
import torch
from datasets import Features, Sequence, Value

from ..errors import InputError
from ..model.tokenization_hyenadna import VOCABULARY
from .fasta import Fasta
from .files import SPLITS
from .intervals import Interval, centre_window, parse_region, read_bed
from .sequence import IGNORED, token_ids
from .streams import WindowStream, mix

N_POLICIES = ("keep", "drop", "mask")
_N, _SEP = VOCABULARY["N"], VOCABULARY["[SEP]"]


class GenomeDataset(WindowStream):
    """
    A stream of windows of a genome as token ids, for next-nucleotide or masked-language training.

    With a BED file, each interval gives one window of `max_length` bases around its centre, extended or cropped, and
    shifted to stay within its sequence. Without a BED file, windows tile the genome. In training, tiling starts at a
    random offset, so that an epoch contains each base at most once and every epoch has different windows. Otherwise it
    starts at the first base, so that each base occurs once and the last window of a sequence may be shorter. A sequence
    shorter than `max_length` is one window.

    Sequences are read lazily: memory grows neither with the genome nor with `max_length`, except for one window (with a
    BED file, 24 bytes per interval). Plain FASTA is the fastest source of short windows; bgzip decompresses 64 kB for
    each.

    Args:
        fasta: Genome.
        bed: BED file. If its fourth column has names of splits (`train`, `valid` or `validation`, `test`), only the
            intervals of `split` are used, otherwise all.
        split: `train`, `validation` or `test`. Only the train split is shuffled and augmented.
        max_length: Length of a window, in bases.
        regions: Sequences (`chr7`) or pieces of sequences (`chr7:1-5000000`) to tile, without a BED file. Defaults to
            the whole genome for every split.
        reverse_complement: In training, reverse-complement half of the windows at random.
        shift: In training, shift each window at random by up to this many bases in either direction, within its region.
        n_policy: Treatment of N and other ambiguous bases. `keep`: tokens like others; `mask`: not predicted (label
            -100); `drop`: skip windows with too many of them.
        max_n: Largest fraction of N in a window that `n_policy="drop"` keeps.
        append_sep: End each window with [SEP], in addition to `max_length` bases.
        shuffle: Shuffle the windows. Defaults to `True` in training only.
        seed: See [`WindowStream`].
        rank: See [`WindowStream`].
        world_size: See [`WindowStream`].

    Attributes:
        features: The `datasets.Features` of an example.
        regions: Intervals that the windows tile, none with a BED file.

    Yields:
        A `dict` with `input_ids` and `labels`, both of shape `(length,)`. Labels are the ids at the same positions;
        models shift them.

    Raises:
        InputError: If an argument, the genome or the BED file is invalid.
    """

    def __init__(
        self,
        fasta: str | Path | Fasta,
        bed: str | Path | None = None,
        split: str = "train",
        max_length: int = 1024,
        *,
        regions: Collection[str | Interval] | None = None,
        reverse_complement: bool = False,
        shift: int = 0,
        n_policy: str = "keep",
        max_n: float = 0.0,
        append_sep: bool = False,
        shuffle: bool | None = None,
        seed: int = 0,
        rank: int | None = None,
        world_size: int | None = None,
    ) -> None:
        if split not in SPLITS:
            raise InputError(f"split={split!r}: choose train, validation or test.")
        if n_policy not in N_POLICIES:
            raise InputError(f"n_policy={n_policy!r}: choose one of {', '.join(N_POLICIES)}.")
        for name, value, least in (("max_length", max_length, 1), ("shift", shift, 0)):
            if value < least:
                raise InputError(f"{name}={value}: give {least} or more bases.")
        if not 0 <= max_n <= 1:
            raise InputError(f"max_n={max_n}: give a fraction from 0 to 1.")
        if bed is not None and regions is not None:
            raise InputError("bed and regions: give only one; a BED file defines its own regions.")
        training = SPLITS[split] == "train"
        super().__init__(training if shuffle is None else shuffle, seed, rank, world_size)
        self.fasta = fasta if isinstance(fasta, Fasta) else Fasta(fasta)
        self.split, self.max_length, self.training = SPLITS[split], max_length, training
        self.reverse_complement, self.shift = reverse_complement and training, shift * training
        self.n_policy, self.max_n, self.append_sep = n_policy, max_n, append_sep
        self.features = Features({name: Sequence(Value("int64")) for name in ("input_ids", "labels")})
        if bed is not None:
            self.regions: list[Interval] = []
            self._windows: _Intervals | _Tiles = _Intervals(bed, self.split, self.fasta, max_length)
        else:
            regions = list(self.fasta.lengths) if regions is None else regions
            self.regions = [parse_region(part, self.fasta) if isinstance(part, str) else part for part in regions]
            if not self.regions:
                raise InputError("regions: it is empty; omit it for the whole genome.")
            self._windows = _Tiles(self.regions, max_length, training)

    def size(self) -> int:
        return len(self._windows)

    def bases(self) -> int:
        """Return the number of bases in the windows of an epoch over all ranks, including skipped ones."""
        return self._windows.bases()

    def __len__(self) -> int:
        if self.n_policy == "drop":
            raise TypeError("the number of windows is unknown with n_policy='drop'")
        return super().__len__()

    def window(self, index: int) -> tuple[str, int, int, bool]:
        """Return name, start and end (0-based, half-open) of a window, and whether it is reverse-complemented."""
        name, start, end, lowest, highest = self._windows.at(index, mix(self.seed, self.epoch))
        random_bits = mix(self.seed, self.epoch, index) if self.reverse_complement or self.shift else 0
        if self.shift:
            offset = random_bits % (2 * self.shift + 1) - self.shift
            offset = max(lowest - start, min(offset, highest - end))
            start, end = start + offset, end + offset
        return name, start, end, self.reverse_complement and bool(random_bits >> 63)

    def example(self, index: int) -> dict[str, torch.Tensor] | None:
        name, start, end, other_strand = self.window(index)
        ids = token_ids(self.fasta.fetch(name, start, end), other_strand)
        labels = ids.copy()  # in numpy: torch would use several threads, which is slower here
        if self.n_policy != "keep":
            is_n = ids == _N
            if self.n_policy == "drop" and is_n.sum() > self.max_n * len(ids):
                return None
            if self.n_policy == "mask":
                labels[is_n] = IGNORED
        if self.append_sep:
            ids, labels = np.append(ids, _SEP), np.append(labels, _SEP)
        return {"input_ids": torch.from_numpy(ids), "labels": torch.from_numpy(labels)}


class _Intervals:
    """Windows around the intervals of one split of a BED file, stored as an array."""

    def __init__(self, bed: str | Path, split: str, fasta: Fasta, length: int) -> None:
        self._names, self._limits, self._length = list(fasta.lengths), list(fasta.lengths.values()), length
        numbers = {name: number for number, name in enumerate(self._names)}
        has_splits: bool | None = None
        rows: list[tuple[int, int, int]] = []
        seen: set[str] = set()
        for interval in read_bed(bed, fasta):
            label = interval.rest[0] if interval.rest else ""
            if has_splits is None:
                has_splits = label in SPLITS
            if has_splits and label not in SPLITS:
                raise InputError(
                    f"{bed}: {interval.name}:{interval.start}-{interval.end} has {label!r} in the fourth column, where "
                    "other lines have a split; use train, validation or test."
                )
            seen.add(SPLITS.get(label, ""))
            if not has_splits or SPLITS[label] == split:
                rows.append((numbers[interval.name], interval.start, interval.end))
        if not rows:
            splits = f"; it has {', '.join(sorted(seen))}" if seen else ""
            raise InputError(f"{bed}: the file contains no interval of the split {split}{splits}.")
        self._rows = np.array(rows)

    def __len__(self) -> int:
        return len(self._rows)

    def bases(self) -> int:
        """Return the number of bases in all windows."""
        return int(np.minimum(np.array(self._limits)[self._rows[:, 0]], self._length).sum())

    def at(self, index: int, key: int) -> tuple[str, int, int, int, int]:
        """Return name, start and end of a window, and the limits within which it may be shifted."""
        number, start, end = self._rows[index].tolist()
        limit = self._limits[number]
        return self._names[number], *centre_window(start, end, self._length, limit), 0, limit


class _Tiles:
    """Windows that tile pieces of a genome."""

    def __init__(self, pieces: list[Interval], length: int, at_random: bool) -> None:
        self._pieces, self._length, self._at_random = pieces, length, at_random
        sizes = (piece.end - piece.start for piece in pieces)
        # A random offset, up to the length of a window, takes the room of one window.
        counts = [max(1, size // length - 1) if at_random else -(-size // length) for size in sizes]
        self._firsts = [0, *accumulate(counts)]

    def __len__(self) -> int:
        return self._firsts[-1]

    def bases(self) -> int:
        """Return the number of bases in all windows."""
        counts = (end - first for first, end in pairwise(self._firsts))
        return sum(min(piece.end - piece.start, n * self._length) for piece, n in zip(self._pieces, counts))

    def at(self, index: int, key: int) -> tuple[str, int, int, int, int]:
        """Return name, start and end of a window, and the limits of its piece, within which it may be shifted."""
        number = bisect_right(self._firsts, index) - 1
        name, lowest, highest, _ = self._pieces[number]
        position, count = index - self._firsts[number], self._firsts[number + 1] - self._firsts[number]
        start = lowest + position * self._length
        if self._at_random:
            start += mix(key, number) % (max(0, highest - lowest - count * self._length) + 1)
        return name, start, min(start + self._length, highest), lowest, highest
