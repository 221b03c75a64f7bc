"""
Write the tables and figures of README.md and docs/ from benchmarks/results.

    python scripts/make_docs_tables.py            update the pages
    python scripts/make_docs_tables.py --check    exit with status 1 if a page is out of date

A table stands between `<!-- table: NAME -->` and `<!-- end -->`, a figure in a sentence between `<!-- figure: NAME -->`
and `<!-- end -->`; NAME is a key of `TABLES` or `FIGURES`. Both come from the Markdown tables that benchmarks write
beside their CSV files. `--check` also compares these two, so that neither can be edited alone.
"""

import argparse
import csv
import math
import os
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from hyenadna_hf.hub.sizes import ALIASES, PUBLISHED_SIZES, parameter_count, published_config
from hyenadna_hf.markdown import markdown_table

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results"
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
MARKED = re.compile(r"(<!-- (table|figure): (\w+) -->)(.*?)(<!-- end -->)", re.DOTALL)
ROUNDED = 0.006  # Markdown tables have three digits

Row = dict[str, str]


@dataclass(frozen=True)
class Table:
    """A table of a page: rows and columns of a table in benchmarks/results, without the ending of its name."""

    source: str
    columns: dict[str, str] | None = None  # heading on the page: heading in the source; all if absent
    where: Callable[[Row], bool] = lambda row: True
    has_source: bool = True  # whether a line on the source follows

    def render(self, page: Path) -> str:
        """Return the table, for a page in the folder of `page`."""
        rows = [row for row in read(self.source) if self.where(row)]
        columns = self.columns or {name: name for name in rows[0]}
        absent = [name for name in columns.values() if name not in rows[0]]
        if absent:
            raise SystemExit(f"{self.source}.md has no column {absent[0]!r}; update TABLES in {Path(__file__).name}.")
        table = markdown_table(columns, ([row[name] for name in columns.values()] for row in rows))
        return "\n".join([*table, *(source_line(self.source, page) if self.has_source else [])])


@dataclass(frozen=True)
class Sizes:
    """The published sizes, from the package."""

    def render(self, page: Path) -> str:
        """Return the table."""
        rows = []
        for name in PUBLISHED_SIZES:
            config = published_config(name)
            aliases = "".join(f", `{alias}`" for alias, size in ALIASES.items() if size == name)
            millions = f"{parameter_count(config) / 1e6:.2f} M"
            rows.append([f"`{name}`{aliases}", config.n_layer, config.d_model, f"{config.max_seq_len:,}", millions])
        return "\n".join(markdown_table(["name", "layers", "width", "longest input, tokens", "parameters"], rows))


@dataclass(frozen=True)
class Output:
    """The output of a command, as benchmarks/quick_start.py recorded it."""

    source: str
    has_source: bool = True

    def render(self, page: Path) -> str:
        """Return the block of text."""
        block = (RESULTS / f"{self.source}.md").read_text(encoding="utf-8").rpartition("```")[0] + "```"
        return "\n".join([block, *(source_line(self.source, page) if self.has_source else [])])


@dataclass(frozen=True)
class Figure:
    """One cell of a table in benchmarks/results."""

    source: str
    column: str
    where: Row

    def render(self, page: Path) -> str:
        """Return the cell."""
        (row,) = (row for row in read(self.source) if all(row[name] == value for name, value in self.where.items()))
        return row[self.column]


LARGEST = "hyenadna-large-1m-seqlen"

