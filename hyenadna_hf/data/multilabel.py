"""
Load sequences with several labels each, or with numbers to predict, from tables with a column for each label or number,
or from saved data sets.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from datasets import Dataset, DatasetDict, Features, Value, load_from_disk
from datasets import Sequence as List

from ..errors import InputError
from .chromatin import chromatin_from_arrays
from .files import LABEL_COLUMNS, column_name, row_name
from .labelled import check_table, choose_column, read_tables


def is_saved_dataset(source: str | Path) -> bool:
    """
    Return whether `source` is a folder, written by `DatasetDict.save_to_disk`, of sequences with several labels each.
    """
    return bool(_load_saved(source))


def _load_saved(source: str | Path) -> DatasetDict | None:
    """Load such a folder; return `None` for anything else."""
    path = Path(source).expanduser()
    if not (path / "dataset_dict.json").is_file():
        return None
    try:
        data = load_from_disk(str(path))
    except Exception as error:  # many types, which all mean the same to the user
        raise InputError(f"{source}: this is not a readable save_to_disk folder ({error}).") from error
    return data if all({"sequence", "labels"} <= set(split.column_names) for split in data.values()) else None


def load_multilabel_sequences(
    source: str | Path,
    label_columns: Sequence[str] = (),
    sequence_column: str | None = None,
    validation_fraction: float = 0.1,
    test_fraction: float = 0.2,
    seed: int = 42,
) -> tuple[DatasetDict, list[str]]:
    """
    Load sequences with several labels each, in train, validation and test splits.

    Args:
        source: Tables in any layout of `load_labelled_sequences`, or a folder with the result of
            [`chromatin_from_peaks`] or a similar function, saved by `save_to_disk`.
        label_columns: In tables, the column of each label, with 0 and 1.
        sequence_column: Column with the sequences. Defaults to `sequence`, `seq` or `dna`, in any case.
        validation_fraction: Fraction of train to hold out, at random, if there is no validation split.
        test_fraction: Fraction of train to hold out, at random, if there is no test split.
        seed: Random seed of the held-out splits.

    Returns:
        A `DatasetDict` with columns `sequence` (`string`) and `labels` (list of 0 and 1), and the names of the labels
        (their numbers, for a saved data set).

    Raises:
        InputError: If a file cannot be read, a column is missing, or a label is neither 0 nor 1.
    """
    data = _load_saved(source)
    if data:
        names = [str(number) for number in range(len(next(iter(data.values()))[0]["labels"]))]
    else:
        names = list(label_columns)
        if not names:
            raise InputError(
                f"{source}: this is not a save_to_disk folder; set label_column to the column of each label."
            )
        _check_names(names)
        data = {
            split: chromatin_from_arrays(*_columns(where, table, names, sequence_column, _to_binary))
            for split, (where, table) in read_tables(source).items()
        }
    return _with_all_splits(source, data, {"test": test_fraction, "validation": validation_fraction}, seed), names


def load_regression_sequences(
    source: str | Path,
    target_columns: Sequence[str] = (),
    sequence_column: str | None = None,
    validation_fraction: float = 0.1,
    test_fraction: float = 0.2,
    seed: int = 42,
) -> tuple[DatasetDict, list[str]]:
    """
    Load sequences with numbers to predict, in train, validation and test splits.

    Args:
        source: Tables in any layout of `load_labelled_sequences`, or a folder with columns `sequence` and `labels`
            (lists of numbers), saved by `save_to_disk`.
        target_columns: In tables, the column of each number. Defaults to one, `label`, `class` or `target`.
        sequence_column: Column with the sequences. Defaults to `sequence`, `seq` or `dna`, in any case.
        validation_fraction: Fraction of train to hold out, at random, if there is no validation split.
        test_fraction: Fraction of train to hold out, at random, if there is no test split.
        seed: Random seed of the held-out splits.

    Returns:
        A `DatasetDict` with columns `sequence` (`string`) and `labels` (list of `float64`), and the names of the
        targets (their numbers, for a saved data set).

    Raises:
        InputError: If a file cannot be read, a column is missing, or a target is not a finite number.
    """
    features = Features({"sequence": Value("string"), "labels": List(Value("float64"))})
    data = _load_saved(source)
    names = list(target_columns)
    if data:
        names = [str(number) for number in range(len(next(iter(data.values()))[0]["labels"]))]
        data = {split: rows.select_columns(list(features)).cast(features) for split, rows in data.items()}
    else:
        _check_names(names)
        tables = read_tables(source)
        if not names:
            where, table = next(iter(tables.values()))
            names = [choose_column(where, table, None, LABEL_COLUMNS, "label_column")]
        data = {}
        for split, (where, table) in tables.items():
            sequences, numbers = _columns(where, table, names, sequence_column, _to_numbers)
            data[split] = Dataset.from_dict({"sequence": sequences, "labels": numbers}, features)
    for split, rows in data.items():
        if not np.isfinite(np.asarray(rows["labels"], float).reshape(-1, len(names))).all():
            raise InputError(f"{source} ({split}): every label must be a finite number.")
    return _with_all_splits(source, data, {"test": test_fraction, "validation": validation_fraction}, seed), names


def _check_names(names: list[str]) -> None:
    if len(set(names)) < len(names) or not all(names):
        raise InputError(f"label_column={','.join(names)}: give each column once.")


def _columns(
    where: str | Path,
    table: pd.DataFrame,
    names: list[str],
    sequence_column: str | None,
    convert: Callable[[str | Path, str, pd.Series], np.ndarray],
) -> tuple[list[str], np.ndarray]:
    """Return the sequences of a table, and its labels, shape `(rows, labels)`."""
    labels = []
    for name, column in zip(names, map(column_name, names)):
        if column not in table.columns:
            raise InputError(f"{where}: label_column={name!r} is not one of its columns: {', '.join(table.columns)}.")
        labels.append(convert(where, name, table[column]))
    return check_table(where, table, sequence_column, names[0])["sequence"], np.stack(labels, axis=1)


def _to_binary(where: str | Path, name: str, column: pd.Series) -> np.ndarray:
    numbers = pd.to_numeric(column, errors="coerce")
    _check_rows(where, name, column, numbers.isin((0, 1)), "labels must be 0 or 1")
    return numbers.to_numpy(np.uint8)


def _to_numbers(where: str | Path, name: str, column: pd.Series) -> np.ndarray:
    numbers = pd.to_numeric(column, errors="coerce").astype(float)
    _check_rows(where, name, column, np.isfinite(numbers), "targets of a regression must be finite numbers")
    return numbers.to_numpy()


def _check_rows(where: str | Path, name: str, column: pd.Series, is_valid: pd.Series, requirement: str) -> None:
    if not is_valid.all():
        row = (~is_valid).idxmax()
        raise InputError(f"{where}, {row_name(row)}: {name} is {column[row]!r}; {requirement}.")


def _with_all_splits(
    source: str | Path, data: Mapping[str, Dataset], fractions: dict[str, float], seed: int
) -> DatasetDict:
    if "train" not in data:
        raise InputError(f"{source}: there is no train split, only {', '.join(data)}; name one file train.")
    splits = dict(data)
    for split, fraction in fractions.items():
        if split not in splits:
            rows = len(splits["train"])
            count = round(fraction * rows)
            if not 0 < count < rows:
                raise InputError(f"{source}: cannot hold a {split} split of {fraction:.0%} out of {rows:,} train rows.")
            order = np.random.default_rng(seed).permutation(rows)
            # In memory: `datasets` would write the choice into the folder of a saved data set.
            splits[split] = splits["train"].select(np.sort(order[:count]), keep_in_memory=True)
            splits["train"] = splits["train"].select(np.sort(order[count:]), keep_in_memory=True)
    return DatasetDict({split: splits[split] for split in ("train", "validation", "test")})
