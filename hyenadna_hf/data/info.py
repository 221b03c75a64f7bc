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
from .files import find_published
from .genomic_benchmarks import GENOMIC_BENCHMARKS
from .labelled import BUNDLED, load_labelled_sequences
from .leakage import CONTAINMENT, KINDS, DistinctSequences, K
from .named import BENCHMARKS
from .nucleotide_transformer import GUE_TASKS, NUCLEOTIDE_TRANSFORMER_TASKS, REVISED_NUCLEOTIDE_TRANSFORMER_TASKS

BARS = " ▏▎▍▌▋▊▉█"


@dataclass
class DataInfoArguments:
    source: str | None = field(
        default=None, metadata={"help": "Location of the files of a published data set (default: the Hub)."}
    )
    fasta: str | None = field(
        default=None, metadata={"help": "Reference genome (FASTA) of tables of intervals.", "formerly": ["reference"]}
    )
    rows: int = field(default=3, metadata={"help": "preview: number of sequences to show per class."})
    width: int = field(default=50, metadata={"help": "preview: number of bases to show per sequence."})


def parser() -> CommandParser:
    """Build the argument parser of `hyenadna data`."""
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
        help="A published data set, or any data set that hyenadna finetune --dataset accepts (default: list them).",
    )
    return parser


def main(argv: list[str]) -> dict[str, Any]:
    """Run `hyenadna data` with the arguments `argv`."""
    arguments, command = parser().parse(argv)
    for name in ("rows", "width"):
        if getattr(arguments, name) < 1:
            raise InputError(f"--{name} {getattr(arguments, name)}: give at least 1.")
    console = Console()
    if command.name is None:
        if command.what == "preview":
            raise InputError("preview: give a data set; hyenadna data info lists the published ones.")
        return _print_published(console)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        data = _load(command.name, arguments)
    for warning in caught:
        console.print(f"[yellow]{escape(str(warning.message))}[/yellow]")
    if command.what == "preview":
        return _print_preview(console, data, arguments)
    return _print_info(console, command.name, data)


def describe(data: DatasetDict) -> dict[str, Any]:
    """
    Compute sizes, classes, lengths, GC content, duplicates and leakage of labelled sequences.

    Args:
        data: Data set with columns `sequence` and `label`, and optionally `region`, `start` and `end`.

    Returns:
        A dictionary with `splits` and `leakage` (see [`DistinctSequences.leakage`]). For each split: `sequences`,
        `classes` (number of sequences by class), `lengths` (list, in bases), `gc` (fraction of G and C among A, C, G
        and T), `duplicates` and `reverse_complements` (see [`DistinctSequences.duplicates`]).
    """
    distinct = DistinctSequences(data)
    duplicates = distinct.duplicates()
    splits = {}
    for name, split in data.items():
        bases: Counter[str] = Counter()
        lengths = []
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


def _load(name: str, arguments: DataInfoArguments) -> DatasetDict:
    benchmark = BENCHMARKS.get(name) if arguments.source else find_published(name, BENCHMARKS)
    if benchmark is not None:
        return load_benchmark(name, benchmark, arguments.source, arguments.fasta)
    if arguments.source:
        raise InputError(f"--source: {name} is not a published data set; give its location in place of {name}.")
    return load_labelled_sequences(name, reference=arguments.fasta)


def _print_published(console: Console) -> dict[str, Any]:
    collections = {
        "GenomicBenchmarks": GENOMIC_BENCHMARKS,
        "Nucleotide Transformer": NUCLEOTIDE_TRANSFORMER_TASKS,
        "Nucleotide Transformer, revised": REVISED_NUCLEOTIDE_TRANSFORMER_TASKS,
        "GUE": GUE_TASKS,
    }
    for collection, sets in collections.items():
        table = Table(title=collection, box=None)
        table.add_column("name", no_wrap=True)
        for column in ("classes", "train", "test", "bases", "metric"):
            table.add_column(column, justify="right", no_wrap=True)
        for name, benchmark in sets.items():
            sizes = ("" if size is None else f"{size:,}" for size in (benchmark.train, benchmark.test))
            table.add_row(name, str(len(benchmark.classes)), *sizes, f"{benchmark.length:,}", benchmark.metric)
        console.print(table)
    console.print(f"Shipped with the package: {', '.join(BUNDLED)}")
    return {**{collection: list(sets) for collection, sets in collections.items()}, "bundled": list(BUNDLED)}


