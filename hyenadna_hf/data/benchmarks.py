"""Published classification data sets: metadata and loading."""

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from datasets import DatasetDict

from ..errors import InputError
from .fasta import Fasta
from .files import read_hub
from .labelled import check_table, list_classes, read_labelled, split_dataset


@dataclass(frozen=True)
class Benchmark:
    """
    A published data set for classification.

    Attributes:
        classes: Class names, in the order of the class numbers.
        train: Published number of training sequences, `None` if unknown.
        test: Published number of test sequences, `None` if unknown.
        length: Median length, in bases.
        metric: Reported metric: `accuracy`, `mcc` or `f1` (macro-averaged).
        repository: Id on the Hub.
        configuration: Name of the configuration on the Hub.
        task: Value of the column `task` on the Hub.
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
    source: str | Path | None = None,
    reference: str | Path | Fasta | None = None,
    validation_fraction: float = 0.1,
    seed: int = 42,
) -> DatasetDict:
    """
    Load a published data set from the Hub or from files.

    Classes are numbered as in [`Benchmark`], whether the source has class names or numbers. A split with another size
    than the published one causes a warning. Unless the source has a validation split, it is held out of train,
    stratified by class.

    Args:
        name: Name of the data set, for error messages.
        benchmark: Metadata of the data set.
        source: Files, as in `load_labelled_sequences`. Defaults to the Hub.
        reference: Reference genome in FASTA format, for tables of intervals.
        validation_fraction: Fraction of train to hold out for validation.
        seed: Random seed of the held-out split.

    Returns:
        A `DatasetDict` with splits `train`, `validation` and `test`, and columns `sequence` (`string`) and `label`
        (`ClassLabel`).

    Raises:
        InputError: If the source is unreadable, lacks train, test or a class, or has unknown classes.
    """
    tables = read_benchmark(name, benchmark) if source is None else read_labelled(source, reference=reference)
    where = f"{name} ({source or benchmark.repository})"
    for split in ("train", "test"):
        if split not in tables:
            raise InputError(f"{where}: there is no {split} split; the benchmark needs the published one.")
    for split, table in tables.items():
        table["label"] = [_class_name(where, split, benchmark, label) for label in table["label"]]
    empty = sorted(set(benchmark.classes) - set(list_classes(where, tables)))
    if empty:
        raise InputError(
            f"{where}: the class {empty[0]!r} has no sequence in train; check that the source is complete."
        )
    train = len(tables["train"]["label"]) + len(tables.get("validation", {"label": []})["label"])
    for split, size, published in (
        ("train", train, benchmark.train),
        ("test", len(tables["test"]["label"]), benchmark.test),
    ):
        if published not in (size, None):
            warnings.warn(
                f"{where}: {size:,} {split} sequences, but {published:,} are published; results are not comparable.",
                stacklevel=3,
            )
    return split_dataset(where, tables, list(benchmark.classes), validation_fraction, seed=seed)


def get_benchmark(name: str, benchmarks: Mapping[str, Benchmark], kind: str) -> Benchmark:
    """Return the benchmark with a name, or raise an `InputError` that lists the names."""
    if name not in benchmarks:
        raise InputError(f"{name}: unknown {kind}; choose one of {', '.join(benchmarks)}.")
    return benchmarks[name]


def read_benchmark(name: str, benchmark: Benchmark) -> dict[str, dict[str, list[str]]]:
    """
    Read the splits of a published data set from the Hub, with the labels that it has there.

    Args:
        name: Name of the data set, for error messages.
        benchmark: Metadata of the data set.

    Returns:
        For each split, a dictionary of the columns `sequence` and `label`.
    """
    try:
        tables = read_hub(benchmark.repository, benchmark.configuration)
    except InputError as error:
        raise InputError(f"{name}: {error} If you have its files, give their location.") from error
    if benchmark.task is not None:
        tables = {split: table[table["task"] == benchmark.task] for split, table in tables.items()}
        if not any(map(len, tables.values())):
            raise InputError(f"{name} ({benchmark.repository}): it has no task {benchmark.task}; check the repository.")
    return {split: check_table(f"{benchmark.repository} ({split})", table) for split, table in tables.items()}


def _class_name(where: str, split: str, benchmark: Benchmark, label: str) -> str:
    if label in benchmark.classes:
        return label
    if label.isdecimal() and int(label) < len(benchmark.classes):
        return benchmark.classes[int(label)]
    raise InputError(f"{where}: {split} contains the label {label!r}; the classes are {', '.join(benchmark.classes)}.")
