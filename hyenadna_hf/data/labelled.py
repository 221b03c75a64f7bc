"""Labelled sequences from tables and FASTA files, the Hub, or the package itself."""

import re
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd
import torch
from datasets import ClassLabel, Dataset, DatasetDict, Features, Value

from ..errors import InputError
from .files import (
    FORMATS,
    HUB_ID,
    INTERVAL_COLUMNS,
    LABEL_COLUMNS,
    SEQUENCE_COLUMNS,
    column_name,
    cut_out,
    read_hub,
    read_split,
    row_name,
    split_paths,
)
from .sequence import NOT_A_NUCLEOTIDE

if TYPE_CHECKING:
    from .fasta import Fasta

# Spellings of an absent value, as pandas reads them. No class can be called so.
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

    A split that the source lacks is held out of train, stratified by class; test is never used as validation. The
    numbering of the classes follows from their names alone (numerical if all are whole numbers, else alphabetical) and
    is the same in every split.

    Args:
        source: A folder with files `train`, `validation` (or `valid`, `val`, `dev`) and `test`; the common beginning of
            such files (`data/human_ocr_ensembl` for `data/human_ocr_ensembl_train.csv.gz` and its siblings); one file,
            or `-` for standard input; a folder that `save_to_disk` made; the bundled set `splice_sites_chr20`; or the
            id of a data set on the Hub. Files are .csv or .tsv (with commas, semicolons or tabs), .jsonl or .json,
            .parquet, .arrow, or FASTA (.fa, .fasta, .fna), where the label is what follows the last `|` of a header;
            all also with .gz. In place of a file there may be a folder with one folder of .txt files, or one file, for
            each class (`train/CLASS/ID.txt`, `train/CLASS.csv.gz`, `train/CLASS.fa`).
        sequence_column: Defaults to `sequence`, `seq` or `dna`, in any case.
        label_column: Defaults to `label`, `class` or `target`, in any case.
        validation_fraction: Share of train to hold out where there is no validation split.
        test_fraction: Share of train to hold out where there is no test split.
        seed: Of what is held out.
        reference: FASTA file to cut sequences out of, for tables with `region`, `start`, `end` (0-based, half-open) and
            perhaps `strand` in place of sequences.

    Returns:
        `DatasetDict` with splits `train`, `validation` and `test`, and columns `sequence` (`string`) and `label`
        (`ClassLabel`); of tables of intervals also `region`, `start` and `end`.

    Raises:
        InputError: If a file cannot be read or is empty, a column is unknown, labels are missing (empty, `NA`, `NaN`,
            `None`, `null` and the like), a sequence holds other characters than IUPAC nucleotide codes, an interval is
            not in the reference, or a class occurs in another split but not in train.
    """
    tables = read_labelled(source, sequence_column, label_column, reference)
    return split_dataset(source, tables, class_names(source, tables), validation_fraction, test_fraction, seed)


def read_labelled(
    source: str, sequence_column=None, label_column=None, reference=None
) -> dict[str, dict[str, list[str]]]:
    """
    The splits that a source has, checked.

    Args: as those of [`load_labelled_sequences`].

    Returns:
        For each split, `sequence` and `label`.
    """
    path = Path(BUNDLED.get(source, source)).expanduser()
    paths = split_paths(path)
    raw = {split: read_split(part) for split, part in paths.items()} if paths else _read_hub(str(source))
    return {
        split: checked(paths.get(split, f"{source} ({split})"), table, sequence_column, label_column, reference)
        for split, table in raw.items()
    }


def checked(
    where: str | Path, table: pd.DataFrame, sequence_column=None, label_column=None, reference=None
) -> dict[str, list[str]]:
    """
    The checked sequences and class names of one split.

    Args:
        where: What the table is called in errors.
        table: Of strings.
        sequence_column: As those of [`load_labelled_sequences`].
        label_column: As those of [`load_labelled_sequences`].
        reference: As those of [`load_labelled_sequences`].

    Returns:
        `sequence` and `label`, of equal length; of a table of intervals also `region`, `start` and `end`.
    """
    label_column = _choose(where, table, label_column, LABEL_COLUMNS, "label_column")
    if not len(table):
        raise InputError(f"{where}: there is not one row of data in it.")
    is_intervals = sequence_column is None and not set(SEQUENCE_COLUMNS) & set(table.columns)
    coordinates = {}
    if is_intervals and set(INTERVAL_COLUMNS) <= set(table.columns):
        sequences = cut_out(where, table, reference)
        coordinates = {name: list(table[name]) for name in INTERVAL_COLUMNS}
    else:
        sequence_column = _choose(where, table, sequence_column, SEQUENCE_COLUMNS, "sequence_column")
        sequences = list(table[sequence_column])
    labels = list(table[label_column])
    _check_labels(where, table.index, labels)
    for row, sequence in zip(table.index, sequences):
        wrong = NOT_A_NUCLEOTIDE.search(sequence)
        if not sequence or wrong:
            what = f"{wrong[0]!r} at base {wrong.start() + 1:,}" if wrong else "nothing"
            raise InputError(
                f"{where}, {row_name(row)}: the sequence holds {what}; allowed are A, C, G, T, U, N and the other "
                f"IUPAC nucleotide codes (is {sequence_column!r} the right column?)."
            )
    return {"sequence": sequences, "label": labels, **coordinates}


def _check_labels(where: str, rows, labels: torch.Tensor, shown: int = 3) -> None:
    missing = [(row, label) for row, label in zip(rows, labels) if label in MISSING]
    if missing:
        first = ", ".join(f"{row_name(row)} ({label!r})" for row, label in missing[:shown])
        raise InputError(
            f"{where}: {len(missing):,} of {len(labels):,} sequences have no label, first {first}; give each one class "
            "(in FASTA: >name|class), which cannot be called NA, NaN, None or null."
        )


def split_dataset(
    source: str,
    tables: dict[str, dict[str, list[str]]],
    names: list[str],
    validation_fraction: float = 0.1,
    test_fraction: float = 0.2,
    seed: int = 42,
) -> DatasetDict:
    """
    Data set of the splits that there are, the others held out of train, stratified by class.

    Args:
        source: What the data are called in errors.
        tables: `sequence` and `label` of each split.
        names: Of the classes, in the order of their numbers.
        validation_fraction: As those of [`load_labelled_sequences`].
        test_fraction: As those of [`load_labelled_sequences`].
        seed: As those of [`load_labelled_sequences`].

    Returns:
        `DatasetDict` with splits `train`, `validation` and `test`.
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


