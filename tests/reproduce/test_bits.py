"""Bits a base on held-out regions, against direct calls of the model and counts by hand."""

import json
import math
import random

import pytest
import torch
from reference import randomise

from hyenadna_hf import HyenaDNAConfig, HyenaDNAForCausalLM, HyenaDNATokenizer
from hyenadna_hf.cli import main as hyenadna
from hyenadna_hf.errors import InputError
from hyenadna_hf.reproduce.bits import main

LENGTH = 700
REGION = "one:101-180"


@pytest.fixture
def folder(tmp_path):
    rng = random.Random(0)
    folder = tmp_path / "genomes"
    folder.mkdir()
    texts = {name: "".join(rng.choices("ACGT", [4, 1, 1, 2], k=LENGTH)) for name in ("one", "two", "three")}
    texts["two"] = texts["two"][:50] + "NNNRY" + texts["two"][55:100]
    (folder / "a.fa").write_text("".join(f">{name}\n{texts[name]}\n" for name in ("one", "two")))
    (folder / "b.fa").write_text(f">three\n{texts['three']}\n")
    (folder / "held_out.txt").write_text(f"{REGION}\ntwo\n")
    config = HyenaDNAConfig(d_model=8, n_layer=1, filter_order=8, max_seq_len=40, embed_dropout=0.0)
    randomise(HyenaDNAForCausalLM(config)).save_pretrained(tmp_path / "model")
    HyenaDNATokenizer().save_pretrained(tmp_path / "model")
    return folder, texts


def run(tmp_path, *arguments):
    main([*map(str, arguments), "--output_dir", str(tmp_path / "out")])
    return json.loads((tmp_path / "out" / "results.json").read_text())["metrics"]


def test_bits_of_a_language_model_are_those_of_its_windows(folder, tmp_path):
    genomes, texts = folder
    found = run(tmp_path, "--dataset", genomes, "--model", tmp_path / "model", "--window", 32)
    model = HyenaDNAForCausalLM.from_pretrained(tmp_path / "model").eval()
    tokenizer = HyenaDNATokenizer()
    nats, at = {}, {}
    for name, text in ((REGION, texts["one"][100:180]), ("two", texts["two"])):
        for start in range(0, len(text), 32):
            ids = torch.tensor([tokenizer(text[start : start + 32])["input_ids"]])
            with torch.no_grad():
                scores = model(ids).logits[0, :-1, 7:11].log_softmax(-1)
            for position, token in enumerate(ids[0, 1:].tolist(), start=1):
                if token in range(7, 11):
                    value = -scores[position - 1, token - 7].item()
                    nats.setdefault(f"bits, {name}", []).append(value)
                    at.setdefault(f"bits at position, {1 << position.bit_length() - 1}", []).append(value)
    assert list(found) == [*nats, *at]
    for metric, values in {**nats, **at}.items():
        assert found[metric] == pytest.approx(sum(values) / len(values) / math.log(2), rel=1e-5)


def test_markov_models_count_what_is_not_held_out(folder, tmp_path):
    genomes, texts = folder
    counted = texts["one"][:100] + texts["one"][180:]
    found = run(tmp_path, "--dataset", genomes, "--model", "markov-0", "--markov_genomes", "a")
    share = {base: (counted.count(base) + 16) / (len(counted) + 64) for base in "ACGT"}
    text = texts["one"][100:180]
    assert found[f"bits, {REGION}"] == pytest.approx(-sum(math.log2(share[base]) for base in text) / len(text))
    assert set(found) == {f"bits, {REGION}", "bits, two"}
    both = run(tmp_path, "--dataset", genomes, "--model", "markov-0")
    counted += texts["three"]
    share = {base: (counted.count(base) + 16) / (len(counted) + 64) for base in "ACGT"}
    assert both[f"bits, {REGION}"] == pytest.approx(-sum(math.log2(share[base]) for base in text) / len(text))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--model", "markov-x"], "--model markov-x: use markov-0 to markov-12"),
        (["--model", "markov-1", "--markov_genomes", "c"], "--markov_genomes c: unknown genome; choose from a, b"),
        (["--model", "markov-1", "--dataset", "nowhere"], "nowhere: there is no such folder"),
        (["--model", "markov-1", "--length", "3"], "unknown argument --length"),
    ],
)
def test_bad_arguments(arguments, message, folder, tmp_path):
    with pytest.raises(InputError, match=message):
        main(["--dataset", str(folder[0]), "--output_dir", str(tmp_path / "out"), *arguments])
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_the_table_of_language_models(folder, tmp_path, capsys):
    genomes, _ = folder
    out = tmp_path / "table"

    def status(*models):
        arguments = ["--data", str(genomes), "--output_dir", str(out), "--models", *models, "--window", "32"]
        return hyenadna(["reproduce", "pretrained", *arguments])

    assert status("markov-1", f"mine={tmp_path / 'model'}") == 0
    table = (out / "table.md").read_text()
    for words in (f"bits a base, bits, {REGION}", "bits a base at position, bits at position, 16", "markov-1", "mine"):
        assert words in table
    (genomes / "held_out.txt").unlink()
    assert status("markov-1") == 1
    assert "held_out.txt: there is no such file" in (out / "table.md").read_text()
