"""Report metrics of variant scores in a Markdown table and a picture."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ..markdown import markdown_table

ALL = "all"  # the group of all variants
NAMES = {"auroc": "AUROC", "auprc": "AUPRC", "spearman": "Spearman's correlation"}
CHANCE = {"auroc": 0.5, "spearman": 0.0}  # of a random score; that of AUPRC is the fraction of positives
NOTE = """\
Scores are oriented so that higher values mean "more likely positive": `llr` is negated, so that alternates that the
model finds less likely have higher values. `abs_llr`, `jsd`, `embedding_distance` and columns of the table are not
changed. Spearman's correlation compares the oriented scores with the unchanged target."""


def figure_of(row: dict[str, Any]) -> str:
    """Format a value with its interval."""
    if np.isnan(row["value"]):
        return "-"
    interval = "" if np.isnan(row["low"]) else f" [{row['low']:.3f}, {row['high']:.3f}]"
    return f"{row['value']:.3f}{interval}"


def markdown(
    rows: list[dict[str, Any]],
    variants: int,
    scored: int,
    reasons: Mapping[str, int],
    positives: dict[str, int],
    command: str,
    bootstrap: int,
) -> str:
    """
    Format metrics: a table per metric, with a row per score and model and a column per group.

    Args:
        rows: Rows of `metrics.csv`.
        variants: Number of variants.
        scored: Number of variants with scores.
        reasons: Number of variants without scores for each reason.
        positives: Number of positive variants in each group; empty without labels.
        command: Command line to show.
        bootstrap: Number of bootstrap samples.
    """
    without = "".join(f"; {number:,} {reason}" for reason, number in sorted(reasons.items()))
    lines = ["# Variant scores", "", "```bash", command, "```", ""]
    lines += [f"{scored:,} of {variants:,} variants have scores{without}.", "", NOTE]
    if bootstrap:
        lines.append(f"In brackets: intervals of 95 % from {bootstrap:,} samples of positions.")
    groups = list(dict.fromkeys(row["group"] for row in rows))
    for metric in dict.fromkeys(row["metric"] for row in rows):
        metric_rows = [row for row in rows if row["metric"] == metric]
        numbers = {group: max(row["n"] for row in metric_rows if row["group"] == group) for group in groups}
        cells = {(row["model"], row["score"], row["group"]): figure_of(row) for row in metric_rows}
        positive_counts = {} if metric == "spearman" else {group: f", {n:,} positive" for group, n in positives.items()}
        sizes = (f"{group} ({number:,}{positive_counts.get(group, '')})" for group, number in numbers.items())
        head = ["model", "score", *sizes]
        keys = dict.fromkeys(key[:2] for key in cells)
        body = [[*key, *(cells[*key, group] for group in groups)] for key in keys]
        lines += ["", f"## {NAMES[metric]}", "", *markdown_table(head, body)]
    return "\n".join(lines) + "\n"


def draw(path: Path, rows: list[dict[str, Any]]) -> None:
    """
    Draw a panel per metric, with the value and interval of each score of each model in every group.

    Args:
        path: Picture to write; its suffix sets the format.
        rows: Rows of `metrics.csv`.
    """
    from matplotlib.figure import Figure

    groups, metrics = (list(dict.fromkeys(row[key] for row in rows)) for key in ("group", "metric"))
    series = list(dict.fromkeys((row["model"], row["score"]) for row in rows))
    models, scores = (list(dict.fromkeys(part)) for part in zip(*series))
    step = 1 / (len(series) + 2)
    height = 1.2 + 0.13 * len(groups) * (len(series) + 2)
    figure = Figure(figsize=(4.2 * len(metrics) + 3, max(3.0, height)), layout="constrained")
    panels: Any = figure.subplots(1, len(metrics), sharey=True, squeeze=False)[0]
    for axes, metric in zip(panels, metrics):
        for number, (model, score) in enumerate(series):
            series_rows = [row for row in rows if (row["metric"], row["model"], row["score"]) == (metric, model, score)]
            values = np.array([[row[key] for row in series_rows] for key in ("value", "low", "high")])
            offset = step * (number - (len(series) - 1) / 2)
            heights = [groups.index(row["group"]) + offset for row in series_rows]
            axes.errorbar(
                values[0],
                heights,
                xerr=np.nan_to_num(np.abs(values[1:] - values[0])),
                fmt="osD^vPX*"[scores.index(score) % 8],
                color=f"C{models.index(model) % 10}",
                markersize=4,
                linewidth=1,
                label=f"{model}, {score}",
            )
        if metric in CHANCE:
            axes.axvline(CHANCE[metric], linestyle="--", linewidth=1, color="grey")
        axes.set_xlabel(NAMES[metric])
        axes.grid(axis="x", alpha=0.3)
        for between in range(1, len(groups)):
            axes.axhline(between - 0.5, linewidth=0.5, color="lightgrey")
    panels[0].set_yticks(range(len(groups)), groups)
    panels[0].set_ylim(len(groups) - 0.5, -0.5)
    panels[-1].legend(loc="upper left", bbox_to_anchor=(1, 1), fontsize="small")
    figure.savefig(path, dpi=150)
