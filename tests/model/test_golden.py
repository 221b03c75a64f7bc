"""The published implementations' own numbers; two float32 implementations differ by about 2e-5 here."""

import json

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from hyenadna_hf import HyenaDNAForCausalLM, HyenaDNAForSequenceClassification
from hyenadna_hf.pretrained import BUNDLED_CHECKPOINTS

NAMES = [
    "hub_classifier_last",
    "hub_o2_L65",
    "hub_o2_full",
    "original_o2_L65",
    "original_o2_full",
    "original_o3_L50",
]


def hub_config(config):
    """A configuration in the original form, under Hub names."""
    if "layer" not in config:
        return config
    layer = config["layer"]
    return {
        **{name: config[name] for name in ("vocab_size", "d_model", "d_inner", "n_layer", "embed_dropout")},
        **{name: layer[name] for name in ("emb_dim", "filter_order", "short_filter_order")},
        "pad_vocab_size_multiple": config["pad_vocab_size_multiple"],
        "resid_dropout": config["resid_dropout"],
        "max_seq_len": layer["l_max"],
        "activation_freq": layer["w"],
        "hyena_order": layer.get("order", 2),
    }


@pytest.fixture(params=NAMES)
def golden(request, fixtures, tmp_path):
    """A folder as it would be published, the class it is for, and the outputs."""
    with safe_open(fixtures / "golden" / f"{request.param}.safetensors", "pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        config = hub_config(json.loads(file.metadata()["config"]))
    outputs = {name.removeprefix("golden."): tensors.pop(name) for name in list(tensors) if name.startswith("golden.")}
    weights = {
        name.replace("model.backbone", "hyena.backbone").replace("model.lm", "lm"): t for name, t in tensors.items()
    }
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    (tmp_path / "config.json").write_text(json.dumps({**config, "model_type": "hyenadna"}))
    model_class = HyenaDNAForSequenceClassification if "classifier" in request.param else HyenaDNAForCausalLM
    return tmp_path, model_class, weights, outputs


def check(model, outputs):
    ids = outputs["input_ids"]
    with torch.no_grad():
        result = model.eval()(ids, labels=outputs.get("labels", ids), output_hidden_states=True)
    torch.testing.assert_close(result.logits, outputs["logits"], rtol=0, atol=5e-5)
    if "loss" in outputs:
        torch.testing.assert_close(result.loss, outputs["loss"], rtol=0, atol=1e-5)
    if "last_hidden_state" in outputs:
        torch.testing.assert_close(result.hidden_states[-1], outputs["last_hidden_state"], rtol=0, atol=5e-5)
    published = [outputs[f"hidden_states.{i}"] for i in range(len(outputs)) if f"hidden_states.{i}" in outputs]
    if published:
        # The published code also returns the last block's output before the final norm.
        del published[-2]
        assert len(result.hidden_states) == len(published) == model.config.n_layer + 1
        for ours, theirs in zip(result.hidden_states, published, strict=True):
            torch.testing.assert_close(ours, theirs, rtol=0, atol=5e-5)


def test_a_published_folder_gives_its_golden_numbers(golden):
    folder, model_class, _, outputs = golden
    model, loading = model_class.from_pretrained(folder, output_loading_info=True)
    assert not any(loading.values())
    assert model.config.vocab_size == len(model.get_input_embeddings().weight) == 16
    check(model, outputs)


def test_load_state_dict_takes_published_names_and_nothing_else(golden):
    folder, model_class, weights, outputs = golden
    model = model_class(model_class.config_class.from_pretrained(folder))
    model.load_state_dict(weights, strict=True)
    check(model, outputs)
    with pytest.raises(RuntimeError, match="surplus"):
        model.load_state_dict({**weights, "surplus": torch.zeros(1)})


def test_a_published_classifier_keeps_its_pooling_and_head(fixtures):
    with safe_open(fixtures / "golden" / "hub_classifier_last.safetensors", "pt") as file:
        config = json.loads(file.metadata()["config"])
    config = HyenaDNAForSequenceClassification.config_class(**config)
    assert (config.classifier_pooling, config.classifier_bias, config.compat_padding) == ("last", False, False)


@pytest.mark.parametrize("compat_padding, expected", [(True, "logits"), (False, "logits_each_row_alone_unpadded")])
def test_a_real_classifier_with_and_without_its_padding(fixtures, compat_padding, expected):
    outputs = load_file(fixtures / "golden" / "remag_0.3.3_outputs.safetensors")
    ids = outputs["golden.input_ids"].long()
    model = HyenaDNAForSequenceClassification.from_pretrained(
        BUNDLED_CHECKPOINTS["hyenadna-tiny-1k-remag"], compat_padding=compat_padding
    ).eval()
    with torch.no_grad():
        logits = model(ids, attention_mask=ids != 4).logits
    torch.testing.assert_close(logits, outputs[f"golden.{expected}"], rtol=0, atol=1e-4)
    assert (outputs["golden.logits"] - outputs["golden.logits_each_row_alone_unpadded"]).abs().max() > 1


@pytest.mark.parametrize("name", ["pos_emb.z", "pos_emb.t", "modulation.deltas", "implicit_filter.3.freq"])
def test_constants_that_are_not_those_of_the_formula_are_an_error(golden, name):
    folder, model_class, weights, _ = golden
    key = f"hyena.backbone.layers.1.mixer.filter_fn.{name}"
    weights[key] = weights[key] + 1e-3
    with pytest.raises(ValueError, match=key):
        model_class(model_class.config_class.from_pretrained(folder)).load_state_dict(weights)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match=key):
        model_class.from_pretrained(folder)
    (folder / "model.safetensors").unlink()
    torch.save(weights, folder / "pytorch_model.bin")
    with pytest.raises(ValueError, match=key):
        model_class.from_pretrained(folder)
