"""`hyenadna pretrain --objective mlm`, and `--dataset`."""

import csv
import json
import math
import random
import shutil

import pandas as pd
import pytest
import torch
from forked import COMMAND, run_ranks
from safetensors.torch import load_file
from transformers import AutoModelForMaskedLM, Trainer

from hyenadna_hf import HyenaDNAConfig, HyenaDNAForCausalLM, HyenaDNAForMaskedLM, HyenaDNAModel, HyenaDNATokenizer
from hyenadna_hf.cli import main
from hyenadna_hf.data.collators import mask_bases
from hyenadna_hf.data.pretraining import MaskedPretrainingCollator
from hyenadna_hf.data.sequence import token_ids
from hyenadna_hf.data.streams import mix
from hyenadna_hf.training.objectives import MaskedObjective

SIZES = {"d_model": 16, "filter_order": 16, "n_layer": 1, "max_seq_len": 66}
TEXT = "".join(random.Random(0).choice(("ACGGT", "TTGCA")) for _ in range(700))
CONTIGS = {"one": TEXT, "two": TEXT[:40] + "N" * 70 + TEXT[:300], "short": TEXT[7:30]}


@pytest.fixture
def files(tmp_path):
    """A genome with a pattern to learn, and two models: a configuration, and one with weights."""
    (tmp_path / "genome.fa").write_text("".join(f">{name}\n{text}\n" for name, text in CONTIGS.items()))
    pd.DataFrame({"dna": CONTIGS.values()}).to_csv(tmp_path / "table.csv")
    HyenaDNAConfig(**SIZES, bidirectional=True).save_pretrained(tmp_path / "model")  # with dropout
    HyenaDNAForMaskedLM(HyenaDNAConfig(**SIZES, bidirectional=True)).save_pretrained(tmp_path / "trained")
    HyenaDNAForCausalLM(HyenaDNAConfig(**SIZES)).save_pretrained(tmp_path / "causal")
    return tmp_path


FEW = ["--max_steps", "12", "--per_device_train_batch_size", "4", "--learning_rate", "0.01", "--use_cpu"]
FEW += ["--disable_tqdm", "true", "--logging_steps", "1", "--eval_steps", "6", "--save_steps", "6"]


def arguments(files, out, *more):
    return [
        *("pretrain", "--fasta", str(files / "genome.fa"), "--model", str(files / "model"), "--objective", "mlm"),
        *("--output_dir", str(files / out), "--validation", "one:1-500", "--test", "one:501-1,003", *FEW, *more),
    ]


def results_of(folder):
    return json.loads((folder / "pretraining.json").read_text())


def assert_same_weights(one, other, atol=0.0):
    expected, found = (load_file(folder / "model.safetensors") for folder in (one, other))
    for name, tensor in expected.items():
        torch.testing.assert_close(found[name], tensor, rtol=0, atol=atol, msg=name)


def test_it_learns_and_measures_masked_bases(files, capsys):
    more = ("--max_steps", "120", "--append_sep", "--window", "64", "--mlm_probability", "0.2")
    assert main(arguments(files, "out", *more)) == 0
    printed = capsys.readouterr().out
    assert "bits per masked base" in printed and "AutoModelForMaskedLM.from_pretrained" in printed
    results = results_of(files / "out")
    assert results["objective"] == "mlm" and results["mlm_probability"] == 0.2
    assert results["bases_seen"] == round(120 * 4 * (64 * (38 + 5) + 23) / 44)  # of one, two, and short

    model = AutoModelForMaskedLM.from_pretrained(files / "out").eval()
    text = TEXT[500:1003]
    nats, count = 0.0, 0
    for number, start in enumerate(range(0, len(text), 64)):
        ids = torch.tensor([*token_ids(text[start : start + 64]), 1])
        masked = mask_bases(ids, 0.2, mix(number), training=False)["input_ids"]
        with torch.no_grad():
            log_probabilities = model(masked[None]).logits[0].double().log_softmax(-1)
        for position in torch.nonzero(masked == 3)[:, 0].tolist():
            nats -= log_probabilities[position, ids[position]].item()
            count += 1
    test = results["splits"]["test"]
    assert test.keys() == {"bits_per_masked_base", "masked_perplexity", "masked_bases"}
    assert test["masked_bases"] == count and 0.1 < count / len(text) < 0.3
    assert test["bits_per_masked_base"] == pytest.approx(nats / count / math.log(2), rel=1e-5)
    assert test["masked_perplexity"] == pytest.approx(math.exp(nats / count), rel=1e-5)
    assert test["bits_per_masked_base"] < 1.2  # the other bases of a word tell most of it

    card = (files / "out" / "README.md").read_text()
    assert "pipeline_tag: fill-mask" in card and "to predict masked ones, 20 % of all; bits per masked base:" in card
    with open(files / "out" / "training_log.csv") as file:
        assert [row for row in csv.DictReader(file) if row["eval_bits_per_masked_base"]]


