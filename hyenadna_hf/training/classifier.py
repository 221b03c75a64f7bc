"""What is trained: sequence classifiers of any kind, by name, with their tokenizers."""

from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer
from transformers.utils import logging

from ..baselines.named import BASELINE_NAMES, baseline_config, baseline_tokenizer
from ..errors import InputError
from ..hub.sizes import SIZE_NAMES, published_config
from ..model.tokenization_hyenadna import HyenaDNATokenizer
from ..pretrained import BUNDLED_CHECKPOINTS

NOT_LOADED = ("missing_keys", "mismatched_keys")
WEIGHT_FILES = ("*.safetensors", "*.safetensors.index.json", "pytorch_model*.bin", "pytorch_model.bin.index.json")


@dataclass
class ModelArguments:
    model: str = field(
        default="hyenadna-tiny-1k-remag",
        metadata={
            "help": "What to start from: a checkpoint that ships with the package "
            f"({', '.join(BUNDLED_CHECKPOINTS)}), a folder or Hub id of any Hugging Face model (a folder with a config "
            f"but no weights is trained from scratch), a published size, from scratch ({', '.join(SIZE_NAMES)}), or "
            f"a baseline, from scratch ({', '.join(BASELINE_NAMES)})."
        },
    )
    from_scratch: bool = field(
        default=False, metadata={"help": "Use only the configuration of --model, not its weights."}
    )
    tokenizer: str | None = field(
        default=None, metadata={"help": "Folder or Hub id of the tokenizer (default: --model)."}
    )
    kmer: int | None = field(
        default=None,
        metadata={"help": "Write each sequence as overlapping words of this many bases, as the first DNABERT wants."},
    )
    special_tokens_mode: str = field(
        default="none",
        metadata={"help": "Special tokens that a HyenaDNA tokenizer adds: none (as in the paper), sep or cls_sep."},
    )
    trust_remote_code: bool = field(default=False, metadata={"help": "Allow code that comes with --model to run."})


def load_classifier(model_args, names, length=None, **config_fields):
    """
    The model and tokenizer of `--model`, with one output a class.

    Args:
        model_args ([`ModelArguments`]): Which.
        names (`list[str]`): Names of the classes, in the order of their numbers.
        length (`int`, *optional*): Longest sequence, in tokens, for baselines that are made for one length.
        config_fields: Fields of the configuration to set besides (`problem_type`, `embed_dropout`, ...).

    Returns:
        `tuple`: the model, its tokenizer, and where its weights come from, as a phrase.

    Raises:
        InputError: if they cannot be loaded.
    """
    labels = {"id2label": dict(enumerate(names)), "label2id": {name: i for i, name in enumerate(names)}}
    labels = {**labels, "problem_type": "single_label_classification", **config_fields}
    source = BUNDLED_CHECKPOINTS.get(model_args.model, model_args.model)
    remote = {"trust_remote_code": model_args.trust_remote_code}
    try:
        if is_size(model_args.model):
            config = published_config(model_args.model, **labels)
        elif is_baseline(model_args.model):
            config = baseline_config(model_args.model, length, **labels)
        else:
            config = AutoConfig.from_pretrained(source, **labels, **remote)
        tokenizer = _load_tokenizer(model_args, source, config)
        if is_size(source) or is_baseline(source) or model_args.from_scratch or not has_weights(source):
            model = AutoModelForSequenceClassification.from_config(config, **remote)
            return model, tokenizer, "from scratch"
        # Another number of classes means a new head: the only weights that may not fit.
        with quiet():
            model, loading = AutoModelForSequenceClassification.from_pretrained(
                source, config=config, ignore_mismatched_sizes=True, output_loading_info=True, **remote
            )
    except InputError:
        raise
    except Exception as error:  # what foreign code, configurations and weights may raise
        reason = " ".join(str(error).split())
        raise InputError(
            f"--model {model_args.model}: cannot be loaded as a sequence classifier ({reason})."
        ) from error
    new = {key if isinstance(key, str) else key[0] for kind in NOT_LOADED for key in loading[kind]}
    return model, tokenizer, f"pretrained; new: {', '.join(sorted(new))}" if new else "pretrained"


@contextmanager
def quiet():
    """No warnings from transformers: what they would say is printed in one line."""
    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)


def _load_tokenizer(model_args, source, config):
    source = model_args.tokenizer or source
    if is_size(source):
        return HyenaDNATokenizer(config.max_seq_len, special_tokens_mode=model_args.special_tokens_mode)
    if is_baseline(source):
        return baseline_tokenizer(source, config.max_position_embeddings, model_args.special_tokens_mode)
    remote = {"trust_remote_code": model_args.trust_remote_code}
    tokenizer = AutoTokenizer.from_pretrained(source, **remote)
    if hasattr(tokenizer, "special_tokens_mode"):
        tokenizer = AutoTokenizer.from_pretrained(source, special_tokens_mode=model_args.special_tokens_mode, **remote)
    if tokenizer.pad_token is None:
        raise InputError(f"--model {model_args.model}: its tokenizer has no padding token; choose a --tokenizer.")
    return tokenizer


def is_size(model):
    """Whether this names a published size, and not a folder of that name."""
    return model in SIZE_NAMES and not Path(model).is_dir()


def is_baseline(model):
    """Whether this names a baseline, and not a folder of that name."""
    return model in BASELINE_NAMES and not Path(model).is_dir()


def has_weights(source):
    """Whether a folder has weights. A Hub id has, for all we know; from_pretrained says so if not."""
    return not Path(source).is_dir() or any(file for pattern in WEIGHT_FILES for file in Path(source).glob(pattern))


def longest_input(config, tokenizer):
    """The most tokens a model takes, from its configuration and tokenizer; `None` where neither names a limit."""
    limits = (getattr(config, "max_position_embeddings", None), tokenizer.model_max_length)
    return min((limit for limit in limits if limit is not None and 0 < limit < 1e9), default=None)


def tokenize(data, tokenizer, max_length=None, kmer=None):
    """
    Token ids of each sequence of a `DatasetDict` with columns `sequence` and `label`.

    Args:
        max_length (`int`, *optional*): Cut longer inputs at their end, in tokens.
        kmer (`int`, *optional*): Write sequences as overlapping words of this many bases first.

    Returns:
        `DatasetDict` with the tokenizer's columns and `label`.
    """

    def encode(batch):
        return tokenizer(
            [words(sequence, kmer) for sequence in batch["sequence"]],
            truncation=max_length is not None,
            max_length=max_length,
        )

    return data.map(encode, batched=True, remove_columns="sequence", desc="Tokenizing", keep_in_memory=True)


def words(sequence, kmer):
    if kmer is None:
        return sequence
    return " ".join(sequence[i : i + kmer] for i in range(len(sequence) - kmer + 1))
