import json
import os
import random
import shutil
import subprocess
import sys

import pandas as pd
import pytest
import torch
from datasets import DatasetDict
from huggingface_hub import ModelCard
from safetensors.torch import load_file
from transformers import AutoModelForSequenceClassification, AutoTokenizer, BertConfig, TrainingArguments

from hyenadna_hf import HyenaDNATokenizer
from hyenadna_hf.baselines.kmer import kmer_classifier
from hyenadna_hf.cli import main
from hyenadna_hf.data.chromatin import chromatin_from_arrays
from hyenadna_hf.pretrained import BUNDLED_CHECKPOINTS
from hyenadna_hf.training import finetune as finetune_module
from hyenadna_hf.training.ema import UNAVERAGED_FILE


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
    assert "(pretrained; new: score.bias, score.weight), " in printed and "fill the 50 tokens" in printed
    assert list(json.loads((out / "results.json").read_text())["test"]) == ["model"]
    assert AutoTokenizer.from_pretrained(out).special_tokens_mode == "none"
    before = load_file(BUNDLED_CHECKPOINTS["hyenadna-tiny-1k-human"] / "model.safetensors")
    after = load_file(out / "model.safetensors")
    change = max(float((before[name] - after[name]).abs().max()) for name in before.keys() & after.keys())
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
    unfinished = whole / "checkpoint-7"  # killed while it was written
    unfinished.mkdir()
    shutil.copy(whole / "checkpoint-6" / "config.json", unfinished)
    assert main([*arguments, "--output_dir", str(whole), "--resume_from_checkpoint", "true"]) == 0
    for name, value in load_file(whole / "model.safetensors").items():  # there is no seventh step
        torch.testing.assert_close(value, expected[name], rtol=0, atol=0)


