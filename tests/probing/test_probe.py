import json

import numpy as np
import pandas as pd
import pytest
import torch
from forked import run_in_two_processes, run_until_killed
from genomes import write_composition
from models import save_model
from reference import randomise
from transformers import AutoModel, AutoTokenizer, BertConfig, BertForMaskedLM

from hyenadna_cli import main as cli
from hyenadna_hf import HyenaDNAConfig, HyenaDNAModel, HyenaDNATokenizer
from hyenadna_hf.baselines.kmer_tokenizer import kmer_tokenizer
from hyenadna_hf.data.named import load_labelled
from hyenadna_hf.errors import InputError
from hyenadna_hf.probing import probe as command
from hyenadna_hf.probing.classifiers import METRICS, draw_rows, fit_and_evaluate
from hyenadna_hf.probing.embeddings import pooled_states
from hyenadna_hf.probing.probe import main, select

FILES = ["heatmap.png", "scores.csv", "table.md"]
COLUMNS = ["dataset", "model", "layer", "pooling", "classifier", "train_size", "seed"]
COLUMNS += ["parameter", "split", "metric", "value"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A HyenaDNA and a BERT-like model with a head, and sequences of two compositions."""
    folder = tmp_path_factory.mktemp("probe")
    save_model(folder / "hyena")
    tokenizer = kmer_tokenizer(3, model_max_length=20, special_tokens_mode="cls_sep")
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=8,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=8,
        max_position_embeddings=20,
        pad_token_id=tokenizer.pad_token_id,
    )
    randomise(BertForMaskedLM(config)).save_pretrained(folder / "bert")
    tokenizer.save_pretrained(folder / "bert")
    sizes, weights = {"train": 40, "dev": 20, "test": 30}, ((2, 3, 3, 2), (3, 2, 2, 3))
    write_composition(folder / "data", sizes, weights=weights, lengths=(10, 60), columns=("Seq", "kind"))
    return folder


def arguments(folder, out, models=("hyena", "bert"), classifiers=("logistic", "knn"), sizes=("2", "all")):
    words = ["--dataset", folder / "data", "--label_column", "kind", "--sequence_column", "seq", "--out", out]
    words += ["--model", *(folder / name for name in models), "--seeds", "2", "--seed", "7", "--use_cpu"]
    words += ["--classifiers", *classifiers, "--train_sizes", *sizes, "--poolings", "mean", "first"]
    return [str(word) for word in words]


@pytest.fixture(scope="module")
def whole(folder):
    out = folder / "whole"
    return main([*arguments(folder, out), "--metric", "mcc"]), out


def expected_fit(folder, model, tokenizer, layer, pooling, classifier, size, seed):
    """A fit by direct calls."""
    data = load_labelled(folder / "data", "seq", "kind")
    labels = {split: np.array(rows["label"]) for split, rows in data.items()}
    embedded = {
        split: pooled_states(model, tokenizer, rows["sequence"], [layer], [pooling])[:, 0, 0]
        for split, rows in data.items()
    }
    rows = next(draw_rows(labels["train"], 0 if size == "all" else int(size), 1, seed))
    return fit_and_evaluate(classifier, embedded, labels, "mcc", rows, seed)


def test_scores_are_those_of_direct_calls(folder, whole):
    _, out = whole
    assert sorted(path.name for path in out.iterdir()) == FILES
    table = pd.read_csv(out / "scores.csv")
    assert list(table.columns) == COLUMNS and set(table["dataset"]) == {str(folder / "data")}
    torch.manual_seed(7)
    control = HyenaDNAModel(HyenaDNAConfig.from_pretrained(folder / "hyena"))
    pairs = {f"random weights ({folder / 'hyena'})": (control, HyenaDNATokenizer(model_max_length=40))}
    for name in ("hyena", "bert"):
        source = str(folder / name)
        pairs[source] = AutoModel.from_pretrained(source), AutoTokenizer.from_pretrained(source)
    keys = ["model", "layer", "pooling", "classifier", "train_size", "seed"]
    cells = table.groupby(keys, sort=False)
    # Layers: 3 of HyenaDNA, 2 of BERT, each also of a control; two draws of 2 sequences a class, one of all.
    assert len(cells) == 2 * (3 + 2) * 2 * 2 * 3
    for number, (key, rows) in enumerate(cells):
        name, layer, pooling, classifier, size, seed = key
        assert seed in ((7,) if size == "all" else (7, 8))
        if name not in pairs or number % 5:
            continue
        fit = expected_fit(folder, *pairs[name], layer, pooling, classifier, size, seed)
        assert set(rows["parameter"]) == {fit.parameter} and len(rows) == 2 * len(METRICS)
        for row in rows.itertuples():
            assert row.value == pytest.approx(fit.metrics[row.split][row.metric], abs=1e-6)


def test_layer_and_pooling_are_chosen_on_validation(folder, whole):
    result, out = whole
    table = pd.read_csv(out / "scores.csv", dtype={"train_size": str})
    assert result["metric"] == "mcc" and result["sequences"] == {"train": 40, "validation": 20, "test": 30}
    assert len(result["selected"]) == 4 * 2 * 2
    for row in result["selected"]:
        chosen = table[
            (
                table[["model", "classifier", "train_size"]] == [row[k] for k in ("model", "classifier", "train_size")]
            ).all(axis=1)
        ]
        validation = chosen[(chosen["split"] == "validation") & (chosen["metric"] == "mcc")]
        means = {place: group["value"].mean() for place, group in validation.groupby(["layer", "pooling"])}
        assert row["validation"] == pytest.approx(max(means.values()))
        assert means[row["layer"], row["pooling"]] == pytest.approx(row["validation"])
        test = chosen[(chosen["split"] == "test") & (chosen["layer"] == row["layer"])]
        test = test[(test["pooling"] == row["pooling"]) & (test["metric"] == "auroc")]["value"]
        assert row["auroc"] == pytest.approx(test.mean()) and row["seeds"] == len(test)
        if row["seeds"] > 1:
            assert row["auroc_sd"] == pytest.approx(test.std())
    changed = table.assign(value=table["value"].where(table["split"] == "validation", 1 - table["value"]))
    places = [[(row["layer"], row["pooling"]) for row in select(rows, "mcc")] for rows in (table, changed)]
    assert places[0] == places[1]


def test_the_control_differs_and_may_be_left_out(folder, whole, tmp_path):
    result, _ = whole
    names = list(dict.fromkeys(row["model"] for row in result["selected"]))
    sources = [str(folder / name) for name in ("hyena", "bert")]
    assert names == [*sources, *(f"random weights ({source})" for source in sources)]
    table = pd.read_csv(whole[1] / "scores.csv")
    model, control = (table[table["model"] == name]["value"].to_numpy() for name in (names[0], names[2]))
    assert (model != control).mean() > 0.5
    words = arguments(folder, tmp_path / "out", ("hyena",), ("ridge",), ("all",))
    result = main([*words, "--no_control", "--layers", "-1", "--limit", "16"])
    (row,) = result["selected"]
    assert (row["model"], row["classifier"], row["layer"]) == (sources[0], "ridge", 2)
    assert result["sequences"] == dict.fromkeys(("train", "validation", "test"), 16)
    assert result["metric"] == "accuracy" and np.isnan(row["auroc_sd"])


def test_files(folder, whole):
    result, out = whole
    text = (out / "table.md").read_text()
    row = next(row for row in result["selected"] if row["train_size"] == "2")
    assert f"{row['auroc']:.3f} ± {row['auroc_sd']:.3f}" in text and "hyenadna probe --dataset" in text
    assert "## 2 training sequences per class" in text and "## All training sequences" in text
    assert result["truncated"][str(folder / "hyena")] > 10  # of 10 to 60 bases, 40 are read
    assert f"{result['truncated'][str(folder / 'hyena')]:,} sequences are longer than the model reads" in text
    assert (out / "heatmap.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"


def test_json_and_a_forest(folder, tmp_path, capfd):
    words = arguments(folder, tmp_path / "out", ("bert",), ("forest",), ("all",))
    assert cli(["probe", *words, "--no_control", "--layers", "1", "--json"]) == 0
    found = json.loads(capfd.readouterr().out)
    assert found.keys() == {"dataset", "metric", "sequences", "truncated", "selected"}
    assert found["selected"][0]["auroc_sd"] is None and 0 <= found["selected"][0]["auroc"] <= 1


SMALL_PARTS = {"probing.probe.PART_BASES": 800}


@pytest.mark.slow
def test_after_kills_the_result_is_that_of_a_whole_run(folder, tmp_path, monkeypatch):
    """One while it embeds, one while it fits; finished parts are not made again."""
    monkeypatch.setattr(command, "PART_BASES", 800)
    options = ("hyena",), ("knn",), ("2", "all")
    expected = main([*arguments(folder, tmp_path / "whole", *options), "--metric", "mcc"])
    words = [*arguments(folder, tmp_path / "out", *options), "--metric", "mcc"]
    partial = tmp_path / "out" / "scores.csv.partial"
    for name, call, finished in (("save_array", 4, 3), ("fit_and_evaluate", 10, None)):
        run_until_killed("probing.probe", words, f"probing.probe.{name}", call, SMALL_PARTS)
        parts = {path: path.stat().st_mtime_ns for path in partial.glob("[0-9]" * 6)}
        assert finished is None or len(parts) == finished
    arrays = [path for path in parts if path.read_bytes()[:6] == b"\x93NUMPY"]
    assert len(arrays) >= 8 and len(parts) == len(arrays) + 9
    with pytest.raises(InputError, match="an unfinished run that differs in poolings;"):
        main([*words, "--poolings", "max"])
    made = []
    monkeypatch.setattr(
        command, "write_text", lambda path, text, write=command.write_text: (made.append(path), write(path, text))
    )
    monkeypatch.setattr(command, "save_array", lambda *args: pytest.fail("the embeddings were there"))
    monkeypatch.setattr(command, "tokenize", lambda *args: pytest.fail("the sequences were tokenized"))
    found = main(words)
    assert not set(made) & parts.keys()
    assert json.dumps(found, sort_keys=True) == json.dumps(expected, sort_keys=True)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == FILES


def test_two_processes(folder, whole, tmp_path):
    words = [*arguments(folder, tmp_path / "out"), "--metric", "mcc"]
    result = run_in_two_processes("probing.probe", words, SMALL_PARTS)
    assert result.stdout.count("layer and pooling by mcc") == 1
    found, expected = (pd.read_csv(path / "scores.csv") for path in (tmp_path / "out", whole[1]))
    pd.testing.assert_frame_equal(found, expected, atol=1e-5)
    found, expected = ((path / "table.md").read_text().splitlines() for path in (tmp_path / "out", whole[1]))
    counts = [[line for line in lines if "longer than the model reads" in line] for lines in (found, expected)]
    assert counts[0] == counts[1] and len(counts[0]) == 2


@pytest.mark.parametrize(
    "options, message",
    [
        (["--dataset", "absent.csv"], "absent.csv: there is no such file or folder"),
        (["--model", "hyenadna-tiny-1k-seqlen"], "--model hyenadna-tiny-1k-seqlen: it has no weights; train it first"),
        (["--layers", "0", "3"], "--layers: 3 does not exist; the model has the layers 0 to 2, or -1 to -3."),
        (["--layers", "1", "1"], "--layers 1: it is given twice; name it once."),
        (["--poolings", "sum"], "--poolings sum: choose one of mean, max, first, last."),
        (["--classifiers", "svm"], "--classifiers svm: choose one of logistic, ridge, forest, knn."),
        (["--train_sizes", "2", "many"], "--train_sizes many: give numbers of sequences per class, or all."),
        (["--train_sizes", "0"], "--train_sizes 0: give numbers of sequences per class, or all."),
        (["--train_sizes", "21"], "--train_sizes 21: the smallest class has 20 training sequences."),
        (["--metric", "loss"], "--metric loss: choose one of accuracy, mcc, f1, f1_weighted, auroc."),
        (["--seeds", "0"], "--seeds 0: give at least 1."),
        (["--limit", "1"], "--limit 1: too few for train of"),
        (["--max_tokens", "0"], "--max_tokens 0: give at least 1."),
        (["--dtype", "float8"], "--dtype float8: choose one of"),
        (["--label_column", "colour"], "label_column='colour' is not one of its columns"),
    ],
)
def test_bad_input_leaves_nothing(folder, tmp_path, monkeypatch, options, message):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError) as error:
        main([*arguments(folder, tmp_path / "out", ("hyena",)), *options])
    assert message in str(error.value) and "\n" not in str(error.value)
    assert not list(tmp_path.iterdir())


def test_a_published_name_has_its_metric(folder, tmp_path, monkeypatch):
    """The path of the revised Nucleotide Transformer tasks, from a Hub of this machine, is in test_benchmarks.py."""
    read = []
    monkeypatch.setattr(
        command,
        "load_labelled",
        lambda name, *args, **options: (read.append(name), load_labelled(folder / "data", *args))[1],
    )
    words = arguments(folder, tmp_path / "out", ("hyena",), ("ridge",), ("all",))
    words[words.index("--dataset") + 1] = "H3K4me3_revised"
    assert main([*words, "--no_control", "--layers", "0"])["metric"] == "mcc" and read == ["H3K4me3_revised"]
