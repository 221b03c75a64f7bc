"""Tables of measurements, as CSV and Markdown."""

import csv
import statistics
import subprocess
from pathlib import Path

from hyenadna_hf.machine import machine
from hyenadna_hf.markdown import markdown_table


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
    table = "\n".join(markdown_table(rows[0], (map(text, row.values()) for row in rows))) + "\n"
    path.with_suffix(".md").write_text(f"{table}\n{machine()}{commit()}\n", encoding="utf-8")
    print(table)


def spread(values, digits):
    """Return the mean and, of several values, the standard deviation."""
    deviation = f" ± {statistics.stdev(values):.{digits}f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.{digits}f}{deviation}"


def commit():
    """Return the commit that is measured, as the end of a line; nothing outside a repository."""
    command = ["git", "-C", Path(__file__).parent, "describe", "--always", "--dirty", "--exclude", "*"]
    described = subprocess.run(command, capture_output=True, text=True)
    return f"; commit {described.stdout.strip()}" if described.returncode == 0 else ""


def text(value):
    """A cell: floats with three digits, nothing for `None`."""
    if isinstance(value, float):
        return f"{value:.3g}" if abs(value) < 1000 else f"{value:,.0f}"
    return "" if value is None else f"{value:,}" if isinstance(value, int) else str(value)
