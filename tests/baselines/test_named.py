"""The baselines by name: what padding does to them, that they learn, and the commands that train them."""

import json
import random

import pandas as pd
import pytest
import torch
from forked import run_script
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, set_seed

from hyenadna_hf.baselines.cnn import CNNConfig
from hyenadna_hf.baselines.gpt import tiny_gpt_config
from hyenadna_hf.baselines.named import BASELINE_NAMES, baseline_config, baseline_tokenizer
from hyenadna_hf.cli import main

SMALL = {
    "cnn": {"length": 60},
    "deepsea-cnn": {"length": 163, "channels": (8, 8, 8), "dropouts": (0.0, 0.0, 0.0), "dense_size": 16},
    "gpt": {"n_embd": 16, "n_positions": 80, "embd_pdrop": 0.0, "attn_pdrop": 0.0, "resid_pdrop": 0.0},
    "hyenadna-kmer": {"d_model": 16, "filter_order": 16, "max_seq_len": 80, "embed_dropout": 0.0},
    "hyenadna-bidirectional": {"d_model": 16, "filter_order": 16, "max_seq_len": 80, "embed_dropout": 0.0},
}


def build(name, **fields):
    set_seed(0)
    return AutoModelForSequenceClassification.from_config(baseline_config(name, **{**SMALL[name], **fields})).eval()


@pytest.mark.parametrize("name", BASELINE_NAMES)
@settings(max_examples=15)
@given(data=st.data())
def test_padding_changes_nothing(name, data):
    """Each row as alone, wherever padding stands and whatever stands there."""
    model = build(name, num_labels=3).double()
    rows, length = data.draw(st.integers(1, 3)), data.draw(st.integers(1, 60))
    mask = torch.tensor(
        data.draw(st.lists(st.lists(st.booleans(), min_size=length, max_size=length), min_size=rows, max_size=rows))
    )
    mask[:, data.draw(st.integers(0, length - 1))] = True
    ids = torch.randint(0, 16, (rows, length), generator=torch.Generator().manual_seed(data.draw(st.integers(0, 99))))
    with torch.no_grad():
        together = model(input_ids=ids, attention_mask=mask.to(torch.float32)).logits
        alone = torch.cat([model(input_ids=row[real][None]).logits for row, real in zip(ids, mask)])
    assert together.shape == (rows, 3)
    torch.testing.assert_close(together, alone, rtol=0, atol=1e-9)


@pytest.mark.parametrize("name", BASELINE_NAMES)
def test_it_learns_a_separable_set_whole(name):
    """Whether TATAAA stands in random sequence."""
    rng, model = random.Random(1), build(name, num_labels=2)
    sequences = ["".join(rng.choices("ACG", k=rng.randint(30, 54))) for _ in range(16)]
    sequences += [f"{sequence[:12]}TATAAA{sequence[18:]}" for sequence in sequences]
    labels = torch.tensor([0] * 16 + [1] * 16)
    batch = baseline_tokenizer(name)(sequences, padding=True, return_tensors="pt")
    optimizer = torch.optim.Adam(model.train().parameters(), lr=3e-3)
    for _ in range(150):
        output = model(**batch, labels=labels)
        optimizer.zero_grad()
        output.loss.backward()
        optimizer.step()
        if output.loss < 0.01:
            break
    with torch.no_grad():
        assert (model.eval()(**batch).logits.argmax(-1) == labels).all()


@pytest.fixture
def composition(tmp_path):
    """A data set that is easy: AT-rich or GC-rich, of varied length."""
    rng = random.Random(0)
    folder = tmp_path / "composition"
    folder.mkdir()
    for split, count in (("train", 64), ("dev", 10), ("test", 20)):
        rows = []
        for i in range(count):
            bases = rng.choices("ACGT", [(1, 9, 9, 1), (9, 1, 1, 9)][i % 2], k=rng.randint(20, 60))
            rows.append(("".join(bases), ["GC", "AT"][i % 2]))
        pd.DataFrame(rows, columns=["sequence", "label"]).to_csv(folder / f"{split}.csv", index=False)
    return folder


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=[pytest.mark.slow] if name.startswith("hyenadna") else []) for name in BASELINE_NAMES],
)
def test_finetune(name, composition, tmp_path, capsys):
    """The command itself loads the checkpoint back and compares logits."""
    out = tmp_path / "out"
    options = ["--num_train_epochs", "2", "--per_device_train_batch_size", "8", "--no_baselines"]
    assert main(["finetune", "--dataset", str(composition), "--model", name, "--output_dir", str(out), *options]) == 0
    assert "(from scratch)" in capsys.readouterr().out
    results = json.loads((out / "results.json").read_text())
    assert results["model"] == name and results["test"]["model"]["accuracy"] >= 0.8
    assert AutoModelForSequenceClassification.from_pretrained(out).config.id2label == {0: "AT", 1: "GC"}


def test_what_is_saved_loads_where_the_package_is_not_installed(tmp_path):
    script = """
import json, sys
sys.modules["hyenadna_hf"] = None  # importing it now fails
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer
sequence, *folders = sys.argv[1:]
for folder in folders:
    model = AutoModelForSequenceClassification.from_pretrained(folder, trust_remote_code=True).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=True)
    with torch.no_grad():
        print(json.dumps(model(**tokenizer(sequence, return_tensors="pt")).logits.tolist()))
"""
    sequence, folders, expected = "ACGTTGCATTAGCACCA" * 2, [], []
    for name in BASELINE_NAMES:
        folders.append(tmp_path / name)
        model, tokenizer = build(name), baseline_tokenizer(name)
        model.save_pretrained(folders[-1])
        tokenizer.save_pretrained(folders[-1])
        with torch.no_grad():
            expected.append(model(**tokenizer(sequence, return_tensors="pt")).logits)
    found = run_script(script, sequence, *folders)
    assert found.returncode == 0, found.stderr
    for mine, line in zip(expected, found.stdout.splitlines()[-len(folders) :], strict=True):
        torch.testing.assert_close(torch.tensor(json.loads(line)), mine, rtol=0, atol=1e-5)


