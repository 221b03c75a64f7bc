"""Genes with their biotypes and sequences, for embedding and telling biotypes apart."""

import gzip
import re
import warnings
import zlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from datasets import ClassLabel, Dataset, DatasetDict, Features, Value

from ..errors import InputError
from .fasta import Fasta
from .sequence import reverse_complement

ATTRIBUTE = re.compile(r'(\w+) "([^"]*)"')
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
    Load the genes of a GTF file with their sequences, classified by biotype.

    A gene is its row `gene`, or where there are none (Ensembl's older files) all that its other rows span. The biotype
    is the attribute `gene_biotype` or `gene_type`, or where there is neither the second column.

    Args:
        gtf (`str` or `Path`): The annotation, plain or with .gz.
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


def _read_genes(gtf, fasta):
    """The genes in the order of the file."""
    if not gtf.is_file():
        raise InputError(f"{gtf}: there is no such file; check the path.")
    genes, spans, codons = {}, {}, Counter()
    try:
        with (gzip.open if gtf.name.endswith(".gz") else open)(gtf, "rt", encoding="utf-8") as lines:
            for number, line in enumerate(lines, start=1):
                if line.strip() and not line.startswith("#"):
                    feature, gene = _parse(f"{gtf}, line {number:,}", line, fasta)
                    if feature == "gene":
                        genes[gene.gene_id, gene.name] = gene
                    span = spans.setdefault((gene.gene_id, gene.name), gene)
                    span.start, span.end = min(span.start, gene.start), max(span.end, gene.end)
                    if feature == "start_codon" and gene.end - gene.start == 3:
                        codons[_row(gene, fasta)["sequence"].upper()] += 1
    except (EOFError, OSError, UnicodeDecodeError, zlib.error) as error:
        raise InputError(f"{gtf}: this is not a readable GTF file ({error}).") from error
    if not spans:
        raise InputError(f"{gtf}: there is not one gene in it.")
    _check_start_codons(gtf, fasta, codons)
    return list((genes or spans).values())


def _parse(where, line, fasta):
    columns = line.rstrip("\r\n").split("\t")
    if len(columns) != 9 or not (columns[3].isdigit() and columns[4].isdigit()) or columns[6] not in ("+", "-", "."):
        raise InputError(
            f"{where}: GTF has nine columns between tabs, with positions in the fourth and fifth and the strand in the "
            f"seventh; here is {line.strip()[:60]!r}."
        )
    attributes = dict(ATTRIBUTE.findall(columns[8]))
    if "gene_id" not in attributes:
        raise InputError(f"{where}: there is no gene_id among the attributes; is this GFF3? Convert it to GTF.")
    start, end = int(columns[3]) - 1, int(columns[4])
    try:
        name = fasta.resolve(columns[0])
    except InputError as error:
        raise InputError(f"{where}: {error} Is the annotation that of another genome?") from error
    if not 0 <= start < end <= fasta.lengths[name]:
        raise InputError(
            f"{where}: {columns[0]} from {start + 1:,} to {end:,} is no piece of {name}, which has "
            f"{fasta.lengths[name]:,} bases in {fasta.path}; the annotation is that of another genome or release."
        )
    biotype = attributes.get("gene_biotype") or attributes.get("gene_type") or columns[1]
    gene_id = attributes["gene_id"]
    gene = _Gene(gene_id, attributes.get("gene_name", gene_id), biotype, name, start, end, columns[6])
    return columns[2], gene


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