def _print_info(console: Console, name: str, data: DatasetDict) -> dict[str, Any]:
    report = describe(data)
    splits = report["splits"]
    table = Table(title=escape(name))
    table.add_column("")
    for split in splits:
        table.add_column(split, justify="right")
    table.add_row("sequences", *(f"{values['sequences']:,}" for values in splits.values()))
    for label in data["train"].features["label"].names:
        table.add_row(f"  class {escape(label)}", *(f"{values['classes'][label]:,}" for values in splits.values()))
    for row, function in (("shortest", min), ("median length", median), ("longest", max)):
        table.add_row(row, *(f"{function(values['lengths']):,.0f}" for values in splits.values()))
    table.add_row("GC", *(f"{values['gc']:.1%}" for values in splits.values()))
    table.add_row("duplicates", *(f"{values['duplicates']:,}" for values in splits.values()))
    table.add_row("  as reverse complement", *(f"{values['reverse_complements']:,}" for values in splits.values()))
    console.print(table)
    console.print(_leakage_table(report["leakage"], splits))
    console.print(
        f"Near duplicates: at least {CONTAINMENT:.0%} of the distinct {K}-mers occur in a sequence of the other split."
    )
    console.print("\nLengths in bases, all splits:")
    for line in histogram([length for values in splits.values() for length in values["lengths"]]):
        console.print(line, highlight=False)
    for values in splits.values():
        lengths = values.pop("lengths")
        values |= {"shortest": min(lengths), "median_length": median(lengths), "longest": max(lengths)}
    leakage = {f"{second} in {first}": counts for (first, second), counts in report["leakage"].items()}
    near_duplicate = {"k": K, "containment": CONTAINMENT}
    return {"name": name, "splits": splits, "leakage": leakage, "near_duplicate": near_duplicate}


def _leakage_table(leakage: dict[tuple[str, str], dict[str, int | None]], splits: dict[str, Any]) -> Table:
    table = Table(title="Sequences that occur in another split")
    table.add_column("")
    for first, second in leakage:
        table.add_column(f"{second} in {first}", justify="right")
    for kind, name in KINDS.items():
        shares = (_share(counts[kind], splits[second]["sequences"]) for (_, second), counts in leakage.items())
        table.add_row(name, *shares)
    return table


def _share(count: int | None, total: int) -> str:
    return "unknown" if count is None else f"{count:,} ({count / total:.1%})"


def histogram(values: list[int], bins: int = 12, width: int = 40) -> list[str]:
    """
    Format a histogram as lines of text.

    Args:
        values: At least one number.
        bins: Number of bins of equal width.
        width: Length of the longest bar, in characters.

    Returns:
        A line for each bin: first and last value, a bar, and the number of values.
    """
    low, high = min(values), max(values)
    step = max(1, -(-(high - low + 1) // bins))
    counts = Counter((value - low) // step for value in values)
    largest = max(counts.values())
    lines = []
    for number in range((high - low) // step + 1):
        eighths = round(8 * width * counts[number] / largest) or bool(counts[number])
        bar = "█" * (eighths // 8) + BARS[eighths % 8].strip()
        first, last = low + number * step, min(high, low + (number + 1) * step - 1)
        lines.append(f"{first:>10,} to {last:>10,} {bar:<{width}} {counts[number]:,}")
    return lines


def _print_preview(console: Console, data: DatasetDict, arguments: DataInfoArguments) -> dict[str, Any]:
    split = data["train"]
    names = split.features["label"].names
    shown: Counter[int] = Counter()
    rows = []
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
