import importlib.util
import json
import re
import shutil
from pathlib import Path

import pytest
import torch
from forked import run_script
from safetensors.torch import save_file

from hyenadna_hf import HyenaDNAConfig, HyenaDNAForCausalLM, HyenaDNAForMaskedLM
from hyenadna_hf.hub.layouts import add_published_constants
from hyenadna_hf.hub.sizes import (
    ALIASES,
    PUBLISHED_SIZES,
    SIZE_NAMES,
    parameter_count,
    published_config,
    write_size_folder,
)

HUB_CONFIGS = Path(__file__).parents[2] / "hub_configs"
SCRIPTS = HUB_CONFIGS.parent / "scripts"
NOT_SIZES = ("_name_or_path", "architectures", "auto_map", "transformers_version", "vocab_size")
BLOCKED = "import sys; sys.modules['hyenadna_hf'] = None"
CARD_PROGRAM = """
{blocked}
{snippet}
import torch
with torch.no_grad():
    torch.save(model.eval()(torch.load("ids.pt")).logits, "logits.pt")
print(type(model).__module__, tokenizer("ACGT")["input_ids"])
"""
MILLIONS = [0.44, 1.6, 0.44, 3.3, 6.6, 6.6, 6.6]


def load_script(name):
    spec = importlib.util.spec_from_file_location(name, SCRIPTS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name, millions", list(zip(PUBLISHED_SIZES, MILLIONS, strict=True)))
def test_parameters_of_the_published_sizes(name, millions):
    config = published_config(name)
    with torch.device("meta"):
        counted = HyenaDNAForCausalLM(config).num_parameters()
    assert parameter_count(config) == counted
    assert counted / 1e6 == pytest.approx(millions, rel=0.03)


def test_parameter_count_of_odd_sizes():
    for fields in (
        {"hyena_order": 3, "use_bias": False},
        {"train_freq": False, "num_inner_mlps": 0},
        {"tie_word_embeddings": True, "vocab_size": 30},
    ):
        config = HyenaDNAConfig(d_model=10, **fields)
        assert parameter_count(config) == HyenaDNAForCausalLM(config).num_parameters()
    config = HyenaDNAConfig(d_model=10, hyena_order=3, bidirectional=True)
    assert parameter_count(config) == HyenaDNAForMaskedLM(config).num_parameters()


def test_published_values(shared):
    for folder in (shared / "reference" / "hub_files").iterdir():
        config = published_config(folder.name.removesuffix("-hf")).to_dict()
        for name, value in json.loads((folder / "config.json").read_text()).items():
            if name in config and name not in NOT_SIZES:
                assert config[name] == value, name


@pytest.mark.parametrize("name", SIZE_NAMES)
def test_the_folders_in_the_repository_are_what_the_code_writes(name, tmp_path):
    write_size_folder(name, tmp_path)
    load_script("make_hub_configs").write_card(name, tmp_path)
    committed = HUB_CONFIGS / name
    # transformers 4 writes one file more, which says nothing new.
    assert {file.name for file in tmp_path.iterdir()} - {"special_tokens_map.json"} == {
        file.name for file in committed.iterdir()
    }
    for file in map(tmp_path.joinpath, (file.name for file in committed.iterdir())):
        mine, theirs = file.read_text(), (committed / file.name).read_text()
        if file.suffix == ".json":
            # Versions of the libraries differ in what they add around our own fields.
            mine, theirs = json.loads(mine), json.loads(theirs)
            shared_keys = mine.keys() & theirs.keys() - {"transformers_version", "added_tokens", "version"}
            mine, theirs = ({key: content[key] for key in shared_keys} for content in (mine, theirs))
        assert mine == theirs, file.name


def test_the_card_loads_published_weights(make_model, shared, tmp_path, monkeypatch):
    """Both ways of the card, on files named as the Hub names them."""
    name = "hyenadna-tiny-1k-seqlen"
    original = make_model(HyenaDNAForCausalLM, published_config(name))
    tensors = {key: tensor.clone() for key, tensor in original.state_dict().items()}
    tensors = add_published_constants(original.config, tensors)
    published = tmp_path / "LongSafari" / f"{name}-hf"
    shutil.copytree(shared / "reference" / "hub_files" / f"{name}-hf", published)
    shutil.copytree(HUB_CONFIGS / name, tmp_path / name)
    for folder in (published, tmp_path / name):  # the download
        folder.chmod(0o755)
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    monkeypatch.chdir(tmp_path)
    text = (HUB_CONFIGS / name / "README.md").read_text(encoding="utf-8")
    snippets = re.findall(r"```python\n(.*?)```", text.split("## Use the published weights")[1], flags=re.DOTALL)
    assert len(snippets) == 2
    ids = torch.randint(7, 12, (2, 30))
    torch.save(ids, "ids.pt")
    with torch.no_grad():
        expected = original(ids).logits
    for snippet, package, special in zip(snippets, (True, False), ([1], [])):
        program = CARD_PROGRAM.format(blocked="" if package else BLOCKED, snippet=snippet)
        result = run_script(program)
        assert result.returncode == 0, result.stderr
        module, tokens = result.stdout.splitlines()[-1].split(" ", 1)
        assert module.startswith("hyenadna_hf." if package else "transformers_modules.")
        assert json.loads(tokens) == [7, 8, 9, 10, *special]
        torch.testing.assert_close(torch.load("logits.pt"), expected, rtol=0, atol=1e-5)


def test_an_unknown_size_is_named():
    assert published_config("hyenadna-1m").to_dict() == published_config(ALIASES["hyenadna-1m"]).to_dict()
    with pytest.raises(ValueError, match="name='hyenadna-2m'.*hyenadna-tiny-1k-seqlen"):
        published_config("hyenadna-2m")
