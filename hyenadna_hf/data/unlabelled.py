"""Load unlabelled sequences from tables, text and FASTA files, for pretraining."""

import hashlib
from collections.abc import Mapping
from itertools import accumulate
from pathlib import Path

import pandas as pd

from ..errors import InputError
from .benchmarks import read_benchmark
from .fasta import Fasta
from .files import SEQUENCE_COLUMNS, UNLABELLED_FORMATS, find_published
from .labelled import check_sequences, choose_column, read_tables
from .named import BENCHMARKS
from .sequence import NOT_A_NUCLEOTIDE, normalise, reverse_complement


class SequenceList(Fasta):
    """
    Sequences in memory, read like the records of a FASTA file, with the names `"0"`, `"1"` and so on.

    Args:
        sequences: IUPAC nucleotide codes in either case.
        path: Origin of the sequences, for error messages.
    """

    def __init__(self, sequences: list[str], path: str | Path) -> None:
        self.path = Path(path)
        self._text = "".join(sequences)  # one object, so that processes share its memory after a fork
        self._starts = [0, *accumulate(map(len, sequences))]
        self.lengths = {str(number): len(sequence) for number, sequence in enumerate(sequences)}
        self._names = {}  # there are no other naming conventions

    def fetch(self, name: str, start: int = 0, end: int | None = None) -> str:
        name, start, end = self._check_interval(name, start, end)
        first = self._starts[int(name)]
        return self._text[first + start : first + end]

    def close(self) -> None:
        """Do nothing, since no file is open."""


def load_unlabelled_sequences(
    source: str | Path,
    sequence_column: str | None = None,
    validation_fraction: float = 0.05,
    test_fraction: float = 0.05,
    seed: int = 42,
) -> dict[str, list[str]]:
    """
    Load sequences in train, validation and test splits; labels are ignored.

    A missing split is held out of train by [`hold_out`].

    Args:
        source: A source of [`~hyenadna_hf.data.labelled.load_labelled_sequences`], without labels, or the name of a
            published data set. Files may also be text (.txt) with one sequence per line.
        sequence_column: Column with the sequences. Defaults to `sequence`, `seq` or `dna`, in any case.
        validation_fraction: Fraction of train to hold out if there is no validation split; 0 for none.
        test_fraction: Fraction of train to hold out if there is no test split; 0 for none.
        seed: Random seed of the held-out splits.

    Returns:
        The sequences of each split, in the order of the source.

    Raises:
        InputError: If a file is unreadable or empty, a column is unknown, a sequence is empty or contains characters
            other than IUPAC nucleotide codes, or a split cannot be held out.
    """
    benchmark = find_published(source, BENCHMARKS)
    if benchmark is not None:
        splits = {split: table["sequence"] for split, table in read_benchmark(str(source), benchmark).items()}
    else:
        tables = read_tables(source, UNLABELLED_FORMATS)
        splits = {split: _read_sequences(*table, sequence_column) for split, table in tables.items()}
    if "train" not in splits:
        raise InputError(f"{source}: there is no train split, only {', '.join(splits)}; name one file train.")
    fractions = {"test": test_fraction, "validation": validation_fraction}
    return hold_out(source, splits, {split: part for split, part in fractions.items() if split not in splits}, seed)


def _read_sequences(where: str | Path, table: pd.DataFrame, sequence_column: str | None) -> list[str]:
    if sequence_column is None and len(table.columns) == 1 and table.columns[0] not in SEQUENCE_COLUMNS:
        header = table.columns[0]
        wrong = NOT_A_NUCLEOTIDE.search(header)
        reason = f" ({wrong[0]!r} at base {wrong.start() + 1:,} is not an IUPAC nucleotide code)" if wrong else ""
        raise InputError(
            f"{where}: it begins with {header[:40]!r}, which is neither a sequence{reason} nor one of the columns "
            f"{', '.join(SEQUENCE_COLUMNS)}; correct it, or set sequence_column."
        )
    column = choose_column(where, table, sequence_column, SEQUENCE_COLUMNS, "sequence_column")
    if not len(table):
        raise InputError(f"{where}: the file contains no sequence.")
    sequences = list(table[column])
    check_sequences(where, table.index, sequences, column)
    return sequences


def hold_out(
    source: str | Path, splits: Mapping[str, list[str]], fractions: Mapping[str, float], seed: int
) -> dict[str, list[str]]:
    """
    Hold splits out of train, with all copies of a sequence and of its reverse complement in the same split.

    The distinct sequences, in the order of their BLAKE2b hashes with `seed`, are divided by `fractions`. So the splits
    do not depend on the order of the source.

    Args:
        source: Name of the data in error messages.
        splits: Sequences of each split.
        fractions: Fraction of the distinct sequences of train for each split to hold out; 0 for none.
        seed: Random seed.

    Returns:
        `splits` with those held out, in the order of the source.

    Raises:
        InputError: If the fractions are invalid, or train has too few distinct sequences.
    """
    for split, fraction in fractions.items():
        if not 0 <= fraction < 1:
            raise InputError(f"{split}_fraction={fraction}: give 0 to below 1.")
    keys = [_hash(sequence, seed) for sequence in splits["train"]]
    distinct = sorted(set(keys))
    split_of: dict[bytes, str] = {}
    for split, fraction in fractions.items():
        if fraction:
            count = max(1, round(fraction * len(distinct)))
            split_of.update(dict.fromkeys(distinct[len(split_of) : len(split_of) + count], split))
    if len(split_of) == len(distinct):
        raise InputError(
            f"{source}: cannot hold {' and '.join(fractions)} out of {len(distinct):,} distinct sequences; reduce "
            f"{' and '.join(f'{split}_fraction' for split in fractions)}, or set 0 for none."
        )
    result = {**splits, **{split: [] for split in ("train", *set(split_of.values()))}}
    for key, sequence in zip(keys, splits["train"]):
        result[split_of.get(key, "train")].append(sequence)
    return result


def _hash(sequence: str, seed: int) -> bytes:
    """Hash a sequence and a seed; the reverse complement has the same hash."""
    text = normalise(sequence)
    text = min(text, reverse_complement(text))
    return hashlib.blake2b(f"{seed} {text}".encode(), digest_size=16).digest()
