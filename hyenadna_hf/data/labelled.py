"""Load labelled sequences from tables and FASTA files, from the Hub, or bundled with the package."""

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pyarrow.compute as pc
from datasets import ClassLabel, Dataset, DatasetDict, Features, Value

from ..errors import InputError
from .files import (
    FORMATS,
    HUB_ID,
    INTERVAL_COLUMNS,
    LABEL_COLUMNS,
    SEQUENCE_COLUMNS,
    column_name,
    fetch_intervals,
    read_hub,
    read_split,
    row_name,
    split_paths,
)
from .sequence import NOT_A_NUCLEOTIDE

if TYPE_CHECKING:
    from .fasta import Fasta

# Spellings of a missing value in pandas. No class can have such a name.
MISSING = ("", "NA", "N/A", "n/a", "#N/A", "<NA>", "NaN", "nan", "None", "NULL", "null")
BUNDLED = {"splice_sites_chr20": Path(__file__).parent / "splice_sites_chr20"}


def load_labelled_sequences(
    source: str | Path,
    sequence_column: str | None = None,
    label_column: str | None = None,
    validation_fraction: float = 0.1,
    test_fraction: float = 0.2,
    seed: int = 42,
    reference: "str | Path | Fasta | None" = None,
) -> DatasetDict:
    """
    Load sequences with one class each, in train, validation and test splits.

    A missing split is held out of train, stratified by class; the test split is never used for validation. Classes are
    numbered by name (numerically if all names are integers, otherwise alphabetically), identically in every split.

    Args:
        source: A folder with files `train`, `validation` (or `valid`, `val`, `dev`) and `test`; the common prefix of
            such files (`data/human_ocr_ensembl` for `data/human_ocr_ensembl_train.csv.gz` and so on); one file, or `-`
            for standard input; a folder written by `save_to_disk`; the bundled data set `splice_sites_chr20`; or the id
            of a data set on the Hub. Files are .csv or .tsv (delimiter comma, semicolon or tab), .jsonl or .json,
            .parquet, .arrow, or FASTA (.fa, .fasta, .fna) with the label after the last `|` of each header; all may end
            in .gz. Instead of a file, a split may be a folder with one file, or one folder of .txt files, per class
            (`train/CLASS.csv.gz`, `train/CLASS.fa`, `train/CLASS/ID.txt`).
        sequence_column: Column with the sequences. Defaults to `sequence`, `seq` or `dna`, in any case.
        label_column: Column with the labels. Defaults to `label`, `class` or `target`, in any case.
        validation_fraction: Fraction of train to hold out if there is no validation split.
        test_fraction: Fraction of train to hold out if there is no test split.
        seed: Random seed of the held-out splits.
        reference: Reference genome in FASTA format, for tables with `region`, `start`, `end` (0-based, half-open) and
            optionally `strand` in place of sequences.

    Returns:
        A `DatasetDict` with splits `train`, `validation` and `test`, and columns `sequence` (`string`) and `label`
        (`ClassLabel`); for tables of intervals also `region`, `start` and `end`.

    Raises:
        InputError: If a file is unreadable or empty, a column is unknown, labels are missing (empty, `NA`, `NaN`,
            `None`, `null` and so on), a sequence contains characters other than IUPAC nucleotide codes, an interval is
            outside the reference, or a class occurs in another split but not in train.
    """
    tables = read_labelled(source, sequence_column, label_column, reference)
    return split_dataset(source, tables, list_classes(source, tables), validation_fraction, test_fraction, seed)


def read_labelled(
    source: str | Path,
    sequence_column: str | None = None,
    label_column: str | None = None,
    reference: "str | Path | Fasta | None" = None,
) -> dict[str, dict[str, list[str]]]:
    """
    Read and check the splits of a source.

    Args:
        source: See [`load_labelled_sequences`].
        sequence_column: See [`load_labelled_sequences`].
        label_column: See [`load_labelled_sequences`].
        reference: See [`load_labelled_sequences`].

    Returns:
        For each split, a dictionary of the columns `sequence` and `label`.
    """
    return {
        split: check_table(where, table, sequence_column, label_column, reference)
        for split, (where, table) in read_tables(source).items()
    }


