"""Chromatin profiles: many labels a sequence, from DeepSEA's files, from arrays, or from peaks and a genome."""

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset, DatasetDict, Features, Sequence, Value

from ..errors import InputError
from .fasta import Fasta
from .intervals import parse_region, read_bed
from .sequence import BASES

BIN = 200  # bases that the labels are about, in the middle of the context

# Columns of DeepSEA's 919 labels: transcription factors, DNase hypersensitivity, histone marks (Zhou & Troyanskaya
# 2015, doi:10.1038/nmeth.3547).
CHROMATIN_GROUPS = {"TF": range(125, 815), "DHS": range(125), "HM": range(815, 919)}

_MAT_SPLITS = {"train": "train", "valid": "validation", "test": "test"}
_CHUNK = 1000  # rows read at a time


def load_chromatin_mat(folder: str | Path, bases: str = "AGCT", cache_dir: str | Path | None = None) -> DatasetDict:
    """
    Load DeepSEA's train.mat, valid.mat and test.mat (4,400,000, 8,000 and 455,024 windows of 1,000 bases, 919 labels).

    Every second half of these files is the reverse complement of the first. train.mat needs the package h5py.

    Args:
        folder: Where the three files are.
        bases: Order of the four channels.
        cache_dir: Where `datasets` keeps the tables that are made of them.

    Returns:
        `DatasetDict` with splits `train`, `validation` and `test`, and columns `sequence` (`string`) and `labels` (list
        of 0 and 1; `CHROMATIN_GROUPS` has the columns of each group).

    Raises:
        InputError: If a file is absent or has not the arrays xdata and data.
    """
    files = {split: Path(folder).expanduser() / f"{name}.mat" for name, split in _MAT_SPLITS.items()}
    for file in files.values():
        if not file.is_file():
            raise InputError(f"{file}: there is no such file; DeepSEA's data are train.mat, valid.mat and test.mat.")
    counts = {split: next(_mat_chunks(file))[1].shape[1] for split, file in files.items()}
    return DatasetDict(
        {
            split: _generated(_mat_rows, counts[split], cache_dir, file=str(file), bases=bases, changed=_changed(file))
            for split, file in files.items()
        }
    )


