import json
import os
import pickle
import re
import subprocess
import sys
import zipfile
from argparse import Namespace
from pathlib import Path, PurePosixPath

import pytest
import torch
from forked import result_of
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import AutoModel, AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer

from hyenadna_hf import (
    HyenaDNAConfig,
    HyenaDNAForCausalLM,
    HyenaDNAForMaskedLM,
    HyenaDNAForSequenceClassification,
    HyenaDNAForTokenClassification,
    HyenaDNAModel,
)
from hyenadna_hf.cli import main
from hyenadna_hf.errors import InputError
from hyenadna_hf.hub.convert import convert
from hyenadna_hf.hub.sizes import published_config
from hyenadna_hf.hub.unpickle import load_pickled

GOLDEN = Path(__file__).parents[1] / "fixtures" / "golden"
HUB = ["hub_o2_L65", "hub_o2_full", "hub_classifier_last"]
ORIGINAL = ["original_o2_L65", "original_o2_full", "original_o3_L50"]


def read_golden(name):
    """Tensors, configuration and outputs of a golden file."""
    with safe_open(GOLDEN / f"{name}.safetensors", "pt") as file:
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        config = json.loads(file.metadata()["config"])
    outputs = {key.removeprefix("golden."): tensors.pop(key) for key in list(tensors) if key.startswith("golden.")}
    return tensors, config, outputs


def write(folder, tensors, config=None, name="model.safetensors"):
    folder.mkdir(parents=True, exist_ok=True)
    if name.endswith(".safetensors"):
        save_file({key: value.contiguous() for key, value in tensors.items()}, folder / name)
    else:
        torch.save(tensors, folder / name)
    if config is not None:
        (folder / "config.json").write_text(json.dumps(config))
    return folder


def logits(folder, outputs, auto_class=AutoModelForCausalLM):
    model, loading = auto_class.from_pretrained(folder, output_loading_info=True)
    assert not any(loading.values())
    with torch.no_grad():
        return model.eval()(outputs["input_ids"]).logits


