"""`hyenadna convert`: convert any HyenaDNA checkpoint to a Hub folder, and back to the published layout."""

import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from transformers import GenerationConfig

from ..arguments import CommandParser
from ..data.source import refuse_foreign
from ..errors import InputError
from ..jobs import errors_naming, sha256
from ..model.configuration_hyenadna import CLASSIFIER_POOLINGS, HyenaDNAConfig
from ..model.modeling_hyenadna import (
    HyenaDNAForCausalLM,
    HyenaDNAForMaskedLM,
    HyenaDNAForSequenceClassification,
    HyenaDNAForTokenClassification,
    HyenaDNALanguageModel,
    HyenaDNAModel,
)
from ..model.tokenization_hyenadna import SPECIAL_TOKENS_MODES, HyenaDNATokenizer
from .card import model_card
from .layouts import add_published_constants, merge_config, split_constants, to_hub_names
from .unpickle import load_pickled, module_tensors

WEIGHT_NAMES = ("model.safetensors", "pytorch_model.bin", "weights.ckpt")
WEIGHT_ENDINGS = (".safetensors", ".bin", ".ckpt", ".pt", ".pth")
LAYOUTS = ("transformers", "published")
# Fields of the published configuration class.
PUBLISHED_FIELDS = (
    *("vocab_size", "d_model", "d_inner", "use_bias", "train_freq", "max_seq_len", "emb_dim", "n_layer"),
    *("num_inner_mlps", "hyena_order", "short_filter_order", "filter_order", "activation_freq", "embed_dropout"),
    *("hyena_dropout", "layer_norm_epsilon", "initializer_range", "pad_vocab_size_multiple", "pad_token_id"),
    *("model_type", "architectures", "id2label", "label2id", "problem_type", "tie_word_embeddings"),
)


@dataclass
class ConvertArguments:
    """Options of `hyenadna convert`."""

    config: str | None = field(
        default=None,
        metadata={
            "help": "A config.json in the original or Hub layout (default: the one next to the weights, if any)."
        },
    )
    to: str = field(default="transformers", metadata={"choices": LAYOUTS, "help": "Layout to write."})
    classifier_pooling: str | None = field(
        default=None,
        metadata={
            "formerly": ["pooling"],
            "choices": CLASSIFIER_POOLINGS,
            "help": "How a classifier pools hidden states (default: as published).",
        },
    )
    compat_padding: bool = field(
        default=False, metadata={"help": "Let a classifier read padding as tokens, as in its training."}
    )
    special_tokens_mode: str = field(
        default="none",
        metadata={
            "formerly": ["special_tokens"],
            "choices": tuple(SPECIAL_TOKENS_MODES),
            "help": "Special tokens that the tokenizer adds.",
        },
    )


def parser() -> CommandParser:
    """Create the parser of `hyenadna convert`."""
    parser = CommandParser(
        "convert",
        ConvertArguments,
        "Convert a HyenaDNA checkpoint in any published layout to a complete Hub folder.",
        "SOURCE DESTINATION [ARGUMENT ...]",
        [
            "weights.ckpt my-hyenadna --config config.json",
            "my-hyenadna for-old-code --to published",
        ],
    )
    parser.add_argument(
        "source",
        help="Folder or file (.safetensors, .bin, .ckpt, .pt) in the Lightning, standalone, Hub or our layout.",
    )
    parser.add_argument("destination", help="Folder to create; it must not exist or be empty.")
    return parser


def main(argv: list[str]) -> dict[str, Any]:
    """Run `hyenadna convert` with the arguments `argv`."""
    args, paths = parser().parse(argv)
    summary = convert(paths.source, paths.destination, **vars(args))
    title = f"{escape(paths.source)} -> {escape(paths.destination)}"
    table = Table(title=title, title_justify="left", show_header=False)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for key, value in summary.items():
        table.add_row(key, escape(str(value)))
    Console().print(table)
    return {"destination": paths.destination, **summary}


