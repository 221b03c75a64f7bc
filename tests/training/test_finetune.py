import json
import random
import shutil
import subprocess
import sys

import pandas as pd
import pytest
import torch
from huggingface_hub import ModelCard
from safetensors.torch import load_file
from transformers import AutoModelForSequenceClassification, AutoTokenizer, BertConfig

from hyenadna_hf import HyenaDNAConfig, HyenaDNATokenizer
from hyenadna_hf.baselines.kmer import kmer_classifier
from hyenadna_hf.cli import main
from hyenadna_hf.pretrained import BUNDLED_CHECKPOINTS
from hyenadna_hf.training.metrics import classification_metrics


@pytest.fixture
def composition(tmp_path):
    """A data set that is easy: AT-rich or GC-rich, of varied length."""
    rng = random.Random(0)
    folder = tmp_path / "composition"
    folder.mkdir()
    for split, count in (("train", 160), ("dev", 20), ("test", 40)):
        rows = []
        for i in range(count):
            bases = rng.choices("ACGT", [(1, 4, 4, 1), (4, 1, 1, 4)][i % 2], k=rng.randint(20, 60))
            rows.append(("".join(bases), ["GC", "AT"][i % 2]))
        pd.DataFrame(rows, columns=["sequence", "label"]).to_csv(folder / f"{split}.csv", index=False)
    return folder


@pytest.fixture
def untrained(tmp_path):
    """A folder with a configuration and a tokenizer, but no weights."""
    folder = tmp_path / "untrained"
    HyenaDNAConfig(d_model=16, filter_order=16, max_seq_len=64).save_pretrained(folder)
    HyenaDNATokenizer(model_max_length=64).save_pretrained(folder)
    return folder


def test_from_scratch_on_files_of_ones_own(composition, untrained, tmp_path, capsys):
    out = tmp_path / "out"
    options = ["--num_train_epochs", "8", "--per_device_train_batch_size", "16", "--learning_rate", "5e-3"]
    status = main(
        ["finetune", "--dataset", str(composition), "--model", str(untrained), "--output_dir", str(out), *options]
    )
    printed = capsys.readouterr().out
    assert status == 0
    results = json.loads((out / "results.json").read_text())
    assert results["start"] == "from scratch" and results["sequences"] == {"train": 160, "validation": 20, "test": 40}
    assert results["test"]["model"]["accuracy"] > 0.9
    assert results["test"]["majority class"]["accuracy"] == 0.5
    assert results["test"]["6-mer counts, linear"]["accuracy"] > 0.5
    for words in (
        "classes AT, GC",
        "from scratch",
        "majority class",
        "Loaded back by AutoModelForSequenceClassification",
    ):
        assert words in printed
    model = AutoModelForSequenceClassification.from_pretrained(out)
    assert model.config.id2label == {0: "AT", 1: "GC"}
    inputs = AutoTokenizer.from_pretrained(out)("ATATTTATATATTAAATATATA", return_tensors="pt")
    with torch.no_grad():
        assert model.config.id2label[int(model.eval()(**inputs).logits.argmax())] == "AT"
    card = ModelCard.load(out / "README.md")
    assert {result.metric_type: result.metric_value for result in card.data.eval_results}["accuracy"] > 0.9
    assert (out / "modeling_hyenadna.py").is_file() and (out / "tokenization_hyenadna.py").is_file()


def test_from_the_bundled_checkpoint(composition, tmp_path, capsys):
    out = tmp_path / "out"
    options = ["--max_steps", "2", "--save_strategy", "no", "--no_baselines", "--max_length", "50"]
    assert main(["finetune", "--dataset", str(composition), "--output_dir", str(out), *options]) == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert "pretrained; new: score.bias, score.weight" not in printed  # two classes here, as in the checkpoint
    assert "(pretrained), " in printed and "fill the 50 tokens" in printed
    assert list(json.loads((out / "results.json").read_text())["test"]) == ["model"]
    assert AutoTokenizer.from_pretrained(out).special_tokens_mode == "none"
    before = load_file(BUNDLED_CHECKPOINTS["hyenadna-tiny-1k-remag"] / "model.safetensors")
    after = load_file(out / "model.safetensors")
    change = max(float((before[name] - after[name]).abs().max()) for name in before)
    assert 0 < change < 0.01


def test_any_sequence_classifier_by_the_same_door(composition, tmp_path):
    folder, out = tmp_path / "bert", tmp_path / "out"
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    BertConfig(vocab_size=12, max_position_embeddings=64, pad_token_id=4, **sizes).save_pretrained(folder)
    HyenaDNATokenizer(model_max_length=64).save_pretrained(tmp_path / "tokenizer")
    options = ["--tokenizer", str(tmp_path / "tokenizer"), "--max_steps", "2", "--no_baselines", "--trust_remote_code"]
    arguments = ["--dataset", str(composition), "--model", str(folder), "--output_dir", str(out)]
    assert main(["finetune", *arguments, *options]) == 0
    assert type(AutoModelForSequenceClassification.from_pretrained(out)).__name__ == "BertForSequenceClassification"