def files(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


@pytest.mark.parametrize("name", HUB + ORIGINAL)
def test_golden_files_by_the_command(name, tmp_path, capsys):
    tensors, config, outputs = read_golden(name)
    write(tmp_path / "source", tensors, config)
    assert main(["convert", str(tmp_path / "source"), str(tmp_path / "made")]) == 0
    printed = capsys.readouterr().out
    assert ("Hub" if name in HUB else "Lightning") in printed and "constant, computed" in printed
    auto_class = AutoModelForSequenceClassification if "classifier" in name else AutoModelForCausalLM
    torch.testing.assert_close(logits(tmp_path / "made", outputs, auto_class), outputs["logits"], rtol=0, atol=5e-5)
    assert AutoTokenizer.from_pretrained(tmp_path / "made")("ACGT")["input_ids"] == [7, 8, 9, 10]
    assert {"README.md", "config.json", "generation_config.json", "model.safetensors", "modeling_hyenadna.py"} <= set(
        files(tmp_path / "made")
    )
    stored = load_file(tmp_path / "made" / "model.safetensors")
    assert not any(re.search(r"pos_emb|deltas|implicit_filter\.[35]\.", key) for key in stored)


@pytest.mark.parametrize(
    "layout", ["lightning", "gradient checkpointing", "standalone", "backbone only", "hub, one frequency"]
)
@pytest.mark.parametrize("ending", ["model.safetensors", "weights.ckpt", "pytorch_model.bin"])
def test_every_layout_and_file_gives_the_same_model(layout, ending, tmp_path):
    tensors, config, outputs = read_golden("original_o2_L65")
    head = tensors.pop("model.lm_head.weight")
    if layout == "gradient checkpointing":
        tensors = {re.sub(r"(mixer|mlp)\.", r"\1.layer.", key): value for key, value in tensors.items()}
    if layout in ("standalone", "backbone only"):
        tensors = {key.removeprefix("model."): value for key, value in tensors.items()}
    if layout.startswith("hub"):
        tensors = {key.replace("model.", "hyena.", 1): value for key, value in tensors.items()}
        tensors = {key: value for key, value in tensors.items() if not re.search(r"filter\.[35]\.freq", key)}
    if layout != "backbone only":
        tensors["model.lm_head.weight" if layout in ("lightning", "gradient checkpointing") else "lm_head.weight"] = (
            head
        )
    if ending == "weights.ckpt":
        odd = {"hyper_parameters": Namespace(path=PurePosixPath("x")), "epoch": 3}
        tensors = {"state_dict": {**tensors, "train_torchmetrics.num_tokens": torch.tensor(7)}, **odd}
    write(tmp_path / "source", tensors, config, ending)
    found = convert(tmp_path / "source", tmp_path / "made")
    assert ("gradient checkpointing" in found["layout"]) == (layout == "gradient checkpointing")
    assert ("left out" in found) == (ending == "weights.ckpt")
    if layout == "backbone only":
        with torch.no_grad():
            hidden = AutoModel.from_pretrained(tmp_path / "made").eval()(outputs["input_ids"]).last_hidden_state
        torch.testing.assert_close(hidden, outputs["last_hidden_state"], rtol=0, atol=5e-5)
    else:
        torch.testing.assert_close(logits(tmp_path / "made", outputs), outputs["logits"], rtol=0, atol=5e-5)


def test_sizes_are_read_off_the_tensors_where_there_is_no_configuration(tmp_path):
    tensors, _, outputs = read_golden("original_o3_L50")
    convert(write(tmp_path / "source", tensors), tmp_path / "made")
    torch.testing.assert_close(logits(tmp_path / "made", outputs), outputs["logits"], rtol=0, atol=5e-5)
    bare = {key: value for key, value in tensors.items() if "pos_emb" not in key}
    with pytest.raises(InputError, match=r"provide max_seq_len; pass --config config\.json"):
        convert(write(tmp_path / "bare", bare), tmp_path / "made2")


@pytest.mark.parametrize("model_class", [HyenaDNAForMaskedLM, HyenaDNAForTokenClassification, HyenaDNAModel])
@pytest.mark.parametrize("tied", [False, True])
def test_bidirectional_models_convert_to_ours_only(model_class, tied, tmp_path):
    sizes = {"d_model": 8, "filter_order": 8, "max_seq_len": 30, "tie_word_embeddings": tied}
    model = model_class(HyenaDNAConfig(bidirectional=True, **sizes)).eval()
    model.save_pretrained(tmp_path / "source")
    assert "size" in convert(tmp_path / "source", tmp_path / "made")
    ids = torch.randint(7, 11, (1, 20))
    with torch.no_grad():
        torch.testing.assert_close(model_class.from_pretrained(tmp_path / "made").eval()(ids)[0], model(ids)[0])
    with pytest.raises(InputError, match="the published code has no filters over the future"):
        convert(tmp_path / "source", tmp_path / "published", to="published")
    assert not (tmp_path / "published").exists()


def test_bidirectional_models_of_the_original_code_are_refused(tmp_path):
    tensors, config, _ = read_golden("original_o2_L65")
    config["layer"]["bidirectional"] = True
    with pytest.raises(InputError, match=r"sets layer\.bidirectional"):
        convert(write(tmp_path / "source", tensors, config), tmp_path / "made")


@pytest.mark.parametrize("name", HUB)
def test_the_way_back_to_the_published_layout(name, tmp_path):
    tensors, config, outputs = read_golden(name)
    convert(write(tmp_path / "source", tensors, config), tmp_path / "ours")
    convert(tmp_path / "ours", tmp_path / "published", to="published")
    written = load_file(tmp_path / "published" / "model.safetensors")
    assert written.keys() == tensors.keys()
    for key, value in tensors.items():
        torch.testing.assert_close(written[key], value, rtol=0, atol=1e-6)
    again = json.loads((tmp_path / "published" / "config.json").read_text())
    for field in ("d_model", "d_inner", "max_seq_len", "emb_dim", "n_layer", "filter_order", "activation_freq"):
        assert again[field] == config[field]
    auto_class = AutoModelForSequenceClassification if "classifier" in name else AutoModelForCausalLM
    torch.testing.assert_close(
        logits(tmp_path / "published", outputs, auto_class), outputs["logits"], rtol=0, atol=5e-5
    )


def test_what_the_published_code_cannot_hold_is_refused(make_model, config, tmp_path):
    make_model(HyenaDNAForSequenceClassification, config).save_pretrained(tmp_path / "mean")
    make_model(HyenaDNAForCausalLM, HyenaDNAConfig(d_model=8, max_seq_len=20, hyena_order=3)).save_pretrained(
        tmp_path / "o3"
    )
    for folder, message in (("mean", "classifier_pooling='mean'"), ("o3", "hyena_order=3")):
        with pytest.raises(InputError, match=message):
            convert(tmp_path / folder, tmp_path / "made", to="published")
    assert {name.split("/")[0] for name in files(tmp_path)} == {"mean", "o3"}


def standalone_classifier(tmp_path, name="pytorch_model.bin", pickled=False):
    """The real classifier, in the standalone layout, as a state dict or as a pickled module."""
    from hyenadna_hf.pretrained import BUNDLED_CHECKPOINTS

    weights = load_file(BUNDLED_CHECKPOINTS["hyenadna-tiny-1k-remag"] / "model.safetensors")
    tensors = {k.removeprefix("hyena.").replace("score.", "head.output_transform."): v for k, v in weights.items()}
    if not pickled:
        return write(tmp_path / "source", tensors, published_config("hyenadna-tiny-1k-seqlen").to_dict(), name)
    root = nn.Module()
    for key, value in tensors.items():
        *path, leaf = key.split(".")
        module = root
        for part in path:
            if part not in module._modules:
                module.add_module(part, nn.Module())
            module = module._modules[part]
        module.register_parameter(leaf, nn.Parameter(value))
    (tmp_path / "source").mkdir()
    torch.save(root, tmp_path / "source" / name)
    (tmp_path / "source" / "config.json").write_text(published_config("hyenadna-tiny-1k-seqlen").to_json_string())
    return tmp_path / "source"


@pytest.mark.parametrize("pickled", [False, True])
@pytest.mark.parametrize("compat", [False, True])
def test_a_real_standalone_classifier(tmp_path, pickled, compat):
    source = standalone_classifier(tmp_path, pickled=pickled)
    options = ["--compat-padding"] if compat else []
    assert main(["convert", str(source), str(tmp_path / "made"), "--special-tokens", "cls_sep", *options]) == 0
    outputs = load_file(GOLDEN / "remag_0.3.3_outputs.safetensors")
    ids = outputs["golden.input_ids"].long()
    model = AutoModelForSequenceClassification.from_pretrained(tmp_path / "made").eval()
    with torch.no_grad():
        result = model(ids, attention_mask=ids != 4).logits
    expected = outputs["golden.logits" if compat else "golden.logits_each_row_alone_unpadded"]
    torch.testing.assert_close(result, expected, rtol=0, atol=1e-4)
    assert AutoTokenizer.from_pretrained(tmp_path / "made")("A")["input_ids"] == [0, 7, 1]


def test_trained_positions_are_kept_and_used(tmp_path):
    tensors, config, outputs = read_golden("original_o2_L65")
    for key in tensors:
        if key.endswith("pos_emb.z"):
            tensors[key] = tensors[key] + 0.05 * torch.randn_like(tensors[key])
    found = convert(write(tmp_path / "source", tensors, config), tmp_path / "made")
    assert found["positional features"] == "trained, kept"
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "made").eval()
    assert model.config.trained_positions
    for layer, block in enumerate(model.hyena.backbone.layers):
        z = tensors[f"model.backbone.layers.{layer}.mixer.filter_fn.pos_emb.z"]
        assert torch.equal(block.mixer.filter_fn.pos_emb.z, z) and block.mixer.filter_fn.pos_emb.z.requires_grad
    changed = logits(tmp_path / "made", outputs)
    assert (changed - outputs["logits"]).abs().max() > 1e-2
    # With the formula's values in their place, the parameters give the golden numbers.
    fresh = type(model)(model.config).eval()
    fresh.load_state_dict({k: v for k, v in model.state_dict().items() if "pos_emb" not in k}, strict=False)
    with torch.no_grad():
        torch.testing.assert_close(fresh(outputs["input_ids"]).logits, outputs["logits"], rtol=0, atol=5e-5)
    convert(tmp_path / "made", tmp_path / "published", to="published")
    written = load_file(tmp_path / "published" / "model.safetensors")
    assert torch.equal(
        written["hyena.backbone.layers.0.mixer.filter_fn.pos_emb.z"],
        model.hyena.backbone.layers[0].mixer.filter_fn.pos_emb.z,
    )


