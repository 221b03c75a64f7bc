"""Tables of variant scores."""

from collections import Counter
from collections.abc import Callable
from itertools import islice
from pathlib import Path

from ..errors import WorkError
from ..jobs import Job, replace_file
from ..processes import processes

COLUMNS = ("chrom", "pos", "id", "ref", "alt", "llr", "llr_forward", "llr_reverse", "skipped", "reason")
ABSENT = "NA"

# A part has variants with so many bases of windows: what a kill can cost.
PART_BASES = 1 << 18


def to_row(score):
    """The fields of a [`VariantScore`] as text, in the order of `COLUMNS`; `pos` counts from 1, as in VCF."""
    ratios = (None if ratio is None else f"{ratio:.6f}" for ratio in (score.llr, score.llr_forward, score.llr_reverse))
    return [*_locus(score.variant), *(_text(field) for field in (*ratios, score.skipped, score.reason))]


def _locus(variant):
    fields = (variant.contig, variant.start + 1, variant.name, variant.reference, variant.alternate)
    return [_text(field) for field in fields]


def _text(field):
    return ABSENT if field is None else str(field)


def write_tsv(path, rows) -> None:
    """Write rows below a line with the names of their columns."""
    with path.open("w", encoding="utf-8") as file:
        for row in (COLUMNS, *rows):
            file.write("\t".join(row) + "\n")


def score_to_file(
    out: Path, identity: dict, variants: Callable, score: Callable, window: int, write: Callable | None = write_tsv
) -> Counter:
    """
    Score variants in parts and write the rows to a file; see [`~hyenadna_hf.jobs.Job`].

    Args:
        out: The file to make.
        identity: All that the rows depend on, for JSON.
        variants: Gives an iterator of [`Variant`], the same at every call.
        score: Gives an iterator of [`VariantScore`] for one of [`Variant`].
        window: Bases that are read for a variant.
        write: Writes an iterator of rows, as `to_row` makes them, to a path.

    Returns:
        How many rows there are of each reason, and of `None`: those with a score. In other processes than the main one
        `None`.

    Raises:
        InputError: As [`~hyenadna_hf.jobs.Job`].
        WorkError: If the rows are not those of the variants, one each and in their order. Nothing is installed then.
    """
    state = processes()
    size = max(1, PART_BASES // window)
    reasons: Counter = Counter()

    def make(part, path, advance) -> None:
        _write_part(path, map(to_row, score(iter(part))), advance)

    def finish(path):
        write(path, _counted(_checked(_rows(job, number), variants(), job.folder), reasons))
        return reasons

    with Job(out, identity, state) as job:
        total = sum(1 for _ in variants())
        number = -(-total // size)
        job.run(_parts(variants(), size), len, make, "variants", total)
        return job.finish(finish)


def _parts(variants, size):
    while part := list(islice(variants, size)):
        yield part


def _write_part(path, rows, advance) -> None:
    def write(temporary) -> None:
        with temporary.open("w", encoding="utf-8") as file:
            for row in rows:
                file.write("\t".join(row) + "\n")
                advance(1)

    replace_file(path, write)


def _rows(job, number: int):
    for part in range(number):
        with job.part(part).open(encoding="utf-8") as file:
            for line in file:
                yield line.removesuffix("\n").split("\t")


def _checked(rows, variants, folder: Path):
    """The rows, if they are those of the variants."""
    remedy = f"delete {folder} and start anew"
    for row in rows:
        variant = next(variants, None)
        if variant is None or row[:5] != _locus(variant) or len(row) != len(COLUMNS):
            raise WorkError(f"{folder}: the row of {':'.join(row[:5])} is not where its variant is; {remedy}.")
        yield row
    if (missing := next(variants, None)) is not None:
        raise WorkError(f"{folder}: there is no row of {':'.join(_locus(missing))}; {remedy}.")


def _counted(rows, reasons):
    for row in rows:
        reasons[None if row[-1] == ABSENT else row[-1]] += 1
        yield row


def summary(reasons: Counter, out: Path) -> dict:
    """
    Say in one sentence what is in a table.

    Args:
        reasons: As from [`score_to_file`].
        out: The table.

    Returns:
        The same: `out`, how many `alleles` there are, `scored` ones, and `not_scored` ones by reason.
    """
    not_scored = {reason: number for reason, number in sorted(reasons.items(), key=str) if reason}
    without = ", ".join(f"{number:,} {reason}" for reason, number in not_scored.items())
    print(
        f"{out}: {reasons[None]:,} of {reasons.total():,} alleles have a score"
        + (f"; not scored: {without}." if without else ".")
    )
    return {"out": out, "alleles": reasons.total(), "scored": reasons[None], "not_scored": not_scored}
