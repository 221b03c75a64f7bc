"""`hyenadna predict`, against direct calls of the model."""

import csv
import json
import random

import numpy as np
import pandas as pd
import pyBigWig
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from peft import LoraConfig, get_peft_model
from reference import randomise
from transformers import AutoModelForSequenceClassification, AutoModelForTokenClassification

from hyenadna_cli import main
from hyenadna_hf import (
    HyenaDNAConfig,
    HyenaDNAForCausalLM,
    HyenaDNAForSequenceClassification,
    HyenaDNAForTokenClassification,
    HyenaDNATokenizer,
)
from hyenadna_hf.baselines.named import baseline_config, baseline_tokenizer
from hyenadna_hf.data.sequence import reverse_complement
from hyenadna_hf.errors import InputError
from hyenadna_hf.inference import predict as predict_module
from hyenadna_hf.inference.predictions import IntervalCaller, Predictor

SINGLE, MULTI, REGRESSION = "single_label_classification", "multi_label_classification", "regression"
NAMES = ["background", "exon", "intron"]
LONGEST = 60


def save(folder, model_class, problem_type=SINGLE, names=NAMES, **fields):
    labels = {"id2label": dict(enumerate(names)), "label2id": {name: i for i, name in enumerate(names)}}
    config = HyenaDNAConfig(
        d_model=12, n_layer=2, max_seq_len=LONGEST, filter_order=16, problem_type=problem_type, **labels, **fields
    )
    torch.manual_seed(1)
    model = randomise(model_class(config)).eval()
    with torch.no_grad():
        model.score.weight.mul_(3)
    model.save_pretrained(folder)
    HyenaDNATokenizer(model_max_length=LONGEST).save_pretrained(folder)
    return model


def link(logits, problem_type):
    if problem_type == SINGLE:
        return logits.softmax(-1).numpy()
    return logits.sigmoid().numpy() if problem_type == MULTI else logits.numpy()


def call(model, text, problem_type, strands="forward"):
    """Predictions for one sequence, without padding."""
    tokenizer = HyenaDNATokenizer()
    with torch.no_grad():
        found = link(model(tokenizer(text, return_tensors="pt")["input_ids"]).logits[0], problem_type)
        if strands == "forward":
            return found
        ids = tokenizer(reverse_complement(text), return_tensors="pt")["input_ids"]
        other = link(model(ids).logits[0], problem_type)
    return (found + (other[::-1] if found.ndim == 2 else other)) / 2


@pytest.fixture
def data(tmp_path):
    rng = random.Random(0)
    texts = {f"s{i}": "".join(rng.choices("ACGTacgtN", k=rng.randint(1, LONGEST))) for i in range(30)}
    contig = "".join(rng.choices("ACGT", k=500))
    (tmp_path / "sequences.fa").write_text("".join(f">{name}\n{text}\n" for name, text in texts.items()))
    (tmp_path / "genome.fa").write_text(f">chr1\n{contig}\n>chr2\n{contig[:7]}NNNN{contig[7:90]}\n")
    (tmp_path / "in.bed").write_text("chr1\t10\t60\ta\t0\t+\nchr1\t100\t120\tb\t0\t-\nchr2\t0\t30\n")
    table = pd.DataFrame({"gene": list(texts), "sequence": list(texts.values())})
    table.to_csv(tmp_path / "table.csv", index=False)
    table.to_csv(tmp_path / "table.tsv", index=False, sep="\t")
    table.to_parquet(tmp_path / "table.parquet")
    return tmp_path, texts, contig


def predict(folder, name, out, *options):
    arguments = ["--model", folder / "model", "--input", folder / name, "--out", folder / out, "--use_cpu"]
    return main(["predict", *map(str, (*arguments, *options))])


def read_tsv(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file, delimiter="\t"))


