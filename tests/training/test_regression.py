"""`hyenadna finetune --task regression`, against scipy, scikit-learn and direct calls of the saved model."""

import json
import random

import numpy as np
import pandas as pd
import pytest
import torch
from huggingface_hub import ModelCard
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file
from scipy.stats import pearsonr, spearmanr
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import Ridge
from sklearn.metrics import mean_squared_error, r2_score
from transformers import AutoModelForSequenceClassification, AutoTokenizer, BertConfig, pipeline

from hyenadna_hf import HyenaDNAConfig, HyenaDNATokenizer
from hyenadna_hf.cli import main
from hyenadna_hf.training.metrics import REGRESSION_METRICS, regression_metrics
from hyenadna_hf.training.regression import TargetScale, output_layer


@pytest.fixture
def levels(tmp_path):
    """Levels in other units that follow the content of G and C, and counts."""
    rng, counts = random.Random(0), np.random.default_rng(0)
    folder = tmp_path / "levels"
    folder.mkdir()
    for split, size in (("train", 200), ("dev", 20), ("test", 40)):
        rows = []
        for _ in range(size):
            weight = rng.uniform(0.1, 0.9)
            text = "".join(rng.choices("ACGT", [1 - weight, weight, weight, 1 - weight], k=rng.randint(20, 60)))
            share = sum(letter in "GC" for letter in text) / len(text)
            rows.append((text, 1000 + 300 * share, -0.02 * share, counts.poisson(1 + 40 * share)))
        table = pd.DataFrame(rows, columns=["sequence", "level", "rate", "reads"])
        table.to_csv(folder / f"{split}.csv", index=False)
    return folder


def finetune(dataset, model, out, columns, *options):
    arguments = ["--dataset", dataset, "--model", model, "--output_dir", out, "--label_column", columns]
    return main(["finetune", "--task", "regression", *map(str, (*arguments, *options))])


def predict(folder, sequences):
    """Outputs of a saved model for one sequence at a time."""
    model, tokenizer = AutoModelForSequenceClassification.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    with torch.no_grad():
        return np.stack([model.eval()(**tokenizer(text, return_tensors="pt")).logits[0].numpy() for text in sequences])


@pytest.mark.parametrize("loss", ["mse", "poisson"])
def test_metrics_are_those_of_the_saved_model_in_the_units_of_the_data(levels, untrained, tmp_path, capsys, loss):
    names = ["level", "rate"] if loss == "mse" else ["reads"]
    options = ["--num_train_epochs", 8, "--learning_rate", 5e-3, "--regression_loss", loss]
    assert finetune(levels, untrained, tmp_path / "out", ",".join(names), *options) == 0
    printed = " ".join(capsys.readouterr().out.split())
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    train, test = (pd.read_csv(levels / f"{split}.csv") for split in ("train", "test"))
    labels, outputs = test[names].to_numpy(), predict(tmp_path / "out", test["sequence"])
    for metric, compute in {
        "pearson": lambda y, x: pearsonr(y, x)[0],
        "spearman": lambda y, x: spearmanr(y, x)[0],
        "r2": r2_score,
        "mse": mean_squared_error,
    }.items():
        by_target = [compute(labels[:, i], outputs[:, i]) for i in range(len(names))]
        assert results["test"]["model"][metric] == pytest.approx(np.mean(by_target), rel=1e-3)
        if len(names) > 1:
            found = [results["test"]["model"][f"{metric}_{name}"] for name in names]
            assert found == pytest.approx(by_target, rel=1e-3)
    assert results["test"]["model"]["r2"] > 0.5 and results["task"] == "regression"
    config = AutoModelForSequenceClassification.from_pretrained(tmp_path / "out").config
    assert (config.problem_type, config.regression_loss) == ("regression", loss)
    assert list(config.id2label.values()) == names
    if loss == "poisson":
        assert (outputs > 0).all()

    mean = results["test"]["mean of train"]
    expected = [
        mean_squared_error(labels[:, i], np.full(len(test), train[name].mean())) for i, name in enumerate(names)
    ]
    assert mean["mse"] == pytest.approx(np.mean(expected)) and mean["pearson"] == 0
    counts = CountVectorizer(analyzer="char", ngram_range=(6, 6)).fit(train["sequence"])
    rows, queries = (counts.transform(table["sequence"]).toarray() for table in (train, test))
    most = np.maximum(rows.max(0), 1)
    ridge = Ridge(alpha=10.0).fit(rows / most, train[names]).predict(queries / most).reshape(labels.shape)
    expected = np.mean([r2_score(labels[:, i], ridge[:, i]) for i in range(len(names))])
    assert results["test"]["6-mer counts, ridge"]["r2"] == pytest.approx(expected, rel=1e-4)
    assert results["test"]["CNN, 3 epochs"]["mse"] < 2 * mean["mse"]  # it knows the units

    assert f"targets {', '.join(names)}" in printed and f"{names[0]} " in printed.partition("Loaded back")[2]
    card = ModelCard.load(tmp_path / "out" / "README.md")
    assert {result.metric_type for result in card.data.eval_results} == set(results["test"]["model"])
    assert ("rates" if loss == "poisson" else "numbers") + " in the units of the data" in card.text