@pytest.mark.parametrize(
    "options, message",
    [
        (["--dataset", "absent.csv"], "no such file or folder"),
        (["--label_column", "kind"], "label_column='kind' is not one of its columns: sequence, label"),
        (["--max_length", "65"], "--max_length 65: "),
        (["--max_length", "0"], "--max_length 0: "),
        (["--model", "./absent"], "--model ./absent: this is neither a folder"),
        (["--tokenizer", "/absent/one"], "--tokenizer /absent/one: this is neither a folder"),
        (["--model", "damaged"], "--model damaged: cannot be loaded"),
        (["--per_device_train_batch_size", "0"], "--per_device_train_batch_size 0: give at least 1"),
        (["--learning_rate", "-1"], "--learning_rate -1.0: give at least 0"),
        (["--num_train_epochs", "0"], "--num_train_epochs 0.0: give more than 0"),
        (["--epochs", "3"], "unknown argument --epochs"),
        (["--special_tokens_mode", "both"], "--special_tokens_mode both"),
        (["--resume_from_checkpoint", "true"], "there is no such checkpoint"),
        (["--output_dir", "occupied"], "the folder contains other files"),
        (["--output_dir", "file"], "this is a file"),
        (["--kmer", "0"], "--kmer 0"),
        (["--recipe", "human_enhancer_chon"], "similar names are human_enhancers_cohn"),
        (["--embed_dropout", "1.5"], "--embed_dropout=1.5: it must be a probability"),
        (["--classifier_pooling", "median"], "--classifier_pooling='median'"),
        (["--reverse_complement", "2"], "--reverse_complement 2.0: give 0 to 1"),
        (["--padding_side", "top"], "--padding_side top"),
        (["--class_weights", "even"], "--class_weights even"),
        (["--ema_decay", "1"], "--ema_decay 1.0"),
        (["--label_smoothing_factor", "1"], "--label_smoothing_factor 1.0: give a number from 0 to below 1"),
        (["--use_liger_kernel"], "--use_liger_kernel: Liger has no kernels for a hyenadna model"),
        (["--neftune_noise_alpha", "5", "--model", "cnn"], "--neftune_noise_alpha 5.0: a dna-cnn model has no"),
        (["--batch_eval_metrics", "true"], "--batch_eval_metrics True: the metrics need a whole split"),
        (["--eval_do_concat_batches", "false"], "--eval_do_concat_batches False: the metrics"),
        (["--prediction_loss_only"], "--prediction_loss_only True: the metrics need predictions"),
        (["--label_names", "classes"], "--label_names ['classes']: the only label column of the batches is labels"),
        (["--dataloader_drop_last"], "--dataloader_drop_last True: it would also skip"),
        (["--early_stopping_patience", "0"], "--early_stopping_patience 0"),
        (["--early_stopping_patience", "1", "--eval_strategy", "no"], "requires the save and eval strategy to match"),
        (
            ["--metric_for_best_model", "auroc"],
            "--metric_for_best_model auroc: for this data set, choose one of loss, accuracy",
        ),
        (["--label_groups", "deepsea"], "these sequences have one class each"),
        (["--label_column", "sequence,label"], "sequence is"),
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


def test_kmers():
    sequences, labels = ["AAAAAAACC", "aaaaaaagg", "CCCCCCCTT", "ccccccctg"], [0, 0, 1, 1]
    assert kmer_classifier(3).fit(sequences, labels).predict(["AAAAATT", "CCCCCAA"]).tolist() == [0, 1]


def run(dataset, model, out, *options):
    """Runs the command without baselines and gives back the trainer, as it ended, and the results."""
    trainers = []

    class Kept(finetune_module.FinetuneTrainer):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)
            trainers.append(self)

    arguments = ["--dataset", dataset, "--model", model, "--output_dir", out, "--no_baselines", *options]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(finetune_module, "FinetuneTrainer", Kept)
        assert main(["finetune", *map(str, arguments)]) == 0
    return trainers[0], json.loads((out / "results.json").read_text())


def test_filters_do_not_decay_learn_at_their_rate_and_the_schedule_ends_at_its_floor(composition, untrained, tmp_path):
    options = ["--max_steps", 10, "--learning_rate", 0.01, "--filter_learning_rate", 0.002, "--logging_steps", 1]
    options += ["--min_lr_rate", 0.1]
    options += ["--embed_dropout", 0.2, "--resid_dropout", 0.3, "--classifier_pooling", "max", "--save_strategy", "no"]
    trainer, _ = run(composition, untrained, tmp_path / "out", *options)
    settings = {id(p): group for group in trainer.optimizer.param_groups for p in group["params"]}
    for name, parameter in trainer.model.named_parameters():
        group = settings[id(parameter)]
        is_filter = "filter_fn" in name
        rate = 0.002 if is_filter else 0.02 if group.get("muon") else 0.01
        assert group["initial_lr"] == pytest.approx(rate), name
        assert group["weight_decay"] == (0 if is_filter or parameter.ndim == 1 else 0.1), name
        assert group["lr"] == pytest.approx(0.1 * group["initial_lr"])
    rates = [entry["learning_rate"] for entry in trainer.state.log_history if "learning_rate" in entry]
    assert max(rates) == 0.01 and rates[-1] < 0.0013
    config = AutoModelForSequenceClassification.from_pretrained(tmp_path / "out").config
    assert (config.embed_dropout, config.resid_dropout, config.classifier_pooling) == (0.2, 0.3, "max")
    assert {m.p for m in trainer.model.modules() if isinstance(m, torch.nn.Dropout)} >= {0.2, 0.3}


def test_a_recipe_ends_up_in_the_model_and_in_the_results(composition, untrained, tmp_path):
    options = ["--recipe", "species_250k", "--max_length", 60, "--num_train_epochs", 1]
    trainer, results = run(composition, untrained, tmp_path / "out", *options)
    assert trainer.model.config.classifier_pooling == "last" and trainer.args.per_device_train_batch_size == 128
    assert results["recipe"] == "species_250k" and results["seed"] == 2222 and results["epochs"] == 1


def test_reverse_complements_are_for_training_only(composition, untrained, tmp_path):
    trainer, _ = run(
        composition, untrained, tmp_path / "out", "--max_steps", 1, "--reverse_complement", 1, "--padding_side", "right"
    )
    first = trainer.train_dataset.select([0])
    trainer.train_dataset = first
    ids = torch.tensor(first[0]["input_ids"])
    (training,), (evaluating,) = trainer.get_train_dataloader(), trainer.get_eval_dataloader(first)
    assert training["input_ids"][0].tolist() == (17 - ids.flip(0)).tolist()  # A, C, G, T are 7 to 10
    assert evaluating["input_ids"][0].tolist() == ids.tolist()
    assert trainer.processing_class.padding_side == "right"


def test_early_stopping_stops_and_takes_the_best(composition, untrained, tmp_path):
    # With a learning rate of 0 nothing gets better after the first evaluation.
    options = ["--num_train_epochs", 50, "--learning_rate", 0, "--early_stopping_patience", 2]
    options += ["--metric_for_best_model", "accuracy", "--per_device_train_batch_size", 160]
    trainer, results = run(composition, untrained, tmp_path / "out", *options)
    assert trainer.state.epoch == results["epochs"] == 3
    assert trainer.state.best_model_checkpoint.endswith("checkpoint-1")
    assert results["weights"] == "best accuracy on validation"


def test_patience_goes_on_where_it_was(composition, untrained, tmp_path):
    options = ["--learning_rate", 0, "--early_stopping_patience", 2, "--metric_for_best_model", "accuracy"]
    options += ["--per_device_train_batch_size", 160, "--save_total_limit", 9]
    run(composition, untrained, tmp_path / "out", "--num_train_epochs", 2, *options)
    trainer, _ = run(
        composition, untrained, tmp_path / "again", "--num_train_epochs", 50, *options,
        "--resume_from_checkpoint", tmp_path / "out" / "checkpoint-2",
    )  # fmt: skip
    assert trainer.state.epoch == 3


def test_averaged_weights_are_evaluated_saved_and_resumed(composition, untrained, tmp_path, capsys):
    options = ["--max_steps", 6, "--ema_decay", 0.5, "--save_strategy", "steps", "--save_steps", 3]
    options += ["--save_total_limit", 2, "--learning_rate", 0.01]
    run(composition, untrained, tmp_path / "whole", *options)
    checkpoint = tmp_path / "whole" / "checkpoint-3"
    run(composition, untrained, tmp_path / "again", *options, "--resume_from_checkpoint", checkpoint)
    saved, resumed = (load_file(tmp_path / name / "model.safetensors") for name in ("whole", "again"))
    last, weights = (
        load_file(tmp_path / "whole" / "checkpoint-6" / name) for name in ("model.safetensors", UNAVERAGED_FILE)
    )
    for name, value in saved.items():
        torch.testing.assert_close(resumed[name], value, rtol=0, atol=1e-6)
        torch.testing.assert_close(last[name], value, rtol=0, atol=0)
    assert any(not torch.equal(saved[name], value) for name, value in weights.items())
    arguments = ["--dataset", composition, "--model", untrained, "--output_dir", tmp_path / "without"]
    assert main(["finetune", *map(str, arguments), "--resume_from_checkpoint", str(checkpoint)]) == 2
    error = capsys.readouterr().err
    assert f"--resume_from_checkpoint {checkpoint}: " in error and "--ema_decay" in error


def test_balanced_class_weights(composition, untrained, tmp_path):
    table = pd.read_csv(composition / "train.csv")
    table = table[(table.label == "GC") | (table.index < 20)]  # 80 of GC, 10 of AT
    table.to_csv(composition / "train.csv", index=False)
    trainer, _ = run(composition, untrained, tmp_path / "out", "--max_steps", 1, "--class_weights", "balanced")
    assert trainer.compute_loss_func.weights.tolist() == pytest.approx([90 / 20, 90 / 160])
    batch = next(iter(trainer.get_eval_dataloader()))
    loss = trainer.compute_loss(trainer.model.eval(), dict(batch)).item()
    with torch.no_grad():
        logits = trainer.model(batch["input_ids"], batch["attention_mask"]).logits
    each = torch.nn.functional.cross_entropy(logits, batch["labels"], reduction="none")
    assert loss == pytest.approx((each * torch.tensor([4.5, 0.5625])[batch["labels"]]).mean().item(), rel=1e-5)


LENGTH_GROUPING = (
    ["--train_sampling_strategy", "group_by_length"]
    if hasattr(TrainingArguments, "train_sampling_strategy")
    else ["--group_by_length"]
)


def test_arguments_of_transformers_change_no_result_that_they_should_not(composition, untrained, tmp_path):
    """Those that change how batches are made and read, and not what is learned from them."""
    short = ["--max_steps", 2, "--save_strategy", "no", "--per_device_eval_batch_size", 8]
    _, plain = run(composition, untrained, tmp_path / "plain", *short)
    options = ["--eval_accumulation_steps", 2, "--include_for_metrics", "inputs", "loss", "--label_names", "labels"]
    options += ["--remove_unused_columns", "false", "--eval_use_gather_object", "true"]
    _, other = run(composition, untrained, tmp_path / "other", *short, *options)
    assert other["test"] == plain["test"]


@pytest.mark.slow
def test_compiled_training_ends_in_the_same_results(composition, untrained, tmp_path):
    short = ["--max_steps", 2, "--save_strategy", "no"]
    _, plain = run(composition, untrained, tmp_path / "plain", *short)
    _, other = run(composition, untrained, tmp_path / "other", *short, "--torch_compile_backend", "aot_eager")
    assert other["test"]["model"] == pytest.approx(plain["test"]["model"])


def test_noise_on_embeddings_and_batches_of_like_lengths(composition, untrained, tmp_path):
    options = ["--num_train_epochs", 8, "--per_device_train_batch_size", 16, "--learning_rate", 5e-3]
    trainer, results = run(
        composition, untrained, tmp_path / "out", *options, "--neftune_noise_alpha", 1, *LENGTH_GROUPING
    )
    assert results["test"]["model"]["accuracy"] > 0.8
    assert not trainer.model.get_input_embeddings()._forward_hooks
    widths = [batch["input_ids"].shape[1] for batch in trainer.get_train_dataloader()]
    assert min(widths) < 50 and len(set(widths)) > 3  # rows of one batch in random order are all about as wide


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("multi_label", [False, True])
def test_label_smoothing(composition, two_labels, untrained, tmp_path, recwarn, multi_label, weighted):
    options = ["--label_smoothing_factor", 0.2, "--max_steps", 1, "--save_strategy", "no"]
    options += ["--class_weights", "balanced"] if weighted else []
    options += ["--label_column", "AT,AC"] if multi_label else []
    trainer, _ = run(two_labels if multi_label else composition, untrained, tmp_path / "out", *options)
    batch = next(iter(trainer.get_eval_dataloader()))
    loss = trainer.compute_loss(trainer.model.eval(), dict(batch)).item()
    with torch.no_grad():
        logits = trainer.model(batch["input_ids"], batch["attention_mask"]).logits
    labels, weights = batch["labels"], trainer.compute_loss_func.weights
    assert (weights is not None) == weighted
    if multi_label:
        loss_of = torch.nn.functional.binary_cross_entropy_with_logits
        expected = loss_of(logits, 0.1 + 0.8 * labels, pos_weight=weights)
    else:
        expected = torch.nn.functional.cross_entropy(logits, labels, weights, reduction="sum", label_smoothing=0.2)
        expected /= len(labels)
    assert loss == pytest.approx(expected.item(), rel=1e-5)
    assert not any("Label smoothing" in str(warning.message) for warning in recwarn)


@pytest.fixture
def two_labels(tmp_path):
    """Sequences with two labels each: rich in A or T, and rich in A or C."""
    rng = random.Random(0)
    folder = tmp_path / "two_labels"
    folder.mkdir()
    for split, count in (("train", 240), ("test", 60)):
        rows = []
        for _ in range(count):
            at, ac = rng.random() < 0.5, rng.random() < 0.3
            weights = [(4 if at else 1) * (4 if ac else 1), 4 * ac + 1 - ac, 1, 4 * at + 1 - at]
            rows.append(("".join(rng.choices("ACGT", weights, k=50)), int(at), int(ac)))
        pd.DataFrame(rows, columns=["sequence", "AT", "AC"]).to_csv(folder / f"{split}.csv", index=False)
    return folder


def test_several_labels_from_end_to_end(two_labels, untrained, tmp_path, capsys):
    out, groups = tmp_path / "out", tmp_path / "groups.json"
    groups.write_text('{"weak": ["AT"], "all": ["AT", "AC"]}')
    options = ["--num_train_epochs", "8", "--per_device_train_batch_size", "16", "--learning_rate", "5e-3"]
    options += ["--label_column", "AT,AC", "--label_groups", str(groups), "--class_weights", "balanced"]
    arguments = ["--dataset", str(two_labels), "--model", str(untrained), "--output_dir", str(out)]
    assert main(["finetune", *arguments, *options]) == 0
    results = json.loads((out / "results.json").read_text())
    assert results["sequences"] == {"train": 216, "validation": 24, "test": 60}
    model, kmers = results["test"]["model"], results["test"]["6-mer counts, linear"]
    assert set(model) == {"auroc", "f1", "auroc_weak", "auroc_all", "labels_without_auroc"}
    assert model["auroc"] == model["auroc_all"] > 0.9 and model["auroc_weak"] > 0.9 and model["f1"] > 0.7
    assert kmers["auroc"] > 0.55 and results["test"]["majority class"]["auroc"] == 0.5
    assert "2 labels" in capsys.readouterr().out
    trained = AutoModelForSequenceClassification.from_pretrained(out)
    assert trained.config.problem_type == "multi_label_classification" and trained.config.id2label == {0: "AT", 1: "AC"}


def test_labels_of_a_saved_data_set(two_labels, untrained, tmp_path):
    tables = {split: pd.read_csv(two_labels / f"{split}.csv") for split in ("train", "test")}
    data = DatasetDict(
        {split: chromatin_from_arrays(list(t.sequence), t[["AT", "AC"]].to_numpy()) for split, t in tables.items()}
    )
    data.save_to_disk(tmp_path / "saved")
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "saved").rglob("*")}
    trainer, results = run(
        tmp_path / "saved", untrained, tmp_path / "out", "--max_steps", 2, "--metric_for_best_model", "auroc"
    )
    assert trainer.model.config.id2label == {0: "0", 1: "1"} and set(results["test"]["model"]) == {"auroc", "f1"}
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "saved").rglob("*")} == before