@pytest.mark.parametrize("model_class", [HyenaDNAForSequenceClassification, HyenaDNAForTokenClassification])
def test_ours_stay_what_they_are(make_model, model_class, tmp_path):
    config = HyenaDNAConfig(d_model=8, max_seq_len=20, num_labels=3, classifier_pooling="max", classifier_bias=False)
    model = make_model(model_class, config)
    model.save_pretrained(tmp_path / "source")
    convert(tmp_path / "source", tmp_path / "made")
    made = model_class.from_pretrained(tmp_path / "made").eval()
    assert made.config.architectures == [model_class.__name__] and made.config.classifier_pooling == "max"
    ids = torch.randint(7, 11, (2, 9))
    assert torch.equal(made(ids).logits, model(ids).logits)


def test_a_hub_classifier_reads_the_last_position_whatever_its_configuration_says_of_itself(tmp_path):
    tensors, config, outputs = read_golden("hub_classifier_last")
    convert(write(tmp_path / "source", tensors, {**config, "architectures": None}), tmp_path / "made")
    made = logits(tmp_path / "made", outputs, AutoModelForSequenceClassification)
    torch.testing.assert_close(made, outputs["logits"], rtol=0, atol=5e-5)


def test_tied_heads(tmp_path):
    model = HyenaDNAForCausalLM(HyenaDNAConfig(d_model=8, max_seq_len=20, tie_word_embeddings=True))
    model.save_pretrained(tmp_path / "source")
    assert "language model, tied" in convert(tmp_path / "source", tmp_path / "made")["head"]
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "made")
    assert loaded.lm_head.weight is loaded.get_input_embeddings().weight
    assert torch.equal(loaded.lm_head.weight, model.lm_head.weight)


