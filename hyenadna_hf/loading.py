"""Load models and tokenizers by name, folder or Hub id, and define the command-line options that select them."""

import hashlib
import json
import tempfile
import textwrap
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import transformers
from transformers import (
    MODEL_FOR_CAUSAL_LM_MAPPING,
    MODEL_FOR_MASKED_LM_MAPPING,
    MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING,
    MODEL_MAPPING,
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForTokenClassification,
    AutoTokenizer,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.utils import has_file, logging
from transformers.utils.peft_utils import find_adapter_config_file

from .baselines.named import BASELINE_NAMES, baseline_config, baseline_tokenizer
from .data.sequence import NUCLEOTIDES
from .errors import InputError
from .hub.card import TASKS
from .hub.sizes import SIZE_NAMES, published_config
from .model.configuration_hyenadna import HyenaDNAConfig
from .model.tokenization_hyenadna import HyenaDNATokenizer
from .pretrained import BUNDLED_CHECKPOINTS
from .processes import processes

if TYPE_CHECKING:
    from peft import PeftConfig

DTYPES = ("float32", "bfloat16")
WEIGHT_FILES = ("*.safetensors", "*.safetensors.index.json", "pytorch_model*.bin", "pytorch_model.bin.index.json")
# Auto class of an adapter's base model, by PEFT task type.
ADAPTER_TASKS = {
    "CAUSAL_LM": "AutoModelForCausalLM",
    "FEATURE_EXTRACTION": "AutoModel",
    "SEQ_CLS": "AutoModelForSequenceClassification",
    "TOKEN_CLS": "AutoModelForTokenClassification",
}
CLASSIFIER_TASKS = ("SEQ_CLS", "TOKEN_CLS")
CLASSIFIERS = ("ForSequenceClassification", "ForTokenClassification")  # ends of the names of models
# Auto classes whose models have a base model, with the configurations that transformers knows for each.
_WITH_BASE_MODEL = {
    "AutoModel": MODEL_MAPPING,
    "AutoModelForMaskedLM": MODEL_FOR_MASKED_LM_MAPPING,
    "AutoModelForCausalLM": MODEL_FOR_CAUSAL_LM_MAPPING,
    "AutoModelForSequenceClassification": MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING,
}

CHECKPOINTS = f"a checkpoint that ships with the package ({', '.join(BUNDLED_CHECKPOINTS)}), a folder, a folder with a "
CHECKPOINTS += "PEFT adapter, or a Hub id"


@dataclass(kw_only=True)
class CheckpointArguments:
    """Options of every command that loads a model."""

    model: str = field(metadata={"help": f"A HyenaDNA model: {CHECKPOINTS}."})
    trust_remote_code: bool = field(default=False, metadata={"help": "Run code that comes with --model."})


@dataclass(kw_only=True)
class LoadingArguments(CheckpointArguments):
    """Options of commands that also load a tokenizer."""

    tokenizer: str | None = field(
        default=None, metadata={"help": "Folder or Hub id of the tokenizer (default: --model)."}
    )


@dataclass(kw_only=True)
class DeviceArguments:
    """Option of commands that choose a device."""

    use_cpu: bool = field(default=False, metadata={"help": "Use the CPU even if an accelerator is available."})


@dataclass(kw_only=True)
class InferenceArguments(LoadingArguments, DeviceArguments):
    """Options of commands that run a trained model."""

    dtype: str = field(default="float32", metadata={"help": f"Data type of the weights: {', '.join(DTYPES)}."})


def is_size(source: str) -> bool:
    """Return whether `source` names a published size and is not a folder."""
    return source in SIZE_NAMES and not Path(source).is_dir()


def is_baseline(source: str) -> bool:
    """Return whether `source` names a baseline and is not a folder."""
    return source in BASELINE_NAMES and not Path(source).is_dir()


def is_adapter(source: str) -> bool:
    """Return whether `source` is the folder or Hub id of a PEFT adapter."""
    is_config_name = is_size(source) or is_baseline(source)
    return not is_config_name and find_adapter_config_file(resolve(source)) is not None


def has_weights(source: str) -> bool:
    """Return whether `source` has weights to load. Hub ids are assumed to; `from_pretrained` fails if they do not."""
    if is_size(source) or is_baseline(source):
        return False
    folder = Path(resolve(source))
    return not folder.is_dir() or any(file for pattern in WEIGHT_FILES for file in folder.glob(pattern))


def resolve(source: str | Path) -> str:
    """
    Resolve the location of a model.

    Args:
        source: A folder, the name of a bundled checkpoint, or a Hub id.

    Returns:
        The absolute path of the folder, so that adapters trained on it find it from any working directory, or the Hub
        id.
    """
    folder = Path(source)
    if not folder.is_dir():
        folder = BUNDLED_CHECKPOINTS.get(str(source), folder)
    return str(folder.resolve()) if folder.is_dir() else str(source)


def load_trained(
    auto_class: Any,
    source: str,
    dtype: str = "float32",
    tokenizer: str | None = None,
    trust_remote_code: bool = False,
    any_architecture: bool = False,
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """
    Load a trained HyenaDNA model and its tokenizer.

    Args:
        auto_class: Auto class to load with, such as `AutoModel`. Weights that its model does not have are ignored.
        source: A bundled checkpoint, a folder, a folder with a PEFT adapter, or a Hub id.
        dtype: Data type of the weights: `float32` or `bfloat16`.
        tokenizer: Folder or Hub id of the tokenizer. Defaults to `source`.
        trust_remote_code: Run code that comes with the checkpoint.
        any_architecture: Accept models other than HyenaDNA, such as the baselines.

    Returns:
        The model, in evaluation mode on the CPU, and the tokenizer.

    Raises:
        InputError: If loading fails, the model is not HyenaDNA, or the checkpoint lacks a weight of the model.
    """
    model = load_model(auto_class, source, dtype, trust_remote_code, any_architecture)
    return model, load_tokenizer(source, tokenizer, trust_remote_code)


def load_model(
    auto_class: Any,
    source: str,
    dtype: str = "float32",
    trust_remote_code: bool = False,
    any_architecture: bool = False,
) -> PreTrainedModel:
    """
    Load a trained HyenaDNA model.

    Args:
        auto_class: Auto class to load with, or `None` for the class that the checkpoint was saved from.
        source: A bundled checkpoint, a folder, a folder with a PEFT adapter, or a Hub id.
        dtype: Data type of the weights: `float32` or `bfloat16`.
        trust_remote_code: Run code that comes with the checkpoint.
        any_architecture: Accept models other than HyenaDNA, such as the baselines.

    Returns:
        The model, in evaluation mode on the CPU.

    Raises:
        InputError: If loading fails, the model is not HyenaDNA, or the checkpoint lacks a weight of the model.
    """
    model, missing = _load(auto_class or _saved_auto_class, source, dtype, trust_remote_code)
    if not any_architecture and model.config.model_type != HyenaDNAConfig.model_type:
        raise InputError(f"--model {source}: this is a {model.config.model_type} model; give a HyenaDNA checkpoint.")
    return _check_weights(model, source, missing)


def load_base_model(
    source: str, dtype: str = "float32", tokenizer: str | None = None, trust_remote_code: bool = False
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """
    Load a trained model of any architecture, without its head where possible, and its tokenizer.

    Args:
        source: A bundled checkpoint, a folder, a folder with a PEFT adapter, or a Hub id.
        dtype: Data type of the weights: `float32` or `bfloat16`.
        tokenizer: Folder or Hub id of the tokenizer. Defaults to `source`.
        trust_remote_code: Run code that comes with the checkpoint.

    Returns:
        The model, in evaluation mode on the CPU, and the tokenizer. Its attribute `base_model` has no head.

    Raises:
        InputError: If loading fails, or the checkpoint lacks a weight of the model other than a pooler, which does not
            change hidden states.
    """
    model, missing = _load(_base_auto_class, source, dtype, trust_remote_code)
    names = {name.removeprefix(f"{model.base_model_prefix}.") for name in model.base_model.state_dict()}
    missing = [key for key in missing if "pooler" not in key]
    missing = [key for key in missing if key.removeprefix(f"{model.base_model_prefix}.") in names]
    return _check_weights(model, source, missing), load_tokenizer(source, tokenizer, trust_remote_code)


def _load(auto_class: Any, source: str, dtype: str, trust_remote_code: bool) -> tuple[PreTrainedModel, list[str]]:
    """
    Load a trained model and list the weights that its checkpoint lacks.

    `auto_class` is an Auto class, or a function that chooses one for a configuration.
    """
    if dtype not in DTYPES:
        raise InputError(f"--dtype {dtype}: choose one of {', '.join(DTYPES)}.")
    if not has_weights(source):
        raise InputError(f"--model {source}: it has no weights; train it first (hyenadna pretrain, hyenadna finetune).")
    remote = {"trust_remote_code": trust_remote_code}
    with _readable_errors("model", source), _merged_checkpoint(source, remote) as path:
        if not hasattr(auto_class, "from_pretrained"):
            auto_class = auto_class(AutoConfig.from_pretrained(path, **remote))
        options = {"dtype": getattr(torch, dtype), "output_loading_info": True, **remote}
        with _silence_transformers():  # missing weights are an error below; superfluous ones do not matter
            model, loading = auto_class.from_pretrained(path, **options)
    return model, sorted(loading["missing_keys"])


def _check_weights(model: PreTrainedModel, source: str, missing: list[str]) -> PreTrainedModel:
    if missing:
        raise InputError(
            f"--model {source}: {missing[0]} and {len(missing) - 1:,} other weights of {type(model).__name__} are not "
            "in the checkpoint; use one that was trained with them."
        )
    return _set_location(model, source).eval()


def _base_auto_class(config: PretrainedConfig) -> Any:
    """Return the Auto class, of a model with a base model, that a configuration and its own code are registered for."""
    own = getattr(config, "auto_map", None) or {}
    for name, known in _WITH_BASE_MODEL.items():
        if name in own or type(config) in known:
            return getattr(transformers, name)
    raise ValueError(f"{type(config).__name__} has none of {', '.join(_WITH_BASE_MODEL)}")


def load_language_model(args: InferenceArguments) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """
    Load the language model of a command and its tokenizer.

    Args:
        args: Arguments of the command.

    Returns:
        The model, in evaluation mode on the device of this process, and the tokenizer.

    Raises:
        InputError: If loading fails, or the model is not a language model.
    """
    model, tokenizer = load_trained(
        AutoModelForCausalLM, args.model, args.dtype, args.tokenizer, args.trust_remote_code
    )
    return model.to(processes(args.use_cpu).device), tokenizer


def load_to_train(
    auto_class: Any,
    source: str,
    trust_remote_code: bool = False,
    from_scratch: bool = False,
    length: int | None = None,
    check: Callable[[PretrainedConfig], None] | None = None,
    **fields: Any,
) -> tuple[PreTrainedModel, str]:
    """
    Load or initialise a model for training. Weights missing from the checkpoint, such as a new head, are initialised.

    If a causal checkpoint becomes bidirectional, the filters over later positions become copies of those over earlier
    ones, with an output layer of zeros: training starts from the function that the checkpoint computes.

    Args:
        auto_class: Auto class to load with.
        source: A bundled checkpoint, a folder, a folder with a PEFT adapter, or a Hub id. A published size, a baseline
            or a folder without weights gives a model with random weights. An adapter is merged into its base model,
            and all weights are trained.
        trust_remote_code: Run code that comes with the checkpoint.
        from_scratch: Use only the configuration of the checkpoint.
        length: Longest sequence, in tokens, for baselines that are built for one length.
        check: Function that raises an `InputError` for an unsuitable configuration, before weights are loaded.
        fields: Configuration fields to override.

    Returns:
        The model, and a phrase that describes the origin of its weights.

    Raises:
        InputError: If loading fails.
    """
    remote = {"trust_remote_code": trust_remote_code}
    with _readable_errors("model", source), _merged_checkpoint(source, remote) as path:
        if is_size(source):
            config = published_config(source, **fields)
        elif is_baseline(source):
            per_base = auto_class is AutoModelForTokenClassification
            config = baseline_config(source, length, per_base, **fields)
        else:
            config = AutoConfig.from_pretrained(path, **fields, **remote)
        if check is not None:
            check(config)
        if from_scratch or not has_weights(path):
            return auto_class.from_config(config, **remote), "from scratch"
        with _silence_transformers():  # the phrase below says the same
            model, loading = auto_class.from_pretrained(
                path, config=config, ignore_mismatched_sizes=True, output_loading_info=True, **remote
            )
        reshaped = {key if isinstance(key, str) else key[0] for key in loading["mismatched_keys"]}
        # A different number of classes needs a new head; nothing else may differ in shape.
        wrong = sorted(key for key in reshaped if key.startswith(f"{model.base_model_prefix}."))
        if wrong:
            raise ValueError(f"the shape of {wrong[0]} does not match config.json")
    new_weights = sorted(reshaped.union(loading["missing_keys"]))
    new = [key for key in new_weights if ".filter_fn_rev." not in key]
    if len(new) < len(new_weights):
        _start_later_filters(model)
        new.append("filters over later positions, of zeros")
    return _set_location(model, source), f"pretrained; new: {', '.join(new)}" if new else "pretrained"


def _start_later_filters(model: PreTrainedModel) -> None:
    """Copy the filters over earlier positions to those over later ones, with an output layer of zeros."""
    for module in model.modules():
        later = getattr(module, "filter_fn_rev", None)
        if later is not None:
            trained = module.filter_fn.state_dict()
            later.load_state_dict({name: trained[name] for name in later.state_dict()})
            torch.nn.init.zeros_(later.implicit_filter[later.last].weight)


def load_tokenizer(
    source: str,
    tokenizer: str | None = None,
    trust_remote_code: bool = False,
    config: PretrainedConfig | None = None,
    special_tokens_mode: str | None = None,
) -> PreTrainedTokenizerBase:
    """
    Load the tokenizer of a model.

    Args:
        source: The model, as in [`load_to_train`].
        tokenizer: Folder, Hub id, size or baseline to load the tokenizer from instead of `source`.
        trust_remote_code: Run code that comes with the tokenizer.
        config: Configuration of the model; required for sizes and baselines.
        special_tokens_mode: Mode to set if it is a HyenaDNA tokenizer. Defaults to its saved mode.

    Raises:
        InputError: If loading fails.
    """
    option, source = ("model", source) if tokenizer is None else ("tokenizer", tokenizer)
    mode = {} if special_tokens_mode is None else {"special_tokens_mode": special_tokens_mode}
    with _readable_errors(option, source):
        if is_size(source) or is_baseline(source):
            if config is None:
                raise ValueError("the configuration of the model is needed for its longest sequence")
            make = HyenaDNATokenizer if is_size(source) else partial(baseline_tokenizer, source)
            return make(getattr(config, "max_position_embeddings", None), **mode)
        path = resolve(source)
        if is_adapter(source) and not has_file(path, "tokenizer_config.json"):
            path = resolve(_adapter_config(path).base_model_name_or_path)
        loaded = AutoTokenizer.from_pretrained(path, trust_remote_code=trust_remote_code)
        if mode and hasattr(loaded, "special_tokens_mode"):
            loaded = AutoTokenizer.from_pretrained(path, trust_remote_code=trust_remote_code, **mode)
    return loaded


def check_tokenizer(tokenizer: PreTrainedTokenizerBase) -> None:
    """Raise an `InputError` if a tokenizer does not produce one token per base."""
    if len(tokenizer("ACGTN", add_special_tokens=False)["input_ids"]) != 5:
        raise InputError(f"tokenizer: {type(tokenizer).__name__} does not produce one token per base; use the model's.")


def fingerprint(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> str:
    """
    Compute a digest of everything that determines a model's output: weights, dtype, configuration, token ids.

    Returns:
        Hexadecimal digits, independent of the location of the checkpoint and of the version of transformers that wrote
        it.
    """
    config = {
        name: value
        for name, value in model.config.to_dict().items()
        if name not in ("_name_or_path", "transformers_version")
    }
    digest = hashlib.sha256(json.dumps(config, sort_keys=True, default=str).encode())
    digest.update(str(tokenizer(NUCLEOTIDES, add_special_tokens=False)["input_ids"]).encode())
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.cpu().contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()


@contextmanager
def _readable_errors(option: str, source: str) -> Iterator[None]:
    """Turn any exception from missing files, foreign code, configurations and weights into a one-line `InputError`."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        reason = textwrap.shorten(str(error), 1000)  # transformers may list all models that it supports
        exists = is_size(source) or is_baseline(source) or Path(resolve(source)).is_dir()
        names = ", ".join(BUNDLED_CHECKPOINTS)
        hint = "" if exists else f" There is no such folder; these ship with the package: {names}."
        raise InputError(f"--{option} {source}: cannot be loaded ({reason}).{hint}") from error


@contextmanager
def _silence_transformers() -> Iterator[None]:
    """Suppress the warnings of transformers."""
    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)


def _set_location(model: PreTrainedModel, source: str) -> PreTrainedModel:
    """Record the location that adapters trained on this model will name as their base."""
    model.name_or_path = model.config._name_or_path = resolve(source)
    return model


def _saved_auto_class(config: PretrainedConfig) -> Any:
    """Return the Auto class of the model that a configuration was saved with."""
    architecture = (config.architectures or ["nothing"])[0]
    for suffix in CLASSIFIERS:
        if architecture.endswith(suffix):
            return getattr(transformers, f"AutoModel{suffix}")
    if architecture not in TASKS:
        raise ValueError(f"its config.json names {architecture}, not one of {', '.join(TASKS)}")
    return getattr(transformers, TASKS[architecture][0])


@contextmanager
def _merged_checkpoint(source: str, remote: dict[str, bool]) -> Iterator[str]:
    """Yield a location for `from_pretrained`: for an adapter, a temporary folder with the merged model."""
    if not is_adapter(source):
        yield resolve(source)
        return
    with tempfile.TemporaryDirectory() as folder:
        _merge_adapter(resolve(source), remote).save_pretrained(folder)
        yield folder


def _adapter_config(path: str) -> "PeftConfig":
    try:
        from peft import PeftConfig
    except ImportError as error:
        raise InputError("the package peft is missing; pip install 'hyenadna_hf[all]'.") from error
    from .training import prompt_position  # noqa: F401  # registers its configuration

    return PeftConfig.from_pretrained(path)


def _merge_adapter(path: str, remote: dict[str, bool]) -> PreTrainedModel:
    """Load the base model of an adapter and merge the adapter into its weights."""
    adapter = _adapter_config(path)
    if adapter.is_prompt_learning:
        raise ValueError(
            "soft prompts load only with peft.AutoPeftModelForCausalLM; give the base model "
            f"{adapter.base_model_name_or_path}"
        )
    from peft import PeftModel
    from peft.utils import ModulesToSaveWrapper, load_peft_weights

    base, fields = adapter.base_model_name_or_path, {}
    if base is None:
        raise ValueError("its adapter_config.json names no base model")
    if adapter.task_type in CLASSIFIER_TASKS:
        heads = tuple(f".{name}." for name in adapter.modules_to_save or ())
        weights = load_peft_weights(path, device="cpu")
        rows = [len(tensor) for name, tensor in weights.items() if any(head in name for head in heads)]
        fields = {"num_labels": rows[-1]} if rows else {}
    with _merged_checkpoint(base, remote) as base_path:
        config = AutoConfig.from_pretrained(base_path, **fields, **remote)
        auto_class = _saved_auto_class(config)
        if adapter.task_type in ADAPTER_TASKS:
            auto_class = getattr(transformers, ADAPTER_TASKS[adapter.task_type])
        with _silence_transformers():  # the head comes from the adapter
            model = auto_class.from_pretrained(base_path, config=config, ignore_mismatched_sizes=True, **remote)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", "Found missing adapter keys")
        warnings.filterwarnings("ignore", "`is_gradient_checkpointing`", FutureWarning)
        model = PeftModel.from_pretrained(model, path).merge_and_unload()
    for name, module in list(model.named_modules()):
        if isinstance(module, ModulesToSaveWrapper):  # left by LN tuning
            parent, _, child = name.rpartition(".")
            setattr(model.get_submodule(parent), child, module.modules_to_save["default"])
    return model
