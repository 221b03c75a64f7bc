"""Grids of runs with prompts: each is done once, and all end up in one table and one picture."""

import csv
import json
import math
import time
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from ..errors import InputError
from ..jobs import replace_file, write_text
from ..markdown import markdown_table
from .runs import writing

RESULTS_FILE = "results.json"
MAJORITY = "majority class"
# What a run is known by, beside its seed; the order is that of columns and rows of the table.
SETTINGS = ("method", "training_sequences", "prompt_position", "prompt_tokens", "tuning_samples", "shots")
Z = 1.96  # 95 % of a normal distribution
BAR = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())


def run_grid(args, task, job, grid, run):
    """
    Run what a grid holds and no earlier call did, with each seed, and write tables, plot and results.

    `output_dir` receives `results.json` (after each run), and `table.csv`, `table.md` and `accuracy.png`.

    Args:
        args ([`~hyenadna_hf.training.prompting.PromptingArguments`]): The arguments of the command.
        task ([`~hyenadna_hf.training.prompting.Task`]): What to run on.
        job (`dict`): Settings that all results depend on; a folder with results of other ones is refused.
        grid (`list[dict]`): Settings of each run, by names of `SETTINGS`. `shots` and `prompt_tokens` make an input
            longer; what is too long for the model is left out, with the reason. A baseline has a `method`.
        run (`Callable[[dict, int, Callable], dict]`): Does one: gets its settings, its seed, and a function to show
            steps and their number with; returns `accuracy` and what else is to be told.

    Returns:
        `dict`: what `results.json` holds: settings, `runs` with one seed each, and the means of all seeds with 95 %
        intervals ([`summarise`]) as `rows` and `baselines`.

    Raises:
        InputError: if the folder holds results of something else, or nothing fits the model.
    """
    limit = task.model.config.max_seq_len
    tokens = [one.get("prompt_tokens", 0) + task.tokens(one.get("shots", 0)) for one in grid]
    asked = [length for one, length in zip(grid, tokens) if "method" not in one]
    if min(asked) > limit:
        raise InputError(
            f"--shots {min(args.shots)}: an input would have {min(asked):,} tokens, but {args.model} reads {limit:,}; "
            "set --max_bases, give fewer shots, or take a model for longer inputs."
        )
    folder, queries = Path(args.output_dir), len(task.splits["test"])
    results = {**task.identity, **job, "majority_class": task.majority()}
    with writing(folder):
        runs = _earlier_runs(folder, results)
        console, stdout = Console(stderr=True), Console(highlight=False, soft_wrap=True)
        with Progress(*BAR, console=console, disable=not console.is_terminal, transient=True) as progress:
            for seed in range(args.seed, args.seed + args.seeds):
                for one, length in zip(grid, tokens):
                    key, what = (_key(one), seed), _words(one, seed if args.seeds > 1 else None)
                    if length > limit:
                        reason = f"the model reads {limit:,} tokens"
                        runs[key] = {**one, "seed": seed, "tokens": length, "left_out": reason}
                        stdout.print(f"{what}: left out, {length:,} tokens, but the model reads {limit:,}")
                    elif key not in runs:
                        bar, started = progress.add_task(what, total=None), time.monotonic()

                        def show(step, steps, bar=bar):
                            progress.update(bar, completed=step, total=steps)

                        found = run(one, seed, show)
                        progress.remove_task(bar)
                        seconds = round(time.monotonic() - started, 1)
                        runs[key] = {**one, "seed": seed, "tokens": length, **found, "seconds": seconds}
                        stdout.print(f"{what}: accuracy {found['accuracy']:.4f} ({seconds:.0f} s)")
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


def _key(one):
    """The settings of a run, to sort by; baselines come after runs of the command itself."""
    return tuple(one.get(name, -1 if name != "method" and name != "prompt_position" else "") for name in SETTINGS)


