"""`hyenadna finetune --task token`, against scikit-learn and direct calls of the saved model."""

import json
import random

import numpy as np
import pytest
import torch
from forked import run_in_two_processes
from huggingface_hub import ModelCard
from models import save_untrained
from sklearn.metrics import average_precision_score, f1_score
from sklearn.naive_bayes import CategoricalNB
from transformers import AutoModelForTokenClassification, AutoTokenizer

from hyenadna_hf import HyenaDNATokenizer
from hyenadna_hf.baselines.position_weights import PositionWeights
from hyenadna_hf.cli import main
from hyenadna_hf.data.collators import TokenCollator
from hyenadna_hf.training.loss import WeightedLoss, balanced_weights
from hyenadna_hf.training.metrics import token_metric_names, token_metrics

CONTIG = 2000


@pytest.fixture
def genome(tmp_path):
    """Islands of A and T, and of G and C; `both` covers some of each."""
    rng, texts, rows = random.Random(0), {}, []
    for contig in ("chr1", "chr2", "chr3", "chr4"):
        letters = rng.choices("ACGT", k=CONTIG)
        for start in range(50, CONTIG - 100, 150):
            name, size = rng.choice(["at", "gc"]), rng.randint(40, 80)
            letters[start : start + size] = rng.choices("ACGT", [9, 1, 1, 9] if name == "at" else [1, 9, 9, 1], k=size)
            rows += [(contig, start, start + size, name)] if contig != "chr4" else []
        letters[:20] = "N" * 20
        texts[contig] = "".join(letters)
    (tmp_path / "genome.fa").write_text("".join(f">{contig}\n{text}\n" for contig, text in texts.items()))
    (tmp_path / "in.bed").write_text(
        "".join(f"{contig}\t{start}\t{end}\t{name}\n" for contig, start, end, name in rows)
    )
    both = [(contig, start - 5, start + 20, "both") for contig, start, *_ in rows[::2]]
    text = "".join(f"{contig}\t{start}\t{end}\t{name}\n" for contig, start, end, name in [*rows, *both])
    (tmp_path / "both.bed").write_text(text)
    save_untrained(tmp_path / "untrained", max_seq_len=120)
    return tmp_path, texts


def finetune(folder, *options, bed="in.bed"):
    arguments = ["--fasta", folder / "genome.fa", "--annotation", folder / bed, "--model", folder / "untrained"]
    arguments += ["--validation", "chr2", "--test", "chr3:1-1500", "--output_dir", folder / "out", *options]
    return main(["finetune", "--task", "token", *map(str, arguments)])


def predict(folder, text, window=100):
    model, tokenizer = AutoModelForTokenClassification.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    with torch.no_grad():
        pieces = [tokenizer(text[i : i + window], return_tensors="pt") for i in range(0, len(text), window)]
        return np.concatenate([model.eval()(**piece).logits[0].numpy() for piece in pieces])


@pytest.mark.parametrize("several", [False, True])
def test_metrics_are_those_of_the_saved_model(genome, several, capsys):
    folder, texts = genome
    options = ["--window", 100, "--num_train_epochs", 4, "--learning_rate", 5e-3, "--per_device_train_batch_size", 4]
    options += ["--class_weights", "balanced", *(["--multi_label"] if several else [])]
    assert finetune(folder, *options, bed="both.bed" if several else "in.bed") == 0
    printed = " ".join(capsys.readouterr().out.split())
    names = ["at", "both", "gc"] if several else ["background", "at", "gc"]
    results = json.loads((folder / "out" / "results.json").read_text())
    assert results["labels"] == names and results["windows"] == {"train": 25, "validation": 20, "test": 15}  # not chr4
    text = texts["chr3"][:1500]
    is_base = np.array(list(text)) != "N"
    truth = np.zeros((1500, 3))
    for line in (folder / ("both.bed" if several else "in.bed")).read_text().splitlines():
        contig, start, end, name = line.split("\t")
        if contig == "chr3":
            truth[int(start) : int(end), names.index(name)] = 1
    outputs = torch.tensor(predict(folder / "out", text))
    if several:
        f1 = f1_score(truth[is_base], (outputs > 0).numpy()[is_base], average="macro")
        scores = outputs.numpy()
    else:
        truth[:, 0] = 1 - truth[:, 1:].sum(1)
        f1 = f1_score(truth.argmax(1)[is_base], outputs.argmax(1).numpy()[is_base], average="macro")
        scores = outputs.softmax(-1).numpy()
    found = results["test"]["model"]
    assert found["f1"] == pytest.approx(f1, abs=1e-3)
    areas = {}
    for number, name in enumerate(names):
        if name != "background":
            areas[name] = average_precision_score(truth[is_base, number], scores[is_base, number])
            assert found[f"auprc_{name}"] == pytest.approx(areas[name], abs=1e-3)
    assert found["auprc"] == pytest.approx(np.mean(list(areas.values())), abs=1e-3) and found["auprc"] > 0.3
    assert set(token_metric_names(names, several)) == set(found)
    assert results["test"]["position weights, 41 bases"]["auprc"] > results["test"]["frequencies of train"]["auprc"]
    config = AutoModelForTokenClassification.from_pretrained(folder / "out").config
    assert list(config.id2label.values()) == names
    assert config.problem_type == ("multi_label" if several else "single_label") + "_classification"
    assert "Loaded back by AutoModelForTokenClassification" in printed
    card = ModelCard.load(folder / "out" / "README.md")
    assert {result.task_type for result in card.data.eval_results} == {"token-classification"}


