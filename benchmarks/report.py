"""Tables of measurements, as CSV and Markdown, and the machine that they were made on."""

import csv
import os
import platform
from pathlib import Path

import torch
import transformers


def machine():
    """One line on hardware and versions."""
    name = torch.cuda.get_device_name() if torch.cuda.is_available() else f"{os.cpu_count()} CPU cores, no GPU"
    return (
        f"{name}; Python {platform.python_version()}, PyTorch {torch.__version__} with {torch.get_num_threads()} "
        f"threads, transformers {transformers.__version__}"
    )


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
    lines = ["| " + " | ".join(rows[0]) + " |", "|" + "---|" * len(rows[0])]
    lines += ["| " + " | ".join(map(_text, row.values())) + " |" for row in rows]
    text = "\n".join(lines) + "\n"
    path.with_suffix(".md").write_text(f"{text}\n{machine()}\n", encoding="utf-8")
    print(text)


def _text(value):
    if isinstance(value, float):
        return f"{value:.3g}" if abs(value) < 1000 else f"{value:,.0f}"
    return f"{value:,}" if isinstance(value, int) else str(value)