def convert(
    source: str | Path,
    destination: str | Path,
    config: str | Path | None = None,
    to: str = "transformers",
    classifier_pooling: str | None = None,
    compat_padding: bool = False,
    special_tokens_mode: str = "none",
) -> dict[str, object]:
    """
    Convert a checkpoint. Every tensor is checked against the configuration; on any error, nothing is written.

    Args:
        source: Folder or file in any layout: Lightning (with or without gradient checkpointing), standalone (backbone
            alone, or with a classification head), Hub, ours, or a pickled standalone module.
        destination: Folder to create.
        config: A config.json in the original or the Hub layout. Defaults to the one next to the weights or in their
            metadata; without any, sizes are inferred from the tensors.
        to: Layout to write: `"transformers"`, or `"published"` for weights that the published Hub code loads.
        classifier_pooling: Pooling of a classifier. Defaults to that of the published code of its layout: the last
            position for the Hub layout, the mean for the standalone one.
        compat_padding: Value of this field in the configuration of a classifier.
        special_tokens_mode: Special tokens that the tokenizer adds.

    Returns:
        A summary of the checkpoint, in words.

    Raises:
        InputError: If the source cannot be read, is damaged, unsafe or inconsistent.
    """
    source, destination = Path(source), Path(destination)
    if destination.is_file() or (destination.is_dir() and any(destination.iterdir())):
        raise InputError(f"{destination}: it exists and is not empty; name another folder.")
    file = _weights_file(source)
    refuse_foreign(file, "a checkpoint")
    try:
        raw, stored_config, remarks = read_tensors(file)
        tensors, layout, ignored = to_hub_names(raw)
        given_config = _read_config(config, file, stored_config) or {}
        hub_config = merge_config(given_config, tensors)
        split_constants(hub_config, tensors)
        # Our configs state the pooling; published code pools the last position in the Hub layout, the mean in others.
        default_pooling = given_config.get("classifier_pooling") or ("last" if layout.startswith("Hub") else "mean")
        model_class = _prepare_head(hub_config, tensors, classifier_pooling, default_pooling, compat_padding)
        model = _create_model(model_class, hub_config, tensors)
        if to == "published":
            _check_supported_by_published(model)
    except InputError as error:
        raise InputError(str(error) if str(error).startswith(str(file)) else f"{file}: {error}") from error
    summary: dict[str, object] = {
        "layout": layout,
        "size": f"{hub_config.n_layer} layers, d_model {hub_config.d_model}, hyena_order {hub_config.hyena_order}, "
        f"max_seq_len {hub_config.max_seq_len:,}",
        "tensors": f"{len(raw):,} in the file, {len(tensors):,} parameters ({model.num_parameters():,} numbers)",
        "sha256": sha256(file),
        "positional features": "trained, kept" if hub_config.trained_positions else "constant, computed on the fly",
        "head": _describe_head(model, tensors),
    }
    if ignored:
        summary["left out"] = f"{len(ignored)} entries of metrics"
    if remarks:
        summary["remark"] = "; ".join(remarks)
    with _new_folder(destination) as folder:
        if to == "published":
            _write_published(model, folder)
        else:
            model.save_pretrained(folder)
            tokenizer = HyenaDNATokenizer(hub_config.max_seq_len, special_tokens_mode=special_tokens_mode)
            tokenizer.save_pretrained(folder)
            GenerationConfig.from_model_config(model.config).save_pretrained(folder)
            origin = f"Converted from `{file.name}` ({layout} layout, sha256 `{summary['sha256']}`)."
            card = model_card(folder, destination.name, note=origin)
            (folder / "README.md").write_text(card, encoding="utf-8")
    return summary