def class_names(source: str, tables):
    """The classes of the train split, in the order of their numbers, which follows from their names alone."""
    if "train" not in tables:
        raise InputError(f"{source}: there is no train split among {', '.join(tables)}; name one file train.")
    counts = {split: Counter(table["label"]) for split, table in tables.items()}
    names = counts["train"].keys()
    for split, count in counts.items():
        unseen = sorted(count.keys() - names)
        if unseen:
            raise InputError(
                f"{source}: label {unseen[0]!r} occurs {count[unseen[0]]:,} times in {split} but never in train; "
                "correct it or leave those rows out."
            )
    if len(names) < 2:
        raise InputError(f"{source}: every sequence has the label {min(names)!r}; there is nothing to classify.")
    if all(re.fullmatch(r"-?\d+", name) for name in names):
        return sorted(names, key=int)
    return sorted(names)


def _read_hub(source: str):
    absent = f"{source}: there is no such file or folder, and no files {Path(source).name}_train"
    if not HUB_ID.fullmatch(source) or any(source.removesuffix(".gz").endswith(ending) for ending in FORMATS):
        raise InputError(f"{absent} and so on; check the path.")
    try:
        return read_hub(source)
    except InputError as error:
        raise InputError(f"{absent}; it is no bundled set ({', '.join(BUNDLED)}); and {error}") from error


def _choose(where: str, table, asked, usual, argument: str):
    columns = ", ".join(table.columns)
    if asked is not None:
        if column_name(asked) not in table.columns:
            raise InputError(f"{where}: {argument}={asked!r} is not one of its columns: {columns}.")
        return column_name(asked)
    there = [name for name in usual if name in table.columns]
    if len(there) != 1:
        problem = f"has more than one of {', '.join(there)}" if there else f"has none of {', '.join(usual)}"
        raise InputError(f"{where}: {problem}; choose with {argument} among its columns: {columns}.")
    return there[0]