def test_evaluation_has_the_same_masks_in_every_run(files):
    """Whatever the seed, the batch size and the number of workers."""
    still = ("--model", str(files / "trained"), "--learning_rate", "0", "--max_steps", "1", "--both_strands")
    other = ("--seed", "7", "--per_device_eval_batch_size", "3", "--dataloader_num_workers", "1")
    assert main(arguments(files, "one", *still)) == 0
    assert main(arguments(files, "two", *still, *other)) == 0
    one, two = (results_of(files / out)["splits"] for out in ("one", "two"))
    for split in ("validation", "test"):
        assert one[split] == pytest.approx(two[split], rel=1e-6)
        assert one[split]["masked_bases"] == two[split]["masked_bases"] > 50


def test_a_resumed_run_ends_with_the_same_weights(files):
    more = ("--initial_length", "8", "--length_warmup_steps", "8", "--both_strands", "--ema_decay", "0.8")
    assert main(arguments(files, "whole", *more)) == 0
    assert main(arguments(files, "half", *more, "--save_total_limit", "2")) == 0
    shutil.rmtree(files / "half" / "checkpoint-12")
    assert main(arguments(files, "half", *more, "--resume_from_checkpoint", "true")) == 0
    assert_same_weights(files / "whole", files / "half")
    assert results_of(files / "whole")["splits"] == results_of(files / "half")["splits"]


def test_a_run_of_the_other_objective_is_not_resumed(files, capsys):
    assert main(arguments(files, "out", "--model", str(files / "causal"), "--objective", "clm")) == 0
    capsys.readouterr()
    assert main(arguments(files, "out", "--resume_from_checkpoint", "true")) == 2
    assert "it is a HyenaDNAForCausalLM, but this run trains a HyenaDNAForMaskedLM" in capsys.readouterr().err


def test_two_processes_train_as_one_does(files):
    HyenaDNAConfig(**SIZES, bidirectional=True, embed_dropout=0.0).save_pretrained(files / "model")
    more = ("--initial_length", "16", "--length_warmup_steps", "4", "--both_strands", "--max_steps", "6")
    assert main(arguments(files, "one", *more)) == 0
    half = ("--per_device_train_batch_size", "2")
    assert main(arguments(files, "acc", *more, *half, "--gradient_accumulation_steps", "2")) == 0
    ran = run_ranks(COMMAND, *arguments(files, "two", *more, *half))
    assert ran.returncode == 0, ran.stderr
    for other in ("acc", "two"):
        assert_same_weights(files / "one", files / other, atol=1e-4)
    splits = [results_of(files / out)["splits"] for out in ("one", "two")]
    for split in ("validation", "test"):
        assert splits[0][split]["masked_bases"] == splits[1][split]["masked_bases"]
        assert splits[0][split] == pytest.approx(splits[1][split], rel=1e-4)