@pytest.mark.parametrize("several", [False, True])
def test_the_cnn_is_trained_by_name_and_as_a_baseline(genome, several):
    """Islands can be told apart by composition, so that both networks learn them."""
    folder, texts = genome
    options = ["--window", 100, "--num_train_epochs", 6, "--per_device_train_batch_size", 4, "--model", "cnn"]
    bed = "both.bed" if several else "in.bed"
    assert finetune(folder, *options, *(["--multi_label"] if several else []), bed=bed) == 0
    results = json.loads((folder / "out" / "results.json").read_text())
    names = results["labels"]
    assert results["start"] == "from scratch" and not (folder / "out" / "README.md").exists()
    assert set(results["test"]) == {"model", "frequencies of train", "position weights, 41 bases", "CNN, 3 epochs"}
    assert AutoModelForTokenClassification.from_pretrained(folder / "out").config.receptive_field() == 401
    text = texts["chr3"][:1500]
    is_base = np.array(list(text)) != "N"
    outputs = torch.tensor(predict(folder / "out", text))
    scores = (outputs.sigmoid() if several else outputs.softmax(-1)).numpy()
    truth = np.zeros((1500, 3))
    for line in (folder / bed).read_text().splitlines():
        contig, start, end, name = line.split("\t")
        if contig == "chr3":
            truth[int(start) : int(end), names.index(name)] = 1
    for number, name in enumerate(names):
        if name != "background":
            area = average_precision_score(truth[is_base, number], scores[is_base, number])
            assert results["test"]["model"][f"auprc_{name}"] == pytest.approx(area, abs=1e-3)
    assert results["test"]["model"]["auprc"] > 1.5 * results["test"]["frequencies of train"]["auprc"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--model", "cnn"], "--model cnn: it reads windows of any length; give --window"),
        (["--model", "cnn", "--window", "0"], "--window 0: give at least 1 base"),
        (["--model", "deepsea-cnn", "--window", "100"], "--model deepsea-cnn: cannot be loaded"),
        (["--test", "chr2:1-50"], "--validation and --test: they overlap"),
        (["--test", "chr1", "chr3"], "they cover all of chr"),
        (["--test", "chr3:1-20"], "the test regions have no window of 120 bases that is not mostly N"),
        (["--test", "chr9"], "there is no sequence 'chr9'"),
        (["--features", "exon"], "there is no interval of the class 'exon'; its classes are at, gc"),
        (["--window", "121"], "--window 121: give 1 to 120 bases"),
        (["--window", "0"], "--window 0: "),
        (["--model", "cnn"], "--model cnn"),
        (["--dataset", "absent"], "--dataset absent: it has no effect with --task token"),
        (["--kmer", "3"], "--kmer 3: it has no effect with --task token"),
        (["--label_column", "x"], "--label_column x: it has no effect with --task token"),
        (["--regression_loss", "mse"], "--regression_loss mse: add --task regression"),
        (["--metric_for_best_model", "auprc_background"], "choose one of loss, f1, auprc, auprc_at, auprc_gc"),
        (["--task", "classification"], "--annotation: it belongs to --task token"),
    ],
)
def test_bad_input(genome, capsys, options, message):
    assert finetune(genome[0], *options) == 2
    (error,) = capsys.readouterr().err.splitlines()
    assert message in error
    assert not (genome[0] / "out").exists()


def test_both_splits_are_needed(genome, capsys):
    arguments = ["--task", "token", "--fasta", genome[0] / "genome.fa", "--annotation", genome[0] / "in.bed"]
    assert main(["finetune", *map(str, arguments), "--test", "chr3"]) == 2
    assert "--validation: give the sequences or regions of the validation split" in capsys.readouterr().err
    assert main(["finetune", *map(str, arguments[:4]), "--test", "chr3"]) == 2
    assert "--task token: give the genome with --fasta and the intervals with --annotation" in capsys.readouterr().err