def read_tensors(file: Path) -> tuple[dict[str, torch.Tensor], dict[str, Any] | None, list[str]]:
    """
    Read the tensors in a file of any origin, without running code from it.

    Args:
        file: A .safetensors file, or a file with any other suffix, written by `torch.save`.

    Returns:
        Tensors by name, the configuration in the metadata of the file or `None`, and remarks.
    """
    if file.suffix == ".safetensors":
        try:
            with safe_open(file, framework="pt") as handle:
                tensors = {name: handle.get_tensor(name) for name in handle.keys()}  # noqa: SIM118
                metadata = handle.metadata() or {}
            config = json.loads(metadata["config"]) if "config" in metadata else None
        except (SafetensorError, OSError, ValueError) as error:
            raise InputError(f"not a readable safetensors file ({error}).") from error
        return tensors, config, []
    remarks: list[str] = []
    try:
        saved = torch.load(file, map_location="cpu", weights_only=True)
    except Exception:  # unsafe, damaged or of another format: the restricted reader finds out
        saved, remarks = load_pickled(file)
    tensors = module_tensors(saved)
    for name in (None, "state_dict", "model_state_dict", "model"):
        inner = saved if name is None else saved.get(name) if isinstance(saved, dict) else None
        if not tensors and isinstance(inner, dict):
            tensors = {key: value for key, value in inner.items() if isinstance(value, torch.Tensor)}
        tensors = tensors or module_tensors(inner)
    for name, tensor in tensors.items():
        if tensor.layout != torch.strided:
            raise InputError(f"{name} is a sparse tensor, which no HyenaDNA model has.")
        if tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():  # would expand when used
            raise InputError(f"{name} claims {tensor.numel():,} numbers, more than the file contains.")
    return tensors, None, remarks


def _weights_file(source: Path) -> Path:
    if source.is_file():
        return source
    if not source.is_dir():
        raise InputError(f"{source}: there is no such file or folder.")
    named = [source / name for name in WEIGHT_NAMES if (source / name).is_file()]
    others = [file for file in sorted(source.iterdir()) if file.suffix in WEIGHT_ENDINGS and file.is_file()]
    if named or len(others) == 1:
        return (named or others)[0]
    problem = (
        f"{len(others)} files with weights, none of them {' or '.join(WEIGHT_NAMES)}"
        if others
        else "no file with weights"
    )
    raise InputError(f"{source}: the folder has {problem}; give the file.")


def _read_config(config: str | Path | None, file: Path, stored: dict[str, Any] | None) -> dict[str, Any] | None:
    if config is None:
        default = file.parent / "config.json"
        if stored is not None or not default.is_file():
            return stored
        config = default
    try:
        read = json.loads(Path(config).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"the configuration {config} cannot be read ({error}).") from error
    if not isinstance(read, dict):
        raise InputError(f"the configuration {config} is not a JSON object.")
    return read


def _prepare_head(
    config: HyenaDNAConfig,
    tensors: dict[str, torch.Tensor],
    pooling: str | None,
    default_pooling: str,
    compat_padding: bool,
) -> type[torch.nn.Module]:
    """Choose the model class for the head in `tensors`, and set the fields of the head in the configuration."""
    if "score.weight" not in tensors:
        if pooling or compat_padding:
            raise InputError("the checkpoint has no classification head, which pooling and padding options require.")
        language_model = HyenaDNAForMaskedLM if config.bidirectional else HyenaDNAForCausalLM
        embedding = tensors.get("hyena.backbone.embeddings.word_embeddings.weight")
        if (
            config.tie_word_embeddings
            and embedding is not None
            and language_model.__name__ in (config.architectures or ())
        ):
            tensors.setdefault("lm_head.weight", embedding)
        return language_model if "lm_head.weight" in tensors else HyenaDNAModel
    if tensors["score.weight"].dim() != 2:
        raise InputError(
            f"the head has weights of shape {tuple(tensors['score.weight'].shape)}, which must have two dimensions."
        )
    labels = len(tensors["score.weight"])
    if config.num_labels != labels:
        config.num_labels = labels
    config.classifier_bias = "score.bias" in tensors
    config.classifier_pooling = pooling or default_pooling
    config.compat_padding = config.compat_padding or compat_padding
    if "HyenaDNAForTokenClassification" in (config.architectures or ()):
        return HyenaDNAForTokenClassification
    return HyenaDNAForSequenceClassification