def read_tables(source: str | Path, formats: Sequence[str] = FORMATS) -> dict[str, tuple[str | Path, pd.DataFrame]]:
    """
    Read the table of each split of a source.

    Args:
        source: See [`load_labelled_sequences`].
        formats: Suffixes of the files to find in a folder or with a prefix.

    Returns:
        For each split, the name of its table in error messages, and the table of strings.
    """
    paths = split_paths(Path(BUNDLED.get(str(source), source)).expanduser(), formats)
    if paths:
        return {split: (path, read_split(path)) for split, path in paths.items()}
    return {split: (f"{source} ({split})", table) for split, table in _read_hub(str(source)).items()}


def check_table(
    where: str | Path,
    table: pd.DataFrame,
    sequence_column: str | None = None,
    label_column: str | None = None,
    reference: "str | Path | Fasta | None" = None,
) -> dict[str, list[str]]:
    """
    Check the sequences and labels of one split.

    Args:
        where: Name of the table in error messages.
        table: Table of strings.
        sequence_column: See [`load_labelled_sequences`].
        label_column: See [`load_labelled_sequences`].
        reference: See [`load_labelled_sequences`].

    Returns:
        The columns `sequence` and `label`; for a table of intervals also `region`, `start` and `end`.
    """
    label_column = choose_column(where, table, label_column, LABEL_COLUMNS, "label_column")
    if not len(table):
        raise InputError(f"{where}: the table contains no row of data.")
    is_intervals = sequence_column is None and not set(SEQUENCE_COLUMNS) & set(table.columns)
    coordinates = {}
    if is_intervals and set(INTERVAL_COLUMNS) <= set(table.columns):
        sequences = fetch_intervals(where, table, reference)
        coordinates = {name: list(table[name]) for name in INTERVAL_COLUMNS}
    else:
        sequence_column = choose_column(where, table, sequence_column, SEQUENCE_COLUMNS, "sequence_column")
        sequences = list(table[sequence_column])
    labels = list(table[label_column])
    _check_labels(where, table.index, labels)
    check_sequences(where, table.index, sequences, sequence_column)
    return {"sequence": sequences, "label": labels, **coordinates}


def check_sequences(
    where: str | Path, rows: Iterable[int | str], sequences: Iterable[str], sequence_column: str | None
) -> None:
    """
    Raise an `InputError` for the first sequence that is empty or has characters other than IUPAC nucleotide codes.

    Args:
        where: Name of the table in error messages.
        rows: Labels of the rows in the index of the table.
        sequences: The sequence of each row.
        sequence_column: Column of the sequences, for error messages.
    """
    for row, sequence in zip(rows, sequences):
        wrong = NOT_A_NUCLEOTIDE.search(sequence)
        if not sequence or wrong:
            problem = f"contains {wrong[0]!r} at base {wrong.start() + 1:,}" if wrong else "is empty"
            raise InputError(
                f"{where}, {row_name(row)}: the sequence {problem}; allowed are A, C, G, T, U, N and the other "
                f"IUPAC nucleotide codes (check that {sequence_column!r} is the right column)."
            )


def _check_labels(where: str | Path, rows: Iterable[int | str], labels: list[str], shown: int = 3) -> None:
    missing = [(row, label) for row, label in zip(rows, labels) if label in MISSING]
    if missing:
        first = ", ".join(f"{row_name(row)} ({label!r})" for row, label in missing[:shown])
        raise InputError(
            f"{where}: {len(missing):,} of {len(labels):,} sequences have no label, first {first}; give each one class "
            "(in FASTA: >name|class), which cannot be named NA, NaN, None or null."
        )


def split_dataset(
    source: str | Path,
    tables: dict[str, dict[str, list[str]]],
    names: list[str],
    validation_fraction: float = 0.1,
    test_fraction: float = 0.2,
    seed: int = 42,
) -> DatasetDict:
    """
    Build a data set from splits; hold missing ones out of train, stratified by class.

    Args:
        source: Name of the data in error messages.
        tables: Columns `sequence` and `label` of each split.
        names: Class names, in the order of the class numbers.
        validation_fraction: See [`load_labelled_sequences`].
        test_fraction: See [`load_labelled_sequences`].
        seed: Random seed of the held-out splits.

    Returns:
        A `DatasetDict` with splits `train`, `validation` and `test`.
    """
    label = ClassLabel(names=names)
    splits = {
        split: Dataset.from_dict(table, Features({**dict.fromkeys(table, Value("string")), "label": label}))
        for split, table in tables.items()
    }
    for split, fraction in (("test", test_fraction), ("validation", validation_fraction)):
        if split not in splits:
            try:
                halves = splits["train"].train_test_split(fraction, seed=seed, stratify_by_column="label")
            except ValueError as error:
                raise InputError(f"{source}: cannot hold a {split} split out of train ({error}).") from error
            splits["train"], splits[split] = halves["train"], halves["test"]
    return DatasetDict({split: splits[split] for split in ("train", "validation", "test")})