@pytest.mark.parametrize("strands", ["forward", "both"])
@pytest.mark.parametrize(
    ("problem_type", "fields"),
    [(SINGLE, {}), (MULTI, {}), (REGRESSION, {}), (REGRESSION, {"regression_loss": "poisson"})],
)
def test_sequences_of_every_format(data, problem_type, fields, strands):
    folder, texts, _ = data
    model = save(folder / "model", HyenaDNAForSequenceClassification, problem_type, **fields)
    expected = np.stack([call(model, text, problem_type, strands) for text in texts.values()])
    columns = NAMES if problem_type == REGRESSION else [f"probability_{name}" for name in NAMES]
    for name in ("sequences.fa", "table.csv", "table.tsv", "table.parquet"):
        assert predict(folder, name, "out.tsv", "--strands", strands, "--max_tokens", 200) == 0
        rows = read_tsv(folder / "out.tsv")
        found = np.array([[float(row[column]) for column in columns] for row in rows])
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
        assert [row["name" if name == "sequences.fa" else "gene"] for row in rows] == list(texts)
        if problem_type == SINGLE:
            assert [row["predicted_class"] for row in rows] == [NAMES[i] for i in expected.argmax(1)]
    if fields:
        assert (expected > 0).all()


def test_intervals_of_a_genome(data, capsys):
    folder, _, contig = data
    model = save(folder / "model", HyenaDNAForSequenceClassification)
    assert predict(folder, "in.bed", "out.tsv", "--fasta", folder / "genome.fa", "--json") == 0
    assert json.loads(capsys.readouterr().out)["sequences"] == 3
    rows = read_tsv(folder / "out.tsv")
    texts = [contig[10:60], reverse_complement(contig[100:120]), f"{contig[:7]}NNNN{contig[7:26]}"]
    for row, text in zip(rows, texts, strict=True):
        expected = call(model, text, SINGLE)
        assert [float(row[f"probability_{name}"]) for name in NAMES] == pytest.approx(expected, rel=1e-4)
    places = [("chr1", "10", "60", "+"), ("chr1", "100", "120", "-"), ("chr2", "0", "30", ".")]
    assert [(row["chrom"], row["start"], row["end"], row["strand"]) for row in rows] == places