TABLES: dict[str, Table | Sizes | Output] = {
    "quick_start": Output("quick_start", has_source=False),
    "quick_start_avx2": Output("quick_start_avx2"),
    "sizes": Sizes(),
    "speed_short": Table(
        "speed",
        {
            "positions": "positions",
            "this package, s": "ours, s",
            "in bfloat16, s": "bfloat16, s",
            "published code, s": "published, s",
            "this package, GB": "ours, GB",
            "published code, GB": "published, GB",
        },
        lambda row: row["rows"] == "1" and row["positions"] in ("1,024", "8,192", "32,768", "160,000"),
        has_source=False,
    ),
    "speed": Table(
        "speed",
        {
            "positions": "positions",
            "rows": "rows",
            "published, s": "published, s",
            '`"auto"`, s': "ours, s",
            '`"fast"`, s': "fast, s",
            "bfloat16, s": "bfloat16, s",
            "attention, s": "attention, s",
            "bound, s": "bound, s",
            "published / auto": "published / ours",
            "auto / bound": "ours / bound",
        },
        lambda row: row["published, s"] != "",
    ),
    "speed_memory": Table(
        "speed",
        {
            "positions": "positions",
            "rows": "rows",
            "published, GB": "published, GB",
            '`"auto"`, GB': "ours, GB",
            '`"fast"`, GB': "fast, GB",
            "attention, GB": "attention, GB",
            "largest error, published": "published, largest difference",
            'largest error, `"auto"`': "ours, largest difference",
        },
        lambda row: row["published, s"] != "",
    ),
    "speed_1m": Table(
        "speed_1m",
        {
            "positions": "positions",
            "published, s": "published, s",
            "this package, s": "ours, s",
            "bound, s": "bound, s",
            "published, GB": "published, GB",
            "this package, GB": "ours, GB",
            "whole process, GB": "ours, whole process, GB",
        },
    ),
    "speed_training": Table(
        "speed_training",
        {
            "positions": "positions",
            "published, s": "published, s",
            "this package, s": "ours, s",
            "bound, s": "bound, s",
            "gradient checkpointing, s": "checkpointed, s",
            "published, GB": "published, GB",
            "this package, GB": "ours, GB",
            "gradient checkpointing, GB": "checkpointed, GB",
        },
    ),
    **{
        name: Table(
            name,
            {
                "width": "width",
                "layers": "layers",
                "rows x positions": "rows x positions",
                "published, ms": "published, ms",
                "this package, ms": "ours, ms",
                "bound, ms": "bound, ms",
                "published / this package": "published / ours",
            },
        )
        for name in ("everyday_training", "everyday_training_bfloat16", "everyday_inference")
    },
    "memory_inference": Table(
        "memory",
        {
            "positions": "positions",
            '`"auto"`, GB': "inference, auto, GB",
            '`"low"`, GB': "inference, low, GB",
            '`"fast"`, GB': "inference, fast, GB",
        },
        lambda row: row["size"] == LARGEST,
    ),
    "memory_training": Table(
        "memory",
        {
            "positions": "positions",
            '`"auto"`, GB': "training, auto, GB",
            '`"low"`, GB': "training, low, GB",
            '`"low"` and gradient checkpointing, GB': "training, checkpointed, GB",
        },
        lambda row: row["size"] == LARGEST and row["training, auto, GB"] + row["training, checkpointed, GB"] != "",
    ),
    "generation": Table(
        "generation",
        {
            "bases before": "prompt, bases",
            "reading them, s": "prefill, s",
            "without the cache, s a base": "recompute, s/base",
            "with the cache, s a base": "cached, s/base",
            "ratio": "ratio",
            "memory, GB": "generating, GB",
        },
    ),
    "gpu": Table(
        "gpu",
        {
            "what": "what",
            "rows": "rows",
            "positions": "positions",
            "model": "way",
            "tokens a second": "tokens/s",
            "GB": "peak GB",
            "published / this": "x published",
        },
        lambda row: (
            row["dtype"] == "bfloat16"
            and row["width"] == "128"
            and row["tokens/s"] != ""
            and row["what"] != "generation"
            and row["positions"] in ("128", "1,024", "2,048", "16,384", "262,144", "1,000,000")
        ),
    ),
    "everyday_training_compiled": Table(
        "everyday_training_compiled",
        {
            "width": "width",
            "layers": "layers",
            "rows x positions": "rows x positions",
            "this package, ms": "ours, ms",
            "compiled, ms": "compiled, ms",
        },
    ),
    "finetuning": Table("finetuning"),
    "scoring": Table("scoring"),
    "splice_annotation": Table("splice_annotation"),
    "finetune_ablation": Table("finetune_ablation", {"setting": "setting", "validation": "validation", "test": "test"}),
    "many_inputs": Table("many_inputs"),
    "peft_methods": Table("peft_methods"),
    "soft_prompt_memory": Table("soft_prompt_memory"),
    "context_parallel": Table("context_parallel"),
    "longest_inputs": Table("longest_inputs"),
    "longest_inputs_measured": Table("longest_inputs_measured"),
    "length_warmup": Table("length_warmup"),
    "leakage": Table("leakage"),
    "pretraining": Table("pretraining"),
    "gue": Table("reproduce_gue/table"),
    "genomic_benchmarks_test_files": Table("reproduce_genomic_benchmarks_test_files/table"),
    "genomic_benchmarks_chr20": Table("reproduce_genomic_benchmarks_chr20/table"),
    "species": Table("reproduce_species/table"),
    "species_lengths": Table("species_lengths"),
    "biotypes": Table("reproduce_biotypes/table"),
    "probe": Table("reproduce_probe/table"),
    "few_shot": Table(
        "few_shot/table",
        {
            "method": "method",
            "tuning sequences": "tuning_samples",
            "shots": "shots",
            "accuracy": "accuracy",
            "without calibration": "uncalibrated_accuracy",
            "low": "accuracy_low",
            "high": "accuracy_high",
        },
    ),
    "few_shot_16k": Table(
        "few_shot_16k/table",
        {
            "demonstrations per class": "shots",
            "tokens": "tokens",
            "accuracy": "accuracy",
            "low": "accuracy_low",
            "high": "accuracy_high",
        },
        lambda row: row["method"] == "",
    ),
    "frozen": Table("reproduce_frozen/table"),
    "pretrained": Table("reproduce_pretrained/table"),
    **{
        f"soft_prompt_{name}": Table(
            f"soft_prompt/{name}/table",
            {
                "method": "method",
                "position": "prompt_position",
                "prompt tokens": "prompt_tokens",
                "accuracy": "accuracy",
                "low": "accuracy_low",
                "high": "accuracy_high",
                "trained parameters": "parameters",
                "seeds": "seeds",
            },
        )
        for name in (
            *("splice_sites_chr20", "prom_core_all", "tf_0"),
            *("prom_core_all_4000", "prom_core_all_chr20", "prom_core_all_16k"),
        )
    },
}

