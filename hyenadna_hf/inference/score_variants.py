"""`hyenadna score-variants`: the variants of a VCF file, each with its log-likelihood ratio or why there is none."""

import warnings
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from itertools import count

from ..arguments import CommandParser
from ..data.fasta import Fasta
from ..data.source import regular_file
from ..errors import InputError, WorkError
from ..jobs import output_path, sha256
from ..loading import load_language_model
from .score_table import ABSENT, COLUMNS, score_to_file, summary, write_tsv
from .scoring import ScoringArguments, identity_of
from .variants import WINDOW, Variant, score_variants

VCF = "a VCF or BCF file"
INFO = {
    "HYENADNA_LLR": ("A", "Float", "Log-likelihood ratio of the alternate allele against the reference, in nats"),
    "HYENADNA_REASON": (".", "String", "Why an alternate allele has no HYENADNA_LLR"),
}


@dataclass(kw_only=True)
class ScoreVariantsArguments(ScoringArguments):
    vcf: str = field(metadata={"help": "The variants: VCF, plain or bgzip, or BCF."})
    out: str = field(
        metadata={"help": "What to write: .tsv, a row an alternate allele; .vcf or .vcf.gz, the records with INFO."}
    )
    window: int = field(default=WINDOW, metadata={"help": "Bases of the reference around a variant."})


def parser():
    """The arguments of `hyenadna score-variants`."""
    return CommandParser(
        "score-variants",
        ScoreVariantsArguments,
        "Log-likelihood ratio, in nats, of each alternate allele against the reference, as the mean of both strands. "
        "The same command resumes a run that was stopped. Several devices: accelerate launch -m hyenadna_hf "
        "score-variants ...",
        "--vcf IN.vcf --fasta REFERENCE.fa --model MODEL --out OUT.tsv [ARGUMENT ...]",
        [
            "--vcf in.vcf.gz --fasta ref.fa --model my-lm --out out.tsv",
            "--vcf in.vcf.gz --fasta ref.fa --model my-lm --window 4096 --out out.vcf.gz --json",
        ],
    )


def main(argv):
    """Run `hyenadna score-variants` with the arguments `argv` (a list of `str`)."""
    args, _ = parser().parse(argv)
    reasons = score_vcf(args)
    return None if reasons is None else summary(reasons, args.out)


def score_vcf(args):
    """
    Score the variants of a VCF file.

    Args:
        args ([`ScoreVariantsArguments`]): As on the command line.

    Returns:
        `Counter`: see [`~hyenadna_hf.inference.score_table.score_to_file`].

    Raises:
        InputError: if an argument or a file will not do.
    """
    out = output_path("--out", args.out, (".tsv", ".vcf", ".vcf.gz"))
    with open_vcf(args.vcf):
        pass
    model, tokenizer = load_language_model(args)
    with Fasta(args.fasta) as fasta:

        def score(variants):
            return score_variants(model, tokenizer, variants, fasta, args.window, args.bos, args.max_tokens)

        score(())  # refuses bad arguments before any file is made
        reads = count()

        def variants():
            return read_vcf(args.vcf, quiet=next(reads) > 0)

        write = write_tsv if out.suffix == ".tsv" else lambda path, rows: write_vcf(args.vcf, path, rows)
        identity = identity_of(args, model, tokenizer, window=args.window, vcf=sha256(regular_file(args.vcf, VCF)))
        return score_to_file(out, identity, variants, score, args.window, write)


def read_vcf(path, quiet=False):
    """
    The alternate alleles of a VCF or BCF file, in its order.

    Args:
        path (`str` or `Path`): Plain, bgzip, gzip, or BCF; `-` for standard input.
        quiet (`bool`, defaults to `False`): Leave out htslib's warnings, as at a second reading.

    Yields:
        [`Variant`]; for a record without alternate one whose `alternate` is `None`.

    Raises:
        InputError: if the file is absent or damaged.
    """
    with open_vcf(path, quiet) as file:
        for record in vcf_records(path, file):
            for alternate in record.alts or (None,):
                yield Variant(record.contig, record.start, record.ref, alternate, record.id)