def limit_split(name: str, split: str, rows: Dataset, limit: int, seed: int) -> Dataset:
    """
    Draw at most `limit` sequences of a split, in the proportions of the classes.

    Args:
        name: Name of the data in error messages.
        split: Name of the split in error messages.
        rows: The split, with a column `label`, or `labels` for several labels per sequence.
        limit: Maximum number of sequences.
        seed: Random seed.

    Raises:
        InputError: If a class would have no sequence.
    """
    if len(rows) <= limit:
        return rows
    if "labels" in rows.column_names:
        return rows.shuffle(seed=seed).select(range(limit))
    try:
        return rows.train_test_split(train_size=limit, seed=seed, stratify_by_column="label")["train"]
    except ValueError as error:
        raise InputError(f"--limit {limit}: too few for {split} of {name} ({error}).") from error


def value_lengths(split: Dataset, column: str) -> np.ndarray:
    """
    Compute the length of each value of a column, on its Arrow arrays.

    Args:
        split: Data set.
        column: Column of strings or lists.

    Returns:
        Lengths of shape `(rows,)`.
    """
    batches = split.select_columns(column).with_format("arrow").iter(batch_size=10_000)
    measure = pc.utf8_length if isinstance(split.features[column], Value) else pc.list_value_length
    return np.concatenate([np.empty(0, int), *(measure(batch[column]).to_numpy() for batch in batches)])


def list_classes(source: str | Path, tables: Mapping[str, Mapping[str, list[str]]]) -> list[str]:
    """List the classes of the train split in the order of their numbers, which depends on their names alone."""
    if "train" not in tables:
        raise InputError(f"{source}: there is no train split, only {', '.join(tables)}; name one file train.")
    counts = {split: Counter(table["label"]) for split, table in tables.items()}
    names = counts["train"].keys()
    for split, count in counts.items():
        unseen = sorted(count.keys() - names)
        if unseen:
            raise InputError(
                f"{source}: label {unseen[0]!r} occurs {count[unseen[0]]:,} times in {split} but never in train; "
                "correct it or remove those rows."
            )
    if len(names) < 2:
        raise InputError(f"{source}: every sequence has the label {min(names)!r}; there is nothing to classify.")
    if all(re.fullmatch(r"-?\d+", name) for name in names):
        return sorted(names, key=int)
    return sorted(names)


def _read_hub(source: str) -> dict[str, pd.DataFrame]:
    absent = f"{source}: there is no such file or folder, and no files {Path(source).name}_train"
    if not HUB_ID.fullmatch(source) or any(source.removesuffix(".gz").endswith(ending) for ending in FORMATS):
        raise InputError(f"{absent} and so on; check the path.")
    try:
        return read_hub(source)
    except InputError as error:
        raise InputError(f"{absent}; it is not a bundled data set ({', '.join(BUNDLED)}); and {error}") from error


def choose_column(
    where: str | Path, table: pd.DataFrame, requested: str | None, defaults: Iterable[str], argument: str
) -> str:
    """Return the name of a column: the requested one, or the only one of the defaults that the table has."""
    columns = ", ".join(table.columns)
    if requested is not None:
        if column_name(requested) not in table.columns:
            raise InputError(f"{where}: {argument}={requested!r} is not one of its columns: {columns}.")
        return column_name(requested)
    present = [name for name in defaults if name in table.columns]
    if len(present) != 1:
        problem = (
            f"it has more than one of {', '.join(present)}" if present else f"it has none of {', '.join(defaults)}"
        )
        raise InputError(f"{where}: {problem}; set {argument} to one of its columns: {columns}.")
    return present[0]