FIGURES = {
    "million_seconds": Figure("speed_1m", "ours, s", {"positions": "1,000,000"}),
    "million_process": Figure("speed_1m", "ours, whole process, GB", {"positions": "1,000,000"}),
    "million_published_seconds": Figure("speed_1m", "published, s", {"positions": "1,000,000"}),
    "million_published_memory": Figure("speed_1m", "published, GB", {"positions": "1,000,000"}),
    "million_memory": Figure("speed_1m", "ours, GB", {"positions": "1,000,000"}),
}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing; status 1 if a page is out of date")
    check = parser.parse_args().check
    problems = list(disagreements()) if check else []
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        updated = update(text, page)
        if check and updated != text:
            problems.append(f"{page.relative_to(ROOT)} is out of date; run python scripts/make_docs_tables.py")
        elif updated != text:
            page.write_text(updated, encoding="utf-8")
            print(page.relative_to(ROOT))
    sys.exit("\n".join(problems) or None)


def update(text: str, page: Path) -> str:
    """Return the text of a page with its tables and figures made anew."""

    def replace(match):
        start, kind, name, _, end = match.groups()
        known = TABLES if kind == "table" else FIGURES
        if name not in known:
            raise SystemExit(f"{page.relative_to(ROOT)}: {kind}: {name} is unknown; known are {', '.join(known)}.")
        content = known[name].render(page)
        return f"{start}\n\n{content}\n\n{end}" if kind == "table" else start + content + end

    return MARKED.sub(replace, text)


def read(source: str) -> list[Row]:
    """Read the first table of a Markdown file in benchmarks/results."""
    lines = (RESULTS / f"{source}.md").read_text(encoding="utf-8").splitlines()
    first = next(number for number, line in enumerate(lines) if line.startswith("|"))
    table = []
    for line in lines[first:]:
        if not line.startswith("|"):
            break
        table.append([cell.strip() for cell in line.strip("|").split("|")])
    head, _, *rows = table
    found = [dict(zip(head, row, strict=True)) for row in rows]
    if {"rows", "positions"} <= set(head):
        for row in found:
            row["rows x positions"] = f"{row['rows']} x {row['positions']}"
    return found


def source_line(source: str, page: Path) -> list[str]:
    """Return lines that link a page to a file in benchmarks/results, without its ending, and name its machine."""
    path = Path(os.path.relpath(RESULTS / f"{source}.md", page.parent)).as_posix()
    return ["", f"<small>[{': '.join([source, *machine(source)])}]({path})</small>"]


def machine(source: str) -> list[str]:
    """Return what a table was measured on: the last line of its file, if it is one on versions."""
    text = (RESULTS / f"{source}.md").read_text(encoding="utf-8")
    last = text.strip().splitlines()[-1]
    return [last] if "PyTorch" in last else []


def disagreements():
    """Yield a sentence for each table whose Markdown and CSV files differ."""
    for beside in sorted(RESULTS.rglob("*.md")):
        file = beside.with_suffix(".csv")
        if not file.is_file():
            continue
        source = file.relative_to(RESULTS).with_suffix("").as_posix()
        with open(file, newline="", encoding="utf-8") as lines:
            rows = list(csv.DictReader(lines))
        if source.startswith("reproduce_"):
            rows, shown = _runs(rows), _matrix(read(source))
        else:
            shown = read(source)
        if len(rows) != len(shown) or not all(_agree(row, other) for row, other in zip(rows, shown)):
            yield f"{beside.relative_to(ROOT)} and {file.name} differ; run the benchmark again"


def _agree(row, shown):
    return all(_equal(value, shown[name]) for name, value in row.items())


def _equal(value, shown):
    try:
        return math.isclose(float(value), float(shown.replace(",", "")), rel_tol=ROUNDED, abs_tol=1e-9)
    except ValueError:
        return value == shown


def _runs(rows):
    """The mean of each cell of a reproduced table, by row and model, as its Markdown shows it."""
    return [
        {"cell": f"{row['row']}, {row['model']}", "mean": f"{float(row['mean']):.{row.get('digits') or 1}f}"}
        for row in rows
        if row["mean"]
    ]


def _matrix(shown):
    cells = [(row[""], model, cell) for row in shown for model, cell in row.items() if model and cell not in ("", "-")]
    return [{"cell": f"{row}, {model}", "mean": cell.split()[0]} for row, model, cell in cells]


if __name__ == "__main__":
    main()