def _words(one, seed):
    words = [str(one["method"])] if "method" in one else []
    for name, value in one.items():
        if isinstance(value, int):
            words.append(f"{value:,} {name.replace('_', ' ')}")
        elif name == "prompt_position" and value != "none":
            words.append(value)
    return ", ".join(words if seed is None else [*words, f"seed {seed}"])


def _earlier_runs(folder, results):
    """Runs of an earlier call by their settings and seed; there are none if there was no such call."""
    if not (folder / RESULTS_FILE).is_file():
        return {}
    try:
        earlier = json.loads((folder / RESULTS_FILE).read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"{folder / RESULTS_FILE}: this is not JSON ({error}); remove it.") from error
    for name, value in results.items():
        if earlier.get(name) != value:
            raise InputError(
                f"--output_dir {folder}: its results are those of other settings ({name} {earlier.get(name)}, now "
                f"{value}); name another folder."
            )
    return {(_key(run), run["seed"]): run for run in earlier["runs"]}


def summarise(runs, queries):
    """
    Average runs over their seeds.

    Args:
        runs (`list[dict]`): Settings, `seed`, and what each found.
        queries (`int`): Test sequences that an accuracy is of.

    Returns:
        `list[dict]`: a row for each choice of settings: they, the means of all numbers, `accuracy_low` and
        `accuracy_high` ([`interval`]), and how many `seeds`.
    """
    groups = {}
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


def interval(accuracy, queries, variance=0.0):
    """
    The 95 % interval of an accuracy, after Wilson.

    Args:
        accuracy (`float`): A share of queries, or the mean of such shares over seeds.
        queries (`int`): How many there are; they are the same for all seeds.
        variance (`float`, defaults to 0): Variance of the mean over seeds. It adds to that of the choice of queries,
            which lowers the number of queries that the interval counts.

    Returns:
        `dict`: `accuracy_low` and `accuracy_high`.
    """
    binomial = accuracy * (1 - accuracy) / queries
    count = queries * binomial / (binomial + variance) if variance else queries
    count = max(count, 1.0)
    middle = (accuracy + Z**2 / (2 * count)) / (1 + Z**2 / count)
    half = Z / (1 + Z**2 / count) * math.sqrt(accuracy * (1 - accuracy) / count + Z**2 / (4 * count**2))
    return {"accuracy_low": middle - half, "accuracy_high": middle + half}


def write_tables(folder, rows):
    """
    Write `table.csv` and `table.md`.

    Args:
        folder (`Path`): Where.
        rows (`list[dict]`): What one has and another has not stays empty there.
    """
    columns = list(dict.fromkeys(name for row in rows for name in row))
    columns.sort(key=lambda name: (*SETTINGS, name).index(name))  # settings first; a stable sort

    def write_csv(path):
        with open(path, "w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, columns)
            writer.writeheader()
            writer.writerows(rows)

    lines = markdown_table(columns, ([_text(row.get(name, "")) for name in columns] for row in rows))
    replace_file(folder / "table.csv", write_csv)
    write_text(folder / "table.md", "\n".join(lines) + "\n")


def _text(value):
    if isinstance(value, float):
        return f"{value:.4f}"
    return f"{value:,}" if isinstance(value, int) else value


def draw(path, rows, baselines, majority):
    """
    Accuracy with its interval against each of two numbers of the settings, a line for each choice of the others.

    Args:
        path (`Path`): Where the picture goes.
        rows (`list[dict]`): Settings, and `accuracy` with its interval if not left out.
        baselines (`list[dict]`): Baselines; those with the most training sequences are horizontal lines.
        majority (`float`): Accuracy of the majority class, a horizontal line.
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
        lines = {}
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
        panel.set_xlim(left=-0.3)  # or else the half below zero is shown
        panel.minorticks_off()
        panel.set_xlabel(x.replace("_", " "))
        title = ", ".join(name.replace("_", " ") for name in others)
        panel.legend(title=title, loc="upper left", bbox_to_anchor=(1, 1))
    figure.axes[0].set_ylabel("accuracy on test")
    figure.savefig(path, dpi=150)
