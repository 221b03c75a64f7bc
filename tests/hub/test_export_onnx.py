"""ONNX graphs, run by onnxruntime."""

import importlib.util

import numpy as np
import onnxruntime
import pytest
import torch

import hyenadna_cli
from hyenadna_hf import (
    HyenaDNAConfig,
    HyenaDNAForCausalLM,
    HyenaDNAForMaskedLM,
    HyenaDNAForSequenceClassification,
    HyenaDNAForTokenClassification,
    HyenaDNAModel,
    HyenaDNATokenizer,
)
from hyenadna_hf.errors import InputError
from hyenadna_hf.hub import export_onnx
from hyenadna_hf.hub.card import TASKS
from hyenadna_hf.loading import load_model

# Of the largest value: float32 there and here, with transforms of another library.
TOLERANCE = 1e-4


@pytest.fixture
def config(config):
    """One block: each takes seconds to export. The command exports two."""
    config.n_layer = 1
    return config


def run(path, **inputs):
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (output,) = session.run(None, {name: tensor.numpy() for name, tensor in inputs.items()})
    return torch.from_numpy(output)


@pytest.mark.parametrize("name", TASKS)
def test_a_graph_gives_the_numbers_of_the_model(make_model, config, tmp_path, name):
    """With sequences, masks and a length of transforms (not a power of two) that the graph was not compared on."""
    classes = [
        HyenaDNAForCausalLM,
        HyenaDNAForMaskedLM,
        HyenaDNAForSequenceClassification,
        HyenaDNAForTokenClassification,
        HyenaDNAModel,
    ]
    (model_class,) = [one for one in classes if one.__name__ == name]
    config.bidirectional = name == "HyenaDNAForMaskedLM"
    model = make_model(model_class, config)
    difference = export_onnx.export_onnx(model, tmp_path / "model.onnx", 47, batch_size=2)
    assert difference < TOLERANCE
    ids = torch.randint(7, 12, (2, 47))
    mask = torch.ones_like(ids)
    mask[0, :20], mask[1, 40:] = 0, 0
    with torch.no_grad():
        expected = model.double()(input_ids=ids, attention_mask=mask)[0]
    found = run(tmp_path / "model.onnx", input_ids=ids, attention_mask=mask)
    assert found.dtype == torch.float32 and found.shape == expected.shape
    real = mask.bool() if expected.ndim == 3 else slice(None)
    assert (found - expected)[real].abs().max() < TOLERANCE * expected[real].abs().max()


def test_a_long_graph_of_weights_in_bfloat16(make_model, tmp_path):
    """Long enough that prefixes are convolved by shorter transforms, with weights in bfloat16."""
    config = HyenaDNAConfig(d_model=6, n_layer=1, max_seq_len=1500, filter_order=8)
    model = make_model(HyenaDNAForCausalLM, config).bfloat16()
    path = tmp_path / "model.onnx"
    assert export_onnx.export_onnx(model, path, 1201) < TOLERANCE
    assert model.dtype == torch.bfloat16
    ids = torch.randint(7, 12, (1, 1201))
    with torch.no_grad():
        expected = model.double()(ids)[0]
    found = run(path, input_ids=ids, attention_mask=torch.ones_like(ids))
    assert (found - expected).abs().max() < TOLERANCE * expected.abs().max()


def test_what_differs_from_the_model_is_not_written(make_model, config, tmp_path, monkeypatch):
    model = make_model(HyenaDNAModel, config)
    path = tmp_path / "model.onnx"
    path.write_text("an older one")
    monkeypatch.setattr(export_onnx, "TOLERANCE", 0.0)
    with pytest.raises(InputError, match="differs from the model"):
        export_onnx.export_onnx(model, path, 16)
    assert [file.name for file in tmp_path.iterdir()] == ["model.onnx"]
    assert path.read_text() == "an older one"


@pytest.mark.parametrize("length, batch, words", [(1, 1, "max_length=1:"), (71, 1, "2 to 70"), (16, 0, "batch_size=0")])
def test_numbers_out_of_range(make_model, config, tmp_path, length, batch, words):
    with pytest.raises(InputError, match=words):
        export_onnx.export_onnx(make_model(HyenaDNAModel, config), tmp_path / "model.onnx", length, batch)


def test_missing_packages_are_named_first(make_model, config, tmp_path, monkeypatch):
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "onnxscript" else find_spec(name))
    with pytest.raises(InputError, match=r"onnxscript: missing; pip install 'hyenadna_hf\[onnx\]'"):
        export_onnx.export_onnx(make_model(HyenaDNAModel, config), tmp_path / "model.onnx", 16)


def test_the_command(make_model, config, tmp_path, capsys):
    config.num_labels, config.n_layer = 3, 2
    model = make_model(HyenaDNAForSequenceClassification, config)
    model.save_pretrained(tmp_path / "model")
    tokenizer = HyenaDNATokenizer(model_max_length=config.max_seq_len)
    tokenizer.save_pretrained(tmp_path / "model")
    path = tmp_path / "model.onnx"
    arguments = ["--model", str(tmp_path / "model"), "--out", str(path), "--max_length", "20"]
    assert hyenadna_cli.main(["export-onnx", *arguments]) == 0
    assert "within" in capsys.readouterr().out
    batch = tokenizer(["ACGTTGCA"], padding="max_length", max_length=20, return_tensors="pt")
    with torch.no_grad():
        expected = model(**batch).logits
    np.testing.assert_allclose(run(path, **batch), expected, rtol=0, atol=TOLERANCE * expected.abs().max())


def test_the_command_refuses(make_model, config, tmp_path, capsys):
    """A file without the ending, a folder without a model, a configuration that names no model of ours."""
    model = make_model(HyenaDNAModel, config)
    model.save_pretrained(tmp_path / "model")
    HyenaDNATokenizer().save_pretrained(tmp_path / "model")
    assert hyenadna_cli.main(["export-onnx", str(tmp_path / "model"), "graph.pb", "--length", "20"]) == 2
    assert hyenadna_cli.main(["export-onnx", str(tmp_path / "none"), str(tmp_path / "a.onnx"), "--length", "20"]) == 2
    assert "cannot be loaded" in capsys.readouterr().err
    config.architectures = ["GPT2Model"]
    config.save_pretrained(tmp_path / "model")
    with pytest.raises(InputError, match="GPT2Model"):
        load_model(None, str(tmp_path / "model"))
