"""Models and tokenizers by name, folder or Hub id: the options that name them, and the one place that loads them."""

import hashlib
import json
import tempfile
import textwrap
import warnings
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import torch
import transformers
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer
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

DTYPES = ("float32", "bfloat16")
WEIGHT_FILES = ("*.safetensors", "*.safetensors.index.json", "pytorch_model*.bin", "pytorch_model.bin.index.json")
# The Auto class of an adapter's base model, by PEFT's name of the task.
ADAPTER_TASKS = {
    "CAUSAL_LM": "AutoModelForCausalLM",
    "FEATURE_EXTRACTION": "AutoModel",
    "SEQ_CLS": "AutoModelForSequenceClassification",
    "TOKEN_CLS": "AutoModelForTokenClassification",
}
CLASSIFIER_TASKS = ("SEQ_CLS", "TOKEN_CLS")

CHECKPOINTS = f"a checkpoint that ships with the package ({', '.join(BUNDLED_CHECKPOINTS)}), a folder, a folder with a "
CHECKPOINTS += "PEFT adapter, or a Hub id"


@dataclass(kw_only=True)
class CheckpointArguments:
    """The options of every command that loads a model."""

    model: str = field(metadata={"help": f"A HyenaDNA model: {CHECKPOINTS}."})
    trust_remote_code: bool = field(default=False, metadata={"help": "Allow code that comes with --model to run."})


@dataclass(kw_only=True)
class LoadingArguments(CheckpointArguments):
    """The options of commands that load a tokenizer as well."""

    tokenizer: str | None = field(
        default=None, metadata={"help": "Folder or Hub id of the tokenizer (default: --model)."}
    )


@dataclass(kw_only=True)
class DeviceArguments:
    """The option of commands that choose a device."""

    use_cpu: bool = field(default=False, metadata={"help": "Do not use an accelerator, although there is one."})


@dataclass(kw_only=True)
class InferenceArguments(LoadingArguments, DeviceArguments):
    """The options of commands that run a trained model."""

    dtype: str = field(default="float32", metadata={"help": f"Type of the weights: {', '.join(DTYPES)}."})


def is_size(source):
    """Whether this names a published size, and not a folder of that name."""
    return source in SIZE_NAMES and not Path(source).is_dir()


def is_baseline(source):
    """Whether this names a baseline, and not a folder of that name."""
    return source in BASELINE_NAMES and not Path(source).is_dir()


def is_adapter(source):
    """Whether this is a folder or Hub id of a PEFT adapter."""
    named = is_size(source) or is_baseline(source)
    return not named and find_adapter_config_file(resolve(source)) is not None


def has_weights(source):
    """Whether there are weights to load. A Hub id is taken to have some; `from_pretrained` says so if not."""
    if is_size(source) or is_baseline(source):
        return False
    folder = Path(resolve(source))
    return not folder.is_dir() or any(file for pattern in WEIGHT_FILES for file in folder.glob(pattern))


def resolve(source):
    """
    Where a model is.

    Args:
        source (`str` or `Path`): A folder, the name of a checkpoint that ships with the package, or a Hub id.

    Returns:
        `str`: the absolute path of a folder, so that an adapter trained on it finds it from elsewhere; or the Hub id.
    """
    folder = Path(source)
    if not folder.is_dir():
        folder = BUNDLED_CHECKPOINTS.get(source, folder)
    return str(folder.resolve()) if folder.is_dir() else str(source)


def load_trained(auto_class, source, dtype="float32", tokenizer=None, trust_remote_code=False):
    """
    Load a trained HyenaDNA model and its tokenizer.

    Args:
        auto_class (`type`): The Auto class, such as `AutoModel`. Weights that it does not need are ignored.
        source (`str`): A bundled checkpoint, a folder, a folder with a PEFT adapter, or a Hub id.
        dtype (`str`, defaults to `"float32"`): Type of the weights: `float32` or `bfloat16`.
        tokenizer (`str`, *optional*): Folder or Hub id of the tokenizer; `source` by default.
        trust_remote_code (`bool`, defaults to `False`): Allow code that comes with the checkpoint to run.

    Returns:
        `tuple`: the model, in eval mode on the CPU, and the tokenizer.

    Raises:
        InputError: if they cannot be loaded, are not HyenaDNA, or the checkpoint lacks a weight of the model.
    """
    model = load_model(auto_class, source, dtype, trust_remote_code)
    return model, load_tokenizer(source, tokenizer, trust_remote_code)


