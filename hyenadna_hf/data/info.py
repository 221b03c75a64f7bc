"""`hyenadna data`: what is in a labelled data set."""

import warnings
from collections import Counter
from dataclasses import dataclass, field
from statistics import median

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from ..arguments import CommandParser
from ..errors import InputError
from .benchmarks import load_benchmark
from .genomic_benchmarks import GENOMIC_BENCHMARKS
from .labelled import BUNDLED, load_labelled_sequences
from .named import BENCHMARKS, benchmark_of
from .nucleotide_transformer import GUE_TASKS, NUCLEOTIDE_TRANSFORMER_TASKS
from .sequence import reverse_complement

BARS = " ▏▎▍▌▋▊▉█"


@dataclass
class DataInfoArguments:
    source: str | None = field(
        default=None, metadata={"help": "Where the files of a published set are, in place of the Hub."}
    )
    reference: str | None = field(default=None, metadata={"help": "FASTA file that tables of intervals belong to."})
    rows: int = field(default=3, metadata={"help": "preview: sequences to show of each class, in number."})
    width: int = field(default=50, metadata={"help": "preview: bases to show of each sequence."})


def parser():
    """The arguments of `hyenadna data`."""
    parser = CommandParser(
        "data",
        DataInfoArguments,
        "Sizes, classes, lengths, GC and leakage of a labelled data set (info), or some of its sequences (preview).",
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


def main(argv):
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


def describe(data):
    """
    Sizes, classes, lengths, GC and leakage of labelled sequences.

    Args:
        data (`DatasetDict`): With columns `sequence` and `label`.

    Returns:
        `dict`: for each split, `sequences`, `classes` (number of sequences by name), `lengths` (a `list`, in bases),
        `gc` (share of G and C among A, C, G and T) and `duplicates` (sequences that occur before in the split); and
        `leakage`: for each pair of splits, how many sequences of the second occur in the first, on either strand.
    """
    splits, keys = {}, {}
    for name, split in data.items():
        bases, numbers, lengths = Counter(), [], []
        for sequence in split["sequence"]:
            sequence = sequence.upper()
            lengths.append(len(sequence))
            for base in "ACGTU":
                bases[base] += sequence.count(base)
            numbers.append(hash(min(sequence, reverse_complement(sequence))))
        classes = Counter(split["label"])
        keys[name] = numbers
        splits[name] = {
            "sequences": len(split),
            "classes": {label: classes[i] for i, label in enumerate(split.features["label"].names)},
            "lengths": lengths,
            "gc": (bases["G"] + bases["C"]) / max(1, sum(bases.values())),
            "duplicates": len(numbers) - len(set(numbers)),
        }
    leakage = {}
    for first, second in (("train", "validation"), ("train", "test"), ("validation", "test")):
        seen = set(keys[first])
        leakage[first, second] = sum(number in seen for number in keys[second])
    return {"splits": splits, "leakage": leakage}


def _load(name, arguments):
    benchmark = BENCHMARKS.get(name) if arguments.source else benchmark_of(name)
    if benchmark is not None:
        return load_benchmark(name, benchmark, arguments.source, arguments.reference)
    if arguments.source:
        raise InputError(f"--source: {name} is no published set; name its files in place of {name}.")
    return load_labelled_sequences(name, reference=arguments.reference)


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


def _print_info(console, name, data):
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
    table.add_row("duplicates inside", *(f"{facts['duplicates']:,}" for facts in splits.values()))
    console.print(table)
    for (first, second), count in found["leakage"].items():
        share = count / splits[second]["sequences"]
        console.print(f"{count:,} of the {second} sequences ({share:.1%}) are in {first} too, on either strand.")
    console.print("\nLengths in bases, all splits:")
    for line in histogram([length for facts in splits.values() for length in facts["lengths"]]):
        console.print(line, highlight=False)
    for facts in splits.values():
        lengths = facts.pop("lengths")
        facts |= {"shortest": min(lengths), "median_length": median(lengths), "longest": max(lengths)}
    leakage = {f"{second} in {first}": count for (first, second), count in found["leakage"].items()}
    return {"name": name, "splits": splits, "leakage": leakage}


def histogram(values, bins=12, width=40):
    """
    A picture of a distribution, as lines of text.

    Args:
        values (`list[int]`): One at least.
        bins (`int`, defaults to 12): How many classes of equal width.
        width (`int`, defaults to 40): Characters of the longest bar.

    Returns:
        `list[str]`: a line for each class: from, to, a bar and the number of values.
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
