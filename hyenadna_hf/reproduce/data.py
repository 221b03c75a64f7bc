"""Data of a table: located, limited, and compared with those of the paper."""

import hashlib
import random
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
from datasets import Dataset, DatasetDict, Features, Value

from ..data.biotypes import load_biotypes
from ..data.chromatin import CHROMATIN_GROUPS, chromatin_from_peaks, load_chromatin_mat
from ..data.fasta import fasta_files
from ..data.files import FORMATS, split_paths
from ..data.labelled import limit_split, value_lengths
from ..data.named import BENCHMARKS, load_labelled
from ..data.species import load_species
from ..errors import InputError
from ..jobs import replace_file, sha256, write_text
from .bits import HELD_OUT_FILE, load_held_out_splits
from .tables import WINDOW_LENGTHS

SPLIT_SEED = 2222  # of held-out sequences and of limited splits
TEST_SHARE = 0.25  # of a single file
SPECIES_WINDOWS = {"train": 2_000, "validation": 200, "test": 500}  # without a limit
CHROMATIN_CONTEXT = {"8k": 8_000}
_MAX_N = 0.5  # share of a window
ANNOTATIONS = (".gtf", ".gff3", ".gff")
_LETTERS = np.frombuffer(b"NNNNNNNACGTN", dtype="S1")  # by token id


@dataclass(frozen=True)
class Data:
    """
    Data set that cells can run on.

    Attributes:
        argument: Value of `--dataset`.
        origin: Where the data come from.
        split: Whether the splits are the published ones.
        sizes: Number of sequences by split.
        bases: Number of bases in the training split.
        fingerprint: Digest of the class names and of the sequences of every split.
    """

    argument: str
    origin: str
    split: str
    sizes: dict[str, int]
    bases: int
    fingerprint: str


def prepare(kind: str, name: str, source: str | None, folder: str | None, limit: int | None, work: Path) -> Data:
    """
    Locate a data set and write the files that cells read.

    Files of complete data sets are read where they are; others are converted to a folder of Parquet files in `work`.

    Args:
        kind: `labelled`, `species`, `biotypes`, `chromatin` or `genomes`.
        name: Name of the data set.
        source: Path of the data set. Defaults to its path in `folder`, and without one to the Hub.
        folder: Folder of local files.
        limit: Maximum number of sequences per split, in the proportions of the classes.
        work: Folder to write files to.

    Raises:
        InputError: If the data set is unavailable.
    """
    location = source or (str(Path(folder).expanduser()) if folder else None)
    if kind == "labelled":
        location = source or (find(folder, name) if folder else name)
        data = load_labelled(location, test_fraction=TEST_SHARE, seed=SPLIT_SEED)
        split = _describe_split(name, location, data)
        if limit is None and not Path(location).is_file():
            return Data(location, location, split, _sizes(data), _bases(data), _fingerprint(data))
    elif location is None:
        raise InputError(f"{name}: this data set is built from local files; set --data to their folder.")
    elif kind == "genomes":
        return _prepare_genomes(location, limit)
    elif kind == "species":
        data = species_windows(location, WINDOW_LENGTHS[name], SPECIES_WINDOWS if limit is None else limit)
        limit, split = None, f"windows of {', '.join(data['train'].features['label'].names)}, not the published genomes"
    elif kind == "biotypes":
        data, split = _load_biotypes(Path(location)), "genes held out at random, not the published split"
    else:
        data, split = _load_chromatin(Path(location), name)
    if limit is not None:
        split = f"{split}; limited to {limit:,} per split"
        data = {part: limit_split(name, part, rows, limit, SPLIT_SEED) for part, rows in data.items()}
    fingerprint = _fingerprint(data)
    prepared = work / f"{name}-{fingerprint[:12]}"
    if "labels" in data["train"].column_names:
        if not (prepared / "dataset_dict.json").is_file():
            DatasetDict(data).save_to_disk(prepared)
    else:
        _write_parquet(data, prepared)
    return Data(str(prepared), location, split, _sizes(data), _bases(data), fingerprint)


def find(folder: str | Path, name: str) -> str:
    """
    Find a data set in a folder of data sets: `NAME/`, `NAME_train.csv.gz` and the like, or a single file.

    The single file may be `NAME.csv.gz`, `test_NAME.csv.gz`, or the only split (`NAME_test.csv.gz`).

    Raises:
        InputError: If it does not exist.
    """
    folder = Path(folder).expanduser()
    splits = split_paths(folder / name)
    if "train" in splits:
        return str(folder / name)
    single = list(splits.values()) or [
        path for path in (sorted(folder.iterdir()) if folder.is_dir() else ()) if _stem(path) in (name, f"test_{name}")
    ]
    if len(single) != 1:
        raise InputError(f"--data {folder}: the folder contains neither {name} nor {name}_train and {name}_test.")
    return str(single[0])


