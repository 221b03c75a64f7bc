"""`hyenadna context`: how far back a language model uses its context."""

import shlex
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from ..arguments import CommandParser
from ..data.fasta import Fasta
from ..data.intervals import parse_region
from ..errors import InputError, WorkError
from ..jobs import Job, folder_job, output_folder, save_array
from ..loading import load_language_model
from ..processes import processes
from .context_report import GAINS, draw_losses, draw_repeats, figure_of, markdown
from .context_use import (
    bits_by_context,
    bits_of_repeats,
    context_bins,
    default_distances,
    random_segments,
    ratio_interval,
    real_segments,
    shuffled_segments,
    window_starts,
)
from .likelihood import BaseLikelihood
from .scoring import ScoringArguments, identity_of

NEEDLES = ("random", "real")
PART_TOKENS = 1 << 20  # the most that a killed run loses, unless one window has more


@dataclass(kw_only=True)
class ContextArguments(ScoringArguments):
    region: str = field(
        metadata={"help": "Where windows come from: a region such as chr20:30000001-33000000 (1-based), or a contig."}
    )
    out: str = field(
        metadata={"help": "Folder for needle.csv, loss_by_position.csv, table.md, needle.png and loss_by_position.png."}
    )
    window: int | None = field(
        default=None,
        metadata={"help": "Bases that the model reads at once (default: as many as it can, at most the region)."},
    )
    windows: int = field(default=100, metadata={"help": "Number of windows, evenly spaced over the region."})
    needles: str = field(
        default="random",
        metadata={"help": "Segments to repeat: random; or real, from the region outside the window."},
    )
    needle_length: int = field(default=32, metadata={"help": "Bases of a repeated segment."})
    distances: list[int] = field(
        default_factory=list,
        metadata={
            "help": "Bases from the start of the first copy to that of the second (default: 100, 200, 400 and so on, "
            "and the largest that fits)."
        },
    )
    bootstrap: int = field(
        default=1000, metadata={"help": "Samples of windows for 95 %% intervals; 0 for no intervals."}
    )
    seed: int = field(default=0, metadata={"help": "Random seed of the segments and of the samples."})


class Part(NamedTuple):
    """Some windows of one of the two tests."""

    is_needle: bool
    first: int
    last: int


def parser() -> CommandParser:
    """Return the argument parser of `hyenadna context`."""
    return CommandParser(
        "context",
        ContextArguments,
        "Measure the loss by amount of context, and run needle tests: repeat a segment in real sequence, and compare "
        "the loss of its second copy with that of the same segment without a first copy, by distance. The same command "
        "resumes a run that was stopped. Several devices: accelerate launch -m hyenadna_hf context ...",
        "--fasta REFERENCE.fa --region CHR:START-END --model MODEL --out FOLDER [ARGUMENT ...]",
        [
            "--fasta ref.fa --region chr20:30,000,001-33,000,000 --model my-lm --out context",
            "--fasta ref.fa --region chr20 --model my-lm --windows 20 --needles real --needle_length 100 --out context "
            "--json",
        ],
    )


def main(argv: list[str]) -> dict[str, Any] | None:
    """Run `hyenadna context` with command-line arguments."""
    args, _ = parser().parse(argv)
    return context(args, shlex.join(["hyenadna", "context", *argv]))


