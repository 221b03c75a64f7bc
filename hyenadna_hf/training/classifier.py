"""Sequence classifiers of any kind to fine-tune, with their tokenizers."""

from dataclasses import dataclass, field
from typing import Any

from datasets import DatasetDict
from transformers import AutoModelForSequenceClassification, PreTrainedTokenizerBase

from ..baselines.named import BASELINE_NAMES
from ..errors import InputError
from ..hub.sizes import SIZE_NAMES
from ..loading import CHECKPOINTS, LoadingArguments, load_to_train, load_tokenizer


@dataclass
class ModelArguments(LoadingArguments):
    model: str = field(
        default="hyenadna-tiny-1k-remag",
        metadata={
            "help": f"What to start from: {CHECKPOINTS}, of any Hugging Face model (a folder with a configuration but "
            "no weights is trained from scratch; an adapter is merged into its base model); a published size, from "
            f"scratch ({', '.join(SIZE_NAMES)}); or a baseline, from scratch ({', '.join(BASELINE_NAMES)})."
        },
    )
    from_scratch: bool = field(
        default=False, metadata={"help": "Use only the configuration of --model, not its weights."}
    )
    kmer: int | None = field(
        default=None,
        metadata={"help": "Write each sequence as overlapping words of this many bases, as the first DNABERT wants."},
    )
    special_tokens_mode: str = field(
        default="none",
        metadata={"help": "Special tokens that a HyenaDNA tokenizer adds: none (as in the paper), sep or cls_sep."},
    )


def load_classifier(
    model_args: ModelArguments, names: list[str], length: int | None = None, **config_fields: Any
) -> tuple:
    """
    Load the model and tokenizer of `--model`, with one output per class.

    Args:
        model_args: Names the model and the tokenizer.
        names: Names of the classes, in the order of their numbers.
        length: Longest sequence, in tokens, for baselines that are made for one length.
        config_fields: Further fields of the configuration to set (`problem_type`, `embed_dropout`, ...).

    Returns:
        The model, its tokenizer, and where its weights come from, as a phrase.

    Raises:
        InputError: If they cannot be loaded.
    """
    labels = {"id2label": dict(enumerate(names)), "label2id": {name: i for i, name in enumerate(names)}}
    fields = {**labels, "problem_type": "single_label_classification", **config_fields}
    remote = model_args.trust_remote_code
    model, origin = load_to_train(
        AutoModelForSequenceClassification, model_args.model, remote, model_args.from_scratch, length, **fields
    )
    tokenizer = load_tokenizer(
        model_args.model, model_args.tokenizer, remote, model.config, model_args.special_tokens_mode
    )
    if tokenizer.pad_token is None:
        raise InputError(f"--model {model_args.model}: its tokenizer has no padding token; choose a --tokenizer.")
    return model, tokenizer, origin


def longest_input(config, tokenizer: PreTrainedTokenizerBase):
    """Maximum number of tokens that a model takes, by its configuration and tokenizer; `None` without a limit."""
    limits = (getattr(config, "max_position_embeddings", None), tokenizer.model_max_length)
    return min((limit for limit in limits if limit is not None and 0 < limit < 1e9), default=None)


def tokenize(
    data, tokenizer: PreTrainedTokenizerBase, max_length: int | None = None, kmer: int | None = None
) -> DatasetDict:
    """
    Token ids of each sequence of a `DatasetDict` with columns `sequence` and `label`.

    Args:
        max_length: Cut longer inputs at their end, in tokens.
        kmer: Write sequences as overlapping words of this many bases first.

    Returns:
        `DatasetDict` with the tokenizer's columns and `label`.
    """

    def encode(batch):
        return tokenizer(
            [words(sequence, kmer) for sequence in batch["sequence"]],
            truncation=max_length is not None,
            max_length=max_length,
        )

    others = [name for name in data["train"].column_names if name not in ("label", "labels")]
    return data.map(encode, batched=True, remove_columns=others, desc="Tokenizing", keep_in_memory=True)


def words(sequence: str, kmer):
    if kmer is None:
        return sequence
    return " ".join(sequence[i : i + kmer] for i in range(len(sequence) - kmer + 1))
