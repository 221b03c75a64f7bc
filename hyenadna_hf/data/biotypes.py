"""Genes with their biotypes and sequences, for embedding and telling biotypes apart."""

import re
import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote

from datasets import ClassLabel, Dataset, DatasetDict, Features, Value

from ..errors import InputError
from .fasta import Fasta
from .sequence import normalised, reverse_complement
from .source import ANNOTATION, DAMAGED_GZIP, open_packed, regular_file

ATTRIBUTE = re.compile(r'(\w+) "([^"]*)"')
GFF3 = re.compile(r"\s*\w+=")  # how its attributes begin
GENE = re.compile("([a-zA-Z_]+_)?(pseudo)?gene")  # feature types, such as ncRNA_gene
# Of the start codons of an annotation that fits its genome nearly all are ATG; anywhere else one in 64 is.
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

    A gene is its row `gene` (in GFF3 also `pseudogene`, `ncRNA_gene` and the like), or in a GTF file without such rows
    (Ensembl's older ones) all that its other rows span. The biotype is the attribute `gene_biotype`, `gene_type` or
    `biotype`; without one, the second column of GTF or the feature type of GFF3.

    Args:
        gtf (`str` or `Path`): The annotation, plain, gzip or bgzip, or `-` for standard input. The format is told from
            the attributes.
        fasta (`str`, `Path` or [`Fasta`]): The genome that it belongs to.
        biotypes (`list[str]`, *optional*): Which to take. All that have `min_genes` by default.
        min_genes (`int`, defaults to 10): Biotypes with fewer genes are left out, with a warning that counts them.
        validation_fraction, test_fraction (`float`, default to 0.1 and 0.2): Share of each biotype to hold out.
        seed (`int`, defaults to 42): Of what is held out.

    Returns:
        `DatasetDict` with splits `train`, `validation` and `test`, and columns `sequence` (`string`, read in the
        direction of the gene), `label` (`ClassLabel` of the biotypes in alphabetical order), `gene_id`, `gene_name`,
        `name`, `start`, `end` (0-based, half-open) and `strand`.

    Raises:
        InputError: naming the line, if a row is malformed or not in the genome; if the annotation is that of another
            genome, as its start codons tell; or if fewer than two biotypes are left.
    """
    fasta = fasta if isinstance(fasta, Fasta) else Fasta(fasta)
    genes = _read_genes(Path(gtf).expanduser(), fasta)
    counts = Counter(gene.biotype for gene in genes)
    absent = [name for name in biotypes or () if name not in counts]
    if absent:
        raise InputError(f"{gtf}: the class {absent[0]!r} is empty; its biotypes are {', '.join(sorted(counts))}.")
    names = sorted(name for name in biotypes or counts if counts[name] >= min_genes)
    rare = {name: counts[name] for name in biotypes or counts if counts[name] < min_genes}
    if rare:
        left_out = ", ".join(f"{name} ({count:,})" for name, count in sorted(rare.items()))
        warnings.warn(f"{gtf}: biotypes with fewer than {min_genes} genes are left out: {left_out}.", stacklevel=2)
    if len(names) < 2:
        raise InputError(
            f"{gtf}: {len(names)} of its biotypes have {min_genes} genes or more, two are needed; lower min_genes."
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
        held = rest["train"].train_test_split(
            validation_fraction / (1 - test_fraction), seed=seed, stratify_by_column="label"
        )
    except ValueError as error:
        raise InputError(f"{gtf}: cannot hold genes out by biotype ({error}).") from error
    return DatasetDict({"train": held["train"], "validation": held["test"], "test": rest["test"]})


def _row(gene, fasta):
    sequence = fasta.fetch(gene.name, gene.start, gene.end)
    return {
        "sequence": reverse_complement(sequence) if gene.strand == "-" else sequence,
        "label": gene.biotype,
        **{name: getattr(gene, name) for name in ("gene_id", "gene_name", "name", "strand", "start", "end")},
    }


def _read_genes(gtf: Path, fasta: Fasta) -> list[_Gene]:
    """The genes in the order of the file."""
    genes: dict[tuple[str, str], _Gene] = {}
    spans: dict[tuple[str, str], _Gene] = {}
    coding: dict[tuple[str, str], tuple[_Gene, str]] = {}  # first CDS row and its phase, by transcript and sequence
    codons: Counter[str] = Counter()
    try:
        with open_packed(regular_file(gtf, ANNOTATION, unpack=False), "rt") as lines:
            for number, line in enumerate(lines, start=1):
                if line.startswith("##FASTA"):  # the sequences, which GFF3 may hold too
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
                    codons[normalised(_row(row, fasta)["sequence"])] += 1
                elif feature == "CDS" and is_gff3 and "Parent" in attributes:
                    transcript = attributes["Parent"], row.name
                    coding[transcript] = min((row, columns[7]), coding.get(transcript, (row, "")), key=_reading_order)
                if not is_gff3:
                    span = spans.setdefault((row.gene_id, row.name), row)
                    span.start, span.end = min(span.start, row.start), max(span.end, row.end)
    except (*DAMAGED_GZIP, UnicodeDecodeError) as error:
        raise InputError(f"{gtf}: this is not a readable GTF or GFF3 file ({error}).") from error
    if not genes and not spans:
        raise InputError(f"{gtf}: there is not one gene in it.")
    _check_start_codons(gtf, fasta, codons or _first_codons(coding.values(), fasta))
    return list((genes or spans).values())


def parse_annotation_row(where, line):
    """The columns of a row, its attributes, and whether they are those of GFF3."""
    columns = line.rstrip("\r\n").split("\t")
    if (
        len(columns) != 9
        or not all(re.fullmatch(r"\d{1,18}", column) for column in columns[3:5])
        or columns[6] not in ("+", "-", ".", "?")
    ):
        raise InputError(
            f"{where}: GTF and GFF3 have nine columns between tabs, with positions in the fourth and fifth and the "
            f"strand in the seventh; here is {line.strip()[:60]!r}."
        )
    if not GFF3.match(columns[8]):
        return columns, dict(ATTRIBUTE.findall(columns[8])), False
    pairs = (part.partition("=") for part in columns[8].split(";"))
    return columns, {name.strip(): unquote(value.strip()) for name, _, value in pairs}, True


def _gene(where, columns, attributes, is_gff3, fasta):
    """A row as a gene, or as a piece of one."""
    gene_id = attributes.get("gene_id") or re.sub("^gene[:-]", "", attributes.get("ID", ""))
    if not gene_id and (GENE.fullmatch(columns[2]) or not is_gff3):
        raise InputError(f"{where}: there is no {'ID' if is_gff3 else 'gene_id'} among the attributes; add it.")
    start, end = int(columns[3]) - 1, int(columns[4])
    contig = unquote(columns[0]) if is_gff3 else columns[0]
    try:
        name = fasta.resolve(contig)
    except InputError as error:
        raise InputError(f"{where}: {error} Is the annotation that of another genome?") from error
    if not 0 <= start < end <= fasta.lengths[name]:
        raise InputError(
            f"{where}: {contig} from {start + 1:,} to {end:,} is no piece of {name}, which has "
            f"{fasta.lengths[name]:,} bases in {fasta.path}; the annotation is that of another genome or release."
        )
    found = (attributes.get(key) for key in ("gene_biotype", "gene_type", "biotype"))
    biotype = next(filter(None, found), columns[2 if is_gff3 else 1])
    gene_name = attributes.get("gene_name") or attributes.get("Name") or gene_id
    return _Gene(gene_id, gene_name, biotype, name, start, end, columns[6])


def _reading_order(coding):
    row, _ = coding
    return -row.end if row.strand == "-" else row.start


def _first_codons(coding, fasta):
    """The first codons of transcripts, from the first CDS row and its phase of each; incomplete ones are left out."""
    complete = (row for row, phase in coding if phase == "0" and row.end - row.start >= 3)
    return Counter(normalised(_row(row, fasta)["sequence"][:3]) for row in complete)


def _check_start_codons(gtf, fasta, codons):
    total, atg = sum(codons.values()), codons["ATG"]
    if total < 10 or atg >= USUAL_ATG * total:
        return
    found = f"{gtf}: of {total:,} start codons {atg:,} are ATG in {fasta.path}"
    if atg < LEAST_ATG * total:
        raise InputError(f"{found}; the annotation is that of another genome or release.")
    warnings.warn(
        f"{found}; is the annotation that of another release? Its genes may be off by some bases.", stacklevel=4
    )
