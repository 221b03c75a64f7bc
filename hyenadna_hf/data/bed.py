"""Intervals of a genome from BED files."""

import gzip
from typing import NamedTuple

from ..errors import InputError
from .sequence import reverse_complement

STRANDS = ("+", "-", ".")


class Interval(NamedTuple):
    """A piece of a sequence: `[start, end)` from 0, as in BED; `strand` is `+`, `-`, or `.` where it has none."""

    contig: str
    start: int
    end: int
    name: str
    strand: str

    @property
    def length(self):
        """Number of bases."""
        return self.end - self.start

    def read(self, fasta):
        """Its bases from a [`Fasta`], as a `str`; on strand `-` the reverse complement."""
        sequence = fasta.fetch(self.contig, self.start, self.end)
        return reverse_complement(sequence) if self.strand == "-" else sequence


def whole_sequences(fasta):
    """Every sequence of a [`Fasta`] as an [`Interval`] on strand `+`, in file order, as a `list`."""
    return [Interval(name, 0, length, name, "+") for name, length in fasta.lengths.items()]


def read_bed(path, fasta):
    """
    Read the intervals of a BED file, checked against a genome.

    Columns are separated by tabs, or by white space in a line without tabs. Of them contig, start, end, name (4) and
    strand (6) are read; lines that begin with `#`, `track` or `browser` and empty lines are passed over.

    Args:
        path (`str` or `Path`): The file; with the ending .gz it is unpacked.
        fasta ([`Fasta`]): The genome. `chr20` and `20` are reconciled.

    Returns:
        `list[Interval]` in file order, with the contig as the genome calls it. One without a name, or with the name
        `.`, is named by its region, `contig:start-end` counted from 1.

    Raises:
        InputError: names file and line, if the line has fewer than 3 columns, the contig is not in the genome, start
            and end are no whole numbers or not within the contig, the interval is empty, or its strand is none of
            `+`, `-` and `.`; or if the file cannot be read or holds no interval.
    """
    intervals = []
    try:
        with gzip.open(path, "rt") if str(path).endswith(".gz") else open(path) as lines:
            for number, line in enumerate(lines, start=1):
                line = line.rstrip("\r\n")
                if not line.strip() or line.startswith("#") or line.split()[0] in ("track", "browser"):
                    continue
                try:
                    intervals.append(_interval(line.split("\t") if "\t" in line else line.split(), fasta))
                except InputError as error:
                    raise InputError(f"{path}, line {number:,}: {error}") from error
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: this is not a readable BED file ({error}).") from error
    if not intervals:
        raise InputError(f"{path}: there is no interval in it.")
    return intervals


def _interval(fields, fasta):
    if len(fields) < 3:
        raise InputError(f"there are {len(fields)} columns; BED has at least contig, start and end.")
    contig = fasta.resolve(fields[0])
    try:
        start, end = map(int, fields[1:3])
    except ValueError:
        raise InputError(f"start {fields[1]!r} and end {fields[2]!r} must be whole numbers.") from None
    length = fasta.lengths[contig]
    if not 0 <= start < end <= length:
        raise InputError(
            f"there is no interval from {start:,} to {end:,} on {contig}, which has {length:,} bases; give "
            f"0 <= start < end <= {length:,}."
        )
    name = fields[3] if len(fields) > 3 and fields[3] not in ("", ".") else f"{contig}:{start + 1}-{end}"
    strand = fields[5] if len(fields) > 5 else "."
    if strand not in STRANDS:
        raise InputError(f"the strand is {strand!r}; it is one of {', '.join(STRANDS)}.")
    return Interval(contig, start, end, name, strand)
