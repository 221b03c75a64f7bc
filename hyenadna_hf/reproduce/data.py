"""The data of a table: found, limited, and told apart from those of the paper."""

import hashlib
import random
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from datasets import Dataset, DatasetDict, Features, Value

from ..data.biotypes import load_biotypes
from ..data.chromatin import CHROMATIN_GROUPS, chromatin_from_peaks, load_chromatin_mat
from ..data.fasta import fasta_files
from ..data.files import FORMATS, split_paths
from ..data.named import BENCHMARKS, load_labelled
from ..data.species import load_species
from ..errors import InputError
from ..jobs import replace_file, sha256, write_text
from .bits import HELD_OUT_FILE, held_out_splits
from .tables import WINDOW_LENGTHS

SPLIT_SEED = 2222  # of what is held out and of what a limit leaves
TEST_SHARE = 0.25  # of a single file
SPECIES_WINDOWS = {"train": 2_000, "validation": 200, "test": 500}  # unless a limit says otherwise
CHROMATIN_CONTEXT = {"8k": 8_000}
_MOST_N = 0.5  # of a window
ANNOTATIONS = (".gtf", ".gff3", ".gff")
_LETTERS = np.frombuffer(b"NNNNNNNACGTN", dtype="S1")  # by token


@dataclass(frozen=True)
class Data:
    """
    A data set that cells can run on.

    Attributes:
        argument (`str`): What `--dataset` gets.
        origin (`str`): Where it comes from.
        split (`str`): Whether the splits are the published ones.
        sizes (`dict[str, int]`): Sequences by split.
        bases (`int`): In train.
        fingerprint (`str`): Of names of classes and sequences in every split.
    """

    argument: str
    origin: str
    split: str
    sizes: dict[str, int]
    bases: int
    fingerprint: str


def prepare(kind, name, source, folder, limit, work):
    """
    Find a data set and make what cells read of it.

    Files that are whole are read where they are; of others a folder of Parquet files is made in `work`.

    Args:
        kind (`str`): `labelled`, `species`, `biotypes`, `chromatin` or `genomes`.
        name (`str`): Of the data set.
        source (`str`, *optional*): Where it is; by default in `folder`, or without one on the Hub.
        folder (`str`, *optional*): Where local files lie.
        limit (`int`, *optional*): Sequences a split at most, in the proportions of the classes.
        work (`Path`): Where to make files.

    Returns:
        [`Data`]

    Raises:
        InputError: if it cannot be had.
    """
    where = source or (str(Path(folder).expanduser()) if folder else None)
    if kind == "labelled":
        where = source or (find(folder, name) if folder else name)
        data = load_labelled(where, test_fraction=TEST_SHARE, seed=SPLIT_SEED)
        split = _split(name, where, data)
        if limit is None and not Path(where).is_file():
            return Data(where, where, split, _sizes(data), _bases(data), _fingerprint(data))
    elif where is None:
        raise InputError(f"{name}: these data are made from files; say where they lie by --data FOLDER.")
    elif kind == "genomes":
        return _genomes(where, limit)
    elif kind == "species":
        data = species_windows(where, WINDOW_LENGTHS[name], SPECIES_WINDOWS if limit is None else limit)
        limit, split = None, f"windows of {', '.join(data['train'].features['label'].names)}, not the published genomes"
    elif kind == "biotypes":
        data, split = _biotypes(Path(where)), "genes held out at random, not the published split"
    else:
        data, split = _chromatin(Path(where), name)
    if limit is not None:
        split = f"{split}; limited to {limit:,} a split"
        data = {part: _limited(name, part, rows, limit) for part, rows in data.items()}
    fingerprint = _fingerprint(data)
    made = work / f"{name}-{fingerprint[:12]}"
    if "labels" in data["train"].column_names:
        if not (made / "dataset_dict.json").is_file():
            DatasetDict(data).save_to_disk(made)
    else:
        _write(data, made)
    return Data(str(made), where, split, _sizes(data), _bases(data), fingerprint)


def find(folder, name):
    """
    Where a data set is in a folder of them: `NAME/`, `NAME_train.csv.gz` and the like, or a single file.

    A file is `NAME.csv.gz`, `test_NAME.csv.gz`, or a split that is alone (`NAME_test.csv.gz`).

    Raises:
        InputError: if it is not there.
    """
    folder = Path(folder).expanduser()
    splits = split_paths(folder / name)
    if "train" in splits:
        return str(folder / name)
    alone = list(splits.values()) or [
        path for path in (sorted(folder.iterdir()) if folder.is_dir() else ()) if _stem(path) in (name, f"test_{name}")
    ]
    if len(alone) != 1:
        raise InputError(f"--data {folder}: there is no folder {name}, nor files {name}_train and {name}_test in it.")
    return str(alone[0])


def species_windows(folder, length, windows):
    """
    Windows of the genomes in a folder, as sequences.

    Args:
        folder (`str`): As for [`load_species`], which says what is held out.
        length (`int`): Bases in a window.
        windows (`int` or `dict[str, int]`): How many at most, in all or by split; as many of each species.

    Returns:
        `dict[str, Dataset]` with columns `sequence` and `label`.
    """
    data = {}
    streams = load_species(folder, length, seed=SPLIT_SEED, rank=0, world_size=1, n_policy="drop", max_n=_MOST_N)
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
                f"{folder}: {split} has no window of {length:,} bases of some species; give larger genomes or --limit."
            )
        features = Features({"sequence": Value("string"), "label": stream.features["label"]})
        data[split] = Dataset.from_list(rows, features=features)
    return data


