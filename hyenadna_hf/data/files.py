"""Tables of labelled sequences, as they stand in files, folders and on the Hub."""

import re
import warnings
from functools import partial
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from datasets import ClassLabel, Features, load_dataset, load_from_disk

from ..errors import InputError
from .fasta import ENDINGS, Fasta
from .sequence import reverse_complement
from .source import STANDARD_INPUT, TABLE, open_packed, regular_file

SEQUENCE_COLUMNS = ("sequence", "seq", "dna")
LABEL_COLUMNS = ("label", "class", "target")
INTERVAL_COLUMNS = ("region", "start", "end")
_KNOWN_COLUMNS = (*SEQUENCE_COLUMNS, *LABEL_COLUMNS, *INTERVAL_COLUMNS, "strand")
SPLITS = {
    "train": "train",
    "validation": "validation",
    "valid": "validation",
    "val": "validation",
    "dev": "validation",
    "test": "test",
}
FORMATS = (".csv", ".tsv", ".jsonl", ".json", ".parquet", ".arrow", *ENDINGS)  # of file names; all also with .gz
HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")


def split_paths(path: Path) -> dict[str, Path]:
    """
    The file or folder of each split at `path`: a file, a folder of files or folders, or the beginning of file names.

    Returns:
        `dict[str, Path]` from `train`, `validation` and `test`; empty if there is nothing at `path`.
    """
    if str(path) in STANDARD_INPUT or (path.exists() and not path.is_dir()) or is_saved_split(path):
        return {"train": path}
    folder, prefix = (path, "") if path.is_dir() else (path.parent, f"{path.name}_")
    found: dict[str, Path] = {}
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


def is_saved_split(path: Path) -> bool:
    """Whether `path` is a folder that `Dataset.save_to_disk` made."""
    return (path / "state.json").is_file()


def read_split(path: Path) -> pd.DataFrame:
    """
    One split: a file, a folder that `Dataset.save_to_disk` made, or a folder with a folder of .txt files (one sequence
    each) or one file for every class.

    Returns:
        `DataFrame` of strings, with columns as in the file, or `sequence` and `label`. Rows have numbers from 0, or the
        names of the files or records that they come from.
    """
    if not path.is_dir():
        return read_file(path)
    if is_saved_split(path):
        return _read_saved(path)
    parts = []
    for entry in sorted(path.iterdir()):
        name, dot, suffix = entry.name.partition(".")
        if entry.is_dir():
            files = sorted(entry.glob("*.txt"))
            if not files:
                raise InputError(f"{entry}: the class is empty; there is no .txt file in this folder.")
            sequences = [file.read_text(encoding="utf-8-sig", errors="replace").strip() for file in files]
            parts.append(pd.DataFrame({"sequence": sequences}, index=[f"{name}/{file.name}" for file in files]))
        elif (dot + suffix).removesuffix(".gz") in FORMATS:
            parts.append(read_file(entry))
            parts[-1].index = [f"{entry.name} {row_name(row)}" for row in parts[-1].index]
            if not len(parts[-1]):
                raise InputError(f"{entry}: the class is empty; there is not one row of data in it.")
        else:
            continue
        parts[-1] = parts[-1].drop(columns=list(LABEL_COLUMNS), errors="ignore").assign(label=name)
    if not parts:
        raise InputError(f"{path}: there is neither a folder of .txt files nor a table for any class in it.")
    return pd.concat(parts)


def read_file(path: Path, wanted: str = TABLE) -> pd.DataFrame:
    """
    Read a table: CSV or TSV (the header tells whether with commas, semicolons or tabs), JSON Lines, JSON,
    Parquet, Arrow, or FASTA whose headers end in `|label`.

    Args:
        path (`Path`): The file, or `-` for standard input. The format is told from the content.
        wanted (`str`): What it is a table of, for error messages.

    Returns:
        `DataFrame` of strings. Rows have numbers from 0, those of FASTA their headers.

    Raises:
        InputError: if the file cannot be read.
    """
    file = regular_file(path, wanted, unpack=False)
    with open_packed(file) as content:
        start = content.read(6)
    kind, read = next(
        (kind, read) for beginning, kind, read in _READERS if start.lstrip()[: len(beginning)] == beginning
    )
    try:
        return _as_text(read(file))
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
        return {SPLITS[name]: _of_dataset(split) for name, split in loaded.items() if name in SPLITS}
    except Exception as error:  # network, authentication, absent or malformed repository
        raise InputError(f"the Hub does not give the data set {repository} ({_reason(error)}).") from error