def test_pipelines_return_numbers_in_the_units_of_the_data(levels, untrained, tmp_path):
    out = tmp_path / "out"
    assert finetune(levels, untrained, out, "level", "--num_train_epochs", 6, "--no_baselines") == 0
    found = pipeline("text-classification", str(out), device="cpu")("GCGCGCGGCC" * 4)[0]
    assert found["label"] == "level"
    assert found["score"] == pytest.approx(predict(out, ["GCGCGCGGCC" * 4])[0, 0], rel=1e-6)
    assert 1000 < found["score"] < 1500


@pytest.mark.parametrize("loss", ["mse", "poisson"])
def test_a_trained_regressor_is_trained_further(levels, untrained, tmp_path, loss):
    """Without a step, its outputs stay the same, though it trains on standardised targets."""
    first, second = tmp_path / "first", tmp_path / "second"
    column = "level" if loss == "mse" else "reads"
    common = ["--regression_loss", loss, "--no_baselines"]
    assert finetune(levels, untrained, first, column, *common, "--num_train_epochs", 2) == 0
    assert finetune(levels, first, second, column, *common, "--max_steps", 1, "--learning_rate", 0) == 0
    sequences = pd.read_csv(levels / "test.csv")["sequence"]
    np.testing.assert_allclose(predict(second, sequences), predict(first, sequences), rtol=1e-5)


def test_the_output_layer_of_another_loss_starts_anew(levels, untrained, tmp_path):
    """Exponentials of levels near 1,000 would be infinite."""
    first, second = tmp_path / "first", tmp_path / "second"
    assert finetune(levels, untrained, first, "level", "--no_baselines", "--num_train_epochs", 2) == 0
    options = ["--regression_loss", "poisson", "--no_baselines", "--max_steps", 1, "--learning_rate", 0]
    assert finetune(levels, first, second, "reads", *options) == 0
    results = json.loads((second / "results.json").read_text())
    assert results["start"] == "pretrained; new: output layer"
    mean = pd.read_csv(levels / "train.csv")["reads"].mean()
    assert predict(second, ["ACGTTGCA"] * 2).ravel() == pytest.approx(mean, rel=0.5)


def test_a_regressor_becomes_a_classifier(levels, untrained, tmp_path):
    first, out = tmp_path / "first", tmp_path / "second"
    assert finetune(levels, untrained, first, "reads", "--regression_loss", "poisson", "--max_steps", 1) == 0
    for split in ("train", "dev", "test"):
        table = pd.read_csv(levels / f"{split}.csv").assign(label=lambda table: table.level > 1150)
        table[["sequence", "label"]].to_csv(levels / f"{split}.csv", index=False)
    arguments = ["--dataset", levels, "--model", first, "--output_dir", out, "--max_steps", 1, "--no_baselines"]
    assert main(["finetune", *map(str, arguments)]) == 0
    config = HyenaDNAConfig.from_pretrained(out)
    assert config.problem_type == "single_label_classification"
    assert predict(out, ["ACGT"]).shape == (1, 2)