def test_overlapping_classes_need_multi_label(genome, capsys):
    assert finetune(genome[0], bed="both.bed") == 2
    assert "a base has one class; select classes with --features, or give --multi_label" in capsys.readouterr().err


@pytest.mark.parametrize("several", [False, True])
def test_labels_follow_their_bases_to_the_other_strand(several):
    ids, labels = torch.tensor([7, 8, 11, 7, 10]), torch.tensor([1, 0, -100, 2, 1])
    labels = torch.eye(3)[labels.clamp(min=0)].masked_fill((labels == -100)[:, None], -100) if several else labels
    shorter = {"input_ids": ids[:3], "labels": labels[:3]}
    batch = TokenCollator(HyenaDNATokenizer(), reverse_complement=1.0)([{"input_ids": ids, "labels": labels}, shorter])
    assert batch["input_ids"].tolist() == [[7, 10, 11, 9, 10], [4, 4, 11, 9, 10]]
    assert torch.equal(batch["labels"][0], labels.flip(0))
    assert torch.equal(batch["labels"][1, 2:], labels[:3].flip(0)) and (batch["labels"][1, :2] == -100).all()


@pytest.mark.parametrize("several", [False, True])
@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_weighted_losses_of_positions_are_those_of_rows(several, smoothing):
    labels = torch.randint(2, (2, 5, 3)).float() if several else torch.randint(3, (2, 5))
    labels[0, 1:3] = -100
    logits, is_used = torch.randn(2, 5, 3), torch.ones(2, 5, dtype=bool)
    is_used[0, 1:3] = False
    loss = WeightedLoss(torch.tensor([0.5, 2.0, 3.0]), smoothing)
    expected = loss({"logits": logits[is_used]}, labels[is_used])
    torch.testing.assert_close(loss({"logits": logits}, labels), expected)
    weights = balanced_weights(labels[is_used].long().numpy(), 3)
    assert weights.shape == (3,)


def test_position_weights_are_naive_bayes():
    rng = np.random.default_rng(0)
    ids, labels = rng.integers(7, 12, 300), rng.integers(0, 3, 300)
    labels[5] = -100
    found = PositionWeights(3, flank=2).fit([(ids[:100], labels[:100]), (ids[100:], labels[100:])]).predict(ids[:100])
    pieces = [np.pad(part - 7, 2, constant_values=4) for part in (ids[:100], ids[100:])]
    windows = np.concatenate([np.stack([piece[i : i + 5] for i in range(len(piece) - 4)]) for piece in pieces])
    is_used = labels != -100
    reference = CategoricalNB(min_categories=5).fit(windows[is_used], labels[is_used])
    counts = np.bincount(labels[is_used]) + 1
    shift = np.log(counts / counts.sum()) - reference.class_log_prior_
    np.testing.assert_allclose(found, reference.predict_joint_log_proba(windows[:100]) + shift, rtol=1e-6)
    one, other = (PositionWeights(n, 2, n == 1) for n in (1, 2))
    one.fit([(ids, (labels == 1).astype(float)[:, None])])
    other.fit([(ids, (labels == 1).astype(int))])
    np.testing.assert_allclose(one.predict(ids)[:, 0], np.diff(other.predict(ids))[:, 0], rtol=1e-6)


def test_areas_of_absent_classes_do_not_enter_the_mean():
    scores, labels = np.random.default_rng(0).normal(size=(1, 4, 3)), np.array([[0, 1, -100, 0]])
    found = token_metrics(scores, labels, ["background", "a", "b"])
    assert np.isnan(found["auprc_b"]) and found["auprc"] == found["auprc_a"]


@pytest.mark.slow
def test_two_processes_end_as_one_does(genome):
    folder, _ = genome
    options = ["--test", "chr3:1-1600", "--validation", "chr2", "--window", 100, "--num_train_epochs", 2]
    options += ["--learning_rate", 5e-3, "--muon_learning_rate", 0, "--embed_dropout", 0, "--no_baselines"]
    options += ["--per_device_eval_batch_size", 3]
    assert finetune(folder, *options, "--per_device_train_batch_size", 4) == 0
    one = json.loads((folder / "out" / "results.json").read_text())
    assert one["windows"] == {"train": 24, "validation": 20, "test": 16}  # the last batch of test is not full
    arguments = ["--task", "token", "--fasta", folder / "genome.fa", "--annotation", folder / "in.bed"]
    arguments += ["--model", folder / "untrained", "--output_dir", folder / "two", *options]
    arguments += ["--per_device_train_batch_size", 2]
    run_in_two_processes("training.finetune", list(map(str, arguments)))
    two = json.loads((folder / "two" / "results.json").read_text())
    assert two["test"]["model"] == pytest.approx(one["test"]["model"], abs=1e-3)
