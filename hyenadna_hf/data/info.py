"""`hyenadna data`: describe or preview a labelled data set."""

import warnings
from collections import Counter
from dataclasses import dataclass, field
from statistics import median
from typing import Any

from datasets import DatasetDict
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from ..arguments import CommandParser
from ..errors import InputError
from .benchmarks import load_benchmark
from .genomic_benchmarks import GENOMIC_BENCHMARKS
from .labelled import BUNDLED, load_labelled_sequences
from .leakage import CONTAINMENT, KINDS, DistinctSequences, K
from .named import BENCHMARKS, benchmark_of
from .nucleotide_transformer import GUE_TASKS, NUCLEOTIDE_TRANSFORMER_TASKS

BARS = " ▏▎▍▌▋▊▉█"


@dataclass
class DataInfoArguments:
    source: str | None = field(
        default=None, metadata={"help": "Where the files of a published set are, in place of the Hub."}
    )
    fasta: str | None = field(
        default=None, metadata={"help": "FASTA file that tables of intervals belong to.", "formerly": ["reference"]}
    )
    rows: int = field(default=3, metadata={"help": "preview: sequences to show of each class, in number."})
    width: int = field(default=50, metadata={"help": "preview: bases to show of each sequence."})


def parser():
    """The arguments of `hyenadna data`."""
    parser = CommandParser(
        "data",
        DataInfoArguments,
        "Print sizes, classes, lengths, GC, duplicates and leakage of a labelled data set (info), or some of its "
        "sequences (preview).",
        "info|preview [NAME] [ARGUMENT ...]",
        ["info", "info splice_sites_chr20 --json", "preview my_data/ --rows 5"],
    )
    parser.add_argument("what", choices=("info", "preview"), help="What to print.")
    parser.add_argument(
        "name",
        nargs="?",
        help="A published set, or what --dataset of hyenadna finetune takes; without it, info lists the former.",
    )
    return parser


def main(argv: list[str]) -> dict[str, Any]:
    """Run `hyenadna data` with the arguments `argv` (a list of `str`)."""
    arguments, asked = parser().parse(argv)
    for name in ("rows", "width"):
        if getattr(arguments, name) < 1:
            raise InputError(f"--{name} {getattr(arguments, name)}: give 1 or more.")
    console = Console()
    if asked.name is None:
        if asked.what == "preview":
            raise InputError("preview: name a data set; hyenadna data info lists the published ones.")
        return _print_published(console)
    with warnings.catch_warnings(record=True) as noted:
        warnings.simplefilter("always", UserWarning)
        data = _load(asked.name, arguments)
    for note in noted:
        console.print(f"[yellow]{escape(str(note.message))}[/yellow]")
    if asked.what == "preview":
        return _print_preview(console, data, arguments)
    return _print_info(console, asked.name, data)


def describe(data: DatasetDict) -> dict:
    """
    Compute sizes, classes, lengths, GC, duplicates and leakage of labelled sequences.

    Args:
        data: With columns `sequence` and `label`, and perhaps `region`, `start` and `end`.

    Returns:
        For each of `splits`, `sequences`, `classes` (number of sequences by name), `lengths` (a `list`, in bases), `gc`
        (share of G and C among A, C, G and T), `duplicates` and `reverse_complements` (see
        [`DistinctSequences.duplicates`]); and `leakage` (see [`DistinctSequences.leakage`]).
    """
    distinct = DistinctSequences(data)
    duplicates = distinct.duplicates()
    splits = {}
    for name, split in data.items():
        bases, lengths = Counter(), []
        for sequence in split["sequence"]:
            sequence = sequence.upper()
            lengths.append(len(sequence))
            for base in "ACGTU":
                bases[base] += sequence.count(base)
        classes = Counter(split["label"])
        splits[name] = {
            "sequences": len(split),
            "classes": {label: classes[i] for i, label in enumerate(split.features["label"].names)},
            "lengths": lengths,
            "gc": (bases["G"] + bases["C"]) / max(1, sum(bases.values())),
            **duplicates[name],
        }
    return {"splits": splits, "leakage": distinct.leakage()}


def _load(name: str, arguments):
    benchmark = BENCHMARKS.get(name) if arguments.source else benchmark_of(name)
    if benchmark is not None:
        return load_benchmark(name, benchmark, arguments.source, arguments.fasta)
    if arguments.source:
        raise InputError(f"--source: {name} is no published set; name its files in place of {name}.")
    return load_labelled_sequences(name, reference=arguments.fasta)


