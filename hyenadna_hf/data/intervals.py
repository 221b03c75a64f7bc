"""Intervals of a genome: BED files, regions, and windows around a centre."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from ..errors import InputError
from .fasta import Fasta
from .source import BED, DAMAGED_GZIP, open_packed, regular_file

# Lines for genome browsers. A sequence may be called track, or have a name that begins so.
_NOT_AN_INTERVAL = re.compile(r"#|(track|browser)(?!\S)(?!\s+-?\d+\s+-?\d)")
REGION = re.compile(r"(?P<name>.+?)(?::(?P<start>\d[\d,]{0,20})-(?P<end>\d[\d,]{0,20}))?")


class Interval(NamedTuple):
    """A piece of a sequence, from 0 and half-open, with the name that its FASTA file has, and what else is known."""

    name: str
    start: int
    end: int
    rest: tuple[str, ...] = ()


def read_bed(path: str | Path, fasta: Fasta) -> Iterator[Interval]:
    """
    Read a BED file, checked against the genome that it belongs to.

    Args:
        path: The file, plain, gzip or bgzip, or `-` for standard input; tabs or blanks between columns. Comments and
            lines that begin with the word `browser` or `track` are skipped.
        fasta: The genome.

    Yields:
        [`Interval`] with the name that the genome has for it, and the columns after the third.

    Raises:
        InputError: Naming the line, if there are fewer than three columns, an interval begins before 0, is empty or
            ends after its sequence, or the genome has no such sequence.
    """
    try:
        with open_packed(regular_file(path, BED, unpack=False), "rt") as lines:
            for number, line in enumerate(lines, start=1):
                columns = line.split("\t") if "\t" in line else line.split()
                columns = [column.strip() for column in columns]
                if any(columns) and not _NOT_AN_INTERVAL.match(line):
                    yield _interval(f"{path}, line {number:,}", columns, fasta)
    except (*DAMAGED_GZIP, UnicodeDecodeError) as error:
        raise InputError(f"{path}: this is not a readable BED file ({error}).") from error


def _interval(where: str, columns: list[str], fasta: Fasta):
    if len(columns) < 3 or not all(re.fullmatch(r"-?\d{1,18}", column) for column in columns[1:3]):
        raise InputError(f"{where}: BED has a sequence, a start and an end in every line; here is {columns[:3]}.")
    name, start, end = columns[0], int(columns[1]), int(columns[2])
    if start < 0:
        raise InputError(f"{where}: the interval begins at {start}; BED counts from 0, correct it or remove it.")
    if end <= start:
        raise InputError(f"{where}: the interval from {start:,} to {end:,} is empty; its end must be after its start.")
    try:
        name = fasta.resolve(name)
    except InputError as error:
        raise InputError(f"{where}: {error}") from error
    if end > fasta.lengths[name]:
        raise InputError(
            f"{where}: the interval ends at {end:,}, but {name} has {fasta.lengths[name]:,} bases in {fasta.path}; is "
            "it of another genome?"
        )
    return Interval(name, start, end, tuple(columns[3:]))


def parse_region(region: str, fasta: Fasta) -> Interval:
    """
    The interval of a region string.

    Args:
        region: A whole sequence (`chr7`), or a piece of it in positions from 1, both of which belong to it
            (`chr7:30,508,751-35,296,850`).
        fasta: The genome.

    Returns:
        [`Interval`], from 0 and half-open.

    Raises:
        InputError: If the genome has no such region.
    """
    if region in fasta.lengths:  # a name may have a colon in it
        return Interval(region, 0, fasta.lengths[region])
    match = REGION.fullmatch(region)
    if match is None:
        raise InputError(f"{region!r} is no region; write it as chr7 or chr7:1000-2000.")
    name = fasta.resolve(match["name"])
    start, end = 0, fasta.lengths[name]
    if match["start"]:
        start, end = int(match["start"].replace(",", "")) - 1, int(match["end"].replace(",", ""))
    if not 0 <= start < end <= fasta.lengths[name]:
        raise InputError(f"{region!r} is no piece of {name}, which has {fasta.lengths[name]:,} bases in {fasta.path}.")
    return Interval(name, start, end)


def centred(start: int, end: int, length: int, limit: int) -> tuple[int, int]:
    """
    The window of a length around the centre of an interval, moved where it would leave the sequence.

    Args:
        start: The interval, from 0 and half-open.
        end: The interval, from 0 and half-open.
        length: Of the window, in bases.
        limit: Bases of the sequence.

    Returns:
        Start and end of the window; the whole sequence if that is shorter than `length`.
    """
    first = (start + end) // 2 - length // 2
    first = max(0, min(first, limit - length))
    return first, min(first + length, limit)