def test_cnns_are_made_for_the_longest_sequence(composition, tmp_path):
    for options, length in ([], 62), (["--max_length", "58"], 58), (["--max_length", "70"], 70):
        out = tmp_path / f"out-{length}"
        options = [*options, "--special_tokens_mode", "cls_sep", "--max_steps", "1", "--no_baselines"]
        arguments = ["--dataset", str(composition), "--model", "cnn", "--output_dir", str(out)]
        assert main(["finetune", *arguments, *options]) == 0
        assert AutoModelForSequenceClassification.from_pretrained(out).config.max_seq_len == length


def test_published_networks():
    """Filters, pooling and the widths that follow."""
    cnn = AutoModelForSequenceClassification.from_config(baseline_config("cnn", num_labels=2))
    assert [tuple(p.shape) for n, p in cnn.named_parameters() if n.endswith("weight") and p.dim() > 1] == [
        *[(16, 100), (16, 100, 8), (8, 16, 8), (4, 8, 8)],
        *[(512, 4 * 121), (2, 512)],
    ]
    with torch.device("meta"):
        deepsea = AutoModelForSequenceClassification.from_config(baseline_config("deepsea-cnn", num_labels=919))
    assert [tuple(p.shape) for n, p in deepsea.named_parameters() if n.endswith("weight")] == [
        *[(320, 4, 8), (480, 320, 8), (960, 480, 8)],
        *[(925, 960 * 53), (919, 925)],
    ]
    gpt = AutoModelForSequenceClassification.from_config(baseline_config("gpt"))
    assert (gpt.config.n_layer, gpt.config.n_embd, gpt.config.max_position_embeddings) == (2, 128, 1026)


def test_bad_sizes_and_too_long_inputs_are_refused():
    with pytest.raises(ValueError, match="name='bert': the baselines are cnn"):
        baseline_config("bert")
    with pytest.raises(ValueError, match="max_seq_len=56: it must be at least 57"):
        CNNConfig(max_seq_len=56)
    with pytest.raises(ValueError, match="give one value of each"):
        CNNConfig(channels=[8])
    ids = torch.randint(7, 11, (2, 90))
    with pytest.raises(ValueError, match="90 positions, but this model's max_seq_len is 60"):
        build("cnn")(ids)
    with pytest.raises(ValueError, match="90 positions, but this model's n_positions is 80"):
        build("gpt")(ids)
    mask = torch.ones(2, 90)
    mask[:, 5:50] = 0
    for name in ("cnn", "gpt"):
        assert build(name)(ids, attention_mask=mask).logits.isfinite().all()


class TestGPTLanguageModel:
    def model(self):
        set_seed(0)
        return AutoModelForCausalLM.from_config(tiny_gpt_config(n_embd=16, n_positions=80)).double().eval()

    @pytest.mark.parametrize("side", ["left", "right"])
    def test_padding_changes_neither_logits_nor_loss(self, side):
        model, tokenizer = self.model(), baseline_tokenizer("gpt")
        sequences = ["ACGTTGCATTAGC", "GGCAT"]
        batch = tokenizer(sequences, padding=True, padding_side=side, return_tensors="pt")
        with torch.no_grad():
            together = model(**batch, labels=batch["input_ids"])
            total = 0
            for i, sequence in enumerate(sequences):
                alone = tokenizer(sequence, return_tensors="pt")
                expected = model(**alone, labels=alone["input_ids"])
                real = batch["attention_mask"][i] == 1
                torch.testing.assert_close(together.logits[i, real], expected.logits[0], rtol=0, atol=1e-9)
                total += expected.loss * (len(sequence) - 1)
        torch.testing.assert_close(together.loss, total / 16, rtol=0, atol=1e-6)

    def test_generation_under_left_padding(self):
        model, tokenizer = self.model(), baseline_tokenizer("gpt")
        sequences = ["ACGTTGCATTAGC", "GGCAT"]
        options = {"max_new_tokens": 8, "do_sample": False, "eos_token_id": None}
        batch = tokenizer(sequences, padding=True, return_tensors="pt")
        together = model.generate(**batch, **options)[:, batch["input_ids"].shape[1] :]
        for row, sequence in zip(together, sequences):
            alone = model.generate(**tokenizer(sequence, return_tensors="pt"), **options)
            assert torch.equal(row, alone[0, len(sequence) :])

    def test_pretrain_and_finetune(self, composition, tmp_path):
        fasta, lm, out = tmp_path / "g.fa", tmp_path / "lm", tmp_path / "out"
        sequence = "".join(random.Random(0).choices("ACGT", k=6000))
        fasta.write_text(f">a\n{sequence[:4000]}\n>b\n{sequence[4000:]}\n")
        options = ["--max_length", "100", "--max_steps", "3", "--per_device_train_batch_size", "4"]
        arguments = ["--fasta", str(fasta), "--test", "b", "--model", "gpt", "--output_dir", str(lm)]
        assert main(["pretrain", *arguments, *options]) == 0
        arguments = ["--dataset", str(composition), "--model", str(lm), "--output_dir", str(out)]
        assert main(["finetune", *arguments, "--max_steps", "2", "--no_baselines"]) == 0
        assert json.loads((out / "results.json").read_text())["start"] == "pretrained; new: score.bias, score.weight"