def _print_published(console):
    collections = {
        "GenomicBenchmarks": GENOMIC_BENCHMARKS,
        "Nucleotide Transformer": NUCLEOTIDE_TRANSFORMER_TASKS,
        "GUE": GUE_TASKS,
    }
    for collection, sets in collections.items():
        table = Table(title=collection, box=None)
        table.add_column("name", no_wrap=True)
        for column in ("classes", "train", "test", "bases", "metric"):
            table.add_column(column, justify="right", no_wrap=True)
        for name, known in sets.items():
            sizes = ("" if size is None else f"{size:,}" for size in (known.train, known.test))
            table.add_row(name, str(len(known.classes)), *sizes, f"{known.length:,}", known.metric)
        console.print(table)
    console.print(f"Shipped with the package: {', '.join(BUNDLED)}")
    return {**{collection: list(sets) for collection, sets in collections.items()}, "bundled": list(BUNDLED)}


def _print_info(console, name: str, data):
    found = describe(data)
    splits = found["splits"]
    table = Table(title=escape(name))
    table.add_column("")
    for split in splits:
        table.add_column(split, justify="right")
    table.add_row("sequences", *(f"{facts['sequences']:,}" for facts in splits.values()))
    for label in data["train"].features["label"].names:
        table.add_row(f"  class {escape(label)}", *(f"{facts['classes'][label]:,}" for facts in splits.values()))
    for row, of in (("shortest", min), ("median length", median), ("longest", max)):
        table.add_row(row, *(f"{of(facts['lengths']):,.0f}" for facts in splits.values()))
    table.add_row("GC", *(f"{facts['gc']:.1%}" for facts in splits.values()))
    table.add_row("duplicates", *(f"{facts['duplicates']:,}" for facts in splits.values()))
    table.add_row("  as reverse complement", *(f"{facts['reverse_complements']:,}" for facts in splits.values()))
    console.print(table)
    console.print(_leakage_table(found["leakage"], splits))
    console.print(
        f"Near duplicates: {CONTAINMENT:.0%} or more of the distinct {K}-mers are in one sequence of the other."
    )
    console.print("\nLengths in bases, all splits:")
    for line in histogram([length for facts in splits.values() for length in facts["lengths"]]):
        console.print(line, highlight=False)
    for facts in splits.values():
        lengths = facts.pop("lengths")
        facts |= {"shortest": min(lengths), "median_length": median(lengths), "longest": max(lengths)}
    leakage = {f"{second} in {first}": counts for (first, second), counts in found["leakage"].items()}
    near_duplicate = {"k": K, "containment": CONTAINMENT}
    return {"name": name, "splits": splits, "leakage": leakage, "near_duplicate": near_duplicate}


def _leakage_table(leakage, splits):
    table = Table(title="Sequences of a split that are in another one too")
    table.add_column("")
    for first, second in leakage:
        table.add_column(f"{second} in {first}", justify="right")
    for kind, name in KINDS.items():
        shares = (_share(counts[kind], splits[second]["sequences"]) for (_, second), counts in leakage.items())
        table.add_row(name, *shares)
    return table


def _share(count: int, total):
    return "unknown" if count is None else f"{count:,} ({count / total:.1%})"


def histogram(values: list[int], bins: int = 12, width: int = 40) -> list[str]:
    """
    A picture of a distribution, as lines of text.

    Args:
        values: One at least.
        bins: How many classes of equal width.
        width: Characters of the longest bar.

    Returns:
        A line for each class: from, to, a bar and the number of values.
    """
    low, high = min(values), max(values)
    step = max(1, -(-(high - low + 1) // bins))
    counts = Counter((value - low) // step for value in values)
    most = max(counts.values())
    lines = []
    for number in range((high - low) // step + 1):
        eighths = round(8 * width * counts[number] / most) or bool(counts[number])
        bar = "█" * (eighths // 8) + BARS[eighths % 8].strip()
        first, last = low + number * step, min(high, low + (number + 1) * step - 1)
        lines.append(f"{first:>10,} to {last:>10,} {bar:<{width}} {counts[number]:,}")
    return lines


def _print_preview(console, data, arguments):
    split = data["train"]
    names = split.features["label"].names
    shown, rows = Counter(), []
    table = Table(title=f"Train: {len(split):,} sequences")
    table.add_column("class", overflow="fold")
    table.add_column("bases", justify="right", no_wrap=True)
    table.add_column("sequence", overflow="fold")
    for row in split:
        if shown[row["label"]] < arguments.rows:
            shown[row["label"]] += 1
            sequence = row["sequence"]
            rows.append({"class": names[row["label"]], "sequence": sequence})
            cut = "..." if len(sequence) > arguments.width else ""
            table.add_row(escape(names[row["label"]]), f"{len(sequence):,}", sequence[: arguments.width] + cut)
        if sum(shown.values()) == arguments.rows * len(names):
            break
    console.print(table)
    return {"sequences": len(split), "rows": rows}