def test_label_smoothing(files, monkeypatch):
    trainers = []
    build = Trainer.__init__
    monkeypatch.setattr(
        Trainer, "__init__", lambda self, *args, **kw: trainers.append(self) or build(self, *args, **kw)
    )
    assert main(arguments(files, "out", "--label_smoothing_factor", "0.1", "--max_steps", "1")) == 0
    (trainer,) = trainers
    validation = trainer.eval_dataset["validation"]
    batch = trainer.data_collator([validation[i] for i in range(len(validation))])
    loss = trainer.compute_loss(trainer.model.eval(), dict(batch)).item()
    with torch.no_grad():
        losses = -trainer.model(**batch).logits.log_softmax(-1)
    predicted = batch["labels"] != -100
    nll = losses[predicted].gather(-1, batch["labels"][predicted][:, None]).mean().item()
    assert loss == pytest.approx(0.9 * nll + 0.1 * losses[predicted].mean().item(), rel=1e-5)


@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_changes_no_loss(side):
    """Rows of unequal length, each against the row alone."""
    torch.manual_seed(0)
    model = HyenaDNAForMaskedLM(HyenaDNAConfig(**SIZES, bidirectional=True)).double().eval()
    examples = [mask_bases(torch.randint(7, 12, (length,)), 0.3, length) for length in (9, 33, 64)]
    tokenizer, objective = HyenaDNATokenizer(padding_side=side), MaskedObjective(0.3)
    batch = MaskedPretrainingCollator(tokenizer)(examples)
    with torch.no_grad():
        together = model(**batch)
        rows = objective.row_losses(together.logits, batch["labels"])
        total = 0.0
        for row, example in zip(rows, examples, strict=True):
            ids, labels = example["input_ids"][None], example["labels"][None]
            alone = model(ids, labels=labels).loss.item()
            count = (labels != -100).sum().item()
            assert row.tolist() == pytest.approx([alone * count, count], rel=1e-6)
            total += alone * count
    assert together.loss.item() == pytest.approx(total / rows[:, 1].sum().item(), rel=1e-6)


def test_metrics_are_sums_over_the_split():
    torch.manual_seed(0)
    objective, logits = MaskedObjective(0.15), torch.randn(3, 7, 16)
    labels = torch.randint(7, 11, (3, 7)).masked_fill(torch.rand(3, 7) < 0.6, -100)
    expected = torch.nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten()).item()

    class Output:
        predictions = torch.cat([objective.row_losses(logits[i : i + 1], labels[i : i + 1]) for i in range(3)]).numpy()

    assert objective.metrics(Output) == pytest.approx(
        {
            "bits_per_masked_base": expected / math.log(2),
            "masked_perplexity": math.exp(expected),
            "masked_bases": (labels != -100).sum().item(),
        }
    )


@pytest.mark.parametrize("head", [HyenaDNAModel, HyenaDNAForMaskedLM])
def test_models_with_weights_are_trained_further(files, capsys, head):
    model = head(HyenaDNAConfig(**SIZES, bidirectional=True))
    model.save_pretrained(files / "source")
    still = ("--learning_rate", "0", "--max_steps", "1", "--model", str(files / "source"))
    assert main([*arguments(files, "out", *still), "--json"]) == 0
    results = json.loads(capsys.readouterr().out)
    assert results["start"] == ("pretrained; new: lm_head.weight" if head is HyenaDNAModel else "pretrained")
    assert results["splits"]["test"]["bits_per_masked_base"] > 0
    found = AutoModelForMaskedLM.from_pretrained(files / "out")
    for name, tensor in model.base_model.state_dict().items():
        torch.testing.assert_close(found.hyena.state_dict()[name], tensor, rtol=0, atol=0)


def test_a_published_size_becomes_bidirectional(files):
    size = ("--model", "hyenadna-tiny-1k-seqlen", "--window", "32", "--max_steps", "1", "--save_strategy", "no")
    assert main(arguments(files, "out", *size)) == 0
    config = json.loads((files / "out" / "config.json").read_text())
    assert config["bidirectional"] is True and config["architectures"] == ["HyenaDNAForMaskedLM"]


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--model", "causal"], "causal is causal and sees one side of a masked base only; give a published size"),
        (["--model", "hyenadna-tiny-1k-human"], "--objective mlm: hyenadna-tiny-1k-human is causal"),
        (["--model", "gpt"], "--objective mlm: gpt is causal"),
        (["--objective", "clm"], "model is bidirectional and would see the base to predict; give --objective mlm"),
        (["--objective", "clm", "--model", "causal", "--mlm_probability", "0.1"], "--mlm_probability 0.1: --objective"),
        (["--objective", "masked"], "--objective masked: choose clm (the next base) or mlm (masked bases)"),
        (["--mlm_probability", "1"], "--mlm_probability 1.0: give a fraction between 0 and 1"),
        (["--mlm_probability", "nan"], "--mlm_probability nan"),
        (["--sequence_column", "dna"], "--sequence_column dna: it is a column of --dataset; omit it"),
    ],
)
def test_bad_arguments(files, capsys, monkeypatch, more, message):
    monkeypatch.chdir(files)
    assert main(arguments(files, "out", *more)) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
    assert not (files / "out").exists()


