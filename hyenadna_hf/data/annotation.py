"""Annotated intervals of a region, from BED, GTF and GFF3 files."""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from ..errors import InputError
from .biotypes import parse_annotation_row
from .fasta import Fasta, bare_name
from .intervals import NOT_AN_INTERVAL, read_bed
from .source import ANNOTATION, BED, DAMAGED_GZIP, open_packed, regular_file


class Feature(NamedTuple):
    """
    An annotated interval.

    Attributes:
        kind: Feature type in GTF and GFF3, such as `exon`; file name in BED.
        start: Start, 0-based.
        end: End, exclusive.
        strand: `+`, `-`, or `.` if unknown.
        name: Name of the gene, or of the interval in BED; may be empty.
    """

    kind: str
    start: int
    end: int
    strand: str
    name: str


def features_in(path: str | Path, fasta: Fasta, contig: str, start: int, end: int) -> list[Feature]:
    """
    Read the features of a file that overlap a region.

    Args:
        path: BED, GTF or GFF3 file, plain, gzip or bgzip. The format is detected from the first row.
        fasta: Genome of the file.
        contig: Contig of the region.
        start: Start of the region, 0-based.
        end: End of the region, exclusive.

    Returns:
        Complete and unique features, sorted by kind in the order of the file, then by position.

    Raises:
        InputError: If the file is missing or damaged, or a row is malformed.
    """
    kind = is_annotation(path)
    if kind is None:
        raise InputError(f"{path}: the file contains no interval.")
    read = _annotation_features if kind else _bed_features
    features = [feature for feature in read(path, fasta, contig) if feature.start < end and feature.end > start]
    kinds = list(dict.fromkeys(feature.kind for feature in features))
    return sorted(set(features), key=lambda feature: (kinds.index(feature.kind), feature[1:]))


def is_annotation(path: str | Path) -> bool | None:
    """Return whether a file is GTF or GFF3, not BED, by its first row; `None` if it has none."""
    for _, line in annotation_rows(path, f"{BED}, or {ANNOTATION}"):
        columns = line.rstrip("\r\n").split("\t")
        return len(columns) >= 8 and columns[3].isdecimal() and columns[4].isdecimal()
    return None


def annotation_rows(path: str | Path, wanted: str = ANNOTATION) -> Iterator[tuple[int, str]]:
    """
    Read the rows of an annotation, without comments, lines for genome browsers and the sequences of GFF3.

    Args:
        path: File, plain, gzip or bgzip.
        wanted: Description of the file that is expected, for error messages.

    Yields:
        The number of each line, counted from 1, and the line.

    Raises:
        InputError: If the file is missing or damaged.
    """
    try:
        with open_packed(regular_file(path, wanted, unpack=False), "rt") as lines:
            for number, line in enumerate(lines, start=1):
                if line.startswith("##FASTA"):  # sequences at the end of GFF3 files
                    return
                if line.strip() and not NOT_AN_INTERVAL.match(line):
                    yield number, line
    except (*DAMAGED_GZIP, UnicodeDecodeError) as error:
        raise InputError(f"{path}: this is not readable as {wanted} ({error}).") from error


def _annotation_features(path: str | Path, fasta: Fasta, contig: str) -> Iterator[Feature]:
    for number, line in annotation_rows(path):
        columns, attributes, _ = parse_annotation_row(f"{path}, line {number:,}", line)
        if bare_name(columns[0]) == bare_name(contig):
            name = next(filter(None, map(attributes.get, ("gene_name", "Name", "gene_id", "ID"))), "")
            strand = columns[6].replace("?", ".")
            yield Feature(columns[2], int(columns[3]) - 1, int(columns[4]), strand, name)


def _bed_features(path: str | Path, fasta: Fasta, contig: str) -> Iterator[Feature]:
    kind = Path(path).name.split(".")[0]
    for name, start, end, rest in read_bed(path, fasta):
        if name == contig:
            label, _, strand = (*rest, "", "", "")[:3]
            yield Feature(kind, start, end, strand or ".", "" if label == "." else label)
