"""Chromatin profiles: sequences with many labels, from DeepSEA's files, from arrays, or from peaks and a genome."""

from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset, DatasetDict, Features, Sequence, Value

from ..errors import InputError
from .fasta import Fasta
from .intervals import Interval, parse_region, read_bed
from .sequence import BASES

BIN = 200  # bases that the labels describe, in the middle of the context

# Columns of DeepSEA's 919 labels: transcription factors, DNase hypersensitivity, histone marks (Zhou & Troyanskaya
# 2015, doi:10.1038/nmeth.3547).
CHROMATIN_GROUPS = {"TF": range(125, 815), "DHS": range(125), "HM": range(815, 919)}

_MAT_SPLITS = {"train": "train", "valid": "validation", "test": "test"}
_CHUNK = 1000  # rows read at a time


def load_chromatin_mat(folder: str | Path, bases: str = "AGCT", cache_dir: str | Path | None = None) -> DatasetDict:
    """
    Load DeepSEA's train.mat, valid.mat and test.mat (4,400,000, 8,000 and 455,024 windows of 1,000 bases, 919 labels).

    The second half of each file is the reverse complement of the first. Reading train.mat requires the package h5py.

    Args:
        folder: Folder with the three files.
        bases: Order of the four channels.
        cache_dir: Folder where `datasets` caches the converted tables.

    Returns:
        A `DatasetDict` with splits `train`, `validation` and `test`, and columns `sequence` (`string`) and `labels`
        (list of 0 and 1; `CHROMATIN_GROUPS` lists the columns of each group).

    Raises:
        InputError: If a file is missing or does not contain the arrays xdata and data.
    """
    files = {split: Path(folder).expanduser() / f"{name}.mat" for name, split in _MAT_SPLITS.items()}
    for file in files.values():
        if not file.is_file():
            raise InputError(f"{file}: there is no such file; DeepSEA's files are train.mat, valid.mat and test.mat.")
    counts = {split: next(_mat_chunks(file))[1].shape[1] for split, file in files.items()}
    return DatasetDict(
        {
            split: _build_dataset(
                _mat_rows, counts[split], cache_dir, file=str(file), bases=bases, version=_version(file)
            )
            for split, file in files.items()
        }
    )


def chromatin_from_arrays(sequences: list[str] | np.ndarray, labels: np.ndarray, bases: str = BASES) -> Dataset:
    """
    Build a data set of sequences with many labels from arrays.

    Args:
        sequences: Sequences, or one-hot arrays of shape `(rows, 4, length)` where an all-zero position is N.
        labels: Zeros and ones, shape `(rows, labels)`.
        bases: Order of the four channels.

    Returns:
        A `Dataset` with columns `sequence` (`string`) and `labels` (list of 0 and 1).

    Raises:
        InputError: If a shape or value is invalid.
    """
    labels = np.asarray(labels)
    if labels.ndim != 2 or not np.isin(labels, (0, 1)).all():
        raise InputError(f"labels of shape {labels.shape}: give zeros and ones of shape (rows, labels).")
    if not isinstance(sequences[0], str):
        sequences = _decode_one_hot(np.asarray(sequences), bases)
    if len(sequences) != len(labels):
        raise InputError(
            f"{len(sequences):,} sequences, but {len(labels):,} rows of labels: give one row per sequence."
        )
    rows = {"sequence": list(sequences), "labels": labels.astype(np.uint8)}
    return Dataset.from_dict(rows, features=_features(labels.shape[1]))