@pytest.mark.slow
def test_the_main_command_as_it_stands_in_the_readme(tmp_path):
    """What a new user runs: on the bundled data, position tells what k-mer counts cannot."""
    command = [sys.executable, "-m", "hyenadna_hf", "finetune"]
    environment = {name: value for name, value in os.environ.items() if name != "ACCELERATE_MIXED_PRECISION"}
    result = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=900)
    assert result.returncode == 0, result.stderr
    results = json.loads((tmp_path / "hyenadna-finetuned" / "results.json").read_text())
    test = results["test"]
    assert test["majority class"]["accuracy"] == pytest.approx(0.3236, abs=1e-4)
    assert test["6-mer counts, linear"]["accuracy"] == pytest.approx(0.60, abs=0.02)
    assert test["model"]["accuracy"] > test["CNN, 3 epochs"]["accuracy"] > 0.89
    assert test["model"]["accuracy"] > 0.91
    assert test["position weight matrix"]["accuracy"] > 0.7
    assert "6-mer counts, linear" in result.stdout and "Loaded back" in result.stdout


def test_splits_by_similarity(untrained, tmp_path, capsys):
    """Copies of a sequence that stand in train and in test are named, and put into one split if asked for."""
    rng = random.Random(0)
    sequences = ["".join(rng.choices("ACGT", k=60)) for _ in range(60)]
    data = tmp_path / "data"
    data.mkdir()
    for split, chosen in (("train", sequences), ("test", sequences[:20])):
        rows = [f"{sequence},{'ab'[int(sequence[0] in 'AC')]}" for sequence in chosen]
        (data / f"{split}.csv").write_text("sequence,label\n" + "\n".join(rows) + "\n")
    options = ["--max_steps", "1", "--no_baselines", "--model", str(untrained), "--use_cpu", "--test_fraction", "0.3"]
    for name, extra in (("as they are", []), ("anew", ["--split_by_similarity"])):
        assert main(["finetune", "--dataset", str(data), "--output_dir", str(tmp_path / name), *options, *extra]) == 0
        results = json.loads((tmp_path / name / "results.json").read_text())
        leaks = " of 20 test sequences are in train (exact duplicates" in " ".join(capsys.readouterr().out.split())
        assert leaks == (name == "as they are")
        assert results["sequences"]["test"] == (20 if leaks else 24)
