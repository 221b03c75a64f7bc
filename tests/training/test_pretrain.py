import csv
import functools
import json
import math
import random
import shutil

import pytest
import torch
from forked import COMMAND, run_ranks
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, Trainer, TrainingArguments

from hyenadna_hf import HyenaDNAConfig, HyenaDNAForCausalLM
from hyenadna_hf.cli import main
from hyenadna_hf.data.fasta import Fasta
from hyenadna_hf.data.sequence import token_ids
from hyenadna_hf.jobs import LOCK_FILE, hold_lock
from hyenadna_hf.pretrained import BUNDLED_CHECKPOINTS
from hyenadna_hf.training import pretrain as pretrain_module
from hyenadna_hf.training.objectives import Objective
from hyenadna_hf.training.runs import last_whole_checkpoint, writing


@pytest.fixture
def files(tmp_path):
    """A genome with a pattern to learn, and the configuration of a small model."""
    rng = random.Random(0)
    text = "".join(rng.choice(("ACGGT", "TTGCA")) for _ in range(700))
    (tmp_path / "genome.fa").write_text(f">one\n{text}\n>two\n{text[:40]}{'N' * 70}{text[:300]}\n")
    HyenaDNAConfig(d_model=16, filter_order=16, n_layer=1, max_seq_len=66, embed_dropout=0.0).save_pretrained(
        tmp_path / "model"
    )
    return tmp_path


def arguments(files, out, *more):
    return [
        *("pretrain", "--fasta", str(files / "genome.fa"), "--model", str(files / "model")),
        *("--output_dir", str(files / out), "--validation", "one:1-500", "--test", "one:501-1,003"),
        *("--max_steps", "12", "--per_device_train_batch_size", "4", "--learning_rate", "0.01", "--use_cpu"),
        *("--disable_tqdm", "true", "--logging_steps", "1", "--eval_steps", "6", "--save_steps", "6", *more),
    ]


def weights(folder):
    return load_file(folder / "model.safetensors")


def test_it_learns_and_says_how_well(files, capsys):
    assert main(arguments(files, "out", "--max_steps", "120", "--append_sep", "--window", "64")) == 0
    assert "Held-out windows" in capsys.readouterr().out
    results = json.loads((files / "out" / "pretraining.json").read_text())
    assert results["steps"] == 120 and results["bases_seen"] == 120 * 4 * 64
    assert results["splits"]["test"]["bits_per_base"] < 1.2  # one bit of choice in five bases
    assert results["command"].startswith("hyenadna pretrain --fasta")

    model = AutoModelForCausalLM.from_pretrained(files / "out").eval()
    with Fasta(files / "genome.fa") as genome:
        sequence = genome.fetch("one", 500, 1003)
    nats = scored = 0
    for start in range(0, len(sequence), 64):
        ids = torch.tensor([*token_ids(sequence[start : start + 64]), 1])[None]
        with torch.no_grad():
            logits = model(ids).logits.double()
        nats += torch.nn.functional.cross_entropy(logits[0, :-1], ids[0, 1:], reduction="sum").item()
        scored += ids.shape[1] - 1
    assert results["splits"]["test"]["bases"] == scored
    assert results["splits"]["test"]["bits_per_base"] == pytest.approx(nats / scored / math.log(2), rel=1e-5)
    assert "bits per base" in (files / "out" / "README.md").read_text()


