"""Windows of a genome as tokens, for pretraining."""

from bisect import bisect_right
from itertools import accumulate
from pathlib import Path

import numpy as np
import torch
from datasets import Features, Sequence, Value

from ..errors import InputError
from ..model.tokenization_hyenadna import VOCABULARY
from .fasta import Fasta
from .files import SPLITS
from .intervals import Interval, centred, parse_region, read_bed
from .sequence import IGNORED, token_ids
from .streams import WindowStream, mix

N_POLICIES = ("keep", "drop", "mask")
_N, _SEP = VOCABULARY["N"], VOCABULARY["[SEP]"]


class GenomeDataset(WindowStream):
    """
    A stream of windows of a genome as token ids, for next-nucleotide or masked-language training.

    With a BED file every interval gives one window of `max_length` bases around its centre, grown or cut, and moved
    where it would leave its sequence. Without one, the windows lie side by side: in training from a random offset, so
    that an epoch has each base once at most and the next epoch other windows; else from the first base, so that each
    base comes once and the last window of a sequence may be shorter. A sequence that is shorter than `max_length` is a
    window by itself.

    Sequences are read as they are needed: memory grows neither with the genome nor with `max_length`, but for one
    window (with a BED file, 24 bytes an interval). A plain FASTA file is the fastest source of short windows; bgzip has
    to unpack 64 kB for each.

    Args:
        fasta: The genome.
        bed: BED file. If its fourth column has the names of splits (`train`, `valid` or `validation`, `test`), the
            intervals of `split` are taken, else all of them.
        split: `train`, `validation` or `test`. Training shuffles and augments.
        max_length: Bases in a window.
        regions: Without BED file: the sequences (`chr7`) or pieces of them (`chr7:1-5000000`) to lay windows over. The
            whole genome by default, whatever the split.
        reverse_complement: In training, read the other strand of every second window.
        shift: In training, move each window by up to this many bases either way, inside its region.
        n_policy: What to do about N and other ambiguous bases. `keep`: they are tokens like others; `mask`: they are
            not predicted (label -100); `drop`: windows with more than `max_n` of them are left out.
        max_n: Largest share of N in a window that is not dropped.
        append_sep: End each window with [SEP], one token more than `max_length`.
        shuffle: In training by default.
        seed: As those of [`WindowStream`].
        rank: As those of [`WindowStream`].
        world_size: As those of [`WindowStream`].

    Attributes:
        features: Of an example.
        regions: What the windows are laid over; `None` with a BED file.

    Yields:
        `dict` with `input_ids` and `labels`, both `torch.LongTensor` of shape `(length,)`. Labels are the ids that
        stand at the same place; models shift them.

    Raises:
        InputError: If an argument, the genome or the BED file will not do.
    """

    def __init__(
        self,
        fasta: str | Path | Fasta,
        bed: str | Path | None = None,
        split: str = "train",
        max_length: int = 1024,
        *,
        regions: list[Interval] | None = None,
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
            raise InputError(f"split={split!r}: it is train, validation or test.")
        if n_policy not in N_POLICIES:
            raise InputError(f"n_policy={n_policy!r}: it is one of {', '.join(N_POLICIES)}.")
        for name, value, least in (("max_length", max_length, 1), ("shift", shift, 0)):
            if value < least:
                raise InputError(f"{name}={value}: give {least} or more bases.")
        if not 0 <= max_n <= 1:
            raise InputError(f"max_n={max_n}: it is a share, from 0 to 1.")
        if bed is not None and regions is not None:
            raise InputError("bed and regions: give one of them; a BED file names its own.")
        training = SPLITS[split] == "train"
        super().__init__(training if shuffle is None else shuffle, seed, rank, world_size)
        self.fasta = fasta if isinstance(fasta, Fasta) else Fasta(fasta)
        self.split, self.max_length, self.training = SPLITS[split], max_length, training
        self.reverse_complement, self.shift = reverse_complement and training, shift * training
        self.n_policy, self.max_n, self.append_sep = n_policy, max_n, append_sep
        self.features = Features({name: Sequence(Value("int64")) for name in ("input_ids", "labels")})
        if bed is not None:
            self.regions = None
            self._windows = _Intervals(bed, self.split, self.fasta, max_length)
        else:
            regions = list(self.fasta.lengths) if regions is None else regions
            self.regions = [parse_region(part, self.fasta) if isinstance(part, str) else part for part in regions]
            if not self.regions:
                raise InputError("regions: there is not one; leave it out for the whole genome.")
            self._windows = _Tiles(self.regions, max_length, training)

    def size(self):
        return len(self._windows)

    def __len__(self) -> int:
        if self.n_policy == "drop":
            raise TypeError("how many windows are left out is known only when they have been read")
        return super().__len__()

    def window(self, index: int):
        """Name, start, end (0-based, half-open) and whether the other strand is read, of the window of that number."""
        name, start, end, lowest, highest = self._windows.at(index, mix(self.seed, self.epoch))
        chance = mix(self.seed, self.epoch, index) if self.reverse_complement or self.shift else 0
        if self.shift:
            moved = chance % (2 * self.shift + 1) - self.shift
            moved = max(lowest - start, min(moved, highest - end))
            start, end = start + moved, end + moved
        return name, start, end, self.reverse_complement and bool(chance >> 63)

    def example(self, index: int):
        name, start, end, other_strand = self.window(index)
        ids = token_ids(self.fasta.fetch(name, start, end), other_strand)
        labels = ids.copy()  # by numpy: torch would ask its threads for that, which costs more than it saves
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
    """Windows around the intervals of one split of a BED file, which are held as an array."""

    def __init__(self, bed, split, fasta: Fasta, length: int) -> None:
        self._names, self._limits, self._length = list(fasta.lengths), list(fasta.lengths.values()), length
        numbers = {name: number for number, name in enumerate(self._names)}
        has_splits, rows, seen = None, [], set()
        for interval in read_bed(bed, fasta):
            label = interval.rest[0] if interval.rest else None
            if has_splits is None:
                has_splits = label in SPLITS
            if has_splits and label not in SPLITS:
                raise InputError(
                    f"{bed}: {interval.name}:{interval.start}-{interval.end} has {label!r} in the fourth column, where "
                    "other lines have a split; write train, validation or test."
                )
            seen.add(SPLITS.get(label))
            if not has_splits or SPLITS[label] == split:
                rows.append((numbers[interval.name], interval.start, interval.end))
        if not rows:
            splits = f"; there are {', '.join(sorted(seen))}" if seen else ""
            raise InputError(f"{bed}: there is no interval of the split {split} in it{splits}.")
        self._rows = np.array(rows)

    def __len__(self) -> int:
        return len(self._rows)

    def at(self, index: int, key):
        """Name, start and end of a window, and the first and last place that it may be moved to."""
        number, start, end = self._rows[index].tolist()
        limit = self._limits[number]
        return self._names[number], *centred(start, end, self._length, limit), 0, limit


class _Tiles:
    """Windows side by side over pieces of a genome."""

    def __init__(self, pieces, length: int, at_random) -> None:
        self._pieces, self._length, self._at_random = pieces, length, at_random
        sizes = (piece.end - piece.start for piece in pieces)
        # At random, one window fewer than there is room for, so that every offset up to a window's length can be had.
        counts = [max(1, size // length - 1) if at_random else -(-size // length) for size in sizes]
        self._firsts = [0, *accumulate(counts)]

    def __len__(self) -> int:
        return self._firsts[-1]

    def at(self, index: int, key):
        """As that of `_Intervals`; a window stays in its piece."""
        number = bisect_right(self._firsts, index) - 1
        name, lowest, highest, _ = self._pieces[number]
        turn, count = index - self._firsts[number], self._firsts[number + 1] - self._firsts[number]
        start = lowest + turn * self._length
        if self._at_random:
            start += mix(key, number) % (max(0, highest - lowest - count * self._length) + 1)
        return name, start, min(start + self._length, highest), lowest, highest
