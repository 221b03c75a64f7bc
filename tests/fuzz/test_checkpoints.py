"""Damaged checkpoints are loaded and converted, or refused; nothing else comes out, and nothing of them is run."""

import inspect
import io
import json
import shutil
import zipfile

import pytest
import torch
from fuzz.damage import QUICK, THOROUGH, TOKENS, damage
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM

from hyenadna_hf import HyenaDNAConfig, HyenaDNAForCausalLM, HyenaDNATokenizer
from hyenadna_hf.errors import InputError
from hyenadna_hf.hub.convert import convert
from hyenadna_hf.loading import load_trained

FILES = ["model.safetensors", "config.json", "tokenizer.json", "tokenizer_config.json", "generation_config.json"]
# A configuration may ask for as many layers as it likes; what it says is no matter of parsing.
SMALL_TOKENS = [token for token in TOKENS if len(token) < 8]
VALUES = [None, -1, 0, 1, 2.5, "", "x", True, [], {}, [None], [1], {"a": 1}, [[]], {"0": None}, float("nan")]
OWN_FIELDS = [name for name in inspect.signature(HyenaDNAConfig.__init__).parameters if name not in ("self", "kwargs")]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """A folder with a small language model."""
    folder = tmp_path_factory.mktemp("checkpoint")
    config = HyenaDNAConfig(d_model=4, n_layer=1, d_inner=4, max_seq_len=20, filter_order=4)
    model = HyenaDNAForCausalLM(config)
    model.save_pretrained(folder)
    HyenaDNATokenizer(20).save_pretrained(folder)
    torch.save(model.state_dict(), folder / "pytorch_model.bin")
    return folder


@st.composite
def values(draw, content):
    """A JSON file with a value replaced, which parses."""
    fields = json.loads(content)
    for _ in range(draw(st.integers(1, 3))):
        name = draw(st.sampled_from(sorted(fields)))
        fields[name] = draw(st.sampled_from(VALUES))
    return json.dumps(fields).encode()


@st.composite
def pickles(draw, content):
    """A file of `torch.save` whose pickle is damaged, but not the archive around it."""
    result = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as archive, zipfile.ZipFile(result, "w") as new:
        for name in archive.namelist():
            member = archive.read(name)
            new.writestr(name, draw(damage(member)) if name.endswith("data.pkl") else member)
    return result.getvalue()


def damaged(name, content):
    """Ways to damage the file of a checkpoint."""
    if name.endswith(".json"):
        return damage(content, SMALL_TOKENS) | values(content)
    return damage(content) | pickles(content) if name.endswith(".bin") else damage(content)


def fuzz_loading(name, checkpoint, profile, folder):
    shutil.copytree(checkpoint, folder, dirs_exist_ok=True)

    @profile
    @given(damaged(name, (checkpoint / name).read_bytes()))
    def run(content):
        (folder / name).write_bytes(content)
        try:
            model, _ = load_trained(AutoModelForCausalLM, str(folder))
        except InputError as error:
            assert str(error).startswith(f"--model {folder}: ")
        else:
            assert isinstance(model, HyenaDNAForCausalLM)

    load_trained(AutoModelForCausalLM, str(folder))
    run()


def fuzz_converting(name, checkpoint, profile, folder):
    source = folder / "source"
    source.mkdir()
    weights = name if name.endswith(".bin") else "model.safetensors"
    shutil.copy(checkpoint / weights, source)
    shutil.copy(checkpoint / "config.json", source)

    @profile
    @given(damaged(name, (checkpoint / name).read_bytes()))
    def run(content):
        (source / name).write_bytes(content)
        shutil.rmtree(folder / "made", ignore_errors=True)
        try:
            convert(source, folder / "made")
        except InputError:
            assert [entry.name for entry in folder.iterdir()] == ["source"]
        else:
            HyenaDNAConfig.from_pretrained(folder / "made")

    convert(source, folder / "made")
    run()


@pytest.mark.parametrize("name", FILES)
def test_loading(name, checkpoint, tmp_path):
    fuzz_loading(name, checkpoint, QUICK, tmp_path)


@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin", "config.json"])
def test_converting(name, checkpoint, tmp_path):
    fuzz_converting(name, checkpoint, QUICK, tmp_path)


@settings(max_examples=200)
@given(st.dictionaries(st.sampled_from(OWN_FIELDS), st.sampled_from(VALUES), min_size=1))
def test_own_fields_of_a_configuration(fields):
    try:
        config = HyenaDNAConfig(**fields)
    except ValueError as error:
        assert any(name in str(error) for name in fields)
    else:
        assert config.max_seq_len >= 2 and config.n_layer >= 1


@pytest.mark.slow
@pytest.mark.parametrize("name", FILES)
def test_loading_in_many_ways(name, checkpoint, tmp_path):
    fuzz_loading(name, checkpoint, THOROUGH, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin", "config.json"])
def test_converting_in_many_ways(name, checkpoint, tmp_path):
    fuzz_converting(name, checkpoint, THOROUGH, tmp_path)