BREAKS = {
    "missing": (lambda t: t.pop("hyena.backbone.ln_f.bias"), "ln_f.bias is missing"),
    "extra": (lambda t: t.update({"hyena.backbone.surplus": torch.ones(1)}), "surplus is not part of this model"),
    "misshapen": (
        lambda t: t.update({"hyena.backbone.ln_f.bias": torch.ones(3)}),
        r"ln_f.bias is \(3,\) and not \(16,\)",
    ),
    "integer": (lambda t: t.update({"hyena.backbone.ln_f.bias": torch.ones(16).long()}), "has dtype torch.int64"),
    "not finite": (lambda t: t.update({"hyena.backbone.ln_f.bias": torch.full((16,), torch.nan)}), "not finite"),
    "deltas": (
        lambda t: t["hyena.backbone.layers.0.mixer.filter_fn.modulation.deltas"].add_(1e-3),
        "modulation.deltas",
    ),
    "frequency": (
        lambda t: t["hyena.backbone.layers.1.mixer.filter_fn.implicit_filter.5.freq"].mul_(2),
        "filter.5.freq",
    ),
    "wider": (
        lambda t: t.update({"hyena.backbone.layers.0.mlp.fc1.weight": torch.ones(65, 16)}),
        "d_inner is 64 .* and 65",
    ),
    "a block far away": (
        lambda t: t.update({"hyena.backbone.layers.999999999.norm1.weight": torch.ones(16)}),
        "layers.2 is missing, although there is layers.999999999",
    ),
    "a filter's layer far away": (
        lambda t: t.update({"hyena.backbone.layers.0.mixer.filter_fn.implicit_filter.99999998.weight": torch.ones(1)}),
        r"implicit_filter\.\d is missing",
    ),
    "twice": (lambda t: t.update({"model.backbone.ln_f.bias": torch.ones(16)}), "ln_f.bias twice"),
}


