"""Read tables of labelled sequences from files, folders and the Hub."""

import re
import warnings
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from datasets import ClassLabel, Dataset, Features, load_dataset, load_from_disk

from ..errors import InputError
from .fasta import ENDINGS, Fasta
from .sequence import NOT_A_NUCLEOTIDE, reverse_complement
from .source import STANDARD_INPUT, TABLE, open_packed, read_prefix, regular_file

Entry = TypeVar("Entry")
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
# Suffixes of files of labelled and of unlabelled sequences, optionally followed by .gz.
FORMATS = (".csv", ".tsv", ".jsonl", ".json", ".parquet", ".arrow", *ENDINGS)
UNLABELLED_FORMATS = (*FORMATS, ".txt")
HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")


def split_paths(path: Path, formats: Sequence[str] = FORMATS) -> dict[str, Path]:
    """
    Find the file or folder of each split at `path`: a file, a folder of files or folders, or a common prefix of files.

    Args:
        path: The path.
        formats: Suffixes of the files to find in a folder or with a prefix.

    Returns:
        Paths by split (`train`, `validation` and `test`); empty if nothing exists at `path`.
    """
    if str(path) in STANDARD_INPUT or (path.exists() and not path.is_dir()) or is_saved_split(path):
        return {"train": path}
    folder, prefix = (path, "") if path.is_dir() else (path.parent, f"{path.name}_")
    paths: dict[str, Path] = {}
    for entry in sorted(folder.iterdir()) if folder.is_dir() else ():
        stem, dot, suffix = entry.name.removeprefix(prefix).partition(".")
        split = SPLITS.get(stem)
        is_data = (entry.is_dir() and not prefix) or (dot + suffix).removesuffix(".gz") in formats
        if split is None or not entry.name.startswith(prefix) or not is_data:
            continue
        if split in paths:
            raise InputError(f"{folder}: {paths[split].name} and {entry.name} are both the {split} split; keep one.")
        paths[split] = entry
    if path.is_dir() and not paths:
        raise InputError(
            f"{path}: this folder contains no train file; name the files train, validation and test, with one of "
            f"the suffixes {', '.join(formats)}, or use folders train, validation and test with one folder or file "
            "per class."
        )
    return paths


def is_saved_split(path: Path) -> bool:
    """Return whether `path` is a folder written by `Dataset.save_to_disk`."""
    return (path / "state.json").is_file()


def read_split(path: Path) -> pd.DataFrame:
    """
    Read one split: a file, a folder written by `Dataset.save_to_disk`, or a folder with one file, or one folder of .txt
    files (one sequence each), per class.

    Returns:
        A table of strings, with the columns of the file, or `sequence` and `label`. The index has row numbers from 0,
        or the names of the files or records.
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
                raise InputError(f"{entry}: the class is empty; this folder contains no .txt file.")
            sequences = [file.read_text(encoding="utf-8-sig", errors="replace").strip() for file in files]
            parts.append(pd.DataFrame({"sequence": sequences}, index=[f"{name}/{file.name}" for file in files]))
        elif (dot + suffix).removesuffix(".gz") in FORMATS:
            parts.append(read_file(entry))
            parts[-1].index = [f"{entry.name} {row_name(row)}" for row in parts[-1].index]
            if not len(parts[-1]):
                raise InputError(f"{entry}: the class is empty; the file contains no row of data.")
        else:
            continue
        parts[-1] = parts[-1].drop(columns=list(LABEL_COLUMNS), errors="ignore").assign(label=name)
    if not parts:
        raise InputError(f"{path}: this folder contains neither folders of .txt files nor tables, one per class.")
    return pd.concat(parts)


def read_file(path: Path, wanted: str = TABLE) -> pd.DataFrame:
    """
    Read a table: CSV or TSV (delimiter comma, semicolon or tab), JSON Lines, JSON, Parquet, Arrow, FASTA with headers
    that end in `|label`, or text with one sequence per line and no header.

    Args:
        path: The file, or `-` for standard input. The format is detected from the content.
        wanted: What the table contains, for error messages.

    Returns:
        A table of strings. The index has row numbers from 0, the headers of a FASTA file, or the lines of a text.

    Raises:
        InputError: If the file cannot be read.
    """
    file = regular_file(path, wanted, unpack=False)
    start = read_prefix(file, path)[:6]
    kind, read = next((kind, read) for prefix, kind, read in _READERS if start.lstrip().startswith(prefix))
    try:
        if read is _read_delimited and _is_text(file):
            kind, read = "text", _read_lines
        return _as_text(read(file))
    except Exception as error:  # the parsers raise many types, which all mean the same to the user
        raise InputError(f"{path}: this is not a readable {kind} file ({_reason(error)}).") from error


def find_published(source: str | Path, published: Mapping[str, Entry]) -> Entry | None:
    """Return the entry of `published` with this name, or `None` if there is none or a path with this name exists."""
    return None if Path(source).expanduser().exists() else published.get(str(source))


def read_hub(repository: str, configuration: str | None = None) -> dict[str, pd.DataFrame]:
    """
    Read the splits of a data set on the Hub, with class names in place of numbers.

    Args:
        repository: Id of the data set.
        configuration: Name of its configuration.

    Returns:
        A table of strings for each split.
    """
    try:
        loaded = load_dataset(repository, configuration)
        return {SPLITS[name]: _from_dataset(split) for name, split in loaded.items() if name in SPLITS}
    except Exception as error:  # network, authentication, missing or malformed repository
        raise InputError(f"the data set {repository} cannot be loaded from the Hub ({_reason(error)}).") from error


def column_name(name: object) -> str:
    """Strip blanks from the name of a column, and lower its case if it is a name that the readers recognise."""
    text = str(name).strip()
    return text.lower() if text.lower() in _KNOWN_COLUMNS else text


def fetch_intervals(where: str | Path, table: pd.DataFrame, reference: str | Path | Fasta | None) -> list[str]:
    """
    Fetch the sequences of the intervals in a table.

    Args:
        where: Name of the table in error messages.
        table: Table with columns `region`, `start` and `end` (0-based, half-open), and optionally `strand`.
        reference: Reference genome.

    Returns:
        The sequences, each in the direction of its strand.

    Raises:
        InputError: If there is no reference, or an interval is outside of it.
    """
    if reference is None:
        raise InputError(f"{where}: it has intervals but no sequences; give the reference genome (FASTA).")
    if not isinstance(reference, Fasta):
        with Fasta(reference) as fasta:
            return fetch_intervals(where, table, fasta)
    strands = table["strand"] if "strand" in table.columns else ["+"] * len(table)
    sequences = []
    for row, region, start, end, strand in zip(table.index, *(table[name] for name in INTERVAL_COLUMNS), strands):
        try:
            if not re.fullmatch(r"\d+", start) or not re.fullmatch(r"\d+", end) or int(start) >= int(end):
                raise InputError(f"{region}:{start}-{end} is not an interval; start must be at least 0 and below end.")
            if strand not in ("+", "-", ".", ""):
                raise InputError(f"the strand is {strand!r}; it must be +, - or '.'.")
            sequence = reference.fetch(region, int(start), int(end))
        except InputError as error:
            raise InputError(f"{where}, {row_name(row)}: {error}") from error
        sequences.append(reverse_complement(sequence) if strand == "-" else sequence)
    return sequences


def row_name(row: int | str) -> str:
    """Name a row in error messages, from its label in the index of the table."""
    return row if isinstance(row, str) else f"row {row + 1:,}"


def _as_text(table: pd.DataFrame) -> pd.DataFrame:
    """
    Convert values to strings without surrounding blanks, missing ones to empty strings, and normalise column names.
    """
    table = table.rename(columns=column_name)
    duplicated = table.columns[table.columns.duplicated()]
    if len(duplicated):
        raise ValueError(f"there are two columns {duplicated[0]!r}")
    return table.astype(object).where(table.notna(), "").astype(str).apply(lambda column: column.str.strip())


def _reason(error: Exception) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)


def _from_dataset(data: Dataset) -> pd.DataFrame:
    return _as_text(_with_class_names(data.with_format(None).to_pandas(), data.features))


def _with_class_names(table: pd.DataFrame, features: Mapping[str, Any]) -> pd.DataFrame:
    for column, feature in features.items():
        if isinstance(feature, ClassLabel):
            table[column] = table[column].map(dict(enumerate(feature.names)))  # -1 means a missing label
    return table


def _read_saved(path: Path) -> pd.DataFrame:
    try:
        data = load_from_disk(str(path))
        data.data.validate(full=True)
        return _from_dataset(data)
    except Exception as error:  # as in read_file
        raise InputError(f"{path}: this is not a readable save_to_disk folder ({_reason(error)}).") from error


def _from_arrow(table: pa.Table) -> pd.DataFrame:
    table.validate(full=True)  # without this, Arrow trusts the offsets in a file
    features = Features.from_arrow_schema(table.schema) if b"huggingface" in (table.schema.metadata or {}) else {}
    return _with_class_names(table.to_pandas(), features)


def _read_parquet(path: Path) -> pd.DataFrame:
    with open_packed(path) as file:
        return _from_arrow(pq.read_table(file))


def _read_arrow_file(path: Path) -> pd.DataFrame:
    with open_packed(path) as file:
        return _from_arrow(pa.ipc.open_file(file).read_all())


def _read_arrow_stream(path: Path) -> pd.DataFrame:
    with open_packed(path) as file:
        return _from_arrow(pa.ipc.open_stream(file).read_all())


def _read_json(path: Path, lines: bool = False) -> pd.DataFrame:
    with open_packed(path) as file:
        return pd.read_json(file, lines=lines, dtype=False)


def _first_line(path: Path) -> str:
    with open_packed(path, "rt") as file:
        return next((line for line in file if line.strip()), "").strip()


def _is_text(path: Path) -> bool:
    """Return whether a file begins with a sequence instead of the header of a table."""
    line = _first_line(path)
    return line != "" and column_name(line) not in SEQUENCE_COLUMNS and not NOT_A_NUCLEOTIDE.search(line)


def _read_lines(path: Path) -> pd.DataFrame:
    with open_packed(path, "rt") as file:
        lines = {f"line {number:,}": line.strip() for number, line in enumerate(file, start=1) if line.strip()}
    return pd.DataFrame({"sequence": lines.values()}, index=list(lines))


def _read_delimited(path: Path) -> pd.DataFrame:
    unquoted = re.sub('"[^"]*"', "", _first_line(path))
    with open_packed(path) as file, warnings.catch_warnings():
        # pandas truncates rows with more fields than columns, and only warns.
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


# Prefix of the content, name of the format, and reader.
_READERS = (
    (b">", "FASTA", _read_fasta),
    (b"{", "JSON Lines", partial(_read_json, lines=True)),
    (b"[", "JSON", _read_json),
    (b"PAR1", "Parquet", _read_parquet),
    (b"ARROW1", "Arrow", _read_arrow_file),
    (b"\xff\xff\xff\xff", "Arrow", _read_arrow_stream),
    (b"", "CSV or TSV", _read_delimited),
)
