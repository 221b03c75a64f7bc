"""A table of results as CSV, Markdown and a picture, with the published figures beside ours."""

import statistics

import pandas as pd

from ..jobs import replace_file, write_text
from ..machine import machine
from ..markdown import markdown_table


def lines(table, rows, results):
    """
    One line a row and model.

    Args:
        table ([`Table`]): Gives models and published figures.
        rows (`dict[str, Row]`): By name.
        results (`list[dict]`): Of cells.

    Returns:
        `list[dict]`: for each the published figure, mean, standard deviation (`None` for one run) and number of runs,
        and how they were made; in the order of rows, then models.
    """
    models = dict.fromkeys(result["model"] for result in results)
    found = []
    for row, what in rows.items():
        of_row = [result for result in results if result["dataset"] == what.dataset]
        for name in _metrics(what, of_row):
            shown = row if name == what.metric else f"{row}, {name}"
            for model in models:
                runs = [result for result in of_row if result["model"] == model]
                if runs:
                    published = table.published.get(row, {}).get(model)
                    found.append({"row": shown, "model": model, **_line(runs, name, what, published)})
    return found


def _metrics(row, results):
    """The metrics of a row: its own, or all that begin like it if there are several kinds of runs."""
    names = dict.fromkeys(name for result in results for name in result.get("metrics", ()))
    several = [name for name in names if name.startswith(f"{row.metric}, ")]
    return several or [row.metric]


def _line(runs, metric, row, published):
    done = [run for run in runs if metric in run.get("metrics", ())]
    values = [row.scale * run["metrics"][metric] for run in done]
    first = (done or runs)[0]
    reasons = dict.fromkeys(run.get("reason", f"it gave no {metric}") for run in runs if run not in done)
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


def write(table, found, out, command):
    """
    Write `table.csv`, `table.md` and `table.png` into a folder.

    Args:
        table ([`Table`]): What the title and note are.
        found (`list[dict]`): From [`lines`].
        out (`Path`): The folder.
        command (`str`): What made them.
    """
    rounded = [{name: round(x, 4) if isinstance(x, float) else x for name, x in line.items()} for line in found]
    frame = pd.DataFrame(rounded, dtype=object)  # whole numbers stay whole beside empty cells
    replace_file(out / "table.csv", lambda path: frame.to_csv(path, index=False))
    text = markdown(table, found, command)
    write_text(out / "table.md", text)
    if frame["mean"].notna().any() or frame["published"].notna().any():
        replace_file(out / "table.png", lambda path: _plot(table, found, path))


def markdown(table, found, command):
    """The table as text: figures first, then how each was made."""
    rows, models = (list(dict.fromkeys(line[key] for line in found)) for key in ("row", "model"))
    cells = {(line["row"], line["model"]): line for line in found}
    figures = [[row, *(_figure(cells.get((row, model))) for model in models)] for row in rows]
    runs = [
        [
            line["row"],
            line["model"],
            line["metric"],
            f"{line['data']}: {line['split']}" if line["data"] else "",
            " / ".join(_number(line[split]) for split in ("train", "validation", "test")),
            line["seeds"],
            line["evaluated"],
            _number(line["epochs"]),
            _number(line["seconds"]),
            line["reason"] or line["start"],
        ]
        for line in found
    ]
    head = ["", "model", "metric", "data", "train / validation / test", "seeds", "evaluated", "epochs", "s a run"]
    commands = dict.fromkeys(line["command"] for line in found if line["command"])
    listed = ["Each with its first seed:", "", "```bash", *commands, "```", ""] if commands else []
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
            *markdown_table([*head, "start, or why there is none"], runs),
            "",
            *listed,
            machine(),
            "",
        ]
    )


def _figure(line):
    if line is None:
        return ""
    digits = line["digits"]
    published = "" if line["published"] is None else f" [{line['published']:.{digits}f}]"
    if not line["n"]:
        return f"-{published}"
    spread = "" if line["sd"] is None else f" ± {line['sd']:.{digits}f}"
    return f"{line['mean']:.{digits}f}{spread} ({line['n']}){published}"


def _number(value):
    return "" if value is None else f"{value:,.0f}" if value == int(value) or value > 100 else f"{value:.1f}"


def _plot(table, found, path):
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    rows, models = (list(dict.fromkeys(line[key] for line in found)) for key in ("row", "model"))
    figure, axes = plt.subplots(figsize=(8, 1.5 + 0.18 * len(rows) * (len(models) + 1)), layout="constrained")
    for number, model in enumerate(models):
        shown = [line for line in found if line["model"] == model]
        heights = {line["row"]: rows.index(line["row"]) + 0.8 * (number + 0.5) / len(models) - 0.4 for line in shown}
        color = f"C{number % 10}"
        ours = [line for line in shown if line["n"]]
        axes.errorbar(
            [line["mean"] for line in ours],
            [heights[line["row"]] for line in ours],
            xerr=[line["sd"] or 0 for line in ours],
            fmt="o",
            color=color,
            label=model,
        )
        published = [line for line in shown if line["published"] is not None]
        at = [heights[line["row"]] for line in published]
        axes.plot([line["published"] for line in published], at, "D", color=color, fillstyle="none", markersize=7)
    if any(line["published"] is not None for line in found):
        axes.plot([], [], "D", color="gray", fillstyle="none", label="published")
    axes.set_yticks(range(len(rows)), rows)
    axes.set(xlabel="%", title=table.title)
    axes.invert_yaxis()
    axes.grid(axis="x", alpha=0.3)
    axes.legend(loc="upper left", bbox_to_anchor=(1, 1))
    figure.savefig(path, dpi=150)
    plt.close(figure)
