import random

import numpy as np
import pytest
import torch
from datasets import DatasetDict
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.io import savemat

from hyenadna_hf import HyenaDNAForSequenceClassification, HyenaDNATokenizer
from hyenadna_hf.data.chromatin import (
    BIN,
    CHROMATIN_GROUPS,
    _covered_bins,
    chromatin_from_arrays,
    chromatin_from_peaks,
    load_chromatin_mat,
)
from hyenadna_hf.data.collators import ClassificationCollator
from hyenadna_hf.data.fasta import Fasta
from hyenadna_hf.errors import InputError
from hyenadna_hf.training.metrics import auroc_by_group

LABELS = 919


def one_hot(sequences, bases):
    return np.array([[[base == letter for letter in sequence] for base in bases] for sequence in sequences], np.uint8)


def some(rows, length=30, seed=0):
    rng = random.Random(seed)
    sequences = ["".join(rng.choices("ACGTN", k=length)) for _ in range(rows)]
    return sequences, np.random.default_rng(seed).integers(0, 2, (rows, LABELS), dtype=np.uint8)


def save(path, name, sequences, labels, hdf5):
    arrays = {f"{name}xdata": one_hot(sequences, "AGCT"), f"{name}data": labels}
    if not hdf5:
        return savemat(path, arrays)
    import h5py

    # As MATLAB 7.3 writes: a text of 512 bytes first, and the dimensions the other way round.
    with h5py.File(path, "w", userblock_size=512) as file:
        for key, array in arrays.items():
            file[key] = array.transpose()
    with path.open("r+b") as file:
        file.write(b"MATLAB 7.3 MAT-file, Platform: GLNXA64, Created on: Mon Jan 01 00:00:00 2015 HDF5 schema 1.00 .")


@pytest.mark.parametrize("hdf5", [False, True])
def test_the_files_of_deepsea(tmp_path, hdf5):
    if hdf5:
        pytest.importorskip("h5py")
    expected = {}
    for seed, (name, split) in enumerate({"train": "train", "valid": "validation", "test": "test"}.items()):
        expected[split] = some(1203 if name == "train" else 4, seed=seed)
        save(tmp_path / f"{name}.mat", name, *expected[split], hdf5=hdf5 and name == "train")
    data = load_chromatin_mat(tmp_path, cache_dir=tmp_path / "cache")
    assert isinstance(data, DatasetDict) and list(data) == ["train", "validation", "test"]
    for split, (sequences, labels) in expected.items():
        assert data[split]["sequence"][:] == sequences
        assert np.array_equal(np.array(data[split]["labels"][:]), labels)
    assert data["train"].features["labels"].length == LABELS
    # A new file is not taken for the old one.
    save(tmp_path / "test.mat", "test", *some(5, seed=9), hdf5=False)
    assert len(load_chromatin_mat(tmp_path, cache_dir=tmp_path / "cache")["test"]) == 5


def test_bad_mat_files_are_named(tmp_path):
    with pytest.raises(InputError, match=r"train\.mat: there is no such file"):
        load_chromatin_mat(tmp_path)
    for name in ("train", "valid", "test"):
        (tmp_path / f"{name}.mat").write_bytes(b"nothing of the kind" * 20)
    with pytest.raises(InputError, match=r"train\.mat: this is not a readable \.mat file"):
        load_chromatin_mat(tmp_path)
    savemat(tmp_path / "train.mat", {"x": np.zeros((2, 2))})
    with pytest.raises(InputError, match=r"the arrays xdata and data are missing; it contains .*x"):
        load_chromatin_mat(tmp_path)


@given(st.lists(st.text("ACGTN", min_size=7, max_size=7), min_size=1, max_size=9), st.permutations("ACGT"))
@settings(max_examples=30)
def test_letters_of_one_hot_arrays(sequences, bases):
    labels = np.zeros((len(sequences), 3))
    data = chromatin_from_arrays(one_hot(sequences, bases), labels, "".join(bases))
    assert data["sequence"][:] == sequences == chromatin_from_arrays(sequences, labels)["sequence"][:]