@pytest.mark.parametrize("strands", ["forward", "both"])
def test_tracks_of_bases(data, strands):
    """Windows are stitched in the middle of their overlap; N has no value."""
    folder, _, contig = data
    model = save(folder / "model", HyenaDNAForTokenClassification)
    options = ["--target", "intron", "--strands", strands, "--window", 50, "--stride", 30]
    assert predict(folder, "in.bed", "out.bw", "--fasta", folder / "genome.fa", *options) == 0
    expected = np.full(500, np.nan)
    # Half an overlap around each region: windows of chr1 with the part that is kept.
    for start, end, first, last in [(0, 50, 10, 35), (20, 70, 35, 60), (90, 130, 100, 120)]:
        values = call(model, contig[start:end], SINGLE, strands)[:, 2]
        expected[first:last] = values[first - start : last - start]
    with pyBigWig.open(str(folder / "out.bw")) as file:
        found = np.array(file.values("chr1", 0, 500))
        np.testing.assert_array_equal(np.isnan(found), np.isnan(expected))
        np.testing.assert_allclose(found[10:60], expected[10:60], rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(found[100:120], expected[100:120], rtol=1e-4, atol=1e-5)
        assert np.isnan(file.values("chr2", 7, 11)).all() and not np.isnan(file.values("chr2", 0, 7)).any()
    assert predict(folder, "in.bed", "out.bg", "--fasta", folder / "genome.fa", *options) == 0
    lines = [line.split("\t") for line in (folder / "out.bg").read_text().splitlines()]
    values = {int(start): float(value) for name, start, _, value in lines if name == "chr1"}
    assert values == pytest.approx({i: expected[i] for i in range(500) if not np.isnan(expected[i])}, abs=1e-4)


@pytest.mark.parametrize("problem_type", [SINGLE, MULTI])
def test_intervals_of_classes(data, monkeypatch, problem_type):
    folder, _, contig = data
    model = save(folder / "model", HyenaDNAForTokenClassification, problem_type)
    monkeypatch.setattr(predict_module, "PART_BASES", 40)  # intervals go on over parts
    assert predict(folder, "genome.fa", "out.bed", "--window", 60, "--stride", 60) == 0
    lines = [line.split("\t") for line in (folder / "out.bed").read_text().splitlines()]
    assert [(line[0], int(line[1])) for line in lines] == sorted((line[0], int(line[1])) for line in lines)
    for name, text in (("chr1", contig), ("chr2", f"{contig[:7]}NNNN{contig[7:90]}")):
        starts = [*range(0, len(text) - 60, 60), len(text) - 60]
        values = np.full((len(text), 3), np.nan)
        for start in starts:
            # Tiles without overlap, except for the last two, which are stitched in the middle of theirs.
            values[start : start + 60] = call(model, text[start : start + 60], problem_type)
        middle = (starts[-1] + starts[-2] + 60) // 2
        values[starts[-2] : middle] = call(model, text[starts[-2] : starts[-2] + 60], problem_type)[
            : middle - starts[-2]
        ]
        is_base = np.array(list(text)) != "N"
        for number, label in enumerate(NAMES[1:], start=1):
            called = values[:, number] >= 0.5 if problem_type == MULTI else values.argmax(1) == number
            found, score = np.zeros(len(text), bool), np.full(len(text), np.nan)
            for contig_name, start, end, kind, value, _ in lines:
                if (contig_name, kind) == (name, label):
                    assert not found[int(start) : int(end)].any()
                    found[int(start) : int(end)] = True
                    score[int(start) : int(end)] = int(value)
                    mean = 1000 * values[int(start) : int(end), number].mean()
                    assert int(value) == pytest.approx(mean, abs=1)
            np.testing.assert_array_equal(found, called & is_base)
    assert lines


@settings(max_examples=50)
@given(st.lists(st.lists(st.integers(-1, 2), min_size=1, max_size=8), min_size=1, max_size=5))
def test_intervals_do_not_depend_on_the_pieces(pieces):
    def run(parts):
        caller, start = IntervalCaller(["background", "a", "b"], False, "background"), 3
        for part in parts:
            values = np.array([[np.nan] * 3 if label < 0 else np.eye(3)[label] for label in part])
            caller.add("chr1", start, values)
            start += len(part)
        return sorted(caller.finish())

    whole = [label for part in pieces for label in part]
    assert run(pieces) == run([whole])
    covered = {place: name for _, start, end, name, _ in run(pieces) for place in range(start, end)}
    assert covered == {3 + i: "-ab"[label] for i, label in enumerate(whole) if label > 0}


def test_an_interrupted_run_goes_on(data, monkeypatch, capsys):
    folder, *_ = data
    save(folder / "model", HyenaDNAForSequenceClassification)
    monkeypatch.setattr(predict_module, "PART_BASES", 100)
    assert predict(folder, "table.csv", "whole.tsv") == 0
    calls, stop = [], 3
    original = Predictor.predict

    def interrupted(self, sequences):
        calls.append(1)
        if len(calls) == stop:
            raise KeyboardInterrupt
        return original(self, sequences)

    monkeypatch.setattr(Predictor, "predict", interrupted)
    assert predict(folder, "table.csv", "out.tsv") == 130
    assert (folder / "out.tsv.partial").is_dir() and not (folder / "out.tsv").exists()
    assert predict(folder, "table.csv", "out.tsv", "--strands", "both") == 2
    assert "differs in strands" in capsys.readouterr().err
    calls, stop = [], -1
    assert predict(folder, "table.csv", "out.tsv") == 0
    assert (folder / "out.tsv").read_text() == (folder / "whole.tsv").read_text()
    assert not (folder / "out.tsv.partial").exists()


def test_an_adapter(data):
    """A PEFT adapter records no problem type."""
    folder, texts, _ = data
    config = HyenaDNAConfig(d_model=12, n_layer=1, max_seq_len=LONGEST, filter_order=16)
    base = randomise(HyenaDNAForCausalLM(config))
    base.save_pretrained(folder / "base")
    HyenaDNATokenizer().save_pretrained(folder / "base")
    model = HyenaDNAForSequenceClassification.from_pretrained(folder / "base", num_labels=3)
    lora = LoraConfig(task_type="SEQ_CLS", target_modules=["in_proj"], modules_to_save=["score"], r=2)
    tuned = get_peft_model(model, lora).eval()
    with torch.no_grad():
        for parameter in tuned.parameters():
            if parameter.requires_grad:
                parameter.normal_()
    tuned.save_pretrained(folder / "model")
    assert predict(folder, "table.csv", "out.tsv") == 2
    assert predict(folder, "table.csv", "out.tsv", "--problem_type", SINGLE) == 0
    expected = np.stack([call(tuned, text, SINGLE) for text in texts.values()])
    rows = read_tsv(folder / "out.tsv")
    found = np.array([[float(row[f"probability_LABEL_{i}"]) for i in range(3)] for row in rows])
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-5)


