"""Tables of labelled sequences, as they stand in files, folders and on the Hub."""

import gzip
import re
import warnings
from pathlib import Path

import pandas as pd
from datasets import ClassLabel, load_dataset

from ..errors import InputError
from .fasta import Fasta
from .sequence import reverse_complement

SEQUENCE_COLUMNS = ("sequence", "seq", "dna")
LABEL_COLUMNS = ("label", "class", "target")
INTERVAL_COLUMNS = ("region", "start", "end")
SPLITS = {
    "train": "train",
    "validation": "validation",
    "valid": "validation",
    "val": "validation",
    "dev": "validation",
    "test": "test",
}
FORMATS = {".csv": "CSV", ".tsv": "TSV", ".parquet": "Parquet", ".fa": "FASTA", ".fasta": "FASTA", ".fna": "FASTA"}
HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")


def split_paths(path):
    """
    The file or folder of each split at `path`: a file, a folder of files or folders, or the beginning of file names.

    Returns:
        `dict[str, Path]` from `train`, `validation` and `test`; empty if there is nothing at `path`.
    """
    if path.is_file():
        return {"train": path}
    folder, prefix = (path, "") if path.is_dir() else (path.parent, f"{path.name}_")
    found = {}
    for entry in sorted(folder.iterdir()) if folder.is_dir() else ():
        stem, dot, suffix = entry.name.removeprefix(prefix).partition(".")
        split = SPLITS.get(stem)
        is_data = (entry.is_dir() and not prefix) or (dot + suffix).removesuffix(".gz") in FORMATS
        if split is None or not entry.name.startswith(prefix) or not is_data:
            continue
        if split in found:
            raise InputError(f"{folder}: {found[split].name} and {entry.name} are both the {split} split; keep one.")
        found[split] = entry
    if path.is_dir() and not found:
        raise InputError(
            f"{path}: there is no train file in this folder; name the files train, validation and test, with one of "
            f"the endings {', '.join(FORMATS)}, or have folders train, validation and test with one folder or file a "
            "class in them."
        )
    return found


def read_split(path):
    """
    One split: a file, or a folder with a folder of .txt files (one sequence each) or one file for every class.

    Returns:
        `DataFrame` of strings, with columns as in the file, or `sequence` and `label`. Rows have numbers from 0, or the
        names of the files that they come from.
    """
    if path.is_file():
        return read_file(path)
    parts = []
    for entry in sorted(path.iterdir()):
        name, dot, suffix = entry.name.partition(".")
        if entry.is_dir():
            files = sorted(entry.glob("*.txt"))
            if not files:
                raise InputError(f"{entry}: the class is empty; there is no .txt file in this folder.")
            sequences = [file.read_text(encoding="utf-8", errors="replace") for file in files]
            parts.append(pd.DataFrame({"sequence": sequences}, index=[f"{name}/{file.name}" for file in files]))
        elif (dot + suffix).removesuffix(".gz") in FORMATS:
            parts.append(read_file(entry))
            parts[-1].index = [f"{entry.name} row {row:,}" for row in range(1, len(parts[-1]) + 1)]
            if not len(parts[-1]):
                raise InputError(f"{entry}: the class is empty; there is not one row of data in it.")
        else:
            continue
        parts[-1] = parts[-1].assign(label=name)
    if not parts:
        raise InputError(f"{path}: there is neither a folder of .txt files nor a table for any class in it.")
    return pd.concat(parts)


