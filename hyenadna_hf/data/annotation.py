"""Annotated intervals of a region, from BED, GTF and GFF3 files, to draw beside what a model makes of it."""

from pathlib import Path
from typing import NamedTuple

from ..errors import InputError
from .biotypes import parse_annotation_row
from .fasta import bare_name
from .intervals import read_bed
from .source import ANNOTATION, BED, DAMAGED_GZIP, open_packed, regular_file


class Feature(NamedTuple):
    """
    An annotated interval.

    Attributes:
        kind (`str`): The feature type of GTF and GFF3, such as `exon`; of BED, the name of the file.
        start, end (`int`): From 0, half-open.
        strand (`str`): `+`, `-`, or `.` where it is not known.
        name (`str`): Of the gene, or as in the fourth column of BED; may be empty.
    """

    kind: str
    start: int
    end: int
    strand: str
    name: str


def features_in(path, fasta, contig, start, end):
    """
    The features of a file that overlap a region.

    Args:
        path (`str` or `Path`): BED, or GTF or GFF3, plain, gzip or bgzip; the first row tells which.
        fasta ([`Fasta`]): The genome.
        contig (`str`), start, end (`int`): The region, from 0, half-open.

    Returns:
        `list[Feature]`: each once, sorted by kind in the order of the file, then by position; intervals are whole.

    Raises:
        InputError: if the file is absent or damaged, or a row is malformed.
    """
    read = _of_annotation if _is_annotation(path) else _of_bed
    found = [feature for feature in read(path, fasta, contig) if feature.start < end and feature.end > start]
    kinds = list(dict.fromkeys(feature.kind for feature in found))
    return sorted(set(found), key=lambda feature: (kinds.index(feature.kind), feature[1:]))


def _is_annotation(path):
    for _, line in _rows(path, f"{BED}, or {ANNOTATION}"):
        columns = line.rstrip("\r\n").split("\t")
        return len(columns) >= 8 and columns[3].isdecimal() and columns[4].isdecimal()
    raise InputError(f"{path}: there is no interval in it.")


def _rows(path, wanted):
    """The lines of a file that are neither empty nor comments, with their numbers."""
    try:
        with open_packed(regular_file(path, wanted, unpack=False), "rt") as lines:
            for number, line in enumerate(lines, start=1):
                if line.startswith("##FASTA"):  # the sequences, which GFF3 may hold too
                    return
                if line.strip() and not line.startswith("#"):
                    yield number, line
    except (*DAMAGED_GZIP, UnicodeDecodeError) as error:
        raise InputError(f"{path}: this is not readable as {wanted} ({error}).") from error


def _of_annotation(path, fasta, contig):
    for number, line in _rows(path, ANNOTATION):
        columns, attributes, _ = parse_annotation_row(f"{path}, line {number:,}", line)
        if bare_name(columns[0]) == bare_name(contig):
            name = next(filter(None, map(attributes.get, ("gene_name", "Name", "gene_id", "ID"))), "")
            strand = columns[6].replace("?", ".")
            yield Feature(columns[2], int(columns[3]) - 1, int(columns[4]), strand, name)


def _of_bed(path, fasta, contig):
    kind = Path(path).name.split(".")[0]
    for name, start, end, rest in read_bed(path, fasta):
        if name == contig:
            label, _, strand = (*rest, "", "", "")[:3]
            yield Feature(kind, start, end, strand or ".", "" if label == "." else label)