BASES_OUT = ["--out", "{folder}/out.bw"]


@pytest.mark.parametrize(
    ("head", "options", "message"),
    [
        (
            "sequence",
            ["--out", "{folder}/out.bw"],
            "this model predicts whole sequences; give a file that ends in .tsv",
        ),
        ("sequence", ["--out", "{folder}/out.txt"], "the suffix sets the format"),
        ("sequence", ["--window", "10"], "--window and --stride: this model reads whole sequences"),
        ("sequence", ["--target", "exon"], "--target exon: only bedGraph and bigWig need it"),
        ("sequence", ["--problem_type", "ranking"], "problem_type is 'ranking'; give one of"),
        ("sequence", ["--strands", "reverse"], "strands='reverse': choose one of forward, both"),
        ("sequence", ["--input", "{folder}/genome.fa"], "chr1 has 500 bases, but the model reads at most 60"),
        (
            "sequence",
            ["--sequence_column", "absent"],
            "sequence_column='absent' is not one of its columns: gene, sequence",
        ),
        ("sequence", ["--input", "{folder}/in.bed"], "it has none of sequence, seq, dna"),
        ("sequence", ["--input", "{folder}/absent.csv"], "absent.csv"),
        ("sequence", ["--max_tokens", "0"], "max_tokens=0: give at least 1"),
        ("token", [], "this model predicts every base; give a file that ends in .bed"),
        ("token", BASES_OUT, "--target: out.bw contains one of exon, intron; choose it"),
        ("token", [*BASES_OUT, "--target", "x"], "--target x: the labels are background, exon, intron"),
        ("token", [*BASES_OUT, "--target", "exon"], "this model predicts every base; give FASTA, or BED with --fasta"),
        (
            "token",
            [*BASES_OUT, "--target", "exon", "--input", "{folder}/genome.fa", "--window", "61"],
            "give a window of 1 to 60 bases",
        ),
        ("language model", [], "HyenaDNAForCausalLM has no head for predictions"),
    ],
)
def test_bad_input(data, capsys, head, options, message):
    folder, *_ = data
    if head == "language model":
        config = HyenaDNAConfig(d_model=12, n_layer=1, max_seq_len=LONGEST, filter_order=16)
        HyenaDNAForCausalLM(config).save_pretrained(folder / "model")
        HyenaDNATokenizer().save_pretrained(folder / "model")
    else:
        save(
            folder / "model", {"sequence": HyenaDNAForSequenceClassification}.get(head, HyenaDNAForTokenClassification)
        )
    before = sorted(folder.iterdir())
    assert predict(folder, "table.csv", "out.tsv", *(word.format(folder=folder) for word in options)) == 2
    assert message in capsys.readouterr().err.splitlines()[-1]
    assert [path for path in sorted(folder.iterdir()) if path.suffix not in (".fai", ".gzi")] == before