def context(args: ContextArguments, command: str = "hyenadna context") -> dict[str, Any] | None:
    """
    Measure the loss by the amount of context and that of repeated segments, in a resumable [`~hyenadna_hf.jobs.Job`].

    Args:
        args: Arguments of the command.
        command: Command line to show in `table.md`.

    Returns:
        `region`, `window`, `windows` (number of those read whole, and of those with a segment), `loss_by_position` and
        `needle`, the rows of the tables. `None` in all processes but the main one.

    Raises:
        InputError: If an argument or a file is invalid, before anything is written.
    """
    state = processes(args.use_cpu)
    out = output_folder("--out", args.out)
    import_module("matplotlib")  # fail early if it is missing
    with Fasta(args.fasta) as fasta:
        contig, start, end, _ = parse_region(args.region, fasta)
        sequence = fasta.fetch(contig, start, end)
    model, tokenizer = load_language_model(args)
    likelihood = BaseLikelihood(model, tokenizer, args.bos, args.max_tokens)
    window = min(likelihood.longest, len(sequence)) if args.window is None else args.window
    distances = _check_arguments(args, likelihood, window, len(sequence))
    starts = {overlap: window_starts(sequence, window, args.windows, overlap) for overlap in (False, True)}
    if not all(starts.values()):
        raise InputError(
            f"--region {args.region}: a tenth or more of every window of {window:,} bases is not A, C, G or T; choose "
            "another region."
        )
    bins = context_bins(window, args.bos)
    if args.needles == "random":
        segments = random_segments(len(starts[True]), args.needle_length, args.seed)
    else:
        segments = real_segments(sequence, starts[True], window, args.needle_length, args.seed)
    shuffled = shuffled_segments(segments, args.seed)
    readings = 1 + 2 * len(distances)  # of a window with a segment
    parts = [
        *(Part(False, *span) for span in _divide(len(starts[False]), window)),
        *(Part(True, *span) for span in _divide(len(starts[True]), window * readings)),
    ]

    def make(part: Part, path: Path, advance: Callable[[int], None]) -> None:
        span = slice(part.first, part.last)
        windows = [sequence[first : first + window] for first in starts[part.is_needle][span]]
        if part.is_needle:
            save_array(path, bits_of_repeats(likelihood, windows, segments[span], shuffled[span], distances, advance))
        else:
            save_array(path, bits_by_context(likelihood, windows, bins, advance))

    def finish(path: Path) -> dict[str, Any]:
        arrays = {kind: _read(job, parts, kind, len(starts[kind])) for kind in (False, True)}
        result = {
            "region": f"{contig}:{start + 1}-{end}",
            "window": window,
            "windows": {"loss_by_position": len(starts[False]), "needle": len(starts[True])},
            "loss_by_position": _losses(arrays[False], bins, args),
            "needle": _gains(arrays[True], distances, args),
        }
        _write(path, result, args, command)
        return result

    def size(part: Part) -> int:
        return (part.last - part.first) * (readings if part.is_needle else 1)

    identity = identity_of(
        args,
        model,
        tokenizer,
        region=[contig, start, end],
        window=window,
        windows=args.windows,
        segments=[args.needles, args.needle_length, args.seed],
        distances=distances,
    )
    with folder_job(out, "needle.csv", identity, state) as job:
        job.run(parts, size, make, "sequences", sum(map(size, parts)))
        found = job.finish(finish)
    if found is not None:
        _print(out, found)
    return found


def _check_arguments(args: ContextArguments, likelihood: BaseLikelihood, window: int, length: int) -> list[int]:
    """Check the arguments, and return the distances in ascending order."""
    if args.needles not in NEEDLES:
        raise InputError(f"--needles {args.needles}: choose one of {', '.join(NEEDLES)}.")
    for name, least in (("windows", 1), ("needle_length", 1), ("bootstrap", 0)):
        if getattr(args, name) < least:
            raise InputError(f"--{name} {getattr(args, name)}: give at least {least}.")
    longest = min(likelihood.longest, length)
    shortest = 2 * args.needle_length
    if shortest > longest:
        raise InputError(
            f"--needle_length {args.needle_length}: two copies do not fit into {longest:,} bases, the most that the "
            "model reads at once or the region has; give fewer."
        )
    if not shortest <= window <= longest:
        raise InputError(
            f"--window {window}: give {shortest} (two copies of a segment) to {longest:,} bases, the most that the "
            "model reads at once or the region has."
        )
    distances = sorted(set(args.distances)) or default_distances(window, args.needle_length)
    wrong = [value for value in distances if not args.needle_length <= value <= window - args.needle_length]
    if wrong:
        raise InputError(
            f"--distances {wrong[0]}: give {args.needle_length} to {window - args.needle_length:,}, so that both "
            f"copies are in a window of {window:,} bases and do not overlap."
        )
    return distances


