"""Labels of every base of a genome, from the intervals of BED, GTF and GFF3 files."""

from bisect import bisect_left
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import unquote

import numpy as np
from torch.utils.data import Dataset

from ..errors import InputError
from ..model.tokenization_hyenadna import VOCABULARY
from .annotation import annotation_rows, is_annotation
from .biotypes import parse_annotation_row
from .fasta import Fasta
from .intervals import Interval, read_bed
from .sequence import IGNORED, token_ids
from .track_labels import TrackLabels

BACKGROUND = "background"
_N = VOCABULARY["N"]


class _Row(NamedTuple):
    """An interval of a class, 0-based and half-open, and its place in the file."""

    contig: str
    start: int
    end: int
    name: str
    where: str


class BaseLabels:
    """
    Classes of every base of a genome.

    Bases outside all intervals are background. Strands are ignored. In memory, an interval takes 20 bytes.

    Args:
        path: BED file, whose fourth column is the class, or GTF or GFF3 file, whose third column is the class; plain,
            gzip or bgzip. The format is detected from the first row.
        fasta: Genome of the file.
        classes: Classes to use, in this order. Defaults to all, in alphabetical order.
        multi_label: Whether a base may have several classes. Otherwise, it has one, and the first is the background.

    Attributes:
        names: Names of the labels.
        problem_type: `"single_label_classification"` or `"multi_label_classification"`.
        contigs: Contigs that have intervals, in the order of the genome.

    Raises:
        InputError: If the file cannot be read, an interval is outside the genome, a class does not occur, or, without
            `multi_label`, intervals of different classes overlap.
    """

    def __init__(self, path: str | Path, fasta: Fasta, classes: Sequence[str] = (), multi_label: bool = False) -> None:
        self.path, self.multi_label = path, multi_label
        self.problem_type = f"{'multi' if multi_label else 'single'}_label_classification"
        rows = [row for row in _read(path, fasta) if not classes or row.name in classes]
        present = {row.name for row in rows}
        missing = [name for name in classes if name not in present]
        if missing or not rows:
            found = sorted({row.name for row in _read(path, fasta)})
            problem = f"there is no interval of the class {missing[0]!r}" if missing else "it contains no interval"
            raise InputError(f"{path}: {problem}; its classes are {', '.join(found[:20]) or 'none'}.")
        kinds = list(dict.fromkeys(classes)) or sorted(present)
        if not multi_label and BACKGROUND in kinds:
            raise InputError(f"{path}: {BACKGROUND!r} is the class of bases without interval; rename the class.")
        self.names = kinds if multi_label else [BACKGROUND, *kinds]
        rows.sort(key=lambda row: row[:3])
        if not multi_label:
            _check_overlaps(path, rows)
        self._intervals: dict[str, np.ndarray] = {}  # start, end and number of the class, by contig
        for contig in fasta.lengths:
            numbers = [(row.start, row.end, kinds.index(row.name)) for row in rows if row.contig == contig]
            if numbers:
                self._intervals[contig] = np.array(numbers)
        self.contigs = list(self._intervals)
        self._longest = {contig: int((rows[:, 1] - rows[:, 0]).max()) for contig, rows in self._intervals.items()}

    def fetch(self, contig: str, start: int, end: int) -> np.ndarray:
        """
        Return the labels of the bases `[start, end)` of a contig, 0-based.

        Returns:
            Class numbers of shape `(length,)`, type `int64`, or with `multi_label` zeros and ones of shape `(length,
            labels)`, type `float32`.
        """
        length = end - start
        shape = (length, len(self.names)) if self.multi_label else (length,)
        labels: np.ndarray = np.zeros(shape, np.float32 if self.multi_label else np.int64)
        if contig not in self._intervals:
            return labels
        rows = self._intervals[contig]
        first = bisect_left(rows[:, 0], start - self._longest[contig])
        last = bisect_left(rows[:, 0], end)
        for row_start, row_end, number in rows[first:last].tolist():
            piece = slice(max(row_start - start, 0), max(row_end - start, 0))
            if self.multi_label:
                labels[piece, number] = 1
            else:
                labels[piece] = number + 1
        return labels


