"""Tables of variant scores: written row by row by one or more processes, and resumed where a run was killed."""

import glob
import json
from collections import Counter
from contextlib import ExitStack
from itertools import count, islice

from rich.console import Console
from rich.progress import track

from ..errors import InputError
from .command import processes, replace_file

COLUMNS = ("chrom", "pos", "id", "ref", "alt", "llr", "llr_forward", "llr_reverse", "skipped", "reason")
ABSENT = "NA"

# Processes take turns after so many rows.
BLOCK = 64


def to_row(score):
    """The fields of a [`VariantScore`] as text, in the order of `COLUMNS`; `pos` counts from 1, as in VCF."""
    variant = score.variant
    ratios = (None if ratio is None else f"{ratio:.6f}" for ratio in (score.llr, score.llr_forward, score.llr_reverse))
    fields = (
        *(variant.contig, variant.start + 1, variant.name, variant.reference, variant.alternate),
        *(*ratios, score.skipped, score.reason),
    )
    return [ABSENT if field is None else str(field) for field in fields]


def write_tsv(path, rows):
    """Write rows under a line with the names of their columns."""
    with path.open("w", encoding="utf-8") as file:
        for row in (COLUMNS, *rows):
            file.write("\t".join(row) + "\n")


def score_to_file(out, job, variants, score, write=write_tsv):
    """
    Score variants and write the rows to a file, which appears when it is whole.

    Each process writes the rows of its share to `OUT.partIofN` as they come. After a kill, the same call goes on behind
    the last whole row. When all are done, the main process puts the parts together and removes them.

    Args:
        out (`Path`): The file to make.
        job (`dict`): What the rows depend on, for JSON; parts of another job are not gone on with.
        variants (`Callable`): Gives an iterator of [`Variant`], from the first one on at every call.
        score (`Callable`): Gives an iterator of [`VariantScore`] for one of [`Variant`].
        write (`Callable`, *optional*): Writes an iterator of rows, as `to_row` makes them, to a path.

    Returns:
        `Counter`: how many rows there are of each reason, and of `None`: those with a score. In other processes than
        the main one `None`.

    Raises:
        InputError: if there are parts of another job.
    """
    state = processes()
    parts = [out.with_name(f"{out.name}.part{index}of{state.num_processes}") for index in range(state.num_processes)]
    _refuse_other_parts(out, parts)

    def share():
        turns = (number // BLOCK % state.num_processes for number in count())
        return (variant for variant, turn in zip(variants(), turns) if turn == state.process_index)

    total = sum(1 for _ in share())
    part, done = _resume(parts[state.process_index], job)
    with part:
        console = Console(stderr=True)
        progress = {"total": total, "completed": done, "console": console}
        progress["disable"] = not (console.is_terminal and state.is_main_process)
        for scored in track(score(islice(share(), done, None)), "Scoring", **progress):
            part.write("\t".join(to_row(scored)) + "\n")
    state.wait_for_everyone()
    if not state.is_main_process:
        return None
    reasons = Counter()
    replace_file(out, lambda temporary: write(temporary, _counted(_rows(parts), reasons)))
    for path in parts:
        path.unlink()
    return reasons


def summary(reasons, out):
    """
    Say in one sentence what is in a table.

    Args:
        reasons (`Counter`): As from [`score_to_file`].
        out (`Path`): The table.

    Returns:
        `dict`: the same: `out`, how many `alleles` there are, `scored` ones, and `not_scored` ones by reason.
    """
    not_scored = {reason: number for reason, number in sorted(reasons.items(), key=str) if reason}
    without = ", ".join(f"{number:,} {reason}" for reason, number in not_scored.items())
    print(
        f"{out}: {reasons[None]:,} of {reasons.total():,} alleles have a score"
        + (f"; not scored: {without}." if without else ".")
    )
    return {"out": out, "alleles": reasons.total(), "scored": reasons[None], "not_scored": not_scored}


def _refuse_other_parts(out, parts):
    for path in out.parent.glob(f"{glob.escape(out.name)}.part*of*"):
        if path not in parts:
            raise InputError(
                f"{path}: a run with another number of processes left this; finish that run, or delete the file."
            )


def _resume(path, job):
    """A part opened for appending a line at a time, without the line that a kill cut short, and its number of rows."""
    header = json.dumps(job, sort_keys=True)
    with path.open("a+b") as file:
        file.seek(0)
        first = file.readline()
        if not first.endswith(b"\n"):
            file.truncate(0)
            file.write(header.encode() + b"\n")
            rows = 0
        else:
            _check_same(path, json.loads(first), json.loads(header))
            rows, end = 0, len(first)
            for line in file:
                if line.endswith(b"\n"):
                    rows, end = rows + 1, end + len(line)
            file.truncate(end)
    return path.open("a", buffering=1, encoding="utf-8"), rows


def _check_same(path, before, now):
    different = next((key for key in {**before, **now} if before.get(key) != now.get(key)), None)
    if different is not None:
        raise InputError(
            f"{path}: an unfinished run with another {different} left this ({before.get(different)}, now "
            f"{now.get(different)}); finish that run, or delete the file."
        )


def _rows(parts):
    """The rows of all parts in their order: a block of each in turn."""
    with ExitStack() as stack:
        files = [stack.enter_context(path.open(encoding="utf-8")) for path in parts]
        for file in files:
            next(file)
        while True:
            for file in files:
                lines = list(islice(file, BLOCK))
                yield from (line.rstrip("\n").split("\t") for line in lines)
                if len(lines) < BLOCK:
                    return


def _counted(rows, reasons):
    for row in rows:
        reasons[None if row[-1] == ABSENT else row[-1]] += 1
        yield row