def test_bad_arrays_are_named():
    with pytest.raises(InputError, match="give zeros and ones"):
        chromatin_from_arrays(["ACGT"], np.array([[0.5]]))
    with pytest.raises(InputError, match="2 sequences, but 1 rows of labels"):
        chromatin_from_arrays(["ACGT", "A"], np.array([[1]]))
    with pytest.raises(InputError, match=r"shape \(1, 5, 9\)"):
        chromatin_from_arrays(np.zeros((1, 5, 9)), np.array([[1]]))


@given(st.lists(st.tuples(st.integers(0, 1500), st.integers(1, 700)), min_size=1, max_size=8))
def test_the_rule_of_half_a_bin(peaks):
    covered = np.zeros(2400, bool)
    for start, length in peaks:
        covered[start : start + length] = True
    expected = np.flatnonzero(covered.reshape(-1, BIN).sum(1) > BIN / 2)
    pieces = np.array(sorted((start, start + length) for start, length in peaks))
    assert _covered_bins(pieces).tolist() == expected.tolist()


@pytest.fixture
def genome(tmp_path):
    rng = random.Random(0)
    text = "".join(f">chr{i}\n{''.join(rng.choices('ACGTacgt', k=2050))}\n" for i in (1, 2, 3))
    (tmp_path / "genome.fa").write_text(text)
    return Fasta(tmp_path / "genome.fa")


def bed(path, *intervals):
    path.write_text("".join(f"{name}\t{start}\t{end}\tpeak\n" for name, start, end in intervals))
    return path


@pytest.fixture
def peaks(tmp_path):
    return {
        "CTCF": bed(
            tmp_path / "ctcf.bed", ("1", 0, 150), ("chr1", 900, 1100), ("chr2", 610, 790), ("chr3", 1890, 2050)
        ),
        "DNase": bed(tmp_path / "dnase.bed", ("chr1", 100, 600), ("chr2", 400, 999), ("chr3", 0, 301)),
        "H3K27ac": bed(tmp_path / "h3k27ac.bed", ("chr1", 0, 99), ("chr1", 101, 140), ("chr1", 400, 520)),
    }


SPLITS = {"validation": ("chr2",), "test": ("chr3:1-1000", "chr3:1001-2050")}


@pytest.mark.parametrize("context", [200, 1000, 8000])
def test_profiles_from_peaks(genome, peaks, tmp_path, context):
    data = chromatin_from_peaks(peaks, genome, context, **SPLITS, cache_dir=tmp_path / "cache")
    # chr1: 0-200 has 150 bases of CTCF, 100 of DNase (not more than half), 138 of H3K27ac; 900-1100 is half and half.
    bins = {split: {(r["name"], r["start"], r["end"]): r["labels"] for r in rows} for split, rows in data.items()}
    assert bins["train"] == {
        ("chr1", 0, 200): [1, 0, 1],
        ("chr1", 200, 400): [0, 1, 0],
        ("chr1", 400, 600): [0, 1, 1],
    }
    assert bins["validation"] == {
        ("chr2", 400, 600): [0, 1, 0],
        ("chr2", 600, 800): [1, 1, 0],
        ("chr2", 800, 1000): [0, 1, 0],
    }
    # The last bin of chr3, of 50 bases, is covered but not by more than half of 200.
    assert bins["test"] == {
        ("chr3", 0, 200): [0, 1, 0],
        ("chr3", 200, 400): [0, 1, 0],
        ("chr3", 1800, 2000): [1, 0, 0],
    }
    assert {split: len(rows) for split, rows in data.items()} == {"train": 3, "validation": 3, "test": 3}
    for rows in data.values():
        for row in rows:
            first = row["start"] + BIN // 2 - context // 2
            padded = "N" * 8000 + genome.fetch(row["name"]) + "N" * 8000
            assert row["sequence"] == padded[8000 + first : 8000 + first + context]
            assert len(row["sequence"]) == context


