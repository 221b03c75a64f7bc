"""Grids of runs with prompts: each is done once, and all end up in one table and one picture."""

import csv
import json
import time
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from ..errors import InputError
from ..jobs import replace_file, write_text
from ..markdown import markdown_table
from .runs import writing

RESULTS_FILE = "results.json"
BAR = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())


def run_grid(args, task, job, grid, run):
    """
    Run what a grid holds and no earlier call did, and write tables, plot and results.

    `output_dir` receives `results.json` (after each run of the grid), and `table.csv`, `table.md` and `accuracy.png`.

    Args:
        args ([`~hyenadna_hf.training.prompting.PromptingArguments`]): Of the command.
        task ([`~hyenadna_hf.training.prompting.Task`]): What to run on.
        job (`dict`): Settings that all results depend on; a folder with results of other ones is refused.
        grid (`list[dict[str, int]]`): Two settings of each run, by name. `shots` and `prompt_tokens` make an input
            longer; what is too long for the model is left out, with the reason.
        run (`Callable[[dict, Callable], dict]`): Does one: gets its settings and a function to show steps and their
            number with, and returns `accuracy` and what else is to be told.

    Returns:
        `dict`: what `results.json` holds.

    Raises:
        InputError: if the folder holds results of something else, or nothing fits the model.
    """
    limit = task.model.config.max_seq_len
    tokens = [one.get("prompt_tokens", 0) + task.tokens(one["shots"]) for one in grid]
    if min(tokens) > limit:
        raise InputError(
            f"--shots {min(args.shots)}: an input would have {min(tokens):,} tokens, but {args.model} reads {limit:,}; "
            "set --max_bases, give fewer shots, or take a model for longer inputs."
        )
    folder = Path(args.output_dir)
    results = {**task.identity, **job, "majority_class": task.majority()}
    with writing(folder):
        rows = _rows_of(folder, results)
        console, stdout = Console(stderr=True), Console(highlight=False, soft_wrap=True)
        with Progress(*BAR, console=console, disable=not console.is_terminal, transient=True) as progress:
            for one, length in zip(grid, tokens):
                what = ", ".join(f"{value:,} {name.replace('_', ' ')}" for name, value in one.items())
                if length > limit:
                    rows[*one.values()] = {**one, "tokens": length, "left_out": f"the model reads {limit:,} tokens"}
                    stdout.print(f"{what}: left out, {length:,} tokens, but the model reads {limit:,}")
                elif tuple(one.values()) not in rows:
                    bar, started = progress.add_task(what, total=None), time.monotonic()
                    found = run(one, lambda step, steps, bar=bar: progress.update(bar, completed=step, total=steps))
                    progress.remove_task(bar)
                    seconds = round(time.monotonic() - started, 1)
                    rows[*one.values()] = {**one, "tokens": length, **found, "seconds": seconds}
                    stdout.print(f"{what}: accuracy {found['accuracy']:.4f} ({seconds:.0f} s)")
                results["rows"] = [rows[key] for key in sorted(rows)]
                write_text(folder / RESULTS_FILE, json.dumps(results, indent=2) + "\n")
        write_tables(folder, results["rows"])
        axes, majority = list(grid[0]), results["majority_class"]
        replace_file(folder / "accuracy.png", lambda path: draw(path, results["rows"], axes, majority))
    stdout.print(f"majority class: accuracy {results['majority_class']:.4f}")
    stdout.print(f"{folder}: {RESULTS_FILE}, table.csv, table.md, accuracy.png")
    return results


def _rows_of(folder, results):
    """Rows of an earlier run by their settings; there are none if there was no such run."""
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
    return {tuple(row.values())[:2]: row for row in earlier["rows"]}


def write_tables(folder, rows):
    """
    Write `table.csv` and `table.md`.

    Args:
        folder (`Path`): Where.
        rows (`list[dict]`): What one has and another has not stays empty there.
    """
    columns = list(dict.fromkeys(name for row in rows for name in row))

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


def draw(path, rows, axes, majority):
    """
    Accuracy against each of two settings, with a line for each value of the other one.

    Args:
        path (`Path`): Of the picture.
        rows (`list[dict]`): With the settings, and `accuracy` if not left out.
        axes (`list[str]`): Names of the two settings.
        majority (`float`): Accuracy of the majority class, as a dashed line.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 4), layout="constrained")
    done = [row for row in rows if "accuracy" in row]
    for panel, x, other in zip(figure.subplots(1, 2, sharey=True), axes, reversed(axes)):
        for value in sorted({row[other] for row in done}):
            points = sorted((row[x], row["accuracy"]) for row in done if row[other] == value)
            panel.plot(*zip(*points), marker="o", label=f"{value:,}")
        panel.axhline(majority, linestyle="--", color="grey", label="majority class")
        panel.set_xscale("symlog", base=2, linthresh=1)
        ticks = sorted({row[x] for row in done})
        panel.set_xticks(ticks, [f"{tick:,}" for tick in ticks], rotation=45)
        panel.set_xlim(left=-0.3)  # or else the half below zero is shown
        panel.minorticks_off()
        panel.set_xlabel(x.replace("_", " "))
        panel.legend(title=other.replace("_", " "), loc="upper left", bbox_to_anchor=(1, 1))
    figure.axes[0].set_ylabel("accuracy on test")
    figure.savefig(path, dpi=150)