def species_windows(folder: str, length: int, windows: int | dict[str, int]) -> dict[str, Dataset]:
    """
    Sample windows of the genomes in a folder, as sequences.

    Args:
        folder: Folder of genomes, with held-out chromosomes as in [`load_species`].
        length: Length of a window in bases.
        windows: Maximum number of windows per split, shared equally by the species; one number or by split.

    Returns:
        Data sets by split, with columns `sequence` and `label`.
    """
    data = {}
    streams = load_species(folder, length, seed=SPLIT_SEED, rank=0, world_size=1, n_policy="drop", max_n=_MAX_N)
    for split, stream in streams.items():
        most = min(stream.size(), windows if isinstance(windows, int) else windows[split])
        species = len(stream.names)
        numbers = random.Random(SPLIT_SEED).sample(range(stream.size() // species), most // species)
        examples = [stream.example(number * species + label) for number in numbers for label in range(species)]
        rows = [
            {"sequence": _LETTERS[example["input_ids"].numpy()].tobytes().decode(), "label": example["label"]}
            for example in examples
            if example is not None
        ]
        if len({row["label"] for row in rows}) < len(stream.names):
            raise InputError(
                f"{folder}: {split} has no window of {length:,} bases of some species; use larger genomes or a larger "
                "--limit."
            )
        features = Features({"sequence": Value("string"), "label": stream.features["label"]})
        data[split] = Dataset.from_list(rows, features=features)
    return data


def train_fasta(folder: str | Path) -> str:
    """Write the training split of a folder that [`prepare`] wrote to a FASTA file, and return its path."""
    path = Path(folder) / "windows.fa"
    if not path.is_file():
        sequences = pd.read_parquet(path.with_name("train.parquet"), columns=["sequence"])["sequence"]
        text = "".join(f">window{number}\n{sequence}\n" for number, sequence in enumerate(sequences))
        write_text(path, text)
    return str(path)


def _prepare_genomes(folder: str, limit: int | None) -> Data:
    if limit is not None:
        raise InputError(f"--limit {limit}: held-out regions are scored completely; leave it out.")
    splits = load_held_out_splits(folder)
    bases = {
        split: sum(piece.end - piece.start for stream in streams for piece in stream.regions)
        for split, streams in splits.items()
    }
    files = [Path(folder) / HELD_OUT_FILE, *fasta_files(folder)]
    fingerprint = hashlib.sha256("".join(path.name + sha256(path) for path in files).encode()).hexdigest()
    return Data(folder, folder, f"regions of {HELD_OUT_FILE}; sizes in bases", bases, bases["train"], fingerprint)


def _load_biotypes(folder: Path) -> dict[str, Dataset]:
    if not folder.is_dir():
        raise InputError(f"--data {folder}: there is no such folder; check the path.")
    annotations = [path for path in sorted(folder.iterdir()) if path.name.removesuffix(".gz").endswith(ANNOTATIONS)]
    genomes = fasta_files(folder)
    if len(annotations) == 1:  # of several genomes, use the one whose name starts like it
        stem = annotations[0].name.partition(".")[0]
        genomes = [path for path in genomes if path.name.partition(".")[0] == stem] or genomes
    if len(annotations) != 1 or len(genomes) != 1:
        raise InputError(
            f"--data {folder}: biotypes need one GTF or GFF3 file and its genome; the folder has {len(annotations)} "
            f"annotation and {len(genomes)} FASTA files."
        )
    data = load_biotypes(annotations[0], genomes[0], seed=SPLIT_SEED)
    return {split: rows.select_columns(["sequence", "label"]) for split, rows in data.items()}


def _load_chromatin(folder: Path, name: str) -> tuple[Mapping[str, Dataset], str]:
    """Load DeepSEA's files for windows of 1,000 bases, or its peaks, in the order of its labels, for longer ones."""
    if name == "1k":
        return load_chromatin_mat(folder), "published split"
    order, genomes = folder / "labels.txt", fasta_files(folder)
    if not order.is_file() or len(genomes) != 1:
        raise InputError(
            f"--data {folder}: windows of {name} need labels.txt (the paths of DeepSEA's 919 BED files in the order of "
            f"its labels, one per line) and one FASTA file; the folder has {len(genomes)} FASTA files."
        )
    peaks = {line: folder / line for line in order.read_text(encoding="utf-8").split()}
    factors = [label for column, label in enumerate(peaks) if column in CHROMATIN_GROUPS["TF"]]
    data = chromatin_from_peaks(peaks, genomes[0], CHROMATIN_CONTEXT[name], must_have=factors)
    return data, "chromosomes 8 and 9 for test, as published"


def _stem(path: Path) -> str | None:
    stem, dot, suffix = path.name.removesuffix(".gz").rpartition(".")
    return stem if dot + suffix in FORMATS else None


def _describe_split(name: str, location: str, data: Mapping[str, Dataset]) -> str:
    """Describe the splits of a labelled data set."""
    if Path(location).is_file():
        return f"{1 - TEST_SHARE:.0%} and {TEST_SHARE:.0%} of {Path(location).name}, not the published split"
    benchmark = BENCHMARKS.get(name)
    if benchmark is None or benchmark.train is None:
        return "splits as in the files"
    train, test = len(data["train"]) + len(data["validation"]), len(data["test"])
    if (train, test) == (benchmark.train, benchmark.test):
        return "published split"
    return f"{train:,} / {test:,} of {benchmark.train:,} / {benchmark.test:,} sequences, not the published split"


def _sizes(data: Mapping[str, Dataset]) -> dict[str, int]:
    return {split: len(rows) for split, rows in data.items()}


def _bases(data: Mapping[str, Dataset]) -> int:
    return int(value_lengths(data["train"], "sequence").sum())


def _fingerprint(data: Mapping[str, Dataset]) -> str:
    column = "label" if "label" in data["train"].column_names else "labels"
    digest = hashlib.sha256(repr(getattr(data["train"].features[column], "names", None)).encode())
    for split in sorted(data):
        digest.update(split.encode())
        for sequence, label in zip(data[split]["sequence"], data[split][column]):
            digest.update(f"{sequence},{label}\n".encode())
    return digest.hexdigest()


def _write_parquet(data: Mapping[str, Dataset], folder: Path) -> None:
    """Write Parquet files with class names, unless they exist."""
    folder.mkdir(parents=True, exist_ok=True)
    for split, rows in data.items():
        path, names = folder / f"{split}.parquet", rows.features["label"].names
        if not path.is_file():
            table = rows.to_pandas()
            table["label"] = [names[label] for label in table["label"]]
            replace_file(path, partial(table.to_parquet, index=False))
