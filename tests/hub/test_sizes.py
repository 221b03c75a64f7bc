import json
from pathlib import Path

import pytest
import torch

from hyenadna_hf import HyenaDNAConfig, HyenaDNAForCausalLM, HyenaDNAForMaskedLM
from hyenadna_hf.hub.sizes import (
    ALIASES,
    PUBLISHED_SIZES,
    SIZE_NAMES,
    parameter_count,
    published_config,
    write_size_folder,
)

HUB_CONFIGS = Path(__file__).parents[2] / "hub_configs"
NOT_SIZES = ("_name_or_path", "architectures", "auto_map", "transformers_version", "vocab_size")
MILLIONS = [0.44, 1.6, 0.44, 3.3, 6.6, 6.6, 6.6]


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


def test_an_unknown_size_is_named():
    assert published_config("hyenadna-1m").to_dict() == published_config(ALIASES["hyenadna-1m"]).to_dict()
    with pytest.raises(ValueError, match="name='hyenadna-2m'.*hyenadna-tiny-1k-seqlen"):
        published_config("hyenadna-2m")
