"""`hyenadna finetune --task track`, against hand-made bigWig files and direct calls of the saved model."""

import json
import pickle
import random

import numpy as np
import pyBigWig
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from models import save_untrained
from scipy.stats import pearsonr
from transformers import AutoModelForTokenClassification, AutoTokenizer

from hyenadna_hf.cli import main
from hyenadna_hf.data.fasta import Fasta
from hyenadna_hf.data.track_labels import TrackLabels

LENGTH, BIN = 1600, 10


def write_bigwig(path, lengths, values):
    """One entry for each base that has a value."""
    with pyBigWig.open(str(path), "w") as file:
        file.addHeader(list(lengths.items()))
        for contig, numbers in values.items():
            places = np.flatnonzero(~np.isnan(numbers))
            contigs, ends = [contig] * len(places), (places + 1).tolist()
            file.addEntries(contigs, places.tolist(), ends=ends, values=numbers[places].astype(float).tolist())


@pytest.fixture
def genome(tmp_path):
    """Coverage is high where the bases before are G or C; the second track is its opposite."""
    rng, texts, high, low = random.Random(0), {}, {}, {}
    for contig in ("chr1", "chr2", "chr3"):
        pieces = (rng.choices("ACGT", rng.choice([(1, 9, 9, 1), (9, 1, 1, 9)]), k=40) for _ in range(LENGTH // 40))
        texts[contig] = "".join(letter for piece in pieces for letter in piece)
        share = np.convolve([letter in "GC" for letter in texts[contig]], np.ones(10) / 10)[:LENGTH]
        high[contig], low[contig] = np.round(20 * share), np.round(5 - 5 * share)
        high[contig][:7] = np.nan
    (tmp_path / "genome.fa").write_text("".join(f">{contig}\n{text}\n" for contig, text in texts.items()))
    lengths = dict.fromkeys(texts, LENGTH)
    write_bigwig(tmp_path / "high.bw", lengths, high)
    write_bigwig(tmp_path / "low.bigWig", {name[3:]: length for name, length in lengths.items()} | {"7": 5}, {
        name[3:]: values for name, values in low.items()
    })  # fmt: skip
    save_untrained(tmp_path / "untrained", max_seq_len=165)
    return tmp_path, texts, high, low


def finetune(folder, *options):
    arguments = ["--fasta", folder / "genome.fa", "--bigwig", folder / "high.bw", folder / "low.bigWig"]
    arguments += ["--model", folder / "untrained", "--validation", "chr2", "--test", "chr3", "--output_dir"]
    return main(["finetune", "--task", "track", *map(str, (*arguments, folder / "out", "--bin_size", BIN, *options))])


def test_metrics_are_those_of_the_bins_of_the_saved_model(genome):
    folder, texts, high, low = genome
    options = ["--num_train_epochs", 20, "--learning_rate", 5e-3, "--per_device_train_batch_size", 2]
    assert finetune(folder, *options) == 0
    results = json.loads((folder / "out" / "results.json").read_text())
    assert results["windows"] == {"train": 10, "validation": 10, "test": 10}  # of 160 bases, a multiple of the bin
    model, tokenizer = (
        auto.from_pretrained(folder / "out") for auto in (AutoModelForTokenClassification, AutoTokenizer)
    )
    assert (model.config.problem_type, model.config.regression_loss) == ("regression", "poisson")
    assert model.config.id2label == {0: "high", 1: "low"}
    with torch.no_grad():
        pieces = [tokenizer(texts["chr3"][i : i + 160], return_tensors="pt") for i in range(0, LENGTH, 160)]
        outputs = np.concatenate([model.eval()(**piece).logits[0].numpy() for piece in pieces])
    assert (outputs > 0).all()
    found = results["test"]["model"]
    for number, (name, values) in enumerate({"high": high, "low": low}.items()):
        truth = np.nan_to_num(values["chr3"]).reshape(-1, BIN).mean(1)
        predicted = outputs[:, number].reshape(-1, BIN).mean(1)
        assert found[f"pearson_{name}"] == pytest.approx(pearsonr(predicted, truth)[0], abs=1e-3)
        assert found[f"mse_{name}"] == pytest.approx(((predicted - truth) ** 2).mean(), rel=1e-3)
        mean = np.nan_to_num(values["chr1"]).mean()
        assert results["test"]["mean of train"][f"mse_{name}"] == pytest.approx(((mean - truth) ** 2).mean())
    assert found["pearson"] > 0.5
    bigwig = folder / "predicted.bw"
    options = ["--input", folder / "genome.fa", "--model", folder / "out", "--target", "high", "--use_cpu"]
    assert main(["predict", "--out", str(bigwig), *map(str, options), "--window", "160", "--stride", "160"]) == 0
    with pyBigWig.open(str(bigwig)) as file:
        np.testing.assert_allclose(file.values("chr3", 0, LENGTH), outputs[:, 0], rtol=1e-4)


@pytest.mark.slow
def test_the_cnn_predicts_rates(genome):
    folder, texts, high, _ = genome
    options = ["--num_train_epochs", 20, "--per_device_train_batch_size", 2, "--model", "cnn", "--window", 160]
    assert finetune(folder, *options) == 0
    results = json.loads((folder / "out" / "results.json").read_text())
    assert list(results["test"]) == ["model", "mean of train", "CNN, 3 epochs"]
    model, tokenizer = (
        auto.from_pretrained(folder / "out") for auto in (AutoModelForTokenClassification, AutoTokenizer)
    )
    with torch.no_grad():
        pieces = [tokenizer(texts["chr3"][i : i + 160], return_tensors="pt") for i in range(0, LENGTH, 160)]
        outputs = np.concatenate([model.eval()(**piece).logits[0].numpy() for piece in pieces])
    truth, predicted = np.nan_to_num(high["chr3"]).reshape(-1, BIN).mean(1), outputs[:, 0].reshape(-1, BIN).mean(1)
    found = results["test"]["model"]
    assert found["pearson_high"] == pytest.approx(pearsonr(predicted, truth)[0], abs=1e-3)
    assert (outputs > 0).all() and found["pearson"] > 0.5
    # Three epochs are few steps here, but rates start at the means of train.
    mean, cnn = (results["test"][name]["mse_high"] for name in ("mean of train", "CNN, 3 epochs"))
    assert cnn < 1.5 * mean


@settings(max_examples=30)
@given(st.integers(0, 90), st.integers(1, 40), st.integers(1, 13), st.integers(0, 9))
def test_bins_equal_those_of_a_loop(tmp_path_factory, start, length, bin_size, seed):
    folder, rng = tmp_path_factory.mktemp("track"), np.random.default_rng(seed)
    values = np.where(rng.random(130) < 0.3, np.nan, rng.integers(0, 50, 130))
    (folder / "genome.fa").write_text(f">chr1\n{'ACGTA' * 26}\n>chr2\nACGT\n")
    write_bigwig(folder / "x.bw", {"chr1": 130}, {"chr1": values})
    labels = TrackLabels([folder / "x.bw"], Fasta(folder / "genome.fa"), bin_size)
    found = pickle.loads(pickle.dumps(labels)).fetch("chr1", start, start + length)
    piece = np.nan_to_num(values[start : start + length])
    expected = [piece[i - i % bin_size :][:bin_size].mean() for i in range(length)]
    np.testing.assert_allclose(found[:, 0], expected, rtol=1e-6)
    assert labels.contigs == ["chr1"] and not labels.fetch("chr2", 0, 4).any()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--window", "155"], "--window 155: give a multiple of --bin_size 10"),
        (["--bin_size", "0"], "--bin_size 0: give at least 1"),
        (["--regression_loss", "mse"], "--regression_loss mse: tracks have the Poisson loss"),
        (
            ["--class_weights", "balanced"],
            "--class_weights balanced: only classes have them; omit it with --task track",
        ),
        (["--annotation", "x.bed"], "--annotation: it belongs to --task token"),
        (["--bigwig", "{folder}/genome.fa"], "genome.fa: this is not a readable bigWig file"),
        (["--bigwig", "{folder}/absent.bw"], "absent.bw"),
        (["--bigwig", "{folder}/negative.bw"], "negative.bw: it has negative values"),
        (["--bigwig", "{folder}/high.bw", "{folder}/high.bw"], "two files have the same name"),
        (["--bigwig", "{folder}/other.bw"], "chr1 has 9 bases, but 1,600 in"),
        (["--bigwig", "{folder}/none.bw"], "it has none of the sequences of"),
        (["--task", "token"], "--bigwig: it belongs to --task track"),
    ],
)
def test_bad_input(genome, capsys, options, message):
    folder = genome[0]
    write_bigwig(folder / "other.bw", {"chr1": 9}, {"chr1": np.ones(9)})
    write_bigwig(folder / "negative.bw", {"chr1": LENGTH}, {"chr1": -np.ones(LENGTH)})
    write_bigwig(folder / "none.bw", {"chr9": 9}, {"chr9": np.ones(9)})
    assert finetune(folder, *(word.format(folder=folder) for word in options)) == 2
    assert message in capsys.readouterr().err.splitlines()[-1]
    assert not (folder / "out").exists()
