"""The weight and configuration layouts of HyenaDNA checkpoints in the wild, and ours."""

import re

import torch
from transformers import GenerationConfig

from ..errors import InputError
from ..model.configuration_hyenadna import HyenaDNAConfig
from ..model.filter_hyenadna import decay_rates, positional_features, published_constants

# (what a name begins with, what it begins with here, what the layout is called); the first that fits counts.
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
# What training code keeps among the weights.
METRICS = re.compile(r"(train|val|test|valid)?_?(torchmetrics|metrics?|criterion|loss)(_\w+)?\.")
CHECKPOINTED = re.compile(r"\.(mixer|mlp)\.layer\.")


def to_hub_names(tensors):
    """
    Rename the tensors of any layout to the names of the Hub layout.

    Args:
        tensors (`dict[str, torch.Tensor]`): By their names in the file.

    Returns:
        `tuple`: tensors by Hub name, the name of the layout, and the names that belong to no model (metrics).

    Raises:
        InputError: if two tensors come to the same name, or none is of HyenaDNA.
    """
    renamed, layouts, ignored = {}, [], []
    for name, tensor in tensors.items():
        if METRICS.match(name):
            ignored.append(name)
            continue
        new = CHECKPOINTED.sub(r".\1.", name)
        for prefix, ours, layout in PREFIXES:
            if new.startswith(prefix):
                new = ours + new.removeprefix(prefix)
                layouts += [layout] if layout else []
                break
        if new in renamed:
            raise InputError(f"the checkpoint holds {new} twice, the second time as {name}.")
        renamed[new] = tensor
    if not layouts:
        raise InputError(
            f"the checkpoint holds no HyenaDNA backbone; its first names are {', '.join(list(tensors)[:3])}."
        )
    layout = layouts[0]
    if any(CHECKPOINTED.search(name) for name in tensors):
        layout += ", saved with gradient checkpointing"
    return renamed, layout, ignored


def to_hub_config(config):
    """A configuration in the original layout (with `layer`), under Hub field names; one in the Hub layout as it is."""
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


def sizes_of(tensors):
    """
    The fields of the configuration that the shapes of a checkpoint's tensors tell.

    Args:
        tensors (`dict[str, torch.Tensor]`): By Hub name.

    Returns:
        `dict[str, int | bool]`; a size whose tensor is missing is not in it.

    Raises:
        InputError: if blocks or layers of a filter are numbered with a gap.
    """
    shapes = {name.removeprefix("hyena.backbone."): tuple(tensor.shape) for name, tensor in tensors.items()}
    layers = {int(match[1]) for name in shapes if (match := re.match(r"layers\.(\d+)\.", name))}
    sizes = {"n_layer": _count("layers", layers)} if layers else {}
    sizes["use_bias"] = any(name.endswith("filter_fn.bias") for name in shapes)
    sizes["bidirectional"] = any("filter_fn_rev." in name for name in shapes)
    sizes["train_freq"] = any(name.endswith("implicit_filter.1.freq") for name in shapes)

    def read(name, dimensions, **fields):
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


def _count(name, numbers, step=1):
    """How many there are of what is numbered from 0; one number far away must not make a model of so many."""
    for number in range(0, max(numbers), step):
        if number not in numbers:
            raise InputError(f"{name}.{number} is missing, though there is {name}.{max(numbers)}.")
    return max(numbers) // step + 1


def merge_config(config, tensors):
    """
    The configuration of a checkpoint from its file and its tensors, which must not contradict each other.

    Args:
        config (`dict`, *optional*): In either layout; without it, what the tensors tell and the defaults.
        tensors (`dict[str, torch.Tensor]`): By Hub name.

    Returns:
        [`HyenaDNAConfig`]

    Raises:
        InputError: if they contradict each other, which lists all fields, or `max_seq_len` is nowhere to be found.
    """
    given, sizes = to_hub_config(config or {}), sizes_of(tensors)
    layer = (config or {}).get("layer")
    if isinstance(layer, dict) and layer.get("bidirectional"):
        raise InputError(
            "the configuration says layer.bidirectional: the original code then convolves with one filter around the "
            "middle of the input, which is another model than bidirectional=True here; it cannot be converted."
        )
    rows = sizes.get("vocab_size")
    if rows is not None:
        # Published configs give the tokens, the weights have the rows.
        multiple = given.get("pad_vocab_size_multiple", 8)
        if not isinstance(multiple, int) or multiple < 1 or rows % multiple:
            given["pad_vocab_size_multiple"] = multiple = 1
        tokens = given.get("vocab_size")
        if isinstance(tokens, int) and 0 < rows - tokens < multiple:
            given["vocab_size"] = rows
    if given.get("model_type", HyenaDNAConfig.model_type) != HyenaDNAConfig.model_type:
        raise InputError(f"the configuration is of a {given['model_type']!r} model and not of HyenaDNA.")
    contradictions = [
        f"{name} is {given[name]} in the configuration and {size} in the weights"
        for name, size in sizes.items()
        if given.get(name, size) != size
    ]
    if contradictions:
        raise InputError(f"configuration and weights contradict each other: {'; '.join(contradictions)}.")
    if "max_seq_len" not in given and "max_seq_len" not in sizes:
        raise InputError("neither a configuration nor the weights tell max_seq_len; give --config config.json.")
    try:
        merged = HyenaDNAConfig(**{**given, **sizes})
        if not all(isinstance(name, str) for name in merged.architectures or ()):
            raise ValueError(f"architectures={merged.architectures!r}: it must be a list of names.")
        merged.to_json_string()  # as it will be saved
        GenerationConfig.from_model_config(merged)
    except Exception as error:  # many kinds, for transformers reads fields of its own
        raise InputError(f"the configuration is of no HyenaDNA: {error}") from error
    return merged


def split_constants(config, tensors):
    """
    Take out what published layouts store and ours computes, having checked each by value.

    Args:
        config ([`HyenaDNAConfig`]): Its `trained_positions` is set if a `z` is not the one of the formula.
        tensors (`dict[str, torch.Tensor]`): By Hub name; constants are removed from it.

    Raises:
        InputError: if a constant other than `z` is not the one of the formula, or the copies of a frequency differ.
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
        raise InputError(f"not the constants of the formula, and no parameters of the model: {'; '.join(wrong)}.")
    config.trained_positions = bool(trained)
    for name in constants:
        if not (trained and name.endswith("pos_emb.z")):
            del tensors[name]


def add_published_constants(config, tensors):
    """The tensors of the published Hub layout: ours by Hub name, and the constants and copies that it stores."""
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