class LabelledWindows(Dataset):
    """
    Windows of a genome with the labels of their bases.

    Windows tile the regions from their first bases; the last window of a region may be shorter. Windows whose bases are
    mostly N are left out. Bases that are not A, C, G or T have the label -100.

    Args:
        fasta: Genome.
        labels: Labels of its bases.
        regions: Regions to tile.
        window: Bases in a window.
        max_n: Largest fraction of bases other than A, C, G and T in a window.
        only_whole: Leave out shorter windows.
    """

    def __init__(
        self,
        fasta: Fasta,
        labels: "BaseLabels | TrackLabels",
        regions: Collection[Interval],
        window: int,
        max_n: float = 0.5,
        only_whole: bool = False,
    ) -> None:
        self.fasta, self.labels = fasta, labels
        tiles = [
            Interval(region.name, start, min(start + window, region.end))
            for region in regions
            for start in range(region.start, region.end, window)
        ]
        if only_whole:
            tiles = [tile for tile in tiles if tile.end - tile.start == window]
        self.windows = [tile for tile in tiles if (self._ids(tile) == _N).mean() <= max_n]

    def _ids(self, window: Interval) -> np.ndarray:
        return token_ids(self.fasta.fetch(*window[:3]))

    def __len__(self) -> int:
        return len(self.windows)

    def __getitem__(self, index: int) -> dict[str, Any]:
        window = self.windows[index]
        ids, labels = self._ids(window), self.labels.fetch(*window[:3])
        labels[ids == _N] = IGNORED
        return {"input_ids": ids, "labels": labels}


def _read(path: str | Path, fasta: Fasta) -> Iterator[_Row]:
    return (_read_annotation if is_annotation(path) else _read_bed)(path, fasta)


def _read_bed(path: str | Path, fasta: Fasta) -> Iterator[_Row]:
    for contig, start, end, rest in read_bed(path, fasta):
        where = f"{contig}:{start + 1:,}-{end:,}"
        if not rest or rest[0] in ("", "."):
            raise InputError(f"{path}: {where} has no name in the fourth column, which is its class; add it.")
        yield _Row(contig, start, end, rest[0], where)


def _read_annotation(path: str | Path, fasta: Fasta) -> Iterator[_Row]:
    for number, line in annotation_rows(path):
        where = f"line {number:,}"
        columns, _, is_gff3 = parse_annotation_row(f"{path}, {where}", line)
        try:
            contig = fasta.resolve(unquote(columns[0]) if is_gff3 else columns[0])
        except InputError as error:
            raise InputError(f"{path}, {where}: {error} The annotation may belong to another genome.") from error
        start, end = int(columns[3]) - 1, int(columns[4])
        if not 0 <= start < end <= fasta.lengths[contig]:
            raise InputError(
                f"{path}, {where}: {start + 1:,}-{end:,} is outside {contig}, which has {fasta.lengths[contig]:,} "
                f"bases in {fasta.path}; use the annotation of this genome."
            )
        yield _Row(contig, start, end, columns[2], where)


def _check_overlaps(path: str | Path, rows: list[_Row]) -> None:
    """Raise an `InputError` if sorted intervals of different classes overlap."""
    furthest: dict[str, _Row] = {}  # the interval of each class that ends last
    contig = ""
    for row in rows:
        if row.contig != contig:
            furthest, contig = {}, row.contig
        for other in furthest.values():
            if other.name != row.name and other.end > row.start:
                raise InputError(
                    f"{path}: {row.name} ({row.where}) overlaps {other.name} ({other.where}) on {contig}, but a base "
                    "has one class; select classes with --features, or give --multi_label."
                )
        if row.name not in furthest or row.end > furthest[row.name].end:
            furthest[row.name] = row
