import json

import numpy as np
import pytest
import torch
from transformers import BertConfig, BertForSequenceClassification

from hyenadna_hf import HyenaDNAConfig, HyenaDNAForSequenceClassification, HyenaDNATokenizer
from hyenadna_hf.errors import InputError
from hyenadna_hf.reproduce.probe import main, mean_embeddings, plot_embeddings, score


@pytest.mark.parametrize("kind", ["linear", "boosted", "forest"])
def test_probe_of_a_frozen_model(kind, composition, tmp_path):
    model, out = tmp_path / "model", tmp_path / "out"
    HyenaDNAConfig(d_model=8, n_layer=1, filter_order=8, max_seq_len=64).save_pretrained(model)
    HyenaDNATokenizer(model_max_length=64).save_pretrained(model)
    arguments = ["--dataset", str(composition), "--model", str(model), "--output_dir", str(out), "--probe", kind]
    main([*arguments, "--shots", "4", "0", "--draws", "2", "--picture"])
    metrics = json.loads((out / "results.json").read_text())["metrics"]
    assert metrics["accuracy, all"] > 0.8 >= 0 and 0 <= metrics["accuracy, 4 a class"] <= 1
    assert (out / "embeddings.png").stat().st_size > 1000


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--shots", "81"], "the smallest class has 80"),
        (["--draws", "0"], "at least 1 draw"),
        (["--probe", "tree"], "it must be one of linear, boosted, forest"),
    ],
)
def test_bad_arguments(arguments, message, composition, tmp_path):
    with pytest.raises(InputError, match=message):
        main(["--dataset", str(composition), "--output_dir", str(tmp_path / "out"), *arguments])
    assert not (tmp_path / "out").exists()


def test_embeddings_of_other_models_do_not_see_their_padding():
    tokenizer = HyenaDNATokenizer(model_max_length=64, padding_side="right")
    config = BertConfig(
        vocab_size=12, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8, pad_token_id=4
    )
    model = BertForSequenceClassification(config).eval()
    sequences = ["ACGTACGTAC", "GG", "TTTACA" * 20]
    together = mean_embeddings(model, tokenizer, sequences)
    alone = np.concatenate([mean_embeddings(model, tokenizer, [sequence]) for sequence in sequences])
    np.testing.assert_allclose(together, alone, atol=1e-5)
    ids = torch.tensor([tokenizer("GG")["input_ids"]])
    with torch.no_grad():
        expected = model.bert(ids).last_hidden_state[0].mean(0)
    np.testing.assert_allclose(together[1], expected, atol=1e-5)


def test_embeddings_of_hyenadna_are_those_of_embed_cut_to_what_it_reads(config):
    model = HyenaDNAForSequenceClassification(config)
    tokenizer = HyenaDNATokenizer(model_max_length=config.max_seq_len)
    found = mean_embeddings(model, tokenizer, ["ACGT" * 40, "ACGT" * 17 + "AC"])
    np.testing.assert_allclose(found[0], found[1], atol=1e-6)


def test_score_is_that_of_a_separable_set():
    rng = np.random.default_rng(0)
    labels = {split: np.arange(40) % 2 for split in ("train", "test")}
    embedded = {split: labels[split][:, None] * 4.0 + rng.normal(size=(40, 3)) for split in labels}
    assert score("linear", embedded, labels)["accuracy"] > 0.9
    assert score("linear", embedded, labels, np.array([0, 1, 2, 3]))["f1_weighted"] > 0.7


def test_picture(tmp_path):
    plot_embeddings(np.random.default_rng(0).normal(size=(12, 4)), ["a", "b"] * 6, tmp_path / "x.png")
    assert (tmp_path / "x.png").stat().st_size > 1000
