"""What is known of a published classification data set, and how one is loaded."""

import warnings
from dataclasses import dataclass
from pathlib import Path

from datasets import DatasetDict

from ..errors import InputError
from .fasta import Fasta
from .files import read_hub
from .labelled import checked, class_names, read_labelled, split_dataset


@dataclass(frozen=True)
class Benchmark:
    """
    A published data set for classification.

    Attributes:
        classes: Their names, in the order of their numbers.
        train: Published numbers of sequences.
        test: Published numbers of sequences.
        length: Median length, in bases.
        metric: What is reported: `accuracy`, `mcc` or `f1` (macro-averaged).
        repository: Its id on the Hub.
        configuration: Its configuration there.
        task: Its value in the column `task` there.
    """

    classes: tuple[str, ...]
    train: int | None
    test: int | None
    length: int
    metric: str
    repository: str
    configuration: str | None = None
    task: str | None = None


def load_benchmark(
    name: str,
    benchmark: Benchmark,
    source: str | None = None,
    reference: str | Path | Fasta | None = None,
    validation_fraction: float = 0.1,
    seed: int = 42,
) -> DatasetDict:
    """
    Load a published data set from the Hub or from files.

    Class numbers are those of [`Benchmark`], whether the source has names or numbers. A warning says so if a split has
    another size than the published one. Validation is held out of train, stratified by class, unless the source has it.

    Args:
        name: What it is called.
        benchmark: What is known of it.
        source: Files, as for `load_labelled_sequences`; the Hub by default.
        reference: FASTA file that tables of intervals belong to.
        validation_fraction: Share of train to hold out.
        seed: Of what is held out.

    Returns:
        `DatasetDict` with splits `train`, `validation` and `test`, and columns `sequence` (`string`) and `label`
        (`ClassLabel`).

    Raises:
        InputError: If the source lacks train, test or a class, or has other classes, or cannot be read.
    """
    tables = _from_hub(name, benchmark) if source is None else read_labelled(source, reference=reference)
    where = f"{name} ({source or benchmark.repository})"
    for split in ("train", "test"):
        if split not in tables:
            raise InputError(f"{where}: there is no {split} split; the published one belongs to the benchmark.")
    for split, table in tables.items():
        table["label"] = [_class(where, split, benchmark, label) for label in table["label"]]
    empty = sorted(set(benchmark.classes) - set(class_names(where, tables)))
    if empty:
        raise InputError(f"{where}: the class {empty[0]!r} is empty in train; is the source complete?")
    train = len(tables["train"]["label"]) + len(tables.get("validation", {"label": []})["label"])
    for split, size, published in (
        ("train", train, benchmark.train),
        ("test", len(tables["test"]["label"]), benchmark.test),
    ):
        if published not in (size, None):
            warnings.warn(
                f"{where}: {size:,} {split} sequences, but {published:,} are published; results do not compare.",
                stacklevel=3,
            )
    return split_dataset(where, tables, list(benchmark.classes), validation_fraction, seed=seed)


def find(name: str, benchmarks, kind):
    """The entry of that name, or an `InputError` that says which there are."""
    if name not in benchmarks:
        raise InputError(f"{name}: there is no {kind} of this name; there are {', '.join(benchmarks)}.")
    return benchmarks[name]


def _from_hub(name: str, benchmark):
    try:
        tables = read_hub(benchmark.repository, benchmark.configuration)
    except InputError as error:
        raise InputError(f"{name}: {error} If you have its files, say where they are.") from error
    if benchmark.task is not None:
        tables = {split: table[table["task"] == benchmark.task] for split, table in tables.items()}
        if not any(map(len, tables.values())):
            raise InputError(f"{name} ({benchmark.repository}): has no task {benchmark.task}; is it still there?")
    return {split: checked(f"{benchmark.repository} ({split})", table) for split, table in tables.items()}


def _class(where: str, split, benchmark, label: str):
    if label in benchmark.classes:
        return label
    if label.isdecimal() and int(label) < len(benchmark.classes):
        return benchmark.classes[int(label)]
    raise InputError(f"{where}: {split} has the label {label!r}; the classes are {', '.join(benchmark.classes)}.")
