"""Tables of measurements, as CSV and Markdown."""

import csv
from pathlib import Path

from hyenadna_hf.markdown import markdown_table
from hyenadna_hf.reproduce.report import machine


def write_table(rows, path):
    """
    Write `path` with the endings .csv and .md.

    Args:
        rows (`list[dict]`): Each with the same keys, the heads of the columns; floats are written with three digits.
        path (`str` or `Path`): Without ending.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path.with_suffix(".csv"), "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, rows[0].keys())
        writer.writeheader()
        writer.writerows(rows)
    text = "\n".join(markdown_table(rows[0], (map(_text, row.values()) for row in rows))) + "\n"
    path.with_suffix(".md").write_text(f"{text}\n{machine()}\n", encoding="utf-8")
    print(text)


def _text(value):
    if isinstance(value, float):
        return f"{value:.3g}" if abs(value) < 1000 else f"{value:,.0f}"
    return f"{value:,}" if isinstance(value, int) else str(value)