def test_a_killed_run_goes_on_where_it_was(composition, untrained, tmp_path):
    options = [
        "--max_steps",
        "6",
        "--save_strategy",
        "steps",
        "--save_steps",
        "3",
        "--save_total_limit",
        "2",
        "--no_baselines",
    ]
    arguments = ["finetune", "--dataset", str(composition), "--model", str(untrained), *options]
    whole, again = tmp_path / "whole", tmp_path / "again"
    assert main([*arguments, "--output_dir", str(whole)]) == 0
    assert main([*arguments, "--output_dir", str(again), "--resume_from_checkpoint", str(whole / "checkpoint-3")]) == 0
    expected, resumed = (load_file(folder / "model.safetensors") for folder in (whole, again))
    for name, value in expected.items():
        torch.testing.assert_close(resumed[name], value, rtol=0, atol=1e-6)
    assert main([*arguments, "--output_dir", str(whole), "--resume_from_checkpoint", "true"]) == 0


@pytest.mark.parametrize(
    "options, message",
    [
        (["--dataset", "absent.csv"], "no such file or folder"),
        (["--label_column", "kind"], "label_column='kind' is not one of its columns: sequence, label"),
        (["--max_length", "65"], "--max_length 65: "),
        (["--max_length", "0"], "--max_length 0: "),
        (["--model", "./absent"], "--model ./absent: there is no such folder"),
        (["--tokenizer", "/absent/one"], "--tokenizer /absent/one: there is no such folder"),
        (["--model", "damaged"], "--model damaged: cannot be loaded"),
        (["--per_device_train_batch_size", "0"], "--per_device_train_batch_size 0: give 1 or more"),
        (["--learning_rate", "-1"], "--learning_rate -1.0: give 0 or more"),
        (["--num_train_epochs", "0"], "--num_train_epochs 0.0: give more than 0"),
        (["--epochs", "3"], "unknown argument --epochs"),
        (["--special_tokens_mode", "both"], "--special_tokens_mode both"),
        (["--resume_from_checkpoint", "true"], "there is no such checkpoint"),
        (["--output_dir", "occupied"], "the folder holds something else"),
        (["--output_dir", "file"], "this is a file"),
        (["--kmer", "0"], "--kmer 0"),
    ],
)
def test_bad_input_is_one_line_and_leaves_nothing(
    composition, untrained, tmp_path, monkeypatch, capsys, options, message
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "occupied").mkdir()
    (tmp_path / "occupied" / "thesis.txt").write_text("mine")
    (tmp_path / "file").write_text("mine")
    shutil.copytree(untrained, tmp_path / "damaged")
    (tmp_path / "damaged" / "model.safetensors").write_bytes(b"no tensors")
    before = sorted(str(path) for path in tmp_path.rglob("*"))
    defaults = ["--dataset", str(composition), "--model", str(untrained), "--output_dir", "out"]
    assert main(["finetune", *defaults, *options]) == 2
    printed = capsys.readouterr()
    line = printed.err.strip().splitlines()[-1]
    assert line.startswith("hyenadna finetune: error: ") and message in line
    assert sorted(str(path) for path in tmp_path.rglob("*")) == before


def test_metrics_and_kmers():
    metrics = classification_metrics([0, 0, 1, 1], [0, 1, 1, 1])
    assert metrics == {"accuracy": 0.75, "mcc": pytest.approx(0.5774, abs=1e-4), "f1": pytest.approx(0.7333, abs=1e-4)}
    sequences, labels = ["AAAAAAACC", "aaaaaaagg", "CCCCCCCTT", "ccccccctg"], [0, 0, 1, 1]
    assert kmer_classifier(3).fit(sequences, labels).predict(["AAAAATT", "CCCCCAA"]).tolist() == [0, 1]


@pytest.mark.slow
def test_the_main_command_as_it_stands_in_the_readme(tmp_path):
    """What a new user runs: on the bundled data, position tells what k-mer counts cannot."""
    command = [sys.executable, "-m", "hyenadna_hf", "finetune"]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=900)
    assert result.returncode == 0, result.stderr
    results = json.loads((tmp_path / "hyenadna-finetuned" / "results.json").read_text())
    test = results["test"]
    assert test["majority class"]["accuracy"] == pytest.approx(0.3236, abs=1e-4)
    assert test["6-mer counts, linear"]["accuracy"] == pytest.approx(0.60, abs=0.02)
    assert test["model"]["accuracy"] > 0.8
    assert "6-mer counts, linear" in result.stdout and "Loaded back" in result.stdout
