"""Gene sequences labelled with their biotypes, from an annotation and a genome."""

import re
import warnings
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from datasets import ClassLabel, Dataset, DatasetDict, Features, Value

from ..errors import InputError
from .fasta import Fasta
from .sequence import normalise, reverse_complement
from .source import ANNOTATION, DAMAGED_GZIP, open_packed, regular_file

ATTRIBUTE = re.compile(r'(\w+) "([^"]*)"')
GFF3 = re.compile(r"\s*\w+=")  # start of its attributes
GENE = re.compile("([a-zA-Z_]+_)?(pseudo)?gene")  # feature types, such as ncRNA_gene
# If the annotation matches the genome, nearly all start codons are ATG; otherwise one in 64 is.
LEAST_ATG, USUAL_ATG = 0.25, 0.75


@dataclass
class _Gene:
    gene_id: str
    gene_name: str
    biotype: str
    name: str
    start: int
    end: int
    strand: str


def load_biotypes(
    gtf: str | Path,
    fasta: str | Path | Fasta,
    biotypes: Sequence[str] | None = None,
    min_genes: int = 10,
    validation_fraction: float = 0.1,
    test_fraction: float = 0.2,
    seed: int = 42,
) -> DatasetDict:
    """
    Load the genes of a GTF or GFF3 file with their sequences, classified by biotype.

    A gene is a row of type `gene` (in GFF3 also `pseudogene`, `ncRNA_gene` and so on). In a GTF file without such rows,
    as in older Ensembl releases, it is the span of all rows with the same gene id. The biotype is the attribute
    `gene_biotype`, `gene_type` or `biotype`, or otherwise the second column in GTF and the feature type in GFF3.

    Args:
        gtf: Annotation, plain, gzip or bgzip, or `-` for standard input. The format is detected from the attributes.
        fasta: Genome of the annotation.
        biotypes: Biotypes to load. Defaults to all with at least `min_genes` genes.
        min_genes: Skip biotypes with fewer genes, with a warning that lists them.
        validation_fraction: Fraction of each biotype to hold out for validation.
        test_fraction: Fraction of each biotype to hold out for test.
        seed: Random seed of the splits.

    Returns:
        A `DatasetDict` with splits `train`, `validation` and `test`, and columns `sequence` (`string`, in the direction
        of the gene), `label` (`ClassLabel` of the biotypes in alphabetical order), `gene_id`, `gene_name`, `name`,
        `start`, `end` (0-based, half-open) and `strand`.

    Raises:
        InputError: If a row is malformed or outside the genome (the error names the line), the start codons show that
            the annotation belongs to another genome, or fewer than two biotypes remain.
    """
    fasta = fasta if isinstance(fasta, Fasta) else Fasta(fasta)
    genes = _read_genes(Path(gtf).expanduser(), fasta)
    counts = Counter(gene.biotype for gene in genes)
    absent = [name for name in biotypes or () if name not in counts]
    if absent:
        raise InputError(f"{gtf}: it has no gene of biotype {absent[0]!r}; choose from {', '.join(sorted(counts))}.")
    names = sorted(name for name in biotypes or counts if counts[name] >= min_genes)
    rare = {name: counts[name] for name in biotypes or counts if counts[name] < min_genes}
    if rare:
        skipped = ", ".join(f"{name} ({count:,})" for name, count in sorted(rare.items()))
        warnings.warn(f"{gtf}: skipping biotypes with fewer than {min_genes} genes: {skipped}.", stacklevel=2)
    if len(names) < 2:
        raise InputError(
            f"{gtf}: fewer than two biotypes ({', '.join(names) or 'none'}) have at least {min_genes} genes; lower "
            "min_genes."
        )
    features = Features(
        {
            "sequence": Value("string"),
            "label": ClassLabel(names=names),
            **{name: Value("string") for name in ("gene_id", "gene_name", "name", "strand")},
            **{name: Value("int64") for name in ("start", "end")},
        }
    )
    rows = [_row(gene, fasta) for gene in genes if gene.biotype in names]
    data = Dataset.from_list(rows, features=features)
    try:
        rest = data.train_test_split(test_fraction, seed=seed, stratify_by_column="label")
        remaining = rest["train"].train_test_split(
            validation_fraction / (1 - test_fraction), seed=seed, stratify_by_column="label"
        )
    except ValueError as error:
        raise InputError(f"{gtf}: cannot split the genes by biotype ({error}).") from error
    return DatasetDict({"train": remaining["train"], "validation": remaining["test"], "test": rest["test"]})


def _row(gene: _Gene, fasta: Fasta) -> dict[str, Any]:
    sequence = fasta.fetch(gene.name, gene.start, gene.end)
    return {
        "sequence": reverse_complement(sequence) if gene.strand == "-" else sequence,
        "label": gene.biotype,
        **{name: getattr(gene, name) for name in ("gene_id", "gene_name", "name", "strand", "start", "end")},
    }


