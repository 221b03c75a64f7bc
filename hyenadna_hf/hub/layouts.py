"""Weight and configuration layouts of published HyenaDNA checkpoints, and ours."""

import re
from collections.abc import Mapping
from typing import Any

import torch
from transformers import GenerationConfig

from ..errors import InputError
from ..model.configuration_hyenadna import HyenaDNAConfig
from ..model.filter_hyenadna import decay_rates, positional_features, published_constants

Tensors = dict[str, torch.Tensor]

# Prefix in the checkpoint, prefix in the Hub layout, and name of the layout. The first match counts.
PREFIXES = (
    ("hyena.backbone.", "hyena.backbone.", "Hub"),
    ("model.backbone.", "hyena.backbone.", "Lightning"),
    ("backbone.", "hyena.backbone.", "standalone"),
    ("lm_head.", "lm_head.", None),
    ("model.lm_head.", "lm_head.", None),
    ("score.", "score.", None),
    ("head.output_transform.", "score.", None),
    ("decoder.0.output_transform.", "score.", None),
    ("decoder.output_transform.", "score.", None),
)
# Entries that training code stores among the weights.
METRICS = re.compile(r"(train|val|test|valid)?_?(torchmetrics|metrics?|criterion|loss)(_\w+)?\.")
CHECKPOINTED = re.compile(r"\.(mixer|mlp)\.layer\.")


def to_hub_names(tensors: Mapping[str, torch.Tensor]) -> tuple[Tensors, str, list[str]]:
    """
    Rename the tensors of any layout to the names of the Hub layout.

    Args:
        tensors: Tensors by their names in the file.

    Returns:
        Tensors by Hub name, the name of the layout, and the names that belong to no model (metrics).

    Raises:
        InputError: If two tensors get the same name, or none belongs to HyenaDNA.
    """
    renamed: Tensors = {}
    layouts: list[str] = []
    ignored: list[str] = []
    for name, tensor in tensors.items():
        if METRICS.match(name):
            ignored.append(name)
            continue
        new = CHECKPOINTED.sub(r".\1.", name)
        for prefix, hub_prefix, layout in PREFIXES:
            if new.startswith(prefix):
                new = hub_prefix + new.removeprefix(prefix)
                layouts += [layout] if layout else []
                break
        if new in renamed:
            raise InputError(f"the checkpoint contains {new} twice, the second time as {name}.")
        renamed[new] = tensor
    if not layouts:
        raise InputError(
            f"the checkpoint contains no HyenaDNA backbone; its first names are {', '.join(list(tensors)[:3])}."
        )
    name = layouts[0]
    if any(CHECKPOINTED.search(tensor_name) for tensor_name in tensors):
        name += ", saved with gradient checkpointing"
    return renamed, name, ignored


def to_hub_config(config: dict[str, Any]) -> dict[str, Any]:
    """Convert a configuration from the original layout (with `layer`) to the Hub layout; return others as they are."""
    if not isinstance(config.get("layer"), dict):
        return dict(config)
    layer = config["layer"]
    fields = {
        "vocab_size": config.get("vocab_size"),
        "d_model": config.get("d_model"),
        "d_inner": config.get("d_inner"),
        "n_layer": config.get("n_layer"),
        "embed_dropout": config.get("embed_dropout"),
        "resid_dropout": config.get("resid_dropout"),
        "pad_vocab_size_multiple": config.get("pad_vocab_size_multiple"),
        "max_seq_len": layer.get("l_max"),
        "emb_dim": layer.get("emb_dim"),
        "filter_order": layer.get("filter_order"),
        "short_filter_order": layer.get("short_filter_order", layer.get("local_order")),
        "activation_freq": layer.get("w"),
        "hyena_order": layer.get("order", 2),
        "num_inner_mlps": layer.get("num_inner_mlps"),
    }
    return {name: value for name, value in fields.items() if value is not None}


def infer_sizes(tensors: Mapping[str, torch.Tensor]) -> dict[str, int]:
    """
    Infer fields of the configuration from the shapes of the tensors of a checkpoint.

    Args:
        tensors: Tensors by Hub name.

    Returns:
        Values by field; fields whose tensor is missing are left out.

    Raises:
        InputError: If the numbers of blocks, or of layers of a filter, have a gap.
    """
    shapes = {name.removeprefix("hyena.backbone."): tuple(tensor.shape) for name, tensor in tensors.items()}
    layers = {int(match[1]) for name in shapes if (match := re.match(r"layers\.(\d+)\.", name))}
    sizes: dict[str, int] = {"n_layer": _count("layers", layers)} if layers else {}
    sizes["use_bias"] = any(name.endswith("filter_fn.bias") for name in shapes)
    sizes["bidirectional"] = any("filter_fn_rev." in name for name in shapes)
    sizes["train_freq"] = any(name.endswith("implicit_filter.1.freq") for name in shapes)

    def read(name: str, dimensions: int, **fields: int) -> None:
        shape = shapes.get(name, ())
        if len(shape) == dimensions:
            sizes.update({field: shape[axis] for field, axis in fields.items()})

    filter_fn = "layers.0.mixer.filter_fn"
    read("embeddings.word_embeddings.weight", 2, vocab_size=0, d_model=1)
    read("layers.0.mlp.fc1.weight", 2, d_inner=0)
    read("layers.0.mixer.short_filter.weight", 3, short_filter_order=2)
    read(f"{filter_fn}.implicit_filter.0.weight", 2, filter_order=0, emb_dim=1)
    read(f"{filter_fn}.pos_emb.z", 3, max_seq_len=1)
    inputs = shapes.get("layers.0.mixer.in_proj.weight", ())
    if len(inputs) == 2 and inputs[1]:
        sizes["hyena_order"] = inputs[0] // inputs[1] - 1
    linear = {int(m[1]) for n in shapes if (m := re.match(rf"{filter_fn}\.implicit_filter\.(\d+)\.weight", n))}
    if linear:
        sizes["num_inner_mlps"] = _count(f"{filter_fn}.implicit_filter", linear, step=2) - 2
    return sizes