def test_a_resumed_run_ends_with_the_same_weights(levels, untrained, tmp_path):
    options = [
        "--max_steps",
        6,
        "--save_strategy",
        "steps",
        "--save_steps",
        3,
        "--save_total_limit",
        2,
        "--no_baselines",
    ]
    whole, again = tmp_path / "whole", tmp_path / "again"
    assert finetune(levels, untrained, whole, "level", *options) == 0
    resume = ["--resume_from_checkpoint", whole / "checkpoint-3"]
    assert finetune(levels, untrained, again, "level", *options, *resume) == 0
    expected, resumed = (load_file(folder / "model.safetensors") for folder in (whole, again))
    for name, value in expected.items():
        torch.testing.assert_close(resumed[name], value, rtol=1e-5, atol=1e-6)


def test_other_models_train_on_standardised_targets_too(levels, tmp_path):
    folder, out = tmp_path / "bert", tmp_path / "out"
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    BertConfig(vocab_size=12, max_position_embeddings=64, pad_token_id=4, **sizes).save_pretrained(folder)
    HyenaDNATokenizer(model_max_length=64).save_pretrained(tmp_path / "tokenizer")
    options = ["--tokenizer", tmp_path / "tokenizer", "--max_steps", 2, "--no_baselines"]
    assert finetune(levels, folder, out, "level", *options) == 0
    bert = AutoModelForSequenceClassification.from_pretrained(out)
    assert output_layer(bert, 1).bias.item() == pytest.approx(1150, abs=100)


@given(st.integers(1, 4), st.integers(1, 20), st.integers(0, 100))
def test_folding_a_scale_into_an_output_layer(targets, rows, seed):
    rng = np.random.default_rng(seed)
    numbers = rng.normal(size=(rows, targets)) * rng.uniform(0, 1e3, targets) + rng.normal(size=targets) * 1e3
    scale = TargetScale.of(numbers)
    np.testing.assert_allclose(scale.restore(scale.standardise(numbers)), numbers, rtol=1e-9, atol=1e-9)
    layer, inputs = torch.nn.Linear(3, targets, dtype=torch.float64), torch.randn(5, 3, dtype=torch.float64)
    before = layer(inputs).detach().numpy()
    scale.restore_outputs(layer)
    np.testing.assert_allclose(layer(inputs).detach().numpy(), scale.restore(before), rtol=1e-9)
    scale.standardise_outputs(layer)
    np.testing.assert_allclose(layer(inputs).detach().numpy(), before, rtol=1e-6, atol=1e-9)


def test_metrics_without_variation():
    constant, varied = np.ones((4, 1)), np.arange(4.0)[:, None]
    assert regression_metrics(constant, varied, ["x"])["pearson"] == 0
    found = regression_metrics(varied, constant, ["x"])
    assert all(np.isnan(found[metric]) for metric in REGRESSION_METRICS[:-1]) and found["mse"] == 1.5


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--task", "ranking"], "--task ranking: choose one of classification, regression"),
        (["--task", "classification", "--regression_loss", "mse"], "--regression_loss mse: add --task regression"),
        (["--regression_loss", "huber"], "--regression_loss='huber': it must be one of mse, poisson"),
        (["--regression_loss", "poisson"], "rate has negative values"),
        (["--regression_loss", "poisson", "--model", "gpt"], "a dna-gpt model has no such loss"),
        (["--label_column", "level,sequence"], "row 1: sequence is '"),
        (["--label_column", "level,absent"], "label_column='absent' is not one of its columns"),
        (["--class_weights", "balanced"], "--class_weights balanced: only classes have them"),
        (["--label_smoothing_factor", "0.1"], "--label_smoothing_factor 0.1: only classes have them"),
        (["--label_groups", "deepsea"], "--label_groups deepsea: only classes have them"),
        (["--metric_for_best_model", "mse"], "choose one of loss, pearson, spearman, r2"),
        (["--dataset", "splice_sites_chr20"], "splice_sites_chr20 has classes, not numbers"),
        (["--dataset", "human_nontata_promoters"], "human_nontata_promoters has classes, not numbers"),
    ],
)
def test_bad_input(levels, untrained, tmp_path, capsys, options, message):
    assert finetune(levels, untrained, tmp_path / "out", "level,rate", "--no_baselines", *options) == 2
    (error,) = capsys.readouterr().err.splitlines()
    assert message in error
    assert not (tmp_path / "out").exists()