def save_baseline(folder, name, length, per_base=False):
    labels = {"id2label": dict(enumerate(NAMES)), "label2id": {name: i for i, name in enumerate(NAMES)}}
    config = baseline_config(name, length, per_base, problem_type=SINGLE, **labels)
    auto_class = AutoModelForTokenClassification if per_base else AutoModelForSequenceClassification
    torch.manual_seed(1)
    model = auto_class.from_config(config).eval()
    with torch.no_grad():
        for norm in model.modules():
            if isinstance(norm, torch.nn.BatchNorm1d):  # as after training
                norm.running_mean.normal_(std=0.1)
                norm.running_var.uniform_(0.5, 2)
    model.save_pretrained(folder)
    baseline_tokenizer(name, getattr(config, "max_position_embeddings", None)).save_pretrained(folder)
    return model


@pytest.mark.parametrize("name", ["cnn", "deepsea-cnn", "gpt"])
def test_baselines_of_sequences(data, name):
    folder, texts, _ = data
    model = save_baseline(folder / "model", name, LONGEST)
    assert predict(folder, "table.csv", "out.tsv", "--strands", "both", "--max_tokens", 200) == 0
    expected = np.stack([call(model, text, SINGLE, "both") for text in texts.values()])
    found = [[float(row[f"probability_{name}"]) for name in NAMES] for row in read_tsv(folder / "out.tsv")]
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    assert np.ptp(expected, axis=0).min() > 1e-3  # predictions depend on the sequence


def test_dilated_cnn_in_windows(data, capsys):
    """Windows of twice the receptive field predict what one window over the whole contig does."""
    folder, _, contig = data
    model = save_baseline(folder / "model", "cnn", 80, per_base=True)
    assert predict(folder, "genome.fa", "out.bw", "--target", "exon") == 2
    assert "it reads windows of any length; give --window" in capsys.readouterr().err
    assert predict(folder, "genome.fa", "out.bw", "--target", "exon", "--window", 0) == 2
    assert "give a window of at least 1 base" in capsys.readouterr().err
    assert predict(folder, "genome.fa", "out.bw", "--target", "exon", "--window", 2 * 81) == 0
    with pyBigWig.open(str(folder / "out.bw")) as file:
        np.testing.assert_allclose(
            file.values("chr1", 0, len(contig)), call(model, contig, SINGLE)[:, 1], rtol=1e-4, atol=1e-6
        )


def test_numbers_of_bases_are_no_intervals(data, capsys):
    folder, *_ = data
    save(folder / "model", HyenaDNAForTokenClassification, REGRESSION, ["coverage"])
    assert predict(folder, "genome.fa", "out.bed") == 2
    assert "this model predicts numbers; give a file that ends in .bw, .bigwig" in capsys.readouterr().err
    assert predict(folder, "genome.fa", "out.bw") == 0


def test_a_bad_letter_in_a_table(data, capsys):
    folder, *_ = data
    save(folder / "model", HyenaDNAForSequenceClassification)
    (folder / "table.csv").write_text("gene,seq\na,ACGT\nb,ACXT\n")
    assert predict(folder, "table.csv", "out.tsv") == 2
    assert "row 2: the sequence contains 'X' at base 3" in capsys.readouterr().err


def test_the_python_interface_checks_its_arguments(data):
    folder, *_ = data
    model = save(folder / "model", HyenaDNAForSequenceClassification, problem_type=None)
    with pytest.raises(InputError, match="problem_type is not recorded by the model"):
        Predictor(model, HyenaDNATokenizer())
    predictor = Predictor(model, HyenaDNATokenizer(), SINGLE)
    (found,) = predictor.predict(["ACGT"])
    assert found.dtype == np.float32 and found.sum() == pytest.approx(1)
    assert list(predictor.predict([])) == []