def load_model(auto_class, source, dtype="float32", trust_remote_code=False):
    """
    Load a trained HyenaDNA model.

    Args:
        auto_class (`type`, *optional*): The Auto class; `None` for the one of the model that was saved.
        source, dtype, trust_remote_code: See [`load_trained`].

    Returns:
        [`PreTrainedModel`], in eval mode on the CPU.

    Raises:
        InputError: if it cannot be loaded, is not HyenaDNA, or the checkpoint lacks a weight of the model.
    """
    if dtype not in DTYPES:
        raise InputError(f"--dtype {dtype}: it is one of {', '.join(DTYPES)}.")
    if not has_weights(source):
        raise InputError(f"--model {source}: it has no weights; train it first (hyenadna pretrain, hyenadna finetune).")
    remote = {"trust_remote_code": trust_remote_code}
    with _readable_errors("model", source), _checkpoint(source, remote) as path:
        auto_class = auto_class or _auto_class(AutoConfig.from_pretrained(path, **remote))
        options = {"dtype": getattr(torch, dtype), "output_loading_info": True, **remote}
        with _quiet():  # weights that are missing are an error below; others are of no interest
            model, loading = auto_class.from_pretrained(path, **options)
    if model.config.model_type != HyenaDNAConfig.model_type:
        raise InputError(f"--model {source}: this is a {model.config.model_type} model; give a HyenaDNA checkpoint.")
    missing = sorted(loading["missing_keys"])
    if missing:
        raise InputError(
            f"--model {source}: {missing[0]} and {len(missing) - 1:,} other weights of {type(model).__name__} are not "
            "in the checkpoint; take one that was trained with them."
        )
    return _located(model, source).eval()


def load_language_model(args):
    """
    Load the language model of a command and its tokenizer.

    Args:
        args ([`InferenceArguments`]): Arguments of the command.

    Returns:
        `tuple`: the model, in eval mode on the device of this process, and the tokenizer.

    Raises:
        InputError: if they cannot be loaded, or the model is not a language model.
    """
    model, tokenizer = load_trained(
        AutoModelForCausalLM, args.model, args.dtype, args.tokenizer, args.trust_remote_code
    )
    return model.to(processes(args.use_cpu).device), tokenizer


def load_to_train(auto_class, source, trust_remote_code=False, from_scratch=False, length=None, **fields):
    """
    Load or make a model to train. Weights that the checkpoint lacks, such as those of another head, are new.

    Args:
        auto_class (`type`): The Auto class.
        source (`str`): See [`load_trained`]; or a published size or a baseline, or a folder without weights, which are
            made from scratch. A PEFT adapter is merged into its base model, and all weights are trained.
        trust_remote_code (`bool`, defaults to `False`): Allow code that comes with the checkpoint to run.
        from_scratch (`bool`, defaults to `False`): Use only the configuration of a checkpoint.
        length (`int`, *optional*): Longest sequence, in tokens, for baselines that are made for one length.
        fields: Fields of the configuration to set.

    Returns:
        `tuple`: the model, and where its weights come from, as a phrase.

    Raises:
        InputError: if it cannot be loaded.
    """
    remote = {"trust_remote_code": trust_remote_code}
    with _readable_errors("model", source), _checkpoint(source, remote) as path:
        if is_size(source):
            config = published_config(source, **fields)
        elif is_baseline(source):
            config = baseline_config(source, length, **fields)
        else:
            config = AutoConfig.from_pretrained(path, **fields, **remote)
        if from_scratch or not has_weights(path):
            return auto_class.from_config(config, **remote), "from scratch"
        with _quiet():  # the phrase below says the same
            model, loading = auto_class.from_pretrained(
                path, config=config, ignore_mismatched_sizes=True, output_loading_info=True, **remote
            )
        reshaped = {key if isinstance(key, str) else key[0] for key in loading["mismatched_keys"]}
        # Another number of classes means a new head; nothing else may differ in shape.
        wrong = sorted(key for key in reshaped if key.startswith(f"{model.base_model_prefix}."))
        if wrong:
            raise ValueError(f"its {wrong[0]} has another shape than its config.json says")
    new = ", ".join(sorted(reshaped.union(loading["missing_keys"])))
    return _located(model, source), f"pretrained; new: {new}" if new else "pretrained"