def train_fasta(folder):
    """The train split of a folder that [`prepare`] has made, as the path of a FASTA file for pretraining."""
    path = Path(folder) / "windows.fa"
    if not path.is_file():
        sequences = pd.read_parquet(path.with_name("train.parquet"), columns=["sequence"])["sequence"]
        text = "".join(f">window{number}\n{sequence}\n" for number, sequence in enumerate(sequences))
        write_text(path, text)
    return str(path)


def _genomes(folder, limit):
    if limit is not None:
        raise InputError(f"--limit {limit}: held-out regions are scored whole; leave it out.")
    splits = held_out_splits(folder)
    bases = {
        split: sum(piece.end - piece.start for stream in streams for piece in stream.regions)
        for split, streams in splits.items()
    }
    files = [Path(folder) / HELD_OUT_FILE, *fasta_files(folder)]
    fingerprint = hashlib.sha256("".join(path.name + sha256(path) for path in files).encode()).hexdigest()
    return Data(folder, folder, f"regions of {HELD_OUT_FILE}; sizes in bases", bases, bases["train"], fingerprint)


def _biotypes(folder):
    if not folder.is_dir():
        raise InputError(f"--data {folder}: there is no such folder; check the path.")
    annotations = [path for path in sorted(folder.iterdir()) if path.name.removesuffix(".gz").endswith(ANNOTATIONS)]
    genomes = fasta_files(folder)
    if len(annotations) == 1:  # its genome is the one that begins like it, if there are several
        stem = annotations[0].name.partition(".")[0]
        genomes = [path for path in genomes if path.name.partition(".")[0] == stem] or genomes
    if len(annotations) != 1 or len(genomes) != 1:
        raise InputError(
            f"--data {folder}: biotypes need one GTF or GFF3 file and its genome; here are {len(annotations)} and "
            f"{len(genomes)} FASTA files."
        )
    data = load_biotypes(annotations[0], genomes[0], seed=SPLIT_SEED)
    return {split: rows.select_columns(["sequence", "label"]) for split, rows in data.items()}


def _chromatin(folder, name):
    """DeepSEA's files for windows of 1,000 bases; for longer ones its peaks, in the order of its labels."""
    if name == "1k":
        return load_chromatin_mat(folder), "published split"
    order, genomes = folder / "labels.txt", fasta_files(folder)
    if not order.is_file() or len(genomes) != 1:
        raise InputError(
            f"--data {folder}: windows of {name} are made of labels.txt (the paths of DeepSEA's 919 BED files in the "
            f"order of its labels, one a line) and one FASTA file; here are {len(genomes)} of the latter."
        )
    peaks = {line: folder / line for line in order.read_text(encoding="utf-8").split()}
    factors = [label for column, label in enumerate(peaks) if column in CHROMATIN_GROUPS["TF"]]
    data = chromatin_from_peaks(peaks, genomes[0], CHROMATIN_CONTEXT[name], must_have=factors)
    return data, "chromosomes 8 and 9 for test, as published"


def _stem(path):
    stem, dot, suffix = path.name.removesuffix(".gz").rpartition(".")
    return stem if dot + suffix in FORMATS else None


def _split(name, where, data):
    """What to know of the splits of a labelled data set."""
    if Path(where).is_file():
        return f"{1 - TEST_SHARE:.0%} and {TEST_SHARE:.0%} of {Path(where).name}, not the published split"
    benchmark = BENCHMARKS.get(name)
    if benchmark is None or benchmark.train is None:
        return "splits as in the files"
    train, test = len(data["train"]) + len(data["validation"]), len(data["test"])
    if (train, test) == (benchmark.train, benchmark.test):
        return "published split"
    return f"{train:,} / {test:,} of {benchmark.train:,} / {benchmark.test:,} sequences, not the published split"


def _limited(name, split, rows, limit):
    if len(rows) <= limit:
        return rows
    if "labels" in rows.column_names:
        return rows.shuffle(seed=SPLIT_SEED).select(range(limit))
    try:
        return rows.train_test_split(train_size=limit, seed=SPLIT_SEED, stratify_by_column="label")["train"]
    except ValueError as error:
        raise InputError(f"--limit {limit}: too few for {split} of {name} ({error}).") from error


def _sizes(data):
    return {split: len(rows) for split, rows in data.items()}


def _bases(data):
    return sum(map(len, data["train"]["sequence"]))


def _fingerprint(data):
    column = "label" if "label" in data["train"].column_names else "labels"
    digest = hashlib.sha256(repr(getattr(data["train"].features[column], "names", None)).encode())
    for split in sorted(data):
        digest.update(split.encode())
        for sequence, label in zip(data[split]["sequence"], data[split][column]):
            digest.update(f"{sequence},{label}\n".encode())
    return digest.hexdigest()


def _write(data, folder):
    """Parquet files with the names of the classes, where there are none yet."""
    folder.mkdir(parents=True, exist_ok=True)
    for split, rows in data.items():
        path, names = folder / f"{split}.parquet", rows.features["label"].names
        if not path.is_file():
            table = rows.to_pandas()
            table["label"] = [names[label] for label in table["label"]]
            replace_file(path, lambda temporary, table=table: table.to_parquet(temporary, index=False))
