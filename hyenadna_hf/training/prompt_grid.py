"""Grids of runs with prompts, resumable, with one table and one picture."""

import csv
import json
import math
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

from ..errors import InputError, WorkError
from ..jobs import folder_job, write_text
from ..markdown import markdown_table
from ..processes import SingleProcess
from .runs import whole_checkpoints

RESULTS_FILE = "results.json"
PROMPT_FOLDER = "prompt-"  # beginning of the names of trained prompts
MAJORITY = "majority class"
# Settings that identify a run, besides its seed, in the order of columns and rows of the table.
SETTINGS = ("method", "training_sequences", "prompt_position", "prompt_tokens", "tuning_samples", "shots")
Z = 1.96  # 95 % interval of a normal distribution


def run_grid(args: Any, task: Any, fixed: dict[str, Any], grid: list[dict[str, Any]], run: Callable) -> dict[str, Any]:
    """
    Do the unfinished runs of a grid with each seed, in a resumable [`~hyenadna_hf.jobs.Job`].

    `output_dir` receives tables, plot, `results.json` and the trained prompts when all runs are finished. Runs with the
    same settings in an earlier `results.json` are not repeated, so that a folder can get further runs and seeds.

    Args:
        args: Arguments of the command.
        task: Data and model.
        fixed: Settings that all results depend on. A folder with results of other settings is an error.
        grid: Settings of each run; keys are in `SETTINGS`. Runs whose input exceeds the model, because of `shots` and
            `prompt_tokens`, are listed with the reason. Baselines have a `method`.
        run: Function that does a run. It takes the settings, the seed, the folder of the job, and a function that shows
            the finished fraction. It returns a `dict` with `accuracy` and further columns. Prompts that it saves to
            folders of the job that begin with `PROMPT_FOLDER` are results; checkpoints are removed.

    Returns:
        The content of `results.json`: settings, `runs` with one seed each, and means over the seeds with 95 % intervals
        ([`summarise`]) as `rows` and `baselines`.

    Raises:
        InputError: If the folder contains results of other settings, or no run fits the model.
    """
    limit = task.model.config.max_seq_len
    tokens = [settings.get("prompt_tokens", 0) + task.tokens(settings.get("shots", 0)) for settings in grid]
    shortest = min(length for settings, length in zip(grid, tokens) if "method" not in settings)
    if shortest > limit:
        raise InputError(
            f"--shots {min(args.shots)}: an input would have {shortest:,} tokens, but {args.model} reads {limit:,}; "
            "set --max_bases, give fewer shots, or use a model for longer inputs."
        )
    folder, queries = Path(args.output_dir).expanduser(), len(task.splits["test"])
    common = {**task.identity, **fixed, "majority_class": task.majority()}
    seeds = range(args.seed, args.seed + args.seeds)
    runs = [{**settings, "seed": seed, "tokens": length} for seed in seeds for settings, length in zip(grid, tokens)]
    stdout = Console(highlight=False, soft_wrap=True)

    def make(row: dict[str, Any], path: Path, advance: Callable[[float], None]) -> None:
        settings = {name: row[name] for name in SETTINGS if name in row}
        title = _title(settings, row["seed"] if args.seeds > 1 else None)
        started, shown = time.monotonic(), 0.0

        def show(fraction: float) -> None:
            nonlocal shown
            advance(fraction - shown)
            shown = fraction

        if row["tokens"] > limit:
            row = {**row, "left_out": f"the model reads {limit:,} tokens"}
            stdout.print(f"{title}: left out, {row['tokens']:,} tokens, but the model reads {limit:,}")
        elif _key(row) in earlier:
            row = earlier[_key(row)]
        else:
            metrics = run(settings, row["seed"], job.folder, show)
            row = {**row, **metrics, "seconds": round(time.monotonic() - started, 1)}
            stdout.print(f"{title}: accuracy {row['accuracy']:.4f} ({row['seconds']:.0f} s)")
        write_text(path, json.dumps(row))
        for checkpoint in job.folder.glob(f"*/{PREFIX_CHECKPOINT_DIR}-*"):
            shutil.rmtree(checkpoint)
        show(1.0)

    def finish(path: Path) -> dict[str, Any]:
        rows = dict(earlier)
        for number, expected in enumerate(runs):
            row = json.loads(job.part(number).read_text(encoding="utf-8"))
            if not expected.items() <= row.items():
                raise WorkError(f"{job.part(number)}: the run has other settings; delete {job.folder}.")
            rows[_key(row)] = row
        for prompt in job.folder.glob(f"{PROMPT_FOLDER}*"):
            without = shutil.ignore_patterns(f"{PREFIX_CHECKPOINT_DIR}-*")  # left by a kill after the last run
            shutil.copytree(prompt, path.with_name(prompt.name), ignore=without)
        return _write(path, common, [rows[key] for key in sorted(rows)], queries)

    with (
        folder_job(folder, RESULTS_FILE, {**common, "runs": runs}, SingleProcess(), "--output_dir") as job,
        whole_checkpoints(job.folder),
    ):
        earlier = _earlier_runs(folder, common)
        job.run(runs, lambda row: 1, make, "runs", len(runs))
        results = job.finish(finish)
    assert results is not None  # this is the main process
    stdout.print(f"{MAJORITY}: accuracy {results['majority_class']:.4f}")
    stdout.print(f"{folder}: {RESULTS_FILE}, table.csv, table.md, accuracy.png")
    return results


