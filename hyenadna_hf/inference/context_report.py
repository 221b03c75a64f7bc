"""Report the use of context in a Markdown table and plots."""

from pathlib import Path
from typing import Any

import numpy as np

from ..markdown import markdown_table

# Differences to the loss with a first copy: of the loss without one, and with a shuffled one.
GAINS = {"gain": "no first copy", "gain_over_shuffled": "a shuffled first copy"}


def markdown(result: dict[str, Any], needles: str, length: int, bootstrap: int, command: str) -> str:
    """
    Format both tables.

    Args:
        result: Result of [`~hyenadna_hf.inference.context.context`].
        needles: Kind of the segments, `random` or `real`.
        length: Bases of a segment.
        bootstrap: Number of bootstrap samples.
        command: Command line to show.
    """
    windows = result["windows"]
    interval = f" In brackets: intervals of 95 % from {bootstrap:,} samples of windows." if bootstrap else ""
    lines = ["# Use of context", "", "```bash", command, "```", ""]
    lines += [
        f"Windows of {result['window']:,} bases of {result['region']}, forward strand; bits per base with "
        f"probabilities over A, C, G and T, 2 without knowledge.{interval}",
        "",
        "## Repeated segments",
        "",
        f"{windows['needle']:,} {needles} segments of {length} bases, one at the end of each window. The gain is how "
        "many bits fewer a base of the segment takes if the segment also occurs this far back; the gain over a "
        "shuffled copy leaves out what its composition tells.",
        "",
    ]
    body = [
        [
            f"{row['distance']:,}",
            *(figure_of(row, name, "+.3f") for name in GAINS),
            *(f"{row[key]:.3f}" for key in ("bits_control", "bits_with_copy", "bits_with_shuffled")),
        ]
        for row in result["needle"]
    ]
    head = ["distance", "gain", "gain over shuffled", "without a first copy", "with it", "with a shuffled one"]
    lines += markdown_table(head, body)
    lines += [
        "",
        "## Loss by the amount of context",
        "",
        f"{windows['loss_by_position']:,} windows without overlap.",
        "",
    ]
    body = [[_range(row), figure_of(row, "bits", ".3f"), f"{row['bases']:,}"] for row in result["loss_by_position"]]
    lines += markdown_table(["bases of context", "bits per base", "bases scored"], body)
    return "\n".join(lines) + "\n"


def figure_of(row: dict[str, Any], name: str, form: str) -> str:
    """Format a value of a row with its interval."""
    if np.isnan(row[name]):
        return "-"
    low, high = row[f"{name}_low"], row[f"{name}_high"]
    interval = "" if np.isnan(low) else f" [{low:{form}}, {high:{form}}]"
    return f"{row[name]:{form}}{interval}"


def _range(row: dict[str, Any]) -> str:
    first, last = row["context_from"], row["context_to"]
    return f"{first:,}" if first == last else f"{first:,} to {last:,}"


def draw_repeats(path: Path, rows: list[dict[str, Any]]) -> None:
    """Draw the gain of a first copy by its distance, from the rows of `needle.csv`."""
    figure, axes = _axes()
    for name, reference in GAINS.items():
        _draw_line(axes, [row["distance"] for row in rows], rows, name, f"against {reference}")
    axes.legend()
    axes.axhline(0, linestyle="--", linewidth=1, color="grey")
    axes.set_xlabel("bases back to the first copy")
    axes.set_ylabel("gain, bits per base of the copy")
    figure.savefig(path, dpi=150)


def draw_losses(path: Path, rows: list[dict[str, Any]]) -> None:
    """Draw the loss by the amount of context, from the rows of `loss_by_position.csv`."""
    figure, axes = _axes()
    middles = [max(0.5, np.sqrt(row["context_from"] * row["context_to"])) for row in rows]  # of a bin, on the log scale
    _draw_line(axes, middles, rows, "bits")
    axes.axhline(2, linestyle="--", linewidth=1, color="grey")
    axes.set_xlabel("bases of context")
    axes.set_ylabel("bits per base")
    figure.savefig(path, dpi=150)


def _axes() -> tuple[Any, Any]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    axes.set_xscale("log")
    axes.grid(alpha=0.3)
    return figure, axes


def _draw_line(axes: Any, places: list[float], rows: list[dict[str, Any]], name: str, label: str = "") -> None:
    values, low, high = (np.array([row[key] for row in rows]) for key in (name, f"{name}_low", f"{name}_high"))
    errors = np.nan_to_num(np.abs([low - values, high - values]))
    axes.errorbar(places, values, yerr=errors, fmt="o-", capsize=3, label=label)