@pytest.mark.parametrize("damage, message", BREAKS.values(), ids=BREAKS)
def test_damage_is_named_and_leaves_nothing(damage, message, tmp_path, capsys):
    tensors, config, _ = read_golden("hub_o2_L65")
    damage(tensors)
    write(tmp_path / "source", tensors, config)
    assert main(["convert", str(tmp_path / "source"), str(tmp_path / "made")]) == 2
    assert re.search(message, capsys.readouterr().err)
    assert files(tmp_path) == ["source", "source/config.json", "source/model.safetensors"]


def test_all_wrong_tensors_are_listed(tmp_path):
    tensors, config, _ = read_golden("hub_o2_L65")
    tensors["hyena.backbone.a"] = tensors.pop("hyena.backbone.ln_f.bias")
    tensors["hyena.backbone.b"] = tensors.pop("hyena.backbone.layers.1.norm1.weight")
    with pytest.raises(
        InputError, match=r"4 of the tensors.*\.a is not.*\.b is not.*norm1\.weight is missing.*ln_f\.bias is missing"
    ):
        convert(write(tmp_path / "source", tensors, config), tmp_path / "made")


@pytest.mark.parametrize(
    "change", [{"d_model": 24}, {"n_layer": 3}, {"max_seq_len": 65}, {"vocab_size": 17}, {"model_type": "bert"}]
)
def test_a_configuration_that_contradicts_the_weights(change, tmp_path):
    tensors, config, _ = read_golden("hub_o2_L65")
    write(tmp_path / "source", tensors, {**config, **change})
    with pytest.raises(InputError, match=next(iter(change)).replace("model_type", "bert")):
        convert(tmp_path / "source", tmp_path / "made")
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize(
    "change",
    [
        {"dtype": []},
        {"dtype": ""},
        {"id2label": "x"},
        {"architectures": [None]},
        {"pad_token_id": "x"},
        {"architectures": -1, "classifier_pooling": "mean"},
    ],
)
def test_a_configuration_that_transformers_cannot_read_or_save(change, tmp_path):
    tensors, config, _ = read_golden("hub_o2_L65")
    write(tmp_path / "source", tensors, {**config, **change})
    with pytest.raises(InputError, match="the configuration is not valid for HyenaDNA"):
        convert(tmp_path / "source", tmp_path / "made")
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize(
    "tensor, message",
    [(torch.zeros(1).expand(10**12, 4), "claims 4,000,000,000,000 numbers"), (torch.eye(4).to_sparse(), "sparse")],
)
def test_tensors_that_are_more_than_the_file_holds_are_refused(tensor, message, tmp_path):
    tensors, config, _ = read_golden("hub_o2_L65")
    tensors["hyena.backbone.embeddings.word_embeddings.weight"] = tensor
    write(tmp_path / "source", tensors, config, "pytorch_model.bin")
    with pytest.raises(InputError, match=message):
        convert(tmp_path / "source", tmp_path / "made")


class Evil:
    def __init__(self, function, *arguments):
        self.reduced = (function, arguments)

    def __reduce__(self):
        return self.reduced


@pytest.mark.parametrize("wrapped", [False, True])
@pytest.mark.parametrize(
    "function, arguments, named",
    [
        (os.mkdir, ("{}",), "mkdir"),
        (os.system, ("mkdir {}",), "system"),
        (eval, ("__import__('os').mkdir({!r})",), "eval"),
        (subprocess.Popen, ("mkdir {}",), "subprocess.Popen"),
        (torch.hub.load, ("{}", "x"), "torch.hub.load"),
        (getattr, (Evil, "x"), "getattr"),
    ],
)
def test_code_in_a_pickle_is_refused_and_does_not_run(function, arguments, named, wrapped, tmp_path):
    victim = tmp_path / "victim"
    evil = Evil(function, *(a.format(str(victim)) if isinstance(a, str) else a for a in arguments))
    file = tmp_path / "weights.ckpt"
    torch.save({"state_dict": {"a": torch.ones(1)}, "callbacks": evil} if wrapped else evil, file)
    with pytest.raises(InputError, match=f"the pickle is refused: it (names|calls) .*{named}"):
        convert(file, tmp_path / "made")
    assert not victim.exists() and files(tmp_path) == ["weights.ckpt"]


