"""Report probes in a Markdown table and a heat map of layers and poolings."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..markdown import markdown_table

if TYPE_CHECKING:
    import pandas as pd

NAMES = {"accuracy": "accuracy", "mcc": "MCC", "f1": "macro F1", "f1_weighted": "weighted F1", "auroc": "AUROC"}


def figure_of(row: dict[str, Any], metric: str) -> str:
    """Format the mean of a metric, with its standard deviation if there are several seeds."""
    deviation = row[f"{metric}_sd"]
    return f"{row[metric]:.3f}" + ("" if np.isnan(deviation) else f" ± {deviation:.3f}")


def markdown(result: dict[str, Any], command: str) -> str:
    """
    Format the selected layers and poolings: a table per number of training sequences.

    Args:
        result: Result of [`~hyenadna_hf.probing.probe.probe`].
        command: Command line to show.
    """
    sizes = ", ".join(f"{number:,} in {split}" for split, number in result["sequences"].items())
    lines = ["# Probes", "", "```bash", command, "```", "", f"Sequences of {result['dataset']}: {sizes}."]
    lines += [
        f"{model}: {number:,} sequences are longer than the model reads and were truncated."
        for model, number in result["truncated"].items()
        if number
    ]
    lines += [
        "",
        f"Hyper-parameters, layer and pooling have the best {NAMES[result['metric']]} on validation, which is always "
        "used as a whole. The other figures are those of test: means over seeds, with standard deviations over draws "
        "of training sequences. Random weights have the configuration of the model.",
    ]
    metrics = [name for name in NAMES if name in result["selected"][0]]
    for size in dict.fromkeys(row["train_size"] for row in result["selected"]):
        rows = [row for row in result["selected"] if row["train_size"] == size]
        title = "All training sequences" if size == "all" else f"{size} training sequences per class"
        head = ["model", "classifier", "layer", "pooling", f"validation {NAMES[result['metric']]}"]
        body = [
            [
                *(row[key] for key in ("model", "classifier", "layer", "pooling")),
                f"{row['validation']:.3f}",
                *(figure_of(row, metric) for metric in metrics),
            ]
            for row in rows
        ]
        lines += ["", f"## {title}", "", *markdown_table([*head, *(NAMES[metric] for metric in metrics)], body)]
    return "\n".join(lines) + "\n"


def draw(path: Path, rows: "pd.DataFrame", result: dict[str, Any]) -> None:
    """
    Draw heat maps of layers and poolings on validation, a row per model and a column per classifier.

    Args:
        path: Picture to write; its suffix sets the format.
        rows: Rows of `scores.csv`. Those of the last number of training sequences are drawn.
        result: Result of [`~hyenadna_hf.probing.probe.probe`]. Selected layers and poolings have a frame.
    """
    from matplotlib.figure import Figure
    from matplotlib.patches import Rectangle

    metric, size = result["metric"], result["selected"][-1]["train_size"]
    chosen = (rows["split"] == "validation") & (rows["metric"] == metric) & (rows["train_size"] == size)
    tables = {
        key: group.pivot_table(index="layer", columns="pooling", values="value", sort=False)
        for key, group in rows[chosen].groupby(["model", "classifier"], sort=False)
    }
    models, classifiers = (list(dict.fromkeys(part)) for part in zip(*tables))
    values = rows[chosen]["value"]
    low, high = values.min(), values.max()
    shape = (max(map(len, tables.values())), len(next(iter(tables.values())).columns))
    width = (1.4 + 0.75 * shape[1]) * len(classifiers) + 1
    figure = Figure(figsize=(width, (1 + 0.4 * shape[0]) * len(models) + 0.6), layout="constrained")
    panels: Any = figure.subplots(len(models), len(classifiers), squeeze=False)
    picked = {(row["model"], row["classifier"]): row for row in result["selected"] if row["train_size"] == size}
    for (model, classifier), table in tables.items():
        axes = panels[models.index(model)][classifiers.index(classifier)]
        picture = axes.imshow(table, cmap="viridis", vmin=low, vmax=high, aspect="auto")
        axes.set_xticks(range(len(table.columns)), table.columns)
        axes.set_yticks(range(len(table.index)), table.index)
        for (y, x), value in np.ndenumerate(table.to_numpy()):
            bright = high > low and (value - low) / (high - low) > 0.6
            axes.text(x, y, f"{value:.2f}", ha="center", va="center", size=7, color="black" if bright else "white")
        row = picked[model, classifier]
        x, y = table.columns.get_loc(row["pooling"]), table.index.get_loc(row["layer"])
        axes.add_patch(Rectangle((x - 0.5, y - 0.5), 1, 1, fill=False, edgecolor="red", linewidth=2))
        axes.set_title(f"{Path(model).name}, {classifier}", size=8)
        axes.set_ylabel("layer")
    sizes = "all training sequences" if size == "all" else f"{size} training sequences per class"
    figure.colorbar(picture, ax=panels, label=f"{NAMES[metric]} on validation, {sizes}")
    figure.savefig(path, dpi=150)
