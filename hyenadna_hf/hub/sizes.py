"""The published sizes of HyenaDNA, and complete Hub folders for them."""

import shutil
from pathlib import Path
from typing import Any

from transformers import GenerationConfig

from ..model import modeling_hyenadna
from ..model.configuration_hyenadna import HyenaDNAConfig
from ..model.tokenization_hyenadna import HyenaDNATokenizer
from .card import model_card

# What differs between the releases; everything else is the default of HyenaDNAConfig.
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
    The configuration of a published size.

    Args:
        name (`str`): One of `SIZE_NAMES`, as `"hyenadna-tiny-1k-seqlen"` or `"hyenadna-1m"`.
        overrides: Fields of [`HyenaDNAConfig`] to set, in place of the published ones or besides.

    Returns:
        [`HyenaDNAConfig`]

    Raises:
        ValueError: if there is no such size.
    """
    size = ALIASES.get(name, name)
    if size not in PUBLISHED_SIZES:
        raise ValueError(f"name={name!r}: the published sizes are {', '.join(SIZE_NAMES)}.")
    return HyenaDNAConfig(**{**PUBLISHED_SIZES[size], **overrides})


def parameter_count(config: HyenaDNAConfig) -> int:
    """Number of parameters of the language model of a configuration, without making it."""
    d, layers, order = config.d_model, config.n_layer, config.hyena_order
    convolved, width = d * (order - 1), config.filter_order
    projections = (d + 1) * (order + 1) * d + (d + 1) * d
    short = (order + 1) * d * (config.short_filter_order + 1)
    filters = (config.emb_dim + 1) * width + config.num_inner_mlps * (width + 1) * width + width * convolved
    filters += width * config.train_freq
    filters = filters * (1 + config.bidirectional) + convolved * config.use_bias
    mlp = (d + 1) * config.d_inner + (config.d_inner + 1) * d
    heads = config.vocab_size * d * (1 if config.tie_word_embeddings else 2)
    return layers * (projections + short + filters + mlp + 4 * d) + heads + 2 * d


def write_size_folder(name: str, folder: str | Path):
    """
    Write a complete Hub folder of a published size, without weights: configuration, tokenizer, generation
    configuration, model card and code.

    Args:
        name (`str`): One of `SIZE_NAMES`.
        folder (`str` or `Path`): Where to write it; made if absent.
    """
    config = published_config(name)
    config.architectures = ["HyenaDNAForCausalLM"]
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    config.save_pretrained(folder)
    GenerationConfig.from_model_config(config).save_pretrained(folder)
    HyenaDNATokenizer(model_max_length=config.max_seq_len).save_pretrained(folder)
    for source in Path(modeling_hyenadna.__file__).parent.glob("*_hyenadna.py"):
        shutil.copyfile(source, folder / source.name)
    note = f"{parameter_count(config) / 1e6:.2f} million parameters; this folder has no weights for them."
    card = model_card(folder, name, note=note, license="apache-2.0", has_weights=False)
    (folder / "README.md").write_text(card, encoding="utf-8")