def _write(path: Path, common: dict[str, Any], runs: list[dict[str, Any]], queries: int) -> dict[str, Any]:
    """Write results, tables and plot, and return the content of `results.json`."""
    summary, majority = summarise(runs, queries), common["majority_class"]
    results = {
        **common,
        "runs": runs,
        "rows": [row for row in summary if "method" not in row],
        "baselines": [row for row in summary if "method" in row],
    }
    text = json.dumps(results, indent=2) + "\n"
    path.write_text(text, encoding="utf-8")
    row = {"method": MAJORITY, "accuracy": majority, **interval(majority, queries)}
    write_tables(path.parent, [*results["rows"], *results["baselines"], row])
    draw(path.with_name("accuracy.png"), results["rows"], results["baselines"], majority)
    if path.read_text(encoding="utf-8") != text:
        raise WorkError(f"{path.name}: it differs when it is read back; check the free disk space.")
    return results


def _key(run: dict[str, Any]) -> tuple:
    """Return the settings of a run, and its seed if it has one, as a sort key that puts baselines last."""
    names = (*SETTINGS, "seed")
    return tuple(run.get(name, -1 if name != "method" and name != "prompt_position" else "") for name in names)


def _title(settings: dict[str, Any], seed: int | None) -> str:
    words = [str(settings["method"])] if "method" in settings else []
    for name, value in settings.items():
        if isinstance(value, int):
            words.append(f"{value:,} {name.replace('_', ' ')}")
        elif name == "prompt_position" and value != "none":
            words.append(value)
    return ", ".join(words if seed is None else [*words, f"seed {seed}"])


def _earlier_runs(folder: Path, common: dict[str, Any]) -> dict[tuple, dict[str, Any]]:
    """Read the runs of earlier calls, by settings and seed; raise an `InputError` if their other settings differ."""
    if not (folder / RESULTS_FILE).is_file():
        return {}
    try:
        earlier = json.loads((folder / RESULTS_FILE).read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"{folder / RESULTS_FILE}: this is not JSON ({error}); remove it.") from error
    for name, value in common.items():
        if earlier.get(name) != value:
            raise InputError(
                f"--output_dir {folder}: it contains results of other settings ({name} {earlier.get(name)}, now "
                f"{value}); name another folder."
            )
    return {_key(run): run for run in earlier["runs"]}


def summarise(runs: list[dict[str, Any]], queries: int) -> list[dict[str, Any]]:
    """
    Average runs over their seeds.

    Args:
        runs: Settings, `seed` and results of each run.
        queries: Number of test sequences.

    Returns:
        A row for each combination of settings, with the means of all numbers, `accuracy_low` and `accuracy_high`
        ([`interval`]), and the number of `seeds`.
    """
    groups: dict[tuple, list[dict[str, Any]]] = {}
    for run in runs:
        groups.setdefault(_key({**run, "seed": None}), []).append(run)
    rows = []
    for group in groups.values():
        row = {}
        for name, value in group[0].items():
            if name == "seed":
                continue
            values = [run[name] for run in group]
            differs = any(other != value for other in values)
            row[name] = float(np.mean(values)) if differs else value
            if name == "accuracy":
                row |= interval(
                    row[name], queries, float(np.var(values, ddof=1)) / len(values) if len(values) > 1 else 0.0
                )
        rows.append({**row, "seeds": len(group)} if "accuracy" in row else row)
    return rows


