"""benchmarks/gpu.py, whose files tell all that it measured, and all that it did not."""

import csv
import json
import math
import shutil
from pathlib import Path

import pytest
from forked import run_script

ROOT = Path(__file__).parents[1]


def measured(out, *options):
    """Run it on the CPU, and read its rows after comparing those of its files."""
    result = run_script(ROOT / "benchmarks" / "gpu.py", "--quick", "--device", "cpu", "--out", out, *options)
    assert result.returncode == 0, result.stdout + result.stderr
    assert {path.name for path in out.iterdir()} == {"tests.txt", "gpu.csv", "gpu.md", "gpu.json", "gpu.png"}
    assert "not run" in (out / "tests.txt").read_text(encoding="utf-8")
    found = json.loads((out / "gpu.json").read_text(encoding="utf-8"))
    assert {"device", "python", "torch", "cuda", "transformers", "triton", "commit", "date"} <= found.keys()
    with open(out / "gpu.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert rows == [{name: "" if x is None else str(x) for name, x in row.items()} for row in found["rows"]]
    table = [line for line in (out / "gpu.md").read_text(encoding="utf-8").splitlines() if line.startswith("|")]
    assert len(table) == len(rows) + 2
    return found["rows"]


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="inductor compiles its kernels with a C++ compiler")
def test_every_way_is_measured(tmp_path):
    rows = measured(tmp_path / "out")
    done = [row for row in rows if row["note"] != "no time"]
    assert not any(row["note"] for row in done)
    for row in done:
        assert row["tokens/s"] > 0 and row["ms"] > 0 and row["peak GB"] is None, row
        assert ("attention" in row["way"]) == (row["error"] is None), row
        if row["error"] is not None:
            assert math.isfinite(row["error"]) and row["error"] < (1e-4 if row["dtype"] == "float32" else 0.1), row
    eager = [row for row in rows if "compiled" not in row["way"] and row["dtype"] == "bfloat16"]
    assert len(eager) == 21 and all(row["x published"] > 0 for row in eager)
    assert {row["way"] for row in done} >= {"ours", "ours compiled", "published", "attention"}


def test_without_time_every_row_says_so(tmp_path):
    rows = measured(tmp_path / "out", "--minutes", "0")
    assert len(rows) == 44
    assert all(row["note"] == "no time" and row["tokens/s"] is None for row in rows)