def test_a_file_that_swells_when_read_is_refused(tmp_path):
    for name, members, message in (
        ("pickle.bin", {"x/data.pkl": b"\0" * 100_000_001}, "its pickle is larger"),
        ("storage.bin", {"x/data.pkl": None, "x/data/0": b"\0" * 50_000_000}, "has 50,000,000 bytes instead of 4"),
    ):
        torch.save({"a": torch.ones(1), "b": Evil(PurePosixPath, "x")}, tmp_path / "good.bin")
        with (
            zipfile.ZipFile(tmp_path / "good.bin") as good,
            zipfile.ZipFile(tmp_path / name, "w", zipfile.ZIP_DEFLATED) as bad,
        ):
            for member, content in members.items():
                bad.writestr(member, good.read("good/data.pkl") if content is None else content)
        with pytest.raises(InputError, match=message):
            convert(tmp_path / name, tmp_path / "made")


def test_inert_objects_stay_inert(tmp_path):
    class Nothing(nn.Module):
        pass

    Nothing.__qualname__ = Nothing.__name__ = "Linear"
    Nothing.__module__ = "torch.nn.modules.linear"
    file = tmp_path / "module.pt"
    torch.save(nn.Linear(2, 3), file)
    module, remarks = load_pickled(file)
    assert type(module).__mro__[1].__name__ == "Inert" and not remarks
    assert sorted(module.state["_parameters"]) == ["bias", "weight"]
    with pytest.raises(pickle.UnpicklingError, match="it calls"):
        type(module)()


def test_a_wrong_checksum_of_the_pickle_is_survived_and_of_a_tensor_is_not(tmp_path):
    source = standalone_classifier(tmp_path, pickled=True) / "pytorch_model.bin"
    good = source.read_bytes()
    with zipfile.ZipFile(source) as archive:
        names = {name.split("/", 1)[1]: archive.getinfo(name) for name in archive.namelist()}
    for member, survives in (("data.pkl", True), ("data/0", False)):
        info, damaged = names[member], bytearray(good)
        for signature, start, offset in ((b"PK\x01\x02", 0, 16), (b"PK\x03\x04", 0, 14)):
            position = good.find(signature, start)
            while position >= 0:
                if good[position:].find(info.filename.encode()) in (30, 46):
                    damaged[position + offset : position + offset + 4] = b"\1\2\3\4"
                position = good.find(signature, position + 1)
        source.write_bytes(bytes(damaged))
        if survives:
            assert "wrong checksum" in convert(source, tmp_path / "made")["remark"]
        else:
            with pytest.raises(InputError, match="not a readable PyTorch file"):
                convert(source, tmp_path / "made2")


@settings(max_examples=60)
@given(st.data())
def test_damaged_checkpoints_give_a_clear_error_or_a_whole_folder(tmp_path_factory, data):
    """Drop, rename, reshape or cut tensors, or change bytes of the file."""
    tmp_path = tmp_path_factory.mktemp("fuzz")
    tensors, config, _ = read_golden("hub_o2_full")
    ending = data.draw(st.sampled_from(["model.safetensors", "pytorch_model.bin"]))
    names = sorted(tensors)
    for _ in range(data.draw(st.integers(0, 3))):
        name, kind = data.draw(st.sampled_from(names)), data.draw(st.sampled_from(["drop", "rename", "reshape", "cut"]))
        if name not in tensors:
            continue
        tensor = tensors.pop(name)
        if kind == "rename":
            tensors[data.draw(st.sampled_from(names)) + data.draw(st.sampled_from(["", "x", ".weight"]))] = tensor
        if kind == "reshape":
            tensors[name] = tensor.reshape(-1) if data.draw(st.booleans()) else tensor[None]
        if kind == "cut":
            tensors[name] = tensor[: data.draw(st.integers(0, len(tensor)))]
    write(tmp_path / "source", tensors, config, ending)
    if data.draw(st.booleans()):
        content = bytearray((tmp_path / "source" / ending).read_bytes())
        for _ in range(data.draw(st.integers(0, 4))):
            content[data.draw(st.integers(0, len(content) - 1))] ^= data.draw(st.integers(1, 255))
        (tmp_path / "source" / ending).write_bytes(content[: data.draw(st.integers(0, len(content)))] or content)
    try:
        convert(tmp_path / "source", tmp_path / "made")
    except InputError as error:
        assert "\n" not in str(error) and not (tmp_path / "made").exists()
    else:
        HyenaDNAModel.from_pretrained(tmp_path / "made")
    assert not list(tmp_path.glob(".made*"))