@pytest.mark.parametrize(
    "more", [(), ("--ema_decay", "0.8", "--muon_learning_rate", "0.02")], ids=["AdamW", "Muon, averaged"]
)
def test_a_run_that_was_stopped_goes_on_to_the_same_weights(files, more):
    HyenaDNAConfig(d_model=16, filter_order=16, n_layer=1, max_seq_len=66).save_pretrained(files / "model")  # dropout
    warmup = ("--initial_length", "8", "--length_warmup_steps", "8", *more)
    assert main(arguments(files, "whole", *warmup)) == 0
    assert main(arguments(files, "half", *warmup, "--save_total_limit", "2")) == 0
    shutil.rmtree(files / "half" / "checkpoint-12")
    assert main(arguments(files, "half", *warmup, "--resume_from_checkpoint", "true")) == 0
    for name, tensor in weights(files / "whole").items():
        torch.testing.assert_close(weights(files / "half")[name], tensor, rtol=0, atol=0)
    with open(files / "half" / "training_log.csv") as file:
        lengths = [row["length"] for row in csv.DictReader(file) if row["length"]]
    assert lengths == ["8"] * 3 + ["16"] * 3 + ["32"] * 2 + ["64"] * 4
    # After the last step, as when a run is killed while it evaluates, there is no step more.
    assert main(arguments(files, "half", *warmup, "--resume_from_checkpoint", "true")) == 0
    for name, tensor in weights(files / "whole").items():
        torch.testing.assert_close(weights(files / "half")[name], tensor, rtol=0, atol=0)


def test_the_model_sees_the_lengths_that_the_log_names(files, monkeypatch):
    seen = []
    forward = HyenaDNAForCausalLM.forward

    @functools.wraps(forward)
    def noting(self, input_ids=None, **inputs):
        if self.training:
            seen.append(tuple(input_ids.shape))
        return forward(self, input_ids=input_ids, **inputs)

    monkeypatch.setattr(HyenaDNAForCausalLM, "forward", noting)
    assert main(arguments(files, "out", "--initial_length", "16", "--length_warmup_steps", "4")) == 0
    assert seen == [(16, 16)] * 2 + [(8, 32)] * 2 + [(4, 64)] * 8


def test_two_processes_train_as_one_does(files):
    """Equal global batches, in two processes and in one, with warm-up and with accumulated gradients."""
    warmup = ("--initial_length", "16", "--length_warmup_steps", "6", "--reverse_complement")
    assert main(arguments(files, "one", *warmup)) == 0
    half = ("--per_device_train_batch_size", "2")
    assert main(arguments(files, "acc", *warmup, *half, "--gradient_accumulation_steps", "2")) == 0
    ran = run_ranks(COMMAND, *arguments(files, "two", *warmup, *half))
    assert ran.returncode == 0, ran.stderr
    for other in ("acc", "two"):
        for name, tensor in weights(files / "one").items():
            torch.testing.assert_close(weights(files / other)[name], tensor, rtol=0, atol=1e-4, msg=f"{other}: {name}")
    results = [json.loads((files / out / "pretraining.json").read_text()) for out in ("one", "two")]
    assert results[0]["splits"]["test"]["bases"] == results[1]["splits"]["test"]["bases"]
    for split in ("validation", "test"):
        bits = [result["splits"][split]["bits_per_base"] for result in results]
        assert bits[0] == pytest.approx(bits[1], rel=1e-4)


def test_a_checkpoint_that_ships_with_the_package_is_trained_further(files):
    source = BUNDLED_CHECKPOINTS["hyenadna-tiny-1k-chr20"]
    model = ("--model", "hyenadna-tiny-1k-chr20", "--window", "64", "--max_steps", "1", "--learning_rate", "1e-6")
    assert main(arguments(files, "out", *model)) == 0
    assert json.loads((files / "out" / "pretraining.json").read_text())["start"] == "pretrained"
    for name, tensor in weights(source).items():
        torch.testing.assert_close(weights(files / "out")[name], tensor, rtol=0, atol=1e-5)


def test_several_genomes_and_bed_files(files, capsys):
    (files / "a.bed").write_text("one\t0\t1000\ttrain\none\t1000\t1064\tvalid\none\t1064\t1200\ttest\n")
    (files / "b.bed").write_text("two\t0\t300\n")
    status = main([
        *("pretrain", "--fasta", str(files / "genome.fa"), "--fasta", str(files / "genome.fa")),
        *("--bed", str(files / "a.bed"), "--bed", str(files / "b.bed"), "--weights", "3", "1"),
        *("--lr_scheduler_type", "linear"),
        *("--model", str(files / "model"), "--output_dir", str(files / "out"), "--max_steps", "2", "--use_cpu"),
        *("--per_device_train_batch_size", "2", "--disable_tqdm", "true"),
    ])  # fmt: skip
    assert status == 0
    results = json.loads((files / "out" / "pretraining.json").read_text())
    assert results["splits"]["validation"]["bases"] == results["splits"]["test"]["bases"] == 63