def chromatin_from_arrays(sequences: list[str] | np.ndarray, labels: np.ndarray, bases: str = BASES) -> Dataset:
    """
    A data set of sequences with many labels, from arrays.

    Args:
        sequences: Of shape `(rows,)`, or one-hot of shape `(rows, 4, length)`, where a position without 1 is N.
        labels: 0 and 1, shape `(rows, labels)`.
        bases: Order of the four channels.

    Returns:
        `Dataset` with columns `sequence` (`string`) and `labels` (list of 0 and 1).

    Raises:
        InputError: If shapes or values will not do.
    """
    labels = np.asarray(labels)
    if labels.ndim != 2 or not np.isin(labels, (0, 1)).all():
        raise InputError(f"labels of shape {labels.shape}: give 0 and 1, in the shape (rows, labels).")
    if not isinstance(sequences[0], str):
        sequences = _letters(np.asarray(sequences), bases)
    if len(sequences) != len(labels):
        raise InputError(f"{len(sequences):,} sequences, but {len(labels):,} rows of labels: give one for each.")
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
    Build chromatin profiles as DeepSEA did: the genome in bins of 200 bases, a label where peaks hold more than half.

    Bins without any of the labels in `must_have` are left out. The sequence is the context around the bin; where that
    leaves the chromosome, it is filled with N. Splits are regions of the genome: a bin is where its centre is.

    Args:
        peaks: BED file of the peaks of each label, in the order of the labels.
        fasta: The genome.
        context: Bases of a sequence, an even number (1,000 and 8,000 in the HyenaDNA paper).
        must_have: Labels of which a bin has at least one: the transcription factors, for DeepSEA. All by default.
        validation: Regions of these splits, from 1, both ends included; by default those of DeepSEA. Everything else is
            train.
        test: Regions of these splits, from 1, both ends included; by default those of DeepSEA. Everything else is
            train.
        cache_dir: Where `datasets` keeps the tables.

    Returns:
        `DatasetDict` with splits `train`, `validation` and `test`, and columns `sequence` (`string`), `labels` (list of
        0 and 1), `name`, `start` and `end` (of the bin, 0-based, half-open).

    Raises:
        InputError: If a file will not do, a label has no peak, or a split has no bin.
    """
    fasta = fasta if isinstance(fasta, Fasta) else Fasta(fasta)
    if context < BIN or context % 2:
        raise InputError(f"context={context}: give an even number of bases from {BIN}.")
    if not peaks:
        raise InputError("peaks: give the BED file of one label at least.")
    unknown = [name for name in must_have or () if name not in peaks]
    if unknown:
        raise InputError(f"must_have: there is no label {unknown[0]!r}; there are {', '.join(peaks)}.")
    held_out = {
        split: [parse_region(region, fasta) for region in regions]
        for split, regions in (("validation", validation), ("test", test))
    }
    names = list(fasta.lengths)
    # Bins are numbered through the whole genome.
    firsts = np.cumsum([0, *(-(-length // BIN) for length in fasta.lengths.values())])
    bins, columns = _labelled_bins(peaks, fasta, dict(zip(names, firsts.tolist())))
    wanted = [number for number, name in enumerate(peaks) if must_have is None or name in must_have]
    kept = np.unique(bins[np.isin(columns, wanted)])
    is_kept = np.isin(bins, kept)
    order = np.lexsort((columns[is_kept], bins[is_kept]))
    bins, columns = bins[is_kept][order], columns[is_kept][order]
    split_of = _splits(kept, names, firsts, held_out)
    data = {}
    for split in ("train", "validation", "test"):
        chosen = kept[split_of == split]
        if not len(chosen):
            raise InputError(f"{split}: no bin of the genome with a label lies in its regions; choose others.")
        inside = np.isin(bins, chosen)
        data[split] = _generated(
            _bin_rows,
            len(peaks),
            cache_dir,
            more={"name": Value("string"), "start": Value("int64"), "end": Value("int64")},
            fasta=fasta,
            changed=_changed(fasta.path),
            firsts=firsts,
            bins=chosen,
            ends=np.searchsorted(bins[inside], chosen, side="right"),
            columns=columns[inside],
            count=len(peaks),
            context=context,
        )
    return DatasetDict(data)


def _features(labels: torch.Tensor, more=None):
    return Features({"sequence": Value("string"), "labels": Sequence(Value("uint8"), length=labels), **(more or {})})


def _generated(rows, labels: torch.Tensor, cache_dir, more=None, **arguments: Any):
    cache_dir = None if cache_dir is None else str(cache_dir)
    return Dataset.from_generator(rows, _features(labels, more), cache_dir, gen_kwargs=arguments)


def _changed(file: Path):
    """What tells two versions of a file apart, so that no table of an older one is taken for its own."""
    state = Path(file).stat()
    return f"{state.st_size} {state.st_mtime_ns}"  # not a list: `datasets` would take one for shards


def _letters(one_hot, bases):
    if one_hot.ndim != 3 or one_hot.shape[1] != 4 or sorted(bases) != sorted(BASES):
        raise InputError(
            f"one-hot sequences of shape {one_hot.shape} with channels {bases!r}: give the shape (rows, 4, length) and "
            "an order of A, C, G and T."
        )
    letters = np.frombuffer(bases.encode(), np.uint8)[one_hot.argmax(1)]
    letters = np.where(one_hot.any(1), letters, ord("N")).astype(np.uint8)
    return [row.tobytes().decode() for row in letters]


def _mat_chunks(file: Path):
    """One-hot arrays of shape `(rows, 4, length)` and labels of shape `(rows, labels)`, some rows at a time."""
    with open(file, "rb") as start:
        is_hdf5 = b"MATLAB 7.3" in start.read(128) or start.seek(0) or start.read(8) == b"\x89HDF\r\n\x1a\n"
    if is_hdf5:
        import h5py

        with h5py.File(file) as arrays:
            x, y = _named(file, arrays)  # of shapes (length, 4, rows) and (labels, rows), as MATLAB counts
            for first in range(0, y.shape[1], _CHUNK):
                rows = slice(first, first + _CHUNK)
                yield x[:, :, rows].transpose(2, 1, 0), y[:, rows].T
        return
    from scipy.io import loadmat

    try:
        arrays = loadmat(file)
    except Exception as error:  # many kinds for damaged files
        raise InputError(f"{file}: this is not a readable .mat file ({error}).") from error
    x, y = _named(file, arrays)
    for first in range(0, len(y), _CHUNK):
        yield x[first : first + _CHUNK], y[first : first + _CHUNK]


def _named(file: Path, arrays):
    x = next((name for name in arrays if name.endswith("xdata")), None)
    y = next((name for name in arrays if name.endswith("data") and name != x), None)
    if x is None or y is None:
        raise InputError(f"{file}: there are not the arrays xdata and data in it, but {', '.join(arrays)}.")
    return arrays[x], arrays[y]


def _mat_rows(file: Path, bases, changed):
    for one_hot, labels in _mat_chunks(file):
        for sequence, row in zip(_letters(one_hot, bases), labels.astype(np.uint8)):
            yield {"sequence": sequence, "labels": row}


def _labelled_bins(peaks, fasta: Fasta, firsts):
    """Numbers of bins and of the labels that they have, as two arrays of one length."""
    bins, columns = [], []
    for number, (label, file) in enumerate(peaks.items()):
        found = []
        by_name = {}
        for interval in read_bed(file, fasta):
            by_name.setdefault(interval.name, []).append((interval.start, interval.end))
        if not by_name:
            raise InputError(f"{file}: there is not one peak of {label} in it.")
        for name, pieces in by_name.items():
            found.append(_covered_bins(np.array(sorted(pieces))) + firsts[name])
        bins += found
        columns += [np.full(len(piece), number) for piece in found]
    return np.concatenate(bins), np.concatenate(columns)


def _covered_bins(pieces):
    """The bins of one sequence that sorted intervals, of shape `(count, 2)`, hold more than half of."""
    ends = np.maximum.accumulate(pieces[:, 1])
    is_new = np.append(True, pieces[1:, 0] > ends[:-1])  # overlapping and adjoining ones become one
    starts, ends = pieces[is_new, 0], ends[np.append(np.flatnonzero(is_new)[1:] - 1, len(ends) - 1)]
    counts = (ends - 1) // BIN - starts // BIN + 1
    piece = np.repeat(np.arange(len(starts)), counts)
    bins = starts[piece] // BIN + np.arange(len(piece)) - np.repeat(np.cumsum(counts) - counts, counts)
    overlap = np.minimum(ends[piece], (bins + 1) * BIN) - np.maximum(starts[piece], bins * BIN)
    touched, place = np.unique(bins, return_inverse=True)
    return touched[np.bincount(place, overlap) > BIN / 2]


def _splits(bins, names: list[str], firsts, held_out):
    sequence = np.searchsorted(firsts, bins, side="right") - 1
    centre = (bins - firsts[sequence]) * BIN + BIN // 2
    split = np.full(len(bins), "train", dtype="<U10")
    for name, regions in held_out.items():
        for region in regions:
            inside = (sequence == names.index(region.name)) & (centre >= region.start) & (centre < region.end)
            split[inside] = name
    return split


def _bin_rows(fasta: Fasta, changed, firsts, bins, ends, columns: list[str], count: int, context):
    names, first_column = list(fasta.lengths), 0
    for number, last_column in zip(bins.tolist(), ends.tolist()):
        place = int(np.searchsorted(firsts, number, side="right")) - 1
        name, start = names[place], (number - int(firsts[place])) * BIN
        labels = np.zeros(count, np.uint8)
        labels[columns[first_column:last_column]] = 1
        first_column = last_column
        left = start + BIN // 2 - context // 2
        length = fasta.lengths[name]
        inside = fasta.fetch(name, max(0, left), min(left + context, length))
        sequence = "N" * max(0, -left) + inside + "N" * max(0, left + context - length)
        yield {
            "sequence": sequence,
            "labels": labels,
            "name": name,
            "start": start,
            "end": min(start + BIN, length),
        }
