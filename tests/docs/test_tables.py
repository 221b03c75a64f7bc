"""Tables and figures of README.md and docs/ are those of benchmarks/results."""

import csv
import importlib.util
import re
import shutil
import sys
from pathlib import Path

import pytest
from PIL import Image

ROOT = Path(__file__).parents[2]


@pytest.fixture
def script(monkeypatch, tmp_path):
    """The script on a copy of the pages and results, to change at will."""
    spec = importlib.util.spec_from_file_location("make_docs_tables", ROOT / "scripts" / "make_docs_tables.py")
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, module)  # dataclasses look their module up
    spec.loader.exec_module(module)
    shutil.copytree(ROOT / "docs", tmp_path / "docs")
    shutil.copytree(ROOT / "benchmarks" / "results", tmp_path / "benchmarks" / "results")
    shutil.copy(ROOT / "README.md", tmp_path)
    monkeypatch.setattr(module, "ROOT", tmp_path)
    monkeypatch.setattr(module, "RESULTS", tmp_path / "benchmarks" / "results")
    monkeypatch.setattr(module, "PAGES", [tmp_path / "README.md", *sorted((tmp_path / "docs").glob("*.md"))])
    return module


def run(script, monkeypatch, *arguments):
    """Return the exit message of the script, `None` for success."""
    monkeypatch.setattr(sys, "argv", ["make_docs_tables.py", *arguments])
    with pytest.raises(SystemExit) as stop:
        script.main()
    return stop.value.code


def test_pages_are_up_to_date(script, monkeypatch):
    assert run(script, monkeypatch, "--check") is None


def test_every_table_is_on_a_page(script):
    text = "".join(page.read_text(encoding="utf-8") for page in script.PAGES)
    assert set(re.findall(r"<!-- table: (\w+) -->", text)) == script.TABLES.keys()
    assert set(re.findall(r"<!-- figure: (\w+) -->", text)) == script.FIGURES.keys()
    assert text.count("<!-- end -->") == len(re.findall(r"<!-- (?:table|figure): ", text))


def test_a_changed_result_needs_new_pages(script, monkeypatch):
    table, cells = script.RESULTS / "speed.md", script.RESULTS / "speed.csv"
    [row] = (row for row in script.read("speed") if row["rows"] == "1" and row["positions"] == "8,192")
    [exact] = (
        row["ours, s"]
        for row in csv.DictReader(cells.read_text(encoding="utf-8").splitlines())
        if row["rows"] == "1" and row["positions"] == "8192"
    )
    table.write_text(table.read_text(encoding="utf-8").replace(f"| {row['ours, s']} |", "| 7.77 |"), encoding="utf-8")
    message = run(script, monkeypatch, "--check")
    assert "speed.md and speed.csv differ" in message
    assert "README.md is out of date" in message and "performance.md is out of date" in message
    cells.write_text(cells.read_text(encoding="utf-8").replace(exact, "7.7712345"), encoding="utf-8")
    assert "differ" not in run(script, monkeypatch, "--check")
    assert run(script, monkeypatch) is None
    assert run(script, monkeypatch, "--check") is None
    assert "| 8,192 | 7.77 |" in (script.ROOT / "README.md").read_text(encoding="utf-8")


def test_an_unknown_name_is_an_error(script, monkeypatch):
    page = script.PAGES[0]
    page.write_text(page.read_text(encoding="utf-8").replace("table: speed_short", "table: sped"), encoding="utf-8")
    assert re.search("README.md: table: sped is unknown", run(script, monkeypatch, "--check"))


def test_the_picture_shows_these_results():
    spec = importlib.util.spec_from_file_location("overview", ROOT / "docs" / "overview.py")
    overview = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(overview)
    with Image.open(ROOT / "docs" / "overview.png") as picture:
        assert picture.text["Results"] == overview.digest(), "run python docs/overview.py"


def test_results_are_tables_and_plots(script):
    others = [
        path for path in script.RESULTS.rglob("*") if path.is_file() and path.suffix not in (".csv", ".md", ".png")
    ]
    assert others == []