@pytest.mark.parametrize("model", ["model", "gpt"])
def test_label_smoothing_is_that_of_the_next_base(files, monkeypatch, model):
    """Padded and cut windows as well; what is told of held-out sequences is not smoothed."""
    trainers = []

    class Kept(Trainer):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)
            trainers.append(self)

    monkeypatch.setattr(pretrain_module, "Trainer", Kept)
    options = ["--label_smoothing_factor", "0.1", "--max_steps", "2", "--per_device_eval_batch_size", "1"]
    options += ["--window", "64", "--model", str(files / "model") if model == "model" else "gpt"]
    assert main(arguments(files, "out", *options)) == 0
    (trainer,) = trainers
    net, nats, smoothed = trainer.model.eval(), 0, 0
    validation = trainer.eval_dataset["validation"]
    windows = [row["input_ids"] for row in validation]
    for ids in windows:
        with torch.no_grad():
            each = -net(torch.as_tensor(ids)[None]).logits[0, :-1].log_softmax(-1)
        nll = each.gather(-1, torch.as_tensor(ids)[1:, None]).sum().item()
        nats += nll
        smoothed += 0.9 * nll + 0.1 * each.mean(-1).sum().item()
    bases = sum(len(ids) - 1 for ids in windows)
    batch = trainer.data_collator(list(validation))  # the last is shorter: padded on the left
    assert trainer.compute_loss(net, batch).item() == pytest.approx(smoothed / bases, rel=1e-4)
    results = json.loads((files / "out" / "pretraining.json").read_text())
    assert results["splits"]["validation"]["bits_per_base"] == pytest.approx(nats / bases / math.log(2), rel=1e-4)


def test_label_smoothing_of_accumulated_batches_is_that_of_a_larger_one(files):
    smoothing = ("--label_smoothing_factor", "0.1", "--max_steps", "3", "--optim", "sgd", "--learning_rate", "0.5")
    assert main(arguments(files, "whole", *smoothing)) == 0
    parts = ("--per_device_train_batch_size", "2", "--gradient_accumulation_steps", "2")
    assert main(arguments(files, "parts", *smoothing, *parts)) == 0
    for name, tensor in weights(files / "whole").items():
        torch.testing.assert_close(weights(files / "parts")[name], tensor, rtol=0, atol=1e-5)


def test_arguments_of_transformers_change_no_result_that_they_should_not(files):
    options = ["--eval_accumulation_steps", "1", "--include_for_metrics", "inputs", "loss", "--label_names", "labels"]
    options += ["--remove_unused_columns", "false", "--torch_compile_backend", "aot_eager"]
    options += ["--dataloader_num_workers", "1", "--dataloader_persistent_workers", "true"]
    assert main(arguments(files, "plain", "--max_steps", "3")) == 0
    assert main(arguments(files, "other", "--max_steps", "3", *options)) == 0
    plain, other = (json.loads((files / out / "pretraining.json").read_text())["splits"] for out in ("plain", "other"))
    for split, found in plain.items():
        assert other[split] == pytest.approx(found, rel=1e-5)