def interval(accuracy: float, queries: int, variance: float = 0.0) -> dict[str, float]:
    """
    Compute the 95 % Wilson interval of an accuracy.

    Args:
        accuracy: Fraction of queries, or its mean over seeds.
        queries: Number of queries, the same for all seeds.
        variance: Variance of the mean over seeds. It adds to that of the choice of queries and so reduces the effective
            number of queries.

    Returns:
        `accuracy_low` and `accuracy_high`.
    """
    binomial = accuracy * (1 - accuracy) / queries
    count = queries * binomial / (binomial + variance) if variance else queries
    count = max(count, 1.0)
    middle = (accuracy + Z**2 / (2 * count)) / (1 + Z**2 / count)
    half = Z / (1 + Z**2 / count) * math.sqrt(accuracy * (1 - accuracy) / count + Z**2 / (4 * count**2))
    return {"accuracy_low": middle - half, "accuracy_high": middle + half}


def write_tables(folder: Path, rows: list[dict[str, Any]]) -> None:
    """Write rows to `table.csv` and `table.md`, with empty cells for missing values."""
    columns = list(dict.fromkeys(name for row in rows for name in row))
    columns.sort(key=lambda name: (*SETTINGS, name).index(name))  # settings first; a stable sort

    with open(folder / "table.csv", "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows(rows)
    lines = markdown_table(columns, ([_text(row.get(name, "")) for name in columns] for row in rows))
    (folder / "table.md").write_text("\n".join(lines) + "\n", encoding="utf-8")


def _text(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4f}"
    return f"{value:,}" if isinstance(value, int) else value


def draw(path: Path, rows: list[dict[str, Any]], baselines: list[dict[str, Any]], majority: float) -> None:
    """
    Plot accuracy with its interval against each numeric setting that varies, with a line per combination of the others.

    Args:
        path: Picture to write.
        rows: Settings and, unless left out, `accuracy` with its interval.
        baselines: Baselines; the ones with the most training sequences are drawn as horizontal lines.
        majority: Accuracy of the majority class, drawn as a horizontal line.
    """
    from matplotlib.figure import Figure

    done = [row for row in rows if "accuracy" in row]
    settings = [name for name in SETTINGS if name in rows[0]]
    numeric = [name for name in settings if name != "prompt_position"]
    axes = [name for name in numeric if len({row[name] for row in done}) > 1] or numeric[:1]
    figure = Figure(figsize=(2 + 5 * len(axes), 4), layout="constrained")
    levels = {MAJORITY: majority}
    for row in sorted(baselines, key=lambda row: row["training_sequences"]):
        levels[row["method"]] = row["accuracy"]
    for panel, x in zip(figure.subplots(1, len(axes), sharey=True, squeeze=False)[0], axes):
        others = [name for name in settings if name != x and len({row[name] for row in done}) > 1]
        lines: dict[tuple, list[dict[str, Any]]] = {}
        for row in done:
            lines.setdefault(tuple(row[name] for name in others), []).append(row)
        for values, line in sorted(lines.items()):
            line = sorted(line, key=lambda row: row[x])
            errors = [
                [row["accuracy"] - row["accuracy_low"] for row in line],
                [row["accuracy_high"] - row["accuracy"] for row in line],
            ]
            label = ", ".join(f"{value:,}" if isinstance(value, int) else value for value in values)
            points = [[row[x] for row in line], [row["accuracy"] for row in line]]
            panel.errorbar(*points, yerr=errors, marker="o", capsize=2, label=label or None)
        for number, (name, level) in enumerate(levels.items()):
            panel.axhline(level, linestyle=("--", ":", "-.", (0, (5, 1)))[number % 4], color="grey", label=name)
        panel.set_xscale("symlog", base=2, linthresh=1)
        ticks = sorted({row[x] for row in done})
        panel.set_xticks(ticks, [f"{tick:,}" for tick in ticks], rotation=45)
        panel.set_xlim(-0.3, 1.3 * max(ticks[-1], 1))  # hide the half below zero
        panel.minorticks_off()
        panel.set_xlabel(x.replace("_", " "))
        title = ", ".join(name.replace("_", " ") for name in others)
        panel.legend(title=title, loc="upper left", bbox_to_anchor=(1, 1))
    figure.axes[0].set_ylabel("accuracy on test")
    figure.savefig(path, dpi=150)