def _create_model(
    model_class: type[torch.nn.Module], config: HyenaDNAConfig, tensors: dict[str, torch.Tensor]
) -> torch.nn.Module:
    """Create a model with the given tensors, after a check that lists all invalid ones."""
    with torch.device("meta"):
        model = model_class(config)
    if model_class is HyenaDNAModel:
        tensors = {name.removeprefix("hyena."): tensor for name, tensor in tensors.items()}
    expected = model.state_dict()
    problems = [f"{name} is missing" for name in expected.keys() - tensors.keys()]
    problems += [f"{name} is not part of this model" for name in tensors.keys() - expected.keys()]
    for name in expected.keys() & tensors.keys():
        if tensors[name].shape != expected[name].shape:
            problems.append(f"{name} is {tuple(tensors[name].shape)} and not {tuple(expected[name].shape)}")
        elif not tensors[name].is_floating_point():
            problems.append(f"{name} has dtype {tensors[name].dtype}, which is not a floating-point type")
        elif not tensors[name].isfinite().all():
            problems.append(f"{name} contains values that are not finite")
    if problems:
        raise InputError(f"{len(problems)} of the tensors are wrong: {'; '.join(sorted(problems))}.")
    model.load_state_dict({name: tensor.contiguous() for name, tensor in tensors.items()}, assign=True)
    model.tie_weights()
    return model.eval()


def _describe_head(model: torch.nn.Module, tensors: dict[str, torch.Tensor]) -> str:
    if isinstance(model, HyenaDNAForSequenceClassification):
        bias = "with" if model.config.classifier_bias else "without"
        padding = "padding read as tokens" if model.config.compat_padding else "exact masks"
        pooling = model.config.classifier_pooling
        return f"classifier of {model.config.num_labels} classes {bias} bias, {pooling} pooling, {padding}"
    if isinstance(model, HyenaDNAForTokenClassification):
        return f"token classifier of {model.config.num_labels} classes"
    if not isinstance(model, HyenaDNALanguageModel):
        return "none"
    are_equal = torch.equal(tensors["lm_head.weight"], tensors["hyena.backbone.embeddings.word_embeddings.weight"])
    tied = "tied" if model.config.tie_word_embeddings else "untied"
    kind = "masked language model" if model.config.bidirectional else "language model"
    return f"{kind}, {tied}{', with the same values as the embedding' if are_equal else ''}"


def _check_supported_by_published(model: torch.nn.Module) -> None:
    config = model.config
    if config.bidirectional:
        raise InputError("the published code has no filters over the future, which this bidirectional model needs.")
    if isinstance(model, HyenaDNAForTokenClassification):
        raise InputError("the published code has no token classification.")
    if isinstance(model, HyenaDNAForSequenceClassification) and (
        config.classifier_bias or config.classifier_pooling != "last"
    ):
        raise InputError(
            "the published code supports only classifiers without bias on the last position; this one has "
            f"classifier_pooling={config.classifier_pooling!r}, classifier_bias={config.classifier_bias}."
        )
    if config.hyena_order > 2:
        raise InputError(f"the published Hub code cannot run hyena_order={config.hyena_order}, only 2.")


def _write_published(model: torch.nn.Module, folder: Path) -> None:
    config = model.config
    prefix = "hyena." if isinstance(model, HyenaDNAModel) else ""
    tensors = {f"{prefix}{name}": tensor.contiguous().clone() for name, tensor in model.state_dict().items()}
    save_file(add_published_constants(config, tensors), folder / "model.safetensors", metadata={"format": "pt"})
    fields = config.to_dict()
    fields["architectures"] = [type(model).__name__]
    published = {name: fields[name] for name in PUBLISHED_FIELDS if fields.get(name) is not None}
    (folder / "config.json").write_text(json.dumps(published, indent=2) + "\n", encoding="utf-8")


@contextmanager
def _new_folder(destination: Path) -> Iterator[Path]:
    """Create a folder that appears under its name once it is complete, or not at all."""
    prefix = f".{destination.name}-"
    with errors_naming(destination, destination.with_name(prefix)):
        destination.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(dir=destination.parent, prefix=prefix))
        try:
            yield temporary
            os.chmod(temporary, 0o755)
            if destination.is_dir():
                destination.rmdir()  # it is empty
            temporary.rename(destination)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise
