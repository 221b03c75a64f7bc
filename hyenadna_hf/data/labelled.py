"""Labelled sequences from CSV, TSV, Parquet and FASTA files, the Hub, or the package itself."""

import gzip
import re
import warnings
from collections import Counter
from pathlib import Path

import pandas as pd
from datasets import ClassLabel, Dataset, DatasetDict, Features, Value, load_dataset

from ..errors import InputError
from .sequence import NOT_A_NUCLEOTIDE

BUNDLED = {"splice_sites_chr20": Path(__file__).parent / "splice_sites_chr20"}

SEQUENCE_COLUMNS = ("sequence", "seq", "dna")
LABEL_COLUMNS = ("label", "class", "target")
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


def load_labelled_sequences(
    source, sequence_column=None, label_column=None, validation_fraction=0.1, test_fraction=0.2, seed=42
):
    """
    Load sequences with one class each, in train, validation and test splits.

    A split that the source lacks is held out of train, stratified by class; test is never used as validation. The
    numbering of the classes follows from their names alone (numerical if all are whole numbers, else alphabetical) and
    is the same in every split.

    Args:
        source (`str`):
            A folder with files `train`, `validation` (or `valid`, `val`, `dev`) and `test`; the common beginning of
            such files (`data/human_ocr_ensembl` for `data/human_ocr_ensembl_train.csv.gz` and its siblings); one
            file; the bundled set `splice_sites_chr20`; or the id of a data set on the Hub. Files are .csv, .tsv,
            .parquet, or FASTA (.fa, .fasta, .fna) whose headers are `>name|label`; all but Parquet also with .gz.
        sequence_column (`str`, *optional*): Defaults to the one of `sequence`, `seq`, `dna` that is there.
        label_column (`str`, *optional*): Defaults to the one of `label`, `class`, `target` that is there.
        validation_fraction (`float`, defaults to 0.1): Share of train to hold out where there is no validation split.
        test_fraction (`float`, defaults to 0.2): Share of train to hold out where there is no test split.
        seed (`int`, defaults to 42): Of what is held out.

    Returns:
        `DatasetDict` with splits `train`, `validation` and `test`, and columns `sequence` (`string`) and `label`
        (`ClassLabel`).

    Raises:
        InputError: if a file cannot be read or is empty, a column is unknown, a sequence holds other characters than
            IUPAC nucleotide codes, or a class occurs in another split but not in train.
    """
    path = Path(BUNDLED.get(source, source)).expanduser()
    files = _split_files(path)
    raw = {split: _read_file(file) for split, file in files.items()} if files else _read_hub(source)
    tables = {
        split: _labelled(files.get(split, f"{source} ({split})"), table, sequence_column, label_column)
        for split, table in raw.items()
    }
    if "train" not in tables:
        raise InputError(f"{source}: there is no train split among {', '.join(tables)}; name one file train.")
    features = Features({"sequence": Value("string"), "label": ClassLabel(names=_class_names(source, tables))})
    splits = {split: Dataset.from_dict(table, features=features) for split, table in tables.items()}
    for split, fraction in (("test", test_fraction), ("validation", validation_fraction)):
        if split not in splits:
            try:
                halves = splits["train"].train_test_split(fraction, seed=seed, stratify_by_column="label")
            except ValueError as error:
                raise InputError(f"{source}: cannot hold a {split} split out of train ({error}).") from error
            splits["train"], splits[split] = halves["train"], halves["test"]
    return DatasetDict({split: splits[split] for split in ("train", "validation", "test")})


def _split_files(path):
    """The file of each split, by the rules of `load_labelled_sequences`; empty if there is nothing at `path`."""
    if path.is_file():
        return {"train": path}
    folder, prefix = (path, "") if path.is_dir() else (path.parent, f"{path.name}_")
    files = {}
    for file in sorted(folder.iterdir()) if folder.is_dir() else ():
        stem, dot, suffix = file.name.removeprefix(prefix).partition(".")
        split = SPLITS.get(stem)
        if split is None or not file.name.startswith(prefix) or (dot + suffix).removesuffix(".gz") not in FORMATS:
            continue
        if split in files:
            raise InputError(f"{folder}: {files[split].name} and {file.name} are both the {split} split; keep one.")
        files[split] = file
    if path.is_dir() and not files:
        raise InputError(
            f"{path}: there is no train file in this folder; name the files train, validation and test, with one of "
            f"the endings {', '.join(FORMATS)}."
        )
    return files


def _read_file(path):
    """A `DataFrame` of strings."""
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
    except InputError:
        raise
    except Exception as error:  # the parsers raise many kinds; all mean the same to the user
        raise InputError(f"{path}: this is not a readable {kind} file ({_reason(error)}).") from error
    return _as_text(table)


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


def _read_hub(source):
    absent = f"{source}: there is no such file or folder, and no files {Path(source).name}_train"
    if not HUB_ID.fullmatch(source) or any(source.removesuffix(".gz").endswith(suffix) for suffix in FORMATS):
        raise InputError(f"{absent} and so on; check the path.")
    try:
        loaded = load_dataset(source)
    except Exception as error:  # network, authentication, absent or malformed repository
        raise InputError(
            f"{absent}; it is no bundled set ({', '.join(BUNDLED)}); and the Hub does not give it ({_reason(error)})."
        ) from error
    tables = {}
    for name, split in loaded.items():
        if name in SPLITS:
            table = split.to_pandas()
            for column, feature in split.features.items():
                if isinstance(feature, ClassLabel):
                    table[column] = feature.int2str(table[column])
            tables[SPLITS[name]] = _as_text(table)
    return tables


def _labelled(where, table, sequence_column, label_column):
    """The checked sequences and class names of one split, as columns of equal length."""
    sequence_column = _choose(where, table, sequence_column, SEQUENCE_COLUMNS, "sequence_column")
    label_column = _choose(where, table, label_column, LABEL_COLUMNS, "label_column")
    if not len(table):
        raise InputError(f"{where}: there is not one row of data in it.")
    sequences = [sequence.strip() for sequence in table[sequence_column]]
    labels = [label.strip() for label in table[label_column]]
    for row, (sequence, label) in enumerate(zip(sequences, labels), start=1):
        wrong = NOT_A_NUCLEOTIDE.search(sequence)
        if not sequence or wrong:
            what = f"{wrong[0]!r} at base {wrong.start() + 1:,}" if wrong else "nothing"
            raise InputError(
                f"{where}, row {row:,}: the sequence holds {what}; allowed are A, C, G, T, U, N and the other IUPAC "
                f"nucleotide codes (is {sequence_column!r} the right column?)."
            )
        if not label:
            raise InputError(f"{where}, row {row:,}: the label is empty; give each sequence one class.")
    return {"sequence": sequences, "label": labels}


def _choose(where, table, asked, usual, argument):
    columns = ", ".join(map(str, table.columns))
    if asked is not None:
        if asked not in table.columns:
            raise InputError(f"{where}: {argument}={asked!r} is not one of its columns: {columns}.")
        return asked
    there = [name for name in usual if name in table.columns]
    if len(there) != 1:
        problem = f"has more than one of {', '.join(there)}" if there else f"has none of {', '.join(usual)}"
        raise InputError(f"{where}: {problem}; choose with {argument} among its columns: {columns}.")
    return there[0]


def _class_names(source, tables):
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