def _count(name: str, numbers: set[int], step: int = 1) -> int:
    """Count items numbered from 0 without gaps, so that a single large number does not create a huge model."""
    for number in range(0, max(numbers), step):
        if number not in numbers:
            raise InputError(f"{name}.{number} is missing, although there is {name}.{max(numbers)}.")
    return max(numbers) // step + 1


def merge_config(config: dict[str, Any] | None, tensors: Mapping[str, torch.Tensor]) -> HyenaDNAConfig:
    """
    Create the configuration of a checkpoint from its file and its tensors, which must not contradict each other.

    Args:
        config: Configuration in either layout. Without it, fields are inferred from the tensors or have defaults.
        tensors: Tensors by Hub name.

    Raises:
        InputError: If they contradict each other (the message lists all fields), or neither provides `max_seq_len`.
    """
    fields, sizes = to_hub_config(config or {}), infer_sizes(tensors)
    layer = (config or {}).get("layer")
    if isinstance(layer, dict) and layer.get("bidirectional"):
        raise InputError(
            "the configuration sets layer.bidirectional: the original code then convolves with one filter around the "
            "middle of the input, which is not the model of bidirectional=True here; it cannot be converted."
        )
    rows = sizes.get("vocab_size")
    if rows is not None:
        # Published configs give the number of tokens, the weights that of rows.
        multiple = fields.get("pad_vocab_size_multiple", 8)
        if not isinstance(multiple, int) or multiple < 1 or rows % multiple:
            fields["pad_vocab_size_multiple"] = multiple = 1
        tokens = fields.get("vocab_size")
        if isinstance(tokens, int) and 0 < rows - tokens < multiple:
            fields["vocab_size"] = rows
    if fields.get("model_type", HyenaDNAConfig.model_type) != HyenaDNAConfig.model_type:
        raise InputError(f"the configuration belongs to a {fields['model_type']!r} model, not to HyenaDNA.")
    contradictions = [
        f"{name} is {fields[name]} in the configuration and {size} in the weights"
        for name, size in sizes.items()
        if fields.get(name, size) != size
    ]
    if contradictions:
        raise InputError(f"configuration and weights contradict each other: {'; '.join(contradictions)}.")
    if "max_seq_len" not in fields and "max_seq_len" not in sizes:
        raise InputError("neither a configuration nor the weights provide max_seq_len; pass --config config.json.")
    try:
        merged = HyenaDNAConfig(**{**fields, **sizes})
        if not all(isinstance(name, str) for name in merged.architectures or ()):
            raise ValueError(f"architectures={merged.architectures!r}: it must be a list of names.")
        merged.to_json_string()  # raises now rather than when it is saved
        GenerationConfig.from_model_config(merged)
    except Exception as error:  # of many types, since transformers reads some fields
        raise InputError(f"the configuration is not valid for HyenaDNA: {error}") from error
    return merged


def split_constants(config: HyenaDNAConfig, tensors: Tensors) -> None:
    """
    Remove tensors that published layouts store and ours computes, after checking their values.

    Args:
        config: Configuration; its `trained_positions` is set if a `z` differs from the formula.
        tensors: Tensors by Hub name, from which constants are removed.

    Raises:
        InputError: If a constant other than `z` differs from the formula, or copies of a frequency differ.
    """
    constants = published_constants(config, tensors, tensors.get)
    trained, wrong = set(), []
    for name, difference in constants.items():
        if difference is None:
            continue
        if name.endswith("pos_emb.z") and tensors[name].shape == (1, config.max_seq_len, config.emb_dim):
            trained.add(name)
        else:
            wrong.append(f"{name} {difference}")
    if wrong:
        raise InputError(f"neither the constants of the formula nor parameters of the model: {'; '.join(wrong)}.")
    config.trained_positions = bool(trained)
    for name in constants:
        if not (trained and name.endswith("pos_emb.z")):
            del tensors[name]


def add_published_constants(config: HyenaDNAConfig, tensors: Tensors) -> Tensors:
    """Add the constants and copies that the published Hub layout stores to our tensors, by Hub name."""
    cpu = torch.device("cpu")
    t, z = positional_features(torch.arange(config.max_seq_len), config, torch.float32)
    published = dict(tensors)
    for layer in range(config.n_layer):
        filter_fn = f"hyena.backbone.layers.{layer}.mixer.filter_fn"
        published[f"{filter_fn}.pos_emb.t"] = t[None].clone()
        published.setdefault(f"{filter_fn}.pos_emb.z", z[None].clone())
        published[f"{filter_fn}.modulation.deltas"] = -decay_rates(config, cpu, torch.float32).view(1, 1, -1)
        if config.train_freq:
            for i in range(1, config.num_inner_mlps + 1):
                published[f"{filter_fn}.implicit_filter.{2 * i + 1}.freq"] = published[
                    f"{filter_fn}.implicit_filter.1.freq"
                ].clone()
    return published