def write_vcf(source, path, rows):
    """
    Write the records of a VCF file with what their rows say in INFO.

    Args:
        source (`str` or `Path`): The file that the rows are of.
        path (`Path`): What to write; compressed with bgzip if it ends in .gz.
        rows (iterator of `list[str]`): One an alternate allele, with the fields of `COLUMNS`.
    """
    import pysam

    rows = (dict(zip(COLUMNS, row)) for row in rows)
    written = 0
    with open_vcf(source, quiet=True) as file:
        for _ in vcf_records(source, file):  # adds to the header what records have and it does not declare
            pass
        file.reset()
        header = file.header
        for name, (number, kind, description) in INFO.items():
            if name not in header.info:  # else from an earlier run
                header.info.add(name, number, kind, description)
        # As text: pysam's own writing would add END to some records.
        with pysam.BGZFile(str(path), "w") if path.suffix == ".gz" else path.open("wb") as result:
            result.write(str(header).encode())
            for record in vcf_records(source, file):
                alleles = [next(rows) for _ in record.alts or (None,)]
                ratios = [None if row["llr"] == ABSENT else float(row["llr"]) for row in alleles]
                reasons = ["." if row["reason"] == ABSENT else row["reason"] for row in alleles]
                for name, values, absent in (("HYENADNA_LLR", ratios, None), ("HYENADNA_REASON", reasons, ".")):
                    record.info.pop(name, None)
                    if any(value != absent for value in values):
                        record.info[name] = values
                result.write(str(record).encode())
                written += 1
    next(rows, None)  # lets the rows be checked to their end
    found, in_order = _read_back(path)
    if found != written:
        raise WorkError(f"{path.name}: {written:,} records were written, but {found:,} can be read; is the disk full?")
    if path.suffix == ".gz" and in_order:
        pysam.tabix_index(str(path), preset="vcf")
    elif path.suffix == ".gz":
        warnings.warn(f"{source}: its records are not in order of position, so there is no index.", stacklevel=2)


def _read_back(path):
    """How many records can be read, and whether they are in the order that an index needs."""
    places, number, in_order = {}, 0, True  # the last position on each contig
    with open_vcf(path, quiet=True) as file:
        for record in vcf_records(path, file):
            number += 1
            comes_back = record.contig in places and record.contig != next(reversed(places))
            in_order &= not comes_back and places.get(record.contig, 0) <= record.pos
            places[record.contig] = record.pos
    return number, in_order


@contextmanager
def open_vcf(path, quiet=False):
    """Open a VCF or BCF file as a `pysam.VariantFile`, in a `with` statement; an `InputError` if it is damaged."""
    import pysam

    source = regular_file(path, VCF)
    unreadable = f"{path}: this is not a readable VCF or BCF file"
    before = pysam.set_verbosity(0) if quiet else pysam.get_verbosity()
    try:
        file = pysam.VariantFile(str(source))
    except (OSError, ValueError) as error:
        pysam.set_verbosity(before)
        raise InputError(f"{unreadable} ({error}).") from error
    try:
        yield file
    except BaseException:
        with suppress(OSError):  # a damaged file cannot be closed either
            file.close()
        raise
    finally:
        pysam.set_verbosity(before)
    try:
        file.close()
    except OSError as error:
        raise InputError(f"{unreadable} ({error}).") from error


def vcf_records(path, file):
    """The records of a file of [`open_vcf`]; an `InputError` names the place where it is damaged."""
    position = "the first record"
    try:
        for record in file:
            str(record)  # refuses what is no UTF-8 before it is scored and cannot be written
            yield record
            position = f"the record behind {record.contig}:{record.pos:,}"
        position = "the header, with what the records add to it,"
        str(file.header)
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: {position} cannot be read ({error}).") from error