def test_bins_must_have_a_transcription_factor(genome, peaks, tmp_path):
    arguments = {**SPLITS, "cache_dir": tmp_path / "cache"}
    data = chromatin_from_peaks(peaks, genome, 1000, ["CTCF"], **arguments)
    assert [rows["labels"][:] for rows in data.values()] == [[[1, 0, 1]], [[1, 1, 0]], [[1, 0, 0]]]
    with pytest.raises(InputError, match="test: its regions contain no labelled bin"):
        chromatin_from_peaks(peaks, genome, 1000, ["CTCF"], **{**arguments, "test": ("chr3:1-1000",)})


def test_bad_peaks_are_named(genome, peaks, tmp_path):
    empty = {**peaks, "none": bed(tmp_path / "none.bed")}
    with pytest.raises(InputError, match=r"none\.bed: the file is empty"):
        chromatin_from_peaks(empty, genome, **SPLITS)
    for arguments, message in (
        ({"context": 100}, "context=100"),
        ({"context": 1001}, "context=1001"),
        ({"must_have": ["GATA1"]}, "unknown label 'GATA1'; choose from CTCF, DNase, H3K27ac"),
        ({"test": ("chr9",)}, "no sequence 'chr9'"),
    ):
        with pytest.raises(InputError, match=message):
            chromatin_from_peaks(peaks, genome, **{**SPLITS, **arguments})
    with pytest.raises(InputError, match="give the BED file of at least one label"):
        chromatin_from_peaks({}, genome)
    past = {"CTCF": bed(tmp_path / "past.bed", ("chr1", 2000, 2051))}
    with pytest.raises(InputError, match=r"past\.bed, line 1: the interval ends at 2,051, but chr1 has 2,050"):
        chromatin_from_peaks(past, genome, **SPLITS)


def test_groups():
    assert {group: len(columns) for group, columns in CHROMATIN_GROUPS.items()} == {"TF": 690, "DHS": 125, "HM": 104}
    assert sorted(column for columns in CHROMATIN_GROUPS.values() for column in columns) == list(range(LABELS))


def test_auroc_by_group():
    labels = np.array([[0, 1, 1, 0], [0, 0, 1, 0], [1, 1, 0, 0], [1, 0, 0, 0]])
    scores = np.array([[0.1, 0.9, 0.2, 0.5], [0.2, 0.2, 0.4, 0.5], [0.3, 0.8, 0.3, 0.5], [0.4, 0.3, 0.1, 0.5]])
    metrics = auroc_by_group(scores, labels, {"a": [0, 1], "b": [1, 2], "c": [2, 3], "d": [3]})
    assert metrics["auroc_a"] == 1.0 and metrics["auroc_b"] == 0.875 and metrics["auroc_c"] == 0.75
    assert np.isnan(metrics["auroc_d"]) and metrics["labels_without_auroc"] == 2


def test_a_multi_label_head_learns_from_them(genome, peaks, config, make_model, tmp_path):
    data = chromatin_from_peaks(peaks, genome, 1000, **SPLITS, cache_dir=tmp_path / "cache")["train"]
    tokenizer = HyenaDNATokenizer(model_max_length=70)
    config.num_labels, config.problem_type = 3, "multi_label_classification"
    model = make_model(HyenaDNAForSequenceClassification, config)
    examples = [{**tokenizer(row["sequence"], truncation=True, max_length=70), "labels": row["labels"]} for row in data]
    output = model(**ClassificationCollator(tokenizer)(examples))
    expected = torch.nn.functional.binary_cross_entropy_with_logits(
        output.logits, torch.tensor(data["labels"][:]).float()
    )
    torch.testing.assert_close(output.loss, expected)
    assert output.logits.shape == (3, 3)