def read_file(path):
    """A `DataFrame` of strings from a CSV, TSV, Parquet or FASTA file."""
    suffix = "".join(Path(path.name.removesuffix(".gz")).suffixes[-1:])
    kind = FORMATS.get(suffix)
    if kind is None:
        raise InputError(f"{path}: unknown ending {suffix!r}; the formats are {', '.join(FORMATS)}.")
    try:
        with (gzip.open if path.name.endswith(".gz") else open)(path, "rb") as file:
            start = file.read(1)
        if not start:
            raise InputError(f"{path}: the file is empty.")
        if (start == b">") != (kind == "FASTA"):
            raise InputError(
                f"{path}: by its name it is {kind}, but it begins with {start!r}; give it its right ending."
            )
        if kind == "Parquet":
            table = pd.read_parquet(path)
        elif kind == "FASTA":
            table = _read_fasta(path)
        else:
            with warnings.catch_warnings():
                # pandas would cut rows that have more fields than there are columns.
                warnings.simplefilter("error", pd.errors.ParserWarning)
                separator = "," if kind == "CSV" else "\t"
                table = pd.read_csv(path, sep=separator, dtype=str, keep_default_na=False, index_col=False)
        return _as_text(table)
    except InputError:
        raise
    except Exception as error:  # the parsers raise many kinds; all mean the same to the user
        raise InputError(f"{path}: this is not a readable {kind} file ({_reason(error)}).") from error


def read_hub(repository, configuration=None):
    """
    The splits of a data set on the Hub, class numbers as their names.

    Args:
        repository (`str`): Its id.
        configuration (`str`, *optional*): Which part of it.

    Returns:
        `dict[str, DataFrame]` of strings.
    """
    try:
        loaded = load_dataset(repository, configuration)
    except Exception as error:  # network, authentication, absent or malformed repository
        raise InputError(f"the Hub does not give the data set {repository} ({_reason(error)}).") from error
    tables = {}
    for name, split in loaded.items():
        if name in SPLITS:
            table = split.to_pandas()
            for column, feature in split.features.items():
                if isinstance(feature, ClassLabel):
                    table[column] = feature.int2str(table[column])
            tables[SPLITS[name]] = _as_text(table)
    return tables


def cut_out(where, table, reference):
    """
    The sequences of the intervals of a table.

    Args:
        where (`str` or `Path`): What the table is called in errors.
        table (`DataFrame`): With columns `region`, `start` and `end` (0-based, half-open), and perhaps `strand`.
        reference (`str`, `Path` or [`Fasta`], *optional*): The genome.

    Returns:
        `list[str]`: each read in the direction of its strand.

    Raises:
        InputError: if there is no reference, or an interval is not one of the reference.
    """
    if reference is None:
        raise InputError(f"{where}: it has intervals but no sequences; give the reference FASTA that they belong to.")
    if not isinstance(reference, Fasta):
        with Fasta(reference) as fasta:
            return cut_out(where, table, fasta)
    strands = table["strand"] if "strand" in table.columns else ["+"] * len(table)
    sequences = []
    for row, region, start, end, strand in zip(table.index, *(table[name] for name in INTERVAL_COLUMNS), strands):
        try:
            if not re.fullmatch(r"\d+", start) or not re.fullmatch(r"\d+", end) or int(start) >= int(end):
                raise InputError(f"{region}:{start}-{end} is no interval; start is 0 or more, and end is more than it.")
            if strand not in ("+", "-", ".", ""):
                raise InputError(f"the strand {strand!r} is none of +, - and '.'.")
            sequence = reference.fetch(region, int(start), int(end))
        except InputError as error:
            raise InputError(f"{where}, {row_name(row)}: {error}") from error
        sequences.append(reverse_complement(sequence) if strand == "-" else sequence)
    return sequences


def row_name(row):
    """What errors call a row, from its name in the table's index."""
    return row if isinstance(row, str) else f"row {row + 1:,}"


def _as_text(table):
    """Every value as a string, absent ones as empty strings."""
    return table.astype(object).where(table.notna(), "").astype(str)


def _reason(error):
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)


def _read_fasta(path):
    import pysam

    with pysam.FastxFile(str(path)) as records:
        rows = [(record.name, record.sequence) for record in records]
    if not rows:
        raise InputError(f"{path}: there is no FASTA record in it.")
    unlabelled = next((name for name, _ in rows if "|" not in name), None)
    if unlabelled is not None:
        raise InputError(f"{path}: the header >{unlabelled} has no label; write it as >{unlabelled}|label.")
    return pd.DataFrame(
        {"sequence": [sequence or "" for _, sequence in rows], "label": [n.rpartition("|")[2] for n, _ in rows]}
    )
