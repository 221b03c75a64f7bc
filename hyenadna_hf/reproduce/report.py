"""Tables of results as CSV, Markdown and a plot, with the published figures next to ours."""

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from ..jobs import replace_file, write_text
from ..machine import machine
from ..markdown import markdown_table
from .tables import Row, Table

Line = dict[str, Any]


def summarise(table: Table, rows: Mapping[str, Row], results: Sequence[dict[str, Any]]) -> list[Line]:
    """
    Summarise the runs of each row and model.

    Args:
        table: Table with the published figures.
        rows: Rows by name.
        results: Results of cells.

    Returns:
        One dictionary per row, metric and model with the published figure, mean, standard deviation (`None` for one
        run), number of runs and their settings, in the order of rows, then models.
    """
    models = dict.fromkeys(result["model"] for result in results)
    lines = []
    for row_name, row in rows.items():
        row_results = [result for result in results if result["dataset"] == row.dataset]
        for metric in _find_metrics(row, row_results):
            shown = row_name if metric == row.metric else f"{row_name}, {metric}"
            for model in models:
                runs = [result for result in row_results if result["model"] == model]
                if runs:
                    published = table.published.get(row_name, {}).get(model)
                    lines.append({"row": shown, "model": model, **_summarise_runs(runs, metric, row, published)})
    return lines


def _find_metrics(row: Row, results: Sequence[dict[str, Any]]) -> Sequence[Any]:
    """List the metrics of a row: its metric, or all that start with its name if there are several settings."""
    names = dict.fromkeys(name for result in results for name in result.get("metrics", ()))
    several = [name for name in names if name.startswith(f"{row.metric}, ")]
    return several or [row.metric]


def _summarise_runs(runs: Sequence[dict[str, Any]], metric: Any, row: Row, published: float | None) -> Line:
    done = [run for run in runs if metric in run.get("metrics", ())]
    values = [row.scale * run["metrics"][metric] for run in done]
    first = (done or runs)[0]
    reasons = dict.fromkeys(run.get("reason", f"no {metric} in its results") for run in runs if run not in done)
    return {
        "metric": metric,
        "published": published,
        "mean": statistics.fmean(values) if values else None,
        "sd": statistics.stdev(values) if len(values) > 1 else None,
        "n": len(values),
        "seeds": " ".join(str(run["seed"]) for run in done),
        "data": first.get("data", ""),
        "split": first.get("split", ""),
        **{split: first.get("sequences", {}).get(split) for split in ("train", "validation", "test")},
        "start": first.get("start", ""),
        "epochs": first.get("epochs"),
        "evaluated": first.get("evaluated", ""),
        "seconds": statistics.fmean(run["seconds"] for run in done) if done else None,
        "reason": "; ".join(reasons),
        "digits": row.digits,
        "command": first.get("command", ""),
    }


def write(table: Table, lines: Sequence[Line], out: Path, command: str) -> None:
    """
    Write `table.csv`, `table.md` and `table.png`.

    Args:
        table: Table with title and note.
        lines: Result of [`summarise`].
        out: Folder to write to.
        command: Command line that produced the results.
    """
    rounded = [{name: round(x, 4) if isinstance(x, float) else x for name, x in line.items()} for line in lines]
    frame = pd.DataFrame(rounded, dtype=object)  # keeps integers in columns with empty cells
    replace_file(out / "table.csv", lambda path: frame.to_csv(path, index=False))
    text = markdown(table, lines, command)
    write_text(out / "table.md", text)
    if frame["mean"].notna().any() or frame["published"].notna().any():
        replace_file(out / "table.png", lambda path: _plot(table, lines, path))


def markdown(table: Table, lines: Sequence[Line], command: str) -> str:
    """Format the table as Markdown: first the figures, then the settings of each."""
    rows, models = (list(dict.fromkeys(line[key] for line in lines)) for key in ("row", "model"))
    cells = {(line["row"], line["model"]): line for line in lines}
    figures = [[row, *(_format_figure(cells.get((row, model))) for model in models)] for row in rows]
    runs = [
        [
            line["row"],
            line["model"],
            line["metric"],
            f"{line['data']}: {line['split']}" if line["data"] else "",
            " / ".join(_format_number(line[split]) for split in ("train", "validation", "test")),
            line["seeds"],
            line["evaluated"],
            _format_number(line["epochs"]),
            _format_number(line["seconds"]),
            line["reason"] or line["start"],
        ]
        for line in lines
    ]
    head = ["", "model", "metric", "data", "train / validation / test", "seeds", "evaluated", "epochs", "s per run"]
    commands = dict.fromkeys(line["command"] for line in lines if line["command"])
    listed = ["Commands, with the first seed:", "", "```bash", *commands, "```", ""] if commands else []
    return "\n".join(
        [
            f"# {table.title}",
            "",
            f"`{command}`",
            "",
            "Mean ± standard deviation over seeds (number of runs), in percent unless a unit is named; published "
            f"figures in brackets. {table.note}".rstrip(),
            "",
            *markdown_table(["", *models], figures),
            "",
            *markdown_table([*head, "start, or why there is no result"], runs),
            "",
            *listed,
            machine(),
            "",
        ]
    )


def _format_figure(line: Line | None) -> str:
    if line is None:
        return ""
    digits = line["digits"]
    published = "" if line["published"] is None else f" [{line['published']:.{digits}f}]"
    if not line["n"]:
        return f"-{published}"
    spread = "" if line["sd"] is None else f" ± {line['sd']:.{digits}f}"
    return f"{line['mean']:.{digits}f}{spread} ({line['n']}){published}"


def _format_number(value: float | None) -> str:
    return "" if value is None else f"{value:,.0f}" if value == int(value) or value > 100 else f"{value:.1f}"


def _plot(table: Table, lines: Sequence[Line], path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    rows, models = (list(dict.fromkeys(line[key] for line in lines)) for key in ("row", "model"))
    figure, axes = plt.subplots(figsize=(8, 1.5 + 0.18 * len(rows) * (len(models) + 1)), layout="constrained")
    for number, model in enumerate(models):
        model_lines = [line for line in lines if line["model"] == model]
        heights = {
            line["row"]: rows.index(line["row"]) + 0.8 * (number + 0.5) / len(models) - 0.4 for line in model_lines
        }
        color = f"C{number % 10}"
        measured = [line for line in model_lines if line["n"]]
        axes.errorbar(
            [line["mean"] for line in measured],
            [heights[line["row"]] for line in measured],
            xerr=[line["sd"] or 0 for line in measured],
            fmt="o",
            color=color,
            label=model,
        )
        published = [line for line in model_lines if line["published"] is not None]
        positions = [heights[line["row"]] for line in published]
        axes.plot(
            [line["published"] for line in published], positions, "D", color=color, fillstyle="none", markersize=7
        )
    if any(line["published"] is not None for line in lines):
        axes.plot([], [], "D", color="gray", fillstyle="none", label="published")
    axes.set_yticks(range(len(rows)), rows)
    if all(row.scale == 100 for row in table.rows.values()):
        axes.set(xlabel="%")
    figure.suptitle(table.title, fontsize="medium")
    axes.invert_yaxis()
    axes.grid(axis="x", alpha=0.3)
    axes.legend(loc="upper left", bbox_to_anchor=(1, 1))
    figure.savefig(path, dpi=150)
    plt.close(figure)