def _divide(windows: int, tokens: int) -> Iterator[tuple[int, int]]:
    """Divide windows with so many tokens each into parts of at most `PART_TOKENS`, or of one window."""
    step = max(1, PART_TOKENS // tokens)
    for first in range(0, windows, step):
        yield first, min(windows, first + step)


def _read(job: Job, parts: list[Part], is_needle: bool, windows: int) -> np.ndarray:
    array = np.concatenate([np.load(job.part(n)) for n, part in enumerate(parts) if part.is_needle == is_needle])
    if len(array) != windows:
        raise WorkError(f"{job.folder}: its parts are of other windows; delete the folder to start anew.")
    return array


def _losses(sums: np.ndarray, bins: np.ndarray, args: ContextArguments) -> list[dict[str, Any]]:
    """Compute the rows of `loss_by_position.csv`."""
    rows = []
    for number, (first, following) in enumerate(zip(bins.tolist(), bins[1:].tolist())):
        bits, bases = sums[:, 0, number], sums[:, 1, number]
        low, high = ratio_interval(bits, bases, args.bootstrap, args.seed)
        mean = float(bits.sum() / bases.sum()) if bases.any() else np.nan
        rows.append(
            {
                "context_from": first,
                "context_to": following - 1,
                "bits": mean,
                "bits_low": low,
                "bits_high": high,
                "bases": int(bases.sum()),
            }
        )
    return rows


def _gains(bits: np.ndarray, distances: list[int], args: ContextArguments) -> list[dict[str, Any]]:
    """Compute the rows of `needle.csv`."""
    control, rows = bits[:, 0], []
    copies, shuffled = np.split(bits[:, 1:].T, 2)
    for distance, copy, other in zip(distances, copies, shuffled):
        row: dict[str, Any] = {"distance": distance}
        for name, reference in zip(GAINS, (control, other)):
            gains = reference - copy
            low, high = ratio_interval(gains, np.ones_like(gains), args.bootstrap, args.seed)
            row |= {name: float(gains.mean()), f"{name}_low": low, f"{name}_high": high}
        row |= {"bits_control": float(control.mean()), "bits_with_copy": float(copy.mean())}
        rows.append({**row, "bits_with_shuffled": float(other.mean()), "segments": len(copy)})
    return rows


def _write(path: Path, result: dict[str, Any], args: ContextArguments, command: str) -> None:
    folder = path.parent
    for name in ("needle", "loss_by_position"):
        pd.DataFrame(result[name]).to_csv(folder / f"{name}.csv", index=False)
        if len(pd.read_csv(folder / f"{name}.csv")) != len(result[name]):
            raise WorkError(f"{name}.csv: it has other rows when it is read back; check the free disk space.")
    text = markdown(result, args.needles, args.needle_length, args.bootstrap, command)
    (folder / "table.md").write_text(text, encoding="utf-8")
    draw_repeats(folder / "needle.png", result["needle"])
    draw_losses(folder / "loss_by_position.png", result["loss_by_position"])


def _print(out: Path, result: dict[str, Any]) -> None:
    first, last = result["loss_by_position"][0], result["loss_by_position"][-1]
    print(f"{out}: windows of {result['window']:,} bases of {result['region']}")
    for row in (first, last):
        print(f"{row['context_from']:,} to {row['context_to']:,} bases of context: {row['bits']:.3f} bits per base")
    for row in result["needle"]:
        gain, over_shuffled = (figure_of(row, name, "+.3f") for name in GAINS)
        print(f"a first copy {row['distance']:,} bases back: {gain} bits per base, {over_shuffled} over a shuffled one")
