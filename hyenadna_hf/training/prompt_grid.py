"""Grids of runs with prompts, resumable, with one table and one picture."""

import csv
import json
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from ..errors import InputError
from ..jobs import replace_file, write_text
from ..markdown import markdown_table
from .runs import writing

RESULTS_FILE = "results.json"
MAJORITY = "majority class"
# Settings that identify a run, besides its seed, in the order of columns and rows of the table.
SETTINGS = ("method", "training_sequences", "prompt_position", "prompt_tokens", "tuning_samples", "shots")
Z = 1.96  # 95 % interval of a normal distribution
BAR = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())


def run_grid(args: Any, task: Any, job: dict[str, Any], grid: list[dict[str, Any]], run: Callable) -> dict[str, Any]:
    """
    Do the unfinished runs of a grid with each seed, and write tables, plot and results.

    `output_dir` receives `results.json` after each run, then `table.csv`, `table.md` and `accuracy.png`.

    Args:
        args: Arguments of the command.
        task: Data and model.
        job: Settings that all results depend on. A folder with results of other settings is an error.
        grid: Settings of each run; keys are in `SETTINGS`. Runs whose input exceeds the model, because of `shots` and
            `prompt_tokens`, are listed with the reason. Baselines have a `method`.
        run: Function that does a run. It takes the settings, the seed, and a function that shows the numbers of
            finished and of all steps, and returns a `dict` with `accuracy` and further columns.

    Returns:
        The content of `results.json`: settings, `runs` with one seed each, and means over the seeds with 95 % intervals
        ([`summarise`]) as `rows` and `baselines`.

    Raises:
        InputError: If the folder contains results of other settings, or no run fits the model.
    """
    limit = task.model.config.max_seq_len
    tokens = [settings.get("prompt_tokens", 0) + task.tokens(settings.get("shots", 0)) for settings in grid]
    prompt_lengths = [length for settings, length in zip(grid, tokens) if "method" not in settings]
    if min(prompt_lengths) > limit:
        raise InputError(
            f"--shots {min(args.shots)}: an input would have {min(prompt_lengths):,} tokens, but {args.model} reads "
            f"{limit:,}; set --max_bases, give fewer shots, or use a model for longer inputs."
        )
    folder, queries = Path(args.output_dir), len(task.splits["test"])
    results = {**task.identity, **job, "majority_class": task.majority()}
    with writing(folder):
        runs = _earlier_runs(folder, results)
        console, stdout = Console(stderr=True), Console(highlight=False, soft_wrap=True)
        with Progress(*BAR, console=console, disable=not console.is_terminal, transient=True) as progress:
            for seed in range(args.seed, args.seed + args.seeds):
                for settings, length in zip(grid, tokens):
                    key, title = (_key(settings), seed), _title(settings, seed if args.seeds > 1 else None)
                    if length > limit:
                        reason = f"the model reads {limit:,} tokens"
                        runs[key] = {**settings, "seed": seed, "tokens": length, "left_out": reason}
                        stdout.print(f"{title}: left out, {length:,} tokens, but the model reads {limit:,}")
                    elif key not in runs:
                        bar, started = progress.add_task(title, total=None), time.monotonic()

                        def show(step: int, steps: int, bar: Any = bar) -> None:
                            progress.update(bar, completed=step, total=steps)

                        metrics = run(settings, seed, show)
                        progress.remove_task(bar)
                        seconds = round(time.monotonic() - started, 1)
                        runs[key] = {**settings, "seed": seed, "tokens": length, **metrics, "seconds": seconds}
                        stdout.print(f"{title}: accuracy {metrics['accuracy']:.4f} ({seconds:.0f} s)")
                    results["runs"] = [runs[key] for key in sorted(runs)]
                    summary = summarise(results["runs"], queries)
                    results["rows"] = [row for row in summary if "method" not in row]
                    results["baselines"] = [row for row in summary if "method" in row]
                    write_text(folder / RESULTS_FILE, json.dumps(results, indent=2) + "\n")
        majority = results["majority_class"]
        row = {"method": MAJORITY, "accuracy": majority, **interval(majority, queries)}
        write_tables(folder, [*results["rows"], *results["baselines"], row])
        replace_file(folder / "accuracy.png", lambda path: draw(path, results["rows"], results["baselines"], majority))
    stdout.print(f"{MAJORITY}: accuracy {majority:.4f}")
    stdout.print(f"{folder}: {RESULTS_FILE}, table.csv, table.md, accuracy.png")
    return results


def _key(settings: dict[str, Any]) -> tuple:
    """Return the settings of a run as a sort key that puts baselines last."""
    return tuple(settings.get(name, -1 if name != "method" and name != "prompt_position" else "") for name in SETTINGS)


def _title(settings: dict[str, Any], seed: int | None) -> str:
    words = [str(settings["method"])] if "method" in settings else []
    for name, value in settings.items():
        if isinstance(value, int):
            words.append(f"{value:,} {name.replace('_', ' ')}")
        elif name == "prompt_position" and value != "none":
            words.append(value)
    return ", ".join(words if seed is None else [*words, f"seed {seed}"])


def _earlier_runs(folder: Path, results: dict[str, Any]) -> dict[tuple, dict[str, Any]]:
    """Read the runs of earlier calls, by settings and seed."""
    if not (folder / RESULTS_FILE).is_file():
        return {}
    try:
        earlier = json.loads((folder / RESULTS_FILE).read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"{folder / RESULTS_FILE}: this is not JSON ({error}); remove it.") from error
    for name, value in results.items():
        if earlier.get(name) != value:
            raise InputError(
                f"--output_dir {folder}: it contains results of other settings ({name} {earlier.get(name)}, now "
                f"{value}); name another folder."
            )
    return {(_key(run), run["seed"]): run for run in earlier["runs"]}


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
        groups.setdefault(_key(run), []).append(run)
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

    def write_csv(path: Path) -> None:
        with open(path, "w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, columns)
            writer.writeheader()
            writer.writerows(rows)

    lines = markdown_table(columns, ([_text(row.get(name, "")) for name in columns] for row in rows))
    replace_file(folder / "table.csv", write_csv)
    write_text(folder / "table.md", "\n".join(lines) + "\n")


def _text(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4f}"
    return f"{value:,}" if isinstance(value, int) else value


def draw(path: Path, rows: list[dict[str, Any]], baselines: list[dict[str, Any]], majority: float) -> None:
    """
    Plot accuracy with its interval against each of two numeric settings, with a line per combination of the others.

    Args:
        path: Picture to write.
        rows: Settings and, unless left out, `accuracy` with its interval.
        baselines: Baselines; the ones with the most training sequences are drawn as horizontal lines.
        majority: Accuracy of the majority class, drawn as a horizontal line.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 4), layout="constrained")
    done = [row for row in rows if "accuracy" in row]
    settings = [name for name in SETTINGS if name in rows[0]]
    axes = [name for name in settings if name != "prompt_position"]
    levels = {MAJORITY: majority}
    for row in sorted(baselines, key=lambda row: row["training_sequences"]):
        levels[row["method"]] = row["accuracy"]
    for panel, x in zip(figure.subplots(1, 2, sharey=True), axes):
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
        panel.set_xlim(left=-0.3)  # hide the half below zero
        panel.minorticks_off()
        panel.set_xlabel(x.replace("_", " "))
        title = ", ".join(name.replace("_", " ") for name in others)
        panel.legend(title=title, loc="upper left", bbox_to_anchor=(1, 1))
    figure.axes[0].set_ylabel("accuracy on test")
    figure.savefig(path, dpi=150)