def load_tokenizer(source, tokenizer=None, trust_remote_code=False, config=None, special_tokens_mode=None):
    """
    Load the tokenizer of a model.

    Args:
        source (`str`): The model, see [`load_to_train`].
        tokenizer (`str`, *optional*): Another folder or Hub id, size or baseline to take it from.
        trust_remote_code (`bool`, defaults to `False`): Allow code that comes with it to run.
        config ([`PretrainedConfig`], *optional*): Of the model; needed for sizes and baselines.
        special_tokens_mode (`str`, *optional*): Set this mode if it is a HyenaDNA tokenizer; its own by default.

    Returns:
        [`PreTrainedTokenizerBase`]

    Raises:
        InputError: if it cannot be loaded.
    """
    option, source = ("model", source) if tokenizer is None else ("tokenizer", tokenizer)
    mode = {} if special_tokens_mode is None else {"special_tokens_mode": special_tokens_mode}
    with _readable_errors(option, source):
        if is_size(source):
            return HyenaDNATokenizer(config.max_position_embeddings, **mode)
        if is_baseline(source):
            return baseline_tokenizer(source, config.max_position_embeddings, **mode)
        path = resolve(source)
        if is_adapter(source) and not has_file(path, "tokenizer_config.json"):
            path = resolve(_adapter_config(path).base_model_name_or_path)
        loaded = AutoTokenizer.from_pretrained(path, trust_remote_code=trust_remote_code)
        if mode and hasattr(loaded, "special_tokens_mode"):
            loaded = AutoTokenizer.from_pretrained(path, trust_remote_code=trust_remote_code, **mode)
    return loaded


def check_tokenizer(tokenizer):
    """Refuse, by an `InputError`, a tokenizer that does not give one token a base."""
    if len(tokenizer("ACGTN", add_special_tokens=False)["input_ids"]) != 5:
        raise InputError(f"tokenizer: {type(tokenizer).__name__} does not give one token a base; give the model's.")


def fingerprint(model, tokenizer):
    """
    Digest of everything that changes a model's output: weights, their dtype, configuration, token ids.

    Returns:
        `str`: hexadecimal digits. They depend neither on the place of the checkpoint nor on the version of transformers
        that wrote it.
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
def _readable_errors(option, source):
    """Whatever absent files, foreign code, configurations and weights may raise becomes one sentence."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        reason = textwrap.shorten(str(error), 1000)  # transformers may list all models that it knows
        named = is_size(source) or is_baseline(source) or Path(resolve(source)).is_dir()
        names = " or ".join(BUNDLED_CHECKPOINTS)
        hint = "" if named else f" There is no such folder; {names} ships with the package."
        raise InputError(f"--{option} {source}: cannot be loaded ({reason}).{hint}") from error


@contextmanager
def _quiet():
    """No warnings from transformers."""
    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)


def _located(model, source):
    """The model, with the place that an adapter trained on it names as its base."""
    model.name_or_path = model.config._name_or_path = resolve(source)
    return model


def _auto_class(config):
    """The Auto class of the model that was saved with a configuration."""
    architecture = (config.architectures or ["nothing"])[0]
    if architecture not in TASKS:
        raise ValueError(f"its config.json names {architecture}; there are {', '.join(TASKS)}")
    return getattr(transformers, TASKS[architecture][0])


@contextmanager
def _checkpoint(source, remote):
    """Give `from_pretrained` a source; for an adapter, a temporary folder with its base model, the adapter merged."""
    if not is_adapter(source):
        yield resolve(source)
        return
    with tempfile.TemporaryDirectory() as folder:
        _merged(resolve(source), remote).save_pretrained(folder)
        yield folder


def _adapter_config(path):
    try:
        from peft import PeftConfig
    except ImportError as error:
        raise InputError("the package peft is missing; pip install 'hyenadna_hf[all]'.") from error

    return PeftConfig.from_pretrained(path)


def _merged(path, remote):
    """The base model of the adapter in a folder or of a Hub id, with the adapter merged into its weights."""
    adapter = _adapter_config(path)
    if adapter.is_prompt_learning:
        raise ValueError(
            f"a soft prompt is read by peft.AutoPeftModelForCausalLM only; give its base model "
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
    with _checkpoint(base, remote) as base_path:
        config = AutoConfig.from_pretrained(base_path, **fields, **remote)
        auto_class = _auto_class(config)
        if adapter.task_type in ADAPTER_TASKS:
            auto_class = getattr(transformers, ADAPTER_TASKS[adapter.task_type])
        with _quiet():  # the head is the adapter's
            model = auto_class.from_pretrained(base_path, config=config, ignore_mismatched_sizes=True, **remote)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", "Found missing adapter keys")
        warnings.filterwarnings("ignore", "`is_gradient_checkpointing`", FutureWarning)
        model = PeftModel.from_pretrained(model, path).merge_and_unload()
    for name, module in list(model.named_modules()):
        if isinstance(module, ModulesToSaveWrapper):  # LN tuning leaves them
            parent, _, child = name.rpartition(".")
            setattr(model.get_submodule(parent), child, module.modules_to_save["default"])
    return model