def column_name(name):
    """The name of a column without blanks around it, and in lower case if it is one that readers look for."""
    name = str(name).strip()
    return name.lower() if name.lower() in _KNOWN_COLUMNS else name


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
    """Every value as a string without blanks around it, absent ones as empty strings; names by `column_name`."""
    table = table.rename(columns=column_name)
    twice = table.columns[table.columns.duplicated()]
    if len(twice):
        raise ValueError(f"two columns are called {twice[0]!r}")
    return table.astype(object).where(table.notna(), "").astype(str).apply(lambda column: column.str.strip())


def _reason(error):
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)


def _of_dataset(data):
    return _as_text(_with_class_names(data.with_format(None).to_pandas(), data.features))


def _with_class_names(table, features):
    for column, feature in features.items():
        if isinstance(feature, ClassLabel):
            table[column] = table[column].map(dict(enumerate(feature.names)))  # -1 is an absent label
    return table


def _read_saved(path):
    try:
        data = load_from_disk(str(path))
        data.data.validate(full=True)
        return _of_dataset(data)
    except Exception as error:  # as in read_file
        raise InputError(f"{path}: this is not a readable folder of save_to_disk ({_reason(error)}).") from error


def _of_arrow(table):
    table.validate(full=True)  # Arrow trusts the offsets in a file otherwise
    features = Features.from_arrow_schema(table.schema) if b"huggingface" in (table.schema.metadata or {}) else {}
    return _with_class_names(table.to_pandas(), features)


def _read_parquet(path):
    with open_packed(path) as file:
        return _of_arrow(pq.read_table(file))


def _read_arrow_file(path):
    with open_packed(path) as file:
        return _of_arrow(pa.ipc.open_file(file).read_all())


def _read_arrow_stream(path):
    with open_packed(path) as file:
        return _of_arrow(pa.ipc.open_stream(file).read_all())


def _read_json(path, lines=False):
    with open_packed(path) as file:
        return pd.read_json(file, lines=lines, dtype=False)


def _read_delimited(path):
    with open_packed(path, "rt") as file:
        header = next((line for line in file if line.strip()), "")
    unquoted = re.sub('"[^"]*"', "", header)
    with open_packed(path) as file, warnings.catch_warnings():
        # pandas would cut rows that have more fields than there are columns.
        warnings.simplefilter("error", pd.errors.ParserWarning)
        return pd.read_csv(
            file,
            sep=max(",;\t", key=unquoted.count),
            dtype=str,
            keep_default_na=False,
            index_col=False,
            skipinitialspace=True,
        )


def _read_fasta(path: Path) -> pd.DataFrame:
    headers: list[str] = []
    pieces: list[list[str]] = []
    with open_packed(path, "rt") as lines:
        for line in filter(None, map(str.strip, lines)):
            if line.startswith(">"):
                headers.append(line)
                pieces.append([])
            else:
                pieces[-1].append(line)
    labels = [header.rpartition("|")[2] if "|" in header else "" for header in headers]
    return pd.DataFrame({"sequence": map("".join, pieces), "label": labels}, index=headers)


# How the content of a file begins, its format, and the function that reads it.
_READERS = (
    (b">", "FASTA", _read_fasta),
    (b"{", "JSON Lines", partial(_read_json, lines=True)),
    (b"[", "JSON", _read_json),
    (b"PAR1", "Parquet", _read_parquet),
    (b"ARROW1", "Arrow", _read_arrow_file),
    (b"\xff\xff\xff\xff", "Arrow", _read_arrow_stream),
    (b"", "CSV or TSV", _read_delimited),
)
