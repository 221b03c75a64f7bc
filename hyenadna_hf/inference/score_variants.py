"""`hyenadna score-variants`: log-likelihood ratios of the variants in a VCF file, or the reasons why they have none."""

import warnings
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

from ..arguments import CommandParser
from ..data.fasta import Fasta
from ..data.source import regular_file
from ..errors import InputError, WorkError
from ..jobs import output_path, sha256
from ..loading import load_language_model
from .score_table import ABSENT, COLUMNS, score_to_file, summary, write_tsv
from .scoring import ScoringArguments, identity_of
from .variants import WINDOW, Variant, VariantScore, score_variants

VCF = "a VCF or BCF file"
INFO = {
    "HYENADNA_LLR": ("A", "Float", "Log-likelihood ratio of the alternate allele against the reference, in nats"),
    "HYENADNA_REASON": (".", "String", "Why an alternate allele has no HYENADNA_LLR"),
}


@dataclass(kw_only=True)
class ScoreVariantsArguments(ScoringArguments):
    vcf: str = field(metadata={"help": "Variants: VCF, plain or bgzip, or BCF."})
    out: str = field(
        metadata={"help": "File to write: .tsv, one row per alternate allele; .vcf or .vcf.gz, records with INFO."}
    )
    window: int = field(default=WINDOW, metadata={"help": "Bases of the reference around a variant."})


def parser() -> CommandParser:
    """Build the argument parser of `hyenadna score-variants`."""
    return CommandParser(
        "score-variants",
        ScoreVariantsArguments,
        "Log-likelihood ratio, in nats, of each alternate allele to the reference, averaged over both strands. "
        "The same command resumes an interrupted run. For several devices: accelerate launch -m hyenadna_hf "
        "score-variants ...",
        "--vcf IN.vcf --fasta REFERENCE.fa --model MODEL --out OUT.tsv [ARGUMENT ...]",
        [
            "--vcf in.vcf.gz --fasta ref.fa --model my-lm --out out.tsv",
            "--vcf in.vcf.gz --fasta ref.fa --model my-lm --window 4096 --out out.vcf.gz --json",
        ],
    )


def main(argv: list[str]) -> dict[str, Any] | None:
    """Run `hyenadna score-variants` with the arguments `argv`."""
    args, _ = parser().parse(argv)
    reasons = score_vcf(args)
    return None if reasons is None else summary(reasons, args.out)


def score_vcf(args: ScoreVariantsArguments) -> Counter[str | None] | None:
    """
    Score the variants of a VCF file.

    Args:
        args: Command-line arguments.

    Returns:
        See [`~hyenadna_hf.inference.score_table.score_to_file`].

    Raises:
        InputError: If an argument or a file is invalid.
    """
    out = output_path("--out", args.out, (".tsv", ".vcf", ".vcf.gz"))
    with open_vcf(args.vcf):
        pass
    model, tokenizer = load_language_model(args)
    with Fasta(args.fasta) as fasta:

        def score(variants: Iterable[Variant]) -> Iterator[VariantScore]:
            return score_variants(model, tokenizer, variants, fasta, args.window, args.bos, args.max_tokens)

        score(())  # checks the arguments before any file is written
        reads = count()

        def variants() -> Iterator[Variant]:
            return read_vcf(args.vcf, quiet=next(reads) > 0)

        write = write_tsv if out.suffix == ".tsv" else lambda path, rows: write_vcf(args.vcf, path, rows)
        identity = identity_of(args, model, tokenizer, window=args.window, vcf=sha256(regular_file(args.vcf, VCF)))
        return score_to_file(out, identity, variants, score, args.window, write)


def read_vcf(path: str | Path, quiet: bool = False) -> Iterator[Variant]:
    """
    Read the alternate alleles of a VCF or BCF file, in file order.

    Args:
        path: File, plain, bgzip, gzip, or BCF; `-` for standard input.
        quiet: Suppress htslib's warnings, for example in a second pass.

    Yields:
        The variants; for a record without alternate allele, one whose `alternate` is `None`.

    Raises:
        InputError: If the file is missing or damaged.
    """
    with open_vcf(path, quiet) as file:
        for record in vcf_records(path, file):
            for alternate in record.alts or (None,):
                yield Variant(record.contig, record.start, record.ref, alternate, record.id)