def test_the_destination_must_be_free_and_the_source_there(tmp_path):
    tensors, config, _ = read_golden("hub_o2_L65")
    write(tmp_path / "source", tensors, config)
    with pytest.raises(InputError, match="exists and is not empty"):
        convert(tmp_path / "source", tmp_path / "source")
    with pytest.raises(InputError, match="no such file or folder"):
        convert(tmp_path / "absent", tmp_path / "made")
    (tmp_path / "made").mkdir()
    with pytest.raises(InputError, match="no file with weights"):
        convert(tmp_path / "made", tmp_path / "other")
    convert(tmp_path / "source" / "model.safetensors", tmp_path / "made", config=tmp_path / "source" / "config.json")


@pytest.mark.slow
def test_the_million_base_size_is_small_on_disk_and_in_memory(tmp_path):
    model = HyenaDNAForCausalLM(published_config("hyenadna-large-1m-seqlen"))
    model.save_pretrained(tmp_path / "source")
    convert(tmp_path / "source", tmp_path / "made")
    assert sum(file.stat().st_size for file in (tmp_path / "made").iterdir()) < 30e6
    script = """
import resource, sys, torch, hyenadna_hf
from transformers import AutoModelForCausalLM
AutoModelForCausalLM.from_config(hyenadna_hf.HyenaDNAConfig(d_model=8))
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
AutoModelForCausalLM.from_pretrained(sys.argv[1])
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024)
"""
    assert result_of(script, tmp_path / "made") < 1.3 * 4 * model.num_parameters() + 40e6


@pytest.mark.network
@pytest.mark.parametrize("version, count", [("0.4.5", 2), ("0.6.1", 1)])
def test_pickles_of_later_versions_of_remag(version, count, tmp_path):
    command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", str(tmp_path), f"remag=={version}"]
    subprocess.run(command, check=True, timeout=300)
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        pickles = [name for name in archive.namelist() if "pytorch_model.bin" in name]
        archive.extractall(tmp_path, pickles)
    assert len(pickles) == count
    for i, name in enumerate(pickles):
        found = convert(tmp_path / name, tmp_path / f"made{i}")
        assert found["layout"] == "standalone" and "mean pooling" in found["head"]
        model = AutoModelForSequenceClassification.from_pretrained(tmp_path / f"made{i}").eval()
        assert model(torch.randint(7, 11, (1, 300))).logits.isfinite().all()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (
            "weights.ckpt",
            b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\n",
            "a Git LFS pointer, .*git lfs",
        ),
        ("model.safetensors", b"version https://git-lfs.github.com/spec/v1\n", "a Git LFS pointer, not a checkpoint"),
        ("weights.ckpt", b"\n<!doctype html>\n<title>Login</title>", "a web page or XML, .*download the file itself"),
        ("weights.pt", b"PK\x05\x06" + bytes(18), "not a readable PyTorch file"),
        ("weights.ckpt", b"\x1f\x8b\x08\x00", "the gzip file is damaged"),
    ],
)
def test_files_that_are_no_checkpoints_are_named(name, content, message, tmp_path, capsys):
    (tmp_path / name).write_bytes(content)
    assert main(["convert", str(tmp_path / name), str(tmp_path / "made")]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"hyenadna convert: error: {tmp_path / name}: ") and re.search(message, line)
    assert files(tmp_path) == [name]


def test_a_zip_archive_is_no_checkpoint(tmp_path):
    with zipfile.ZipFile(tmp_path / "weights.ckpt", "w") as archive:
        archive.writestr("weights/model.safetensors", b"x")
    with pytest.raises(InputError, match="a zip archive, not a checkpoint; unpack it"):
        convert(tmp_path / "weights.ckpt", tmp_path / "made")