def _read_genes(gtf: Path, fasta: Fasta) -> list[_Gene]:
    """Read the genes in file order."""
    genes: dict[tuple[str, str], _Gene] = {}
    spans: dict[tuple[str, str], _Gene] = {}
    coding: dict[tuple[str, str], tuple[_Gene, str]] = {}  # first CDS row and its phase, by transcript and sequence
    codons: Counter[str] = Counter()
    try:
        with open_packed(regular_file(gtf, ANNOTATION, unpack=False), "rt") as lines:
            for number, line in enumerate(lines, start=1):
                if line.startswith("##FASTA"):  # start of the sequences that GFF3 may contain
                    break
                if not line.strip() or line.startswith("#"):
                    continue
                where = f"{gtf}, line {number:,}"
                columns, attributes, is_gff3 = parse_annotation_row(where, line)
                feature, is_gene = columns[2], GENE.fullmatch(columns[2])
                if is_gff3 and not is_gene and feature not in ("CDS", "start_codon"):
                    continue
                row = _gene(where, columns, attributes, is_gff3, fasta)
                if is_gene:
                    genes[row.gene_id, row.name] = row
                if feature == "start_codon" and row.end - row.start == 3:
                    codons[normalise(_row(row, fasta)["sequence"])] += 1
                elif feature == "CDS" and is_gff3 and "Parent" in attributes:
                    transcript = attributes["Parent"], row.name
                    coding[transcript] = min((row, columns[7]), coding.get(transcript, (row, "")), key=_first_base)
                if not is_gff3:
                    span = spans.setdefault((row.gene_id, row.name), row)
                    span.start, span.end = min(span.start, row.start), max(span.end, row.end)
    except (*DAMAGED_GZIP, UnicodeDecodeError) as error:
        raise InputError(f"{gtf}: this is not a readable GTF or GFF3 file ({error}).") from error
    if not genes and not spans:
        raise InputError(f"{gtf}: the file contains no gene.")
    _check_start_codons(gtf, fasta, codons or _first_codons(coding.values(), fasta))
    return list((genes or spans).values())


def parse_annotation_row(where: str, line: str) -> tuple[list[str], dict[str, str], bool]:
    """Split a row into its columns and attributes, and tell whether it is GFF3."""
    columns = line.rstrip("\r\n").split("\t")
    if (
        len(columns) != 9
        or not all(re.fullmatch(r"\d{1,18}", column) for column in columns[3:5])
        or columns[6] not in ("+", "-", ".", "?")
    ):
        raise InputError(
            f"{where}: GTF and GFF3 have nine tab-separated columns, with positions in the fourth and fifth and the "
            f"strand in the seventh; this line is {line.strip()[:60]!r}."
        )
    if not GFF3.match(columns[8]):
        return columns, dict(ATTRIBUTE.findall(columns[8])), False
    pairs = (part.partition("=") for part in columns[8].split(";"))
    return columns, {name.strip(): unquote(value.strip()) for name, _, value in pairs}, True


def _gene(where: str, columns: list[str], attributes: dict[str, str], is_gff3: bool, fasta: Fasta) -> _Gene:
    """Build a gene, or a piece of one, from a row."""
    gene_id = attributes.get("gene_id") or re.sub("^gene[:-]", "", attributes.get("ID", ""))
    if not gene_id and (GENE.fullmatch(columns[2]) or not is_gff3):
        raise InputError(f"{where}: the attribute {'ID' if is_gff3 else 'gene_id'} is missing; add it.")
    start, end = int(columns[3]) - 1, int(columns[4])
    contig = unquote(columns[0]) if is_gff3 else columns[0]
    try:
        name = fasta.resolve(contig)
    except InputError as error:
        raise InputError(f"{where}: {error} The annotation may belong to another genome.") from error
    if not 0 <= start < end <= fasta.lengths[name]:
        raise InputError(
            f"{where}: {contig}:{start + 1:,}-{end:,} is outside {name}, which has "
            f"{fasta.lengths[name]:,} bases in {fasta.path}; use the annotation of this genome and release."
        )
    candidates = (attributes.get(key) for key in ("gene_biotype", "gene_type", "biotype"))
    biotype = next(filter(None, candidates), columns[2 if is_gff3 else 1])
    gene_name = attributes.get("gene_name") or attributes.get("Name") or gene_id
    return _Gene(gene_id, gene_name, biotype, name, start, end, columns[6])


def _first_base(coding: tuple[_Gene, str]) -> int:
    row, _ = coding
    return -row.end if row.strand == "-" else row.start


def _first_codons(coding: Iterable[tuple[_Gene, str]], fasta: Fasta) -> Counter[str]:
    """Count the first codons of transcripts, given the first CDS row and its phase of each; skip incomplete ones."""
    complete = (row for row, phase in coding if phase == "0" and row.end - row.start >= 3)
    return Counter(normalise(_row(row, fasta)["sequence"][:3]) for row in complete)


def _check_start_codons(gtf: Path, fasta: Fasta, codons: Counter[str]) -> None:
    total, atg = sum(codons.values()), codons["ATG"]
    if total < 10 or atg >= USUAL_ATG * total:
        return
    finding = f"{gtf}: {atg:,} of {total:,} start codons are ATG in {fasta.path}"
    if atg < LEAST_ATG * total:
        raise InputError(f"{finding}; use the annotation of this genome and release.")
    warnings.warn(
        f"{finding}; if the annotation belongs to another release, genes may be shifted by some bases.", stacklevel=4
    )