class TestDataset:
    def arguments(self, files, out, *more):
        model = ("--model", str(files / "model"), "--objective", "mlm")
        return ["pretrain", *model, "--output_dir", str(files / out), *FEW, *more]

    def test_a_table_trains_as_the_same_sequences_in_fasta(self, files):
        assert main(self.arguments(files, "genome", "--fasta", str(files / "genome.fa"), "--both_strands")) == 0
        nothing_held_out = ("--validation_fraction", "0", "--test_fraction", "0", "--both_strands")
        assert main(self.arguments(files, "table", "--dataset", str(files / "table.csv"), *nothing_held_out)) == 0
        assert_same_weights(files / "genome", files / "table")
        assert results_of(files / "table")["splits"] == {}

    @pytest.mark.parametrize("objective", ["clm", "mlm"])
    def test_splits_and_short_sequences(self, files, capsys, objective):
        rng = random.Random(1)
        rows = ["".join(rng.choices("ACGT", k=rng.randint(2, 20))) for _ in range(200)]
        (files / "x.txt").write_text("\n".join(rows))
        model = str(files / ("causal" if objective == "clm" else "model"))
        more = ("--dataset", str(files / "x.txt"), "--model", model, "--objective", objective)
        assert main(self.arguments(files, "out", *more, "--test_fraction", "0.2")) == 0
        assert "windows of up to 64 bases" in " ".join(capsys.readouterr().out.split())
        results = results_of(files / "out")
        assert results["splits"].keys() == {"validation", "test"}
        assert results["bases_seen"] == pytest.approx(12 * 4 * sum(map(len, rows)) / 200, rel=0.05)
        if objective == "clm":  # one base of each sequence is not predicted
            assert 40 * 8 < results["splits"]["test"]["bases"] < 40 * 12

    def test_beside_a_genome(self, files, capsys):
        both = ("--fasta", str(files / "genome.fa"), "--dataset", str(files / "table.csv"), "--test_fraction", "0.4")
        assert main(self.arguments(files, "out", *both, "--weights", "1", "3", "--validation", "two")) == 0
        assert results_of(files / "out")["splits"].keys() == {"validation", "test"}
        assert main(self.arguments(files, "bad", *both, "--weights", "1")) == 2
        assert "for each of the 2 sources" in capsys.readouterr().err

    @pytest.mark.parametrize(
        ("more", "message"),
        [
            ([], "--fasta or --dataset: give at least one"),
            (["--dataset", "absent.csv"], "absent.csv: there is no such file"),
            (["--dataset", "table.csv", "--sequence_column", "seq"], "sequence_column='seq' is not one of its columns"),
            (["--dataset", "table.csv", "--validation", "one"], "--validation: it selects parts of --fasta"),
            (["--dataset", "empty.csv"], "empty.csv: the file contains no sequence"),
            (["--dataset", "protein.csv"], "protein.csv, row 2: the sequence contains 'E' at base 2"),
            (["--dataset", "table.csv", "--test_fraction", "1"], "test_fraction=1.0: give 0 to below 1"),
        ],
    )
    def test_errors(self, files, capsys, monkeypatch, more, message):
        monkeypatch.chdir(files)
        (files / "empty.csv").write_text("sequence\n")
        (files / "protein.csv").write_text("sequence\nACGT\nMEEP\n")
        assert main(self.arguments(files, "out", *more)) == 2
        error = capsys.readouterr().err
        assert message in error and error.count("\n") == 1
        assert not (files / "out").exists()
