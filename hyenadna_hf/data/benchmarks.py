"""What is known of a published classification data set, and how one is loaded."""

import warnings
from dataclasses import dataclass

from ..errors import InputError
from .files import read_hub
from .labelled import checked, class_names, read_labelled, split_dataset


@dataclass(frozen=True)
class Benchmark:
    """
    A published data set for classification.

    Attributes:
        classes (`tuple[str, ...]`): Their names, in the order of their numbers.
        train, test (`int`): Published numbers of sequences.
        length (`int`): Median length, in bases.
        metric (`str`): What is reported: `accuracy`, `mcc` or `f1` (macro-averaged).
        repository (`str`): Its id on the Hub.
        configuration (`str`, *optional*): Its configuration there.
        task (`str`, *optional*): Its value in the column `task` there.
    """

    classes: tuple[str, ...]
    train: int | None
    test: int | None
    length: int
    metric: str
    repository: str
    configuration: str | None = None
    task: str | None = None


def load_benchmark(name, benchmark, source=None, reference=None, validation_fraction=0.1, seed=42):
    """
    Load a published data set from the Hub or from files.

    Class numbers are those of [`Benchmark`], whether the source has names or numbers. A warning says so if a split has
    another size than the published one. Validation is held out of train, stratified by class, unless the source has it.

    Args:
        name (`str`): What it is called.
        benchmark ([`Benchmark`]): What is known of it.
        source (`str`, *optional*): Files, as for `load_labelled_sequences`; the Hub by default.
        reference (`str`, `Path` or `Fasta`, *optional*): FASTA file that tables of intervals belong to.
        validation_fraction (`float`, defaults to 0.1): Share of train to hold out.
        seed (`int`, defaults to 42): Of what is held out.

    Returns:
        `DatasetDict` with splits `train`, `validation` and `test`, and columns `sequence` (`string`) and `label`
        (`ClassLabel`).

    Raises:
        InputError: if the source lacks train, test or a class, or has other classes, or cannot be read.
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


def find(name, benchmarks, kind):
    """The entry of that name, or an `InputError` that says which there are."""
    if name not in benchmarks:
        raise InputError(f"{name}: there is no {kind} of this name; there are {', '.join(benchmarks)}.")
    return benchmarks[name]


def _from_hub(name, benchmark):
    try:
        tables = read_hub(benchmark.repository, benchmark.configuration)
    except InputError as error:
        raise InputError(f"{name}: {error} If you have its files, say where they are.") from error
    if benchmark.task is not None:
        tables = {split: table[table["task"] == benchmark.task] for split, table in tables.items()}
        if not any(map(len, tables.values())):
            raise InputError(f"{name} ({benchmark.repository}): has no task {benchmark.task}; is it still there?")
    return {split: checked(f"{benchmark.repository} ({split})", table) for split, table in tables.items()}


def _class(where, split, benchmark, label):
    if label in benchmark.classes:
        return label
    if label.isdecimal() and int(label) < len(benchmark.classes):
        return benchmark.classes[int(label)]
    raise InputError(f"{where}: {split} has the label {label!r}; the classes are {', '.join(benchmark.classes)}.")