def chromatin_from_peaks(
    peaks: Mapping[str, str | Path],
    fasta: str | Path | Fasta,
    context: int = 1000,
    must_have: Collection[str] | None = None,
    validation: Collection[str] = ("chr7:30508752-35296850",),
    test: Collection[str] = ("chr8", "chr9"),
    cache_dir: str | Path | None = None,
) -> DatasetDict:
    """
    Build chromatin profiles like DeepSEA: bins of 200 bases with the labels whose peaks cover more than half of the
    bin.

    Bins without any of the labels in `must_have` are skipped. The sequence is the context around the bin, filled with N
    beyond the ends of the chromosome. The split of a bin follows from its centre.

    Args:
        peaks: BED file of the peaks of each label, in the order of the labels.
        fasta: Genome.
        context: Length of a sequence, in bases, an even number (1,000 and 8,000 in the HyenaDNA paper).
        must_have: Labels of which a bin needs at least one (in DeepSEA, the transcription factors). Defaults to all.
        validation: Regions of the validation split, 1-based and inclusive. Defaults to DeepSEA's.
        test: Regions of the test split. Defaults to DeepSEA's. All other regions are train.
        cache_dir: Folder where `datasets` caches the tables.

    Returns:
        A `DatasetDict` with splits `train`, `validation` and `test`, and columns `sequence` (`string`), `labels` (list
        of 0 and 1), and `name`, `start` and `end` of the bin (0-based, half-open).

    Raises:
        InputError: If a file is invalid, a label has no peak, or a split has no bin.
    """
    fasta = fasta if isinstance(fasta, Fasta) else Fasta(fasta)
    if context < BIN or context % 2:
        raise InputError(f"context={context}: give an even number of bases, at least {BIN}.")
    if not peaks:
        raise InputError("peaks: give the BED file of at least one label.")
    unknown = [name for name in must_have or () if name not in peaks]
    if unknown:
        raise InputError(f"must_have: unknown label {unknown[0]!r}; choose from {', '.join(peaks)}.")
    held_out = {
        split: [parse_region(region, fasta) for region in regions]
        for split, regions in (("validation", validation), ("test", test))
    }
    names = list(fasta.lengths)
    # Bins are numbered consecutively over the whole genome.
    firsts = np.cumsum([0, *(-(-length // BIN) for length in fasta.lengths.values())])
    bins, columns = _labelled_bins(peaks, fasta, dict(zip(names, firsts.tolist())))
    selected = [number for number, name in enumerate(peaks) if must_have is None or name in must_have]
    kept = np.unique(bins[np.isin(columns, selected)])
    is_kept = np.isin(bins, kept)
    order = np.lexsort((columns[is_kept], bins[is_kept]))
    bins, columns = bins[is_kept][order], columns[is_kept][order]
    bin_splits = _assign_splits(kept, names, firsts, held_out)
    data = {}
    for split in ("train", "validation", "test"):
        chosen = kept[bin_splits == split]
        if not len(chosen):
            raise InputError(f"{split}: its regions contain no labelled bin; choose other regions.")
        inside = np.isin(bins, chosen)
        data[split] = _build_dataset(
            _bin_rows,
            len(peaks),
            cache_dir,
            extra={"name": Value("string"), "start": Value("int64"), "end": Value("int64")},
            fasta=fasta,
            version=_version(fasta.path),
            firsts=firsts,
            bins=chosen,
            ends=np.searchsorted(bins[inside], chosen, side="right"),
            columns=columns[inside],
            count=len(peaks),
            context=context,
        )
    return DatasetDict(data)


def _features(labels: int, extra: dict[str, Value] | None = None) -> Features:
    return Features({"sequence": Value("string"), "labels": Sequence(Value("uint8"), length=labels), **(extra or {})})


def _build_dataset(
    rows: Callable[..., Iterator[dict[str, Any]]],
    labels: int,
    cache_dir: str | Path | None,
    extra: dict[str, Value] | None = None,
    **arguments: Any,
) -> Dataset:
    cache_dir = None if cache_dir is None else str(cache_dir)
    return Dataset.from_generator(rows, _features(labels, extra), cache_dir, gen_kwargs=arguments)


def _version(file: str | Path) -> str:
    """Return a string that changes with the file, so that cached tables of an older version are not used."""
    status = Path(file).stat()
    return f"{status.st_size} {status.st_mtime_ns}"  # a list would mean shards to `datasets`


def _decode_one_hot(one_hot: np.ndarray, bases: str) -> list[str]:
    if one_hot.ndim != 3 or one_hot.shape[1] != 4 or sorted(bases) != sorted(BASES):
        raise InputError(
            f"one-hot sequences of shape {one_hot.shape} with channels {bases!r}: give shape (rows, 4, length) and "
            "an order of A, C, G and T."
        )
    letters = np.frombuffer(bases.encode(), np.uint8)[one_hot.argmax(1)]
    letters = np.where(one_hot.any(1), letters, ord("N")).astype(np.uint8)
    return [row.tobytes().decode() for row in letters]


def _mat_chunks(file: str | Path) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """
    Yield one-hot arrays of shape `(rows, 4, length)` and labels of shape `(rows, labels)`, `_CHUNK` rows at a time.
    """
    with open(file, "rb") as start:
        is_hdf5 = b"MATLAB 7.3" in start.read(128) or start.seek(0) or start.read(8) == b"\x89HDF\r\n\x1a\n"
    if is_hdf5:
        import h5py

        with h5py.File(file) as arrays:
            x, y = _find_arrays(file, arrays)  # shapes (length, 4, rows) and (labels, rows) in MATLAB's order
            for first in range(0, y.shape[1], _CHUNK):
                rows = slice(first, first + _CHUNK)
                yield x[:, :, rows].transpose(2, 1, 0), y[:, rows].T
        return
    from scipy.io import loadmat

    try:
        arrays = loadmat(file)
    except Exception as error:  # damaged files raise many types
        raise InputError(f"{file}: this is not a readable .mat file ({error}).") from error
    x, y = _find_arrays(file, arrays)
    for first in range(0, len(y), _CHUNK):
        yield x[first : first + _CHUNK], y[first : first + _CHUNK]


def _find_arrays(file: str | Path, arrays: Mapping[str, Any]) -> tuple[Any, Any]:
    x = next((name for name in arrays if name.endswith("xdata")), None)
    y = next((name for name in arrays if name.endswith("data") and name != x), None)
    if x is None or y is None:
        raise InputError(f"{file}: the arrays xdata and data are missing; it contains {', '.join(arrays)}.")
    return arrays[x], arrays[y]


def _mat_rows(file: str, bases: str, version: str) -> Iterator[dict[str, Any]]:
    for one_hot, labels in _mat_chunks(file):
        for sequence, row in zip(_decode_one_hot(one_hot, bases), labels.astype(np.uint8)):
            yield {"sequence": sequence, "labels": row}


def _labelled_bins(
    peaks: Mapping[str, str | Path], fasta: Fasta, firsts: dict[str, int]
) -> tuple[np.ndarray, np.ndarray]:
    """Return the numbers of bins and of the labels that they have, as two arrays of equal length."""
    bins, columns = [], []
    for number, (label, file) in enumerate(peaks.items()):
        covered: list[np.ndarray] = []
        by_name: dict[str, list[tuple[int, int]]] = {}
        for interval in read_bed(file, fasta):
            by_name.setdefault(interval.name, []).append((interval.start, interval.end))
        if not by_name:
            raise InputError(f"{file}: the file contains no peak of {label}.")
        for name, pieces in by_name.items():
            covered.append(_covered_bins(np.array(sorted(pieces))) + firsts[name])
        bins += covered
        columns += [np.full(len(piece), number) for piece in covered]
    return np.concatenate(bins), np.concatenate(columns)


def _covered_bins(pieces: np.ndarray) -> np.ndarray:
    """Return the bins of a sequence that sorted intervals, shape `(count, 2)`, cover by more than half."""
    ends = np.maximum.accumulate(pieces[:, 1])
    is_new: np.ndarray = np.append(True, pieces[1:, 0] > ends[:-1])  # merge overlapping and adjacent intervals
    starts, ends = pieces[is_new, 0], ends[np.append(np.flatnonzero(is_new)[1:] - 1, len(ends) - 1)]
    counts = (ends - 1) // BIN - starts // BIN + 1
    piece: np.ndarray = np.repeat(np.arange(len(starts)), counts)
    bins = starts[piece] // BIN + np.arange(len(piece)) - np.repeat(np.cumsum(counts) - counts, counts)
    overlap = np.minimum(ends[piece], (bins + 1) * BIN) - np.maximum(starts[piece], bins * BIN)
    touched, place = np.unique(bins, return_inverse=True)
    return touched[np.bincount(place, overlap) > BIN / 2]


def _assign_splits(
    bins: np.ndarray, names: list[str], firsts: np.ndarray, held_out: dict[str, list[Interval]]
) -> np.ndarray:
    sequence = np.searchsorted(firsts, bins, side="right") - 1
    centre = (bins - firsts[sequence]) * BIN + BIN // 2
    split: np.ndarray = np.full(len(bins), "train", dtype="<U10")
    for name, regions in held_out.items():
        for region in regions:
            inside = (sequence == names.index(region.name)) & (centre >= region.start) & (centre < region.end)
            split[inside] = name
    return split


def _bin_rows(
    fasta: Fasta,
    version: str,
    firsts: np.ndarray,
    bins: np.ndarray,
    ends: np.ndarray,
    columns: np.ndarray,
    count: int,
    context: int,
) -> Iterator[dict[str, Any]]:
    names, first_column = list(fasta.lengths), 0
    for number, last_column in zip(bins.tolist(), ends.tolist()):
        place = int(np.searchsorted(firsts, number, side="right")) - 1
        name, start = names[place], (number - int(firsts[place])) * BIN
        labels: np.ndarray = np.zeros(count, np.uint8)
        labels[columns[first_column:last_column]] = 1
        first_column = last_column
        first = start + BIN // 2 - context // 2
        length = fasta.lengths[name]
        inside = fasta.fetch(name, max(0, first), min(first + context, length))
        sequence = "N" * max(0, -first) + inside + "N" * max(0, first + context - length)
        yield {
            "sequence": sequence,
            "labels": labels,
            "name": name,
            "start": start,
            "end": min(start + BIN, length),
        }