def write_vcf(source: str | Path, path: Path, rows: Iterable[list[str]]) -> None:
    """
    Write the records of a VCF file with the scores of their rows in INFO.

    Args:
        source: File that the rows belong to.
        path: File to write, compressed with bgzip if it ends in .gz.
        rows: One row per alternate allele, with the fields of `COLUMNS`.
    """
    import pysam

    rows_by_column = (dict(zip(COLUMNS, row)) for row in rows)
    written = 0
    with open_vcf(source, quiet=True) as file:
        for _ in vcf_records(source, file):  # htslib adds undeclared fields of the records to the header
            pass
        file.reset()
        header = file.header
        for name, (number, kind, description) in INFO.items():
            if name not in header.info:  # otherwise from an earlier run
                header.info.add(name, number, kind, description)
        # As text, because pysam would add END to some records.
        with pysam.BGZFile(str(path), "w") if path.suffix == ".gz" else path.open("wb") as result:
            result.write(str(header).encode())
            for record in vcf_records(source, file):
                alleles = [next(rows_by_column) for _ in record.alts or (None,)]
                ratios = [None if row["llr"] == ABSENT else float(row["llr"]) for row in alleles]
                reasons = ["." if row["reason"] == ABSENT else row["reason"] for row in alleles]
                for name, values, absent in (("HYENADNA_LLR", ratios, None), ("HYENADNA_REASON", reasons, ".")):
                    record.info.pop(name, None)
                    if any(value != absent for value in values):
                        record.info[name] = values
                result.write(str(record).encode())
                written += 1
    next(rows_by_column, None)  # runs the checks after the last row
    count, is_sorted = _read_back(path)
    if count != written:
        raise WorkError(
            f"{path.name}: {written:,} records were written, but {count:,} can be read back; check the free disk space."
        )
    if path.suffix == ".gz" and is_sorted:
        pysam.tabix_index(str(path), preset="vcf")
    elif path.suffix == ".gz":
        warnings.warn(f"{source}: the records are not sorted by position, so no index is written.", stacklevel=2)


def _read_back(path: Path) -> tuple[int, bool]:
    """Count the readable records, and check that they are sorted as an index requires."""
    positions: dict[str, int] = {}
    number, is_sorted = 0, True
    with open_vcf(path, quiet=True) as file:
        for record in vcf_records(path, file):
            number += 1
            is_repeated = record.contig in positions and record.contig != next(reversed(positions))
            is_sorted &= not is_repeated and positions.get(record.contig, 0) <= record.pos
            positions[record.contig] = record.pos
    return number, is_sorted


@contextmanager
def open_vcf(path: str | Path, quiet: bool = False) -> Iterator[Any]:
    """Open a VCF or BCF file as a `pysam.VariantFile`; raise an `InputError` if it is damaged."""
    import pysam

    source = regular_file(path, VCF)
    unreadable = f"{path}: this is not a readable VCF or BCF file"
    verbosity = pysam.set_verbosity(0) if quiet else pysam.get_verbosity()
    try:
        file = pysam.VariantFile(str(source))
    except (OSError, ValueError) as error:
        pysam.set_verbosity(verbosity)
        raise InputError(f"{unreadable} ({error}).") from error
    try:
        yield file
    except BaseException:
        with suppress(OSError):  # closing a damaged file fails, too
            file.close()
        raise
    finally:
        pysam.set_verbosity(verbosity)
    try:
        file.close()
    except OSError as error:
        raise InputError(f"{unreadable} ({error}).") from error


def vcf_records(path: str | Path, file: Any) -> Iterator[Any]:
    """Yield the records of an open VCF file; the `InputError` for a damaged file names the position."""
    position = "the first record"
    try:
        for record in file:
            str(record)  # fails now, not after scoring, if the record is not UTF-8
            yield record
            position = f"the record after {record.contig}:{record.pos:,}"
        position = "the header, with the additions of the records,"
        str(file.header)
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: {position} cannot be read ({error}).") from error
