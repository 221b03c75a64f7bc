"""Tables of variant scores."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from itertools import chain, islice
from pathlib import Path
from typing import Any

from ..errors import WorkError
from ..jobs import Job, replace_file
from ..processes import processes
from .variants import Variant, VariantScore

COLUMNS = ("chrom", "pos", "id", "ref", "alt", "llr", "llr_forward", "llr_reverse", "skipped", "reason")
ABSENT = "NA"

# Size of a part in bases of windows, the work that a kill can lose.
PART_BASES = 1 << 18


def to_row(score: VariantScore) -> list[str]:
    """Format a [`VariantScore`] as the columns `COLUMNS`; `pos` counts from 1, as in VCF."""
    ratios = (None if ratio is None else f"{ratio:.6f}" for ratio in (score.llr, score.llr_forward, score.llr_reverse))
    return [*_locus(score.variant), *(_text(field) for field in (*ratios, score.skipped, score.reason))]


def _locus(variant: Variant) -> list[str]:
    fields = (variant.contig, variant.start + 1, variant.name, variant.reference, variant.alternate)
    return [_text(field) for field in fields]


def _text(field: object) -> str:
    return ABSENT if field is None else str(field)


def write_tsv(path: Path, rows: Iterable[list[str]]) -> None:
    """Write rows below a header line."""
    with path.open("w", encoding="utf-8") as file:
        for row in chain([COLUMNS], rows):  # not as a tuple, which would hold all rows
            file.write("\t".join(row) + "\n")


def score_to_file(
    out: Path,
    identity: dict[str, Any],
    variants: Callable[[], Iterator[Variant]],
    score: Callable[[Iterator[Variant]], Iterator[VariantScore]],
    window: int,
    write: Callable[[Path, Iterator[list[str]]], Any] = write_tsv,
) -> Counter[str | None] | None:
    """
    Score variants in parts and write the rows to a file (see [`~hyenadna_hf.jobs.Job`]).

    Args:
        out: File to write.
        identity: Everything that the rows depend on, JSON-serializable.
        variants: Returns a new iterator of the same variants at every call.
        score: Scores an iterator of variants.
        window: Bases read per variant.
        write: Writes an iterator of rows, as returned by `to_row`, to a path.

    Returns:
        The number of rows by reason; `None` counts the rows with a score. `None` in processes other than the main one.

    Raises:
        InputError: If another run is writing the file (see [`~hyenadna_hf.jobs.Job`]).
        WorkError: If the rows do not match the variants one by one. Nothing is installed then.
    """
    state = processes()
    size = max(1, PART_BASES // window)
    reasons: Counter[str | None] = Counter()

    def make(part: list[Variant], path: Path, advance: Callable[[int], None]) -> None:
        _write_part(path, map(to_row, score(iter(part))), advance)

    def finish(path: Path) -> Counter[str | None]:
        write(path, _count_reasons(_check_rows(_rows(job, number), variants(), job.folder), reasons))
        return reasons

    with Job(out, identity, state) as job:
        total = sum(1 for _ in variants())
        number = -(-total // size)
        job.run(_parts(variants(), size), len, make, "variants", total)
        return job.finish(finish)


def _parts(variants: Iterator[Variant], size: int) -> Iterator[list[Variant]]:
    while part := list(islice(variants, size)):
        yield part


def _write_part(path: Path, rows: Iterable[list[str]], advance: Callable[[int], None]) -> None:
    def write(temporary: Path) -> None:
        with temporary.open("w", encoding="utf-8") as file:
            for row in rows:
                file.write("\t".join(row) + "\n")
                advance(1)

    replace_file(path, write)


def _rows(job: Job, number: int) -> Iterator[list[str]]:
    for part in range(number):
        with job.part(part).open(encoding="utf-8") as file:
            for line in file:
                yield line.removesuffix("\n").split("\t")


def _check_rows(rows: Iterator[list[str]], variants: Iterator[Variant], folder: Path) -> Iterator[list[str]]:
    """Yield the rows, and check that they match the variants."""
    remedy = f"delete {folder} and start again"
    for row in rows:
        variant = next(variants, None)
        if variant is None or row[:5] != _locus(variant) or len(row) != len(COLUMNS):
            raise WorkError(f"{folder}: the row of {':'.join(row[:5])} does not match its variant; {remedy}.")
        yield row
    if (missing := next(variants, None)) is not None:
        raise WorkError(f"{folder}: the row of {':'.join(_locus(missing))} is missing; {remedy}.")


def _count_reasons(rows: Iterator[list[str]], reasons: Counter[str | None]) -> Iterator[list[str]]:
    for row in rows:
        reasons[None if row[-1] == ABSENT else row[-1]] += 1
        yield row


def summary(reasons: Counter[str | None], out: str | Path) -> dict[str, Any]:
    """
    Print how many variants of a table have scores.

    Args:
        reasons: Result of [`score_to_file`].
        out: The table.

    Returns:
        The same as a dictionary: `out`, the number of `alleles`, of `scored` ones, and of `not_scored` ones by reason.
    """
    not_scored = {reason: number for reason, number in sorted(reasons.items(), key=str) if reason}
    without = ", ".join(f"{number:,} {reason}" for reason, number in not_scored.items())
    print(
        f"{out}: {reasons[None]:,} of {reasons.total():,} alleles have a score"
        + (f"; not scored: {without}." if without else ".")
    )
    return {"out": out, "alleles": reasons.total(), "scored": reasons[None], "not_scored": not_scored}