# Its name in transformers 4, if the newer one is not there.
LENGTH_GROUPING = (
    ["--train_sampling_strategy", "group_by_length"]
    if hasattr(TrainingArguments, "train_sampling_strategy")
    else ["--group_by_length", "true"]
)


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--window", "67"], "--window 67"),
        (["--initial_length", "32", "--window", "64", "--append_sep"], "--append_sep"),
        (["--initial_length", "24"], "initial_length=24"),
        (["--validation", "three"], "three"),
        (["--test", "one:1-9000"], "one:1-9000"),
        (["--test", "one:400-600"], "overlap"),
        (["--validation", "one", "--test", "two"], "leave regions"),
        (["--model", "nowhere/at/all"], "no such folder"),
        (["--fasta", "absent.fa"], "absent.fa"),
        (["--weights", "1", "2"], "weights"),
        (["--min_lr_rate", "1.1"], "--min_lr_rate 1.1"),
        (["--bed", "absent.bed"], "--bed and --validation"),
        (["--resume_from_checkpoint", "true"], "no such checkpoint"),
        (["--learning_speed", "1"], "--learning_speed"),
        (["--label_smoothing_factor", "-0.1"], "--label_smoothing_factor -0.1: give a number from 0"),
        (["--use_liger_kernel"], "--use_liger_kernel: Liger has no kernels for a hyenadna model"),
        (["--batch_eval_metrics", "true"], "--batch_eval_metrics True"),
        (["--eval_do_concat_batches", "false"], "--eval_do_concat_batches False"),
        (["--prediction_loss_only"], "--prediction_loss_only True: the metrics need predictions"),
        (["--label_names", "bases"], "--label_names ['bases']"),
        (["--dataloader_drop_last"], "--dataloader_drop_last True"),
        (LENGTH_GROUPING, "windows are a stream"),
    ],
)
def test_what_will_not_do_is_said_before_anything_is_written(files, capsys, more, words):
    assert main(arguments(files, "out", *more)) == 2
    error = capsys.readouterr().err
    assert words in error and error.count("\n") == 1
    assert not (files / "out").exists()


def test_the_former_name_of_window_still_works(capsys):
    genome_args, *_ = pretrain_module.parser().parse(["--fasta", "a.fa", "--max_length", "64"])
    assert genome_args.window == 64 and "--window" in capsys.readouterr().err


def test_a_second_run_in_the_same_folder_is_refused_while_the_first_is_at_work(files, capsys):
    with hold_lock(files / "out", "out"):
        assert main(arguments(files, "out")) == 2
        assert "another run" in capsys.readouterr().err
        assert [path.name for path in (files / "out").iterdir()] == [LOCK_FILE]
    assert main(arguments(files, "out", "--max_steps", "1")) == 0
    assert not (files / "out" / LOCK_FILE).exists()


def test_metrics_are_sums_over_the_split():
    torch.manual_seed(0)
    logits, labels = torch.randn(3, 7, 16), torch.randint(7, 11, (3, 7))
    labels[0, :4] = -100
    expected = torch.nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten()).item()
    objective = Objective()

    class Output:
        predictions = torch.cat([objective.row_losses(logits[i], labels[i]) for i in ([0], [1, 2])]).numpy()

    found = objective.metrics(Output)
    assert found["bases"] == 3 + 6 + 6
    assert found["perplexity"] == pytest.approx(math.exp(expected))
    assert found["bits_per_base"] == pytest.approx(expected / math.log(2))


@pytest.mark.parametrize("state", [None, "", '{"epoch": 0.1, "glob'])
def test_a_checkpoint_that_was_cut_is_not_resumed_from(tmp_path, state):
    """A kill may come while the state, the last file, is written."""
    for step, text in ((2, '{"global_step": 2}'), (10, state)):
        (tmp_path / f"checkpoint-{step}").mkdir()
        if text is not None:
            (tmp_path / f"checkpoint-{step}" / "trainer_state.json").write_text(text)
    assert last_whole_checkpoint(tmp_path) == str(tmp_path / "checkpoint-2")
    with pytest.raises(ZeroDivisionError), writing(tmp_path):
        raise ZeroDivisionError
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint-2"]


def test_a_folder_without_a_state_is_no_finished_run(files, capsys):
    """The user reads the Trainer's own error."""
    (files / "checkpoint-empty").mkdir()
    assert main(arguments(files, "out", "--resume_from_checkpoint", str(files / "checkpoint-empty"))) != 0
    assert "global_step" not in capsys.readouterr().err
