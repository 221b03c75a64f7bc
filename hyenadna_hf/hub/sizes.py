"""Published sizes of HyenaDNA, and complete Hub folders for them."""

from pathlib import Path
from typing import Any

import torch
from transformers import GenerationConfig

from ..model.configuration_hyenadna import HyenaDNAConfig
from ..model.modeling_hyenadna import HyenaDNAForCausalLM, HyenaDNAForMaskedLM
from ..model.tokenization_hyenadna import HyenaDNATokenizer
from .card import model_card
from .code import copy_code

# Fields that differ between the releases; all others have the defaults of HyenaDNAConfig.
PUBLISHED_SIZES = {
    "hyenadna-tiny-1k-seqlen": {"n_layer": 2, "d_model": 128, "max_seq_len": 1_026},
    "hyenadna-tiny-1k-seqlen-d256": {"n_layer": 2, "d_model": 256, "max_seq_len": 1_026},
    "hyenadna-tiny-16k-seqlen-d128": {"n_layer": 2, "d_model": 128, "max_seq_len": 16_386},
    "hyenadna-small-32k-seqlen": {"n_layer": 4, "d_model": 256, "max_seq_len": 32_770},
    "hyenadna-medium-160k-seqlen": {"n_layer": 8, "d_model": 256, "max_seq_len": 160_002},
    "hyenadna-medium-450k-seqlen": {"n_layer": 8, "d_model": 256, "max_seq_len": 450_002},
    "hyenadna-large-1m-seqlen": {"n_layer": 8, "d_model": 256, "max_seq_len": 1_000_002},
}
ALIASES = {"hyenadna-1m": "hyenadna-large-1m-seqlen"}
SIZE_NAMES = (*PUBLISHED_SIZES, *ALIASES)


def published_config(name: str, **overrides: Any) -> HyenaDNAConfig:
    """
    Create the configuration of a published size.

    Args:
        name: One of `SIZE_NAMES`, such as `"hyenadna-tiny-1k-seqlen"` or `"hyenadna-1m"`.
        overrides: Fields of [`HyenaDNAConfig`] to set or replace.

    Raises:
        ValueError: If there is no such size.
    """
    size = ALIASES.get(name, name)
    if size not in PUBLISHED_SIZES:
        raise ValueError(f"name={name!r}: the published sizes are {', '.join(SIZE_NAMES)}.")
    return HyenaDNAConfig(**{**PUBLISHED_SIZES[size], **overrides})


def parameter_count(config: HyenaDNAConfig) -> int:
    """Count the parameters of the language model of a configuration."""
    model_class = HyenaDNAForMaskedLM if config.bidirectional else HyenaDNAForCausalLM
    with torch.device("meta"):
        return model_class(config).num_parameters()


def write_size_folder(name: str, folder: str | Path) -> None:
    """
    Write a complete Hub folder of a published size, without weights: configuration, tokenizer, generation
    configuration, model card and code.

    Args:
        name: One of `SIZE_NAMES`.
        folder: Folder to write, created if it does not exist.
    """
    config = published_config(name)
    config.architectures = ["HyenaDNAForCausalLM"]
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    for file in folder.glob("*_hyenadna.py"):  # code of another version, or links
        file.unlink()
    config.save_pretrained(folder)
    GenerationConfig.from_model_config(config).save_pretrained(folder)
    HyenaDNATokenizer(model_max_length=config.max_seq_len).save_pretrained(folder)
    copy_code(folder)
    note = f"{parameter_count(config) / 1e6:.2f} million parameters; this folder contains no weights."
    card = model_card(folder, name, note=note, license="apache-2.0", has_weights=False)
    (folder / "README.md").write_text(card, encoding="utf-8")
