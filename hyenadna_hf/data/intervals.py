"""Intervals of a genome: BED files, regions, and windows around a centre."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from ..errors import InputError
from .fasta import Fasta
from .source import BED, DAMAGED_GZIP, open_packed, regular_file

# Comments, and lines for genome browsers. The name of a sequence may be or start with "track", in BED, GTF and GFF3.
NOT_AN_INTERVAL = re.compile(r"#|(track|browser)(?!\S)(?!\s+-?\d+\s+-?\d)(?!(\t[^\t]*){2}(\t\d+){2}\t)")
REGION = re.compile(r"(?P<name>.+?)(?::(?P<start>\d[\d,]{0,20})-(?P<end>\d[\d,]{0,20}))?")


class Interval(NamedTuple):
    """A piece of a sequence, 0-based and half-open, with the name from the FASTA file and the remaining columns."""

    name: str
    start: int
    end: int
    rest: tuple[str, ...] = ()


def read_bed(path: str | Path, fasta: Fasta) -> Iterator[Interval]:
    """
    Read a BED file and check it against its genome.

    Args:
        path: The file, plain, gzip or bgzip, or `-` for standard input. Columns are separated by tabs or blanks.
            Comments and lines that begin with the word `browser` or `track` are skipped.
        fasta: Genome.

    Yields:
        Intervals with their names in the genome and the columns after the third.

    Raises:
        InputError: If a line has fewer than three columns, an interval begins before 0, is empty or ends after its
            sequence, or the genome has no such sequence. The error names the line.
    """
    try:
        with open_packed(regular_file(path, BED, unpack=False), "rt") as lines:
            for number, line in enumerate(lines, start=1):
                columns = line.split("\t") if "\t" in line else line.split()
                columns = [column.strip() for column in columns]
                if any(columns) and not NOT_AN_INTERVAL.match(line):
                    yield _interval(f"{path}, line {number:,}", columns, fasta)
    except (*DAMAGED_GZIP, UnicodeDecodeError) as error:
        raise InputError(f"{path}: this is not a readable BED file ({error}).") from error


def _interval(where: str, columns: list[str], fasta: Fasta) -> Interval:
    if len(columns) < 3 or not all(re.fullmatch(r"-?\d{1,18}", column) for column in columns[1:3]):
        raise InputError(f"{where}: a BED line needs a sequence, a start and an end; this one has {columns[:3]}.")
    name, start, end = columns[0], int(columns[1]), int(columns[2])
    if start < 0:
        raise InputError(f"{where}: the interval begins at {start}, but BED counts from 0; correct or remove it.")
    if end <= start:
        raise InputError(f"{where}: the interval from {start:,} to {end:,} is empty; its end must be after its start.")
    try:
        name = fasta.resolve(name)
    except InputError as error:
        raise InputError(f"{where}: {error}") from error
    if end > fasta.lengths[name]:
        raise InputError(
            f"{where}: the interval ends at {end:,}, but {name} has {fasta.lengths[name]:,} bases in {fasta.path}; "
            "use intervals of this genome."
        )
    return Interval(name, start, end, tuple(columns[3:]))


def parse_region(region: str, fasta: Fasta) -> Interval:
    """
    Parse a region.

    Args:
        region: A whole sequence (`chr7`), or a piece in 1-based inclusive positions (`chr7:30,508,751-35,296,850`).
        fasta: Genome.

    Returns:
        The interval, 0-based and half-open.

    Raises:
        InputError: If the genome has no such region.
    """
    if region in fasta.lengths:  # a name may contain a colon
        return Interval(region, 0, fasta.lengths[region])
    match = REGION.fullmatch(region)
    if match is None:
        raise InputError(f"{region!r} is not a region; write it as chr7 or chr7:1000-2000.")
    name = fasta.resolve(match["name"])
    start, end = 0, fasta.lengths[name]
    if match["start"]:
        start, end = int(match["start"].replace(",", "")) - 1, int(match["end"].replace(",", ""))
    if not 0 <= start < end <= fasta.lengths[name]:
        raise InputError(f"{region!r} is outside {name}, which has {fasta.lengths[name]:,} bases in {fasta.path}.")
    return Interval(name, start, end)


def centre_window(start: int, end: int, length: int, limit: int) -> tuple[int, int]:
    """
    Place a window around the centre of an interval, shifted to stay within the sequence.

    Args:
        start: Start of the interval, 0-based.
        end: End of the interval, exclusive.
        length: Length of the window, in bases.
        limit: Length of the sequence, in bases.

    Returns:
        Start and end of the window; the whole sequence if it is shorter than `length`.
    """
    first = (start + end) // 2 - length // 2
    first = max(0, min(first, limit - length))
    return first, min(first + length, limit)


def subtract_intervals(pieces: list[Interval], removed: list[Interval]) -> list[Interval]:
    """
    Remove parts of intervals.

    Args:
        pieces: Intervals in any order; they may overlap.
        removed: Intervals to remove, in any order; they may overlap.

    Returns:
        The remaining intervals, in the order of `pieces`.
    """
    for hole in removed:
        pieces = [
            Interval(piece.name, start, end)
            for piece in pieces
            for start, end in (
                [(piece.start, min(piece.end, hole.start)), (max(piece.start, hole.end), piece.end)]
                if piece.name == hole.name and hole.start < piece.end and piece.start < hole.end
                else [piece[1:3]]
            )
            if start < end
        ]
    return pieces


def training_intervals(sequences: list[Interval], validation: list[Interval], test: list[Interval]) -> list[Interval]:
    """
    Return the parts of sequences that are in neither held-out split.

    Args:
        sequences: Intervals to divide.
        validation: Intervals of validation.
        test: Intervals of test.

    Raises:
        InputError: If validation and test overlap, or nothing remains.
    """
    remaining = subtract_intervals(sequences, validation + test)
    if not remaining:
        names = list(dict.fromkeys(sequence.name for sequence in sequences))
        shown = ", ".join(names[:3]) + ", ..." * (len(names) > 3)
        raise InputError(f"--validation and --test: they cover all of {shown}; leave regions to train on.")
    if subtract_intervals(validation, test) != validation:
        raise InputError("--validation and --test: they overlap; a base can be in one split only.")
    return remaining
