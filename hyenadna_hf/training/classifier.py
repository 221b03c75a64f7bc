"""Load classifiers of any architecture for fine-tuning, with their tokenizers."""

from dataclasses import dataclass, field
from typing import Any

from datasets import DatasetDict
from transformers import AutoModelForSequenceClassification, PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from ..baselines.named import BASELINE_NAMES
from ..data.sequence import NUCLEOTIDE_IDS
from ..errors import InputError
from ..hub.sizes import SIZE_NAMES
from ..loading import CHECKPOINTS, LoadingArguments, load_to_train, load_tokenizer
from ..model.configuration_hyenadna import HyenaDNAConfig


@dataclass
class ModelArguments(LoadingArguments):
    model: str = field(
        default="hyenadna-tiny-1k-human",
        metadata={
            "help": f"Model to start from: {CHECKPOINTS}, of any Hugging Face model (a folder with a configuration but "
            "no weights is trained from scratch, an adapter is merged into its base model); a published size, from "
            f"scratch ({', '.join(SIZE_NAMES)}); or a baseline, from scratch ({', '.join(BASELINE_NAMES)})."
        },
    )
    from_scratch: bool = field(
        default=False, metadata={"help": "Use only the configuration of --model, not its weights."}
    )
    kmer: int | None = field(
        default=None,
        metadata={
            "help": "Split each sequence into overlapping words of this many bases, as the first DNABERT expects."
        },
    )
    special_tokens_mode: str = field(
        default="none",
        metadata={"help": "Special tokens that a HyenaDNA tokenizer adds: none (as in the paper), sep or cls_sep."},
    )


def load_classifier(
    model_args: ModelArguments,
    names: list[str],
    length: int | None = None,
    auto_class: Any = AutoModelForSequenceClassification,
    **config_fields: Any,
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase, str]:
    """
    Load the model and tokenizer of `--model`, with one output per class.

    Args:
        model_args: Arguments that select the model and the tokenizer.
        names: Class names, in the order of the class numbers.
        length: Longest sequence, in tokens, for baselines that are built for one length.
        auto_class: Auto class to load with.
        config_fields: Further configuration fields to set (`problem_type`, `embed_dropout`, ...).

    Returns:
        The model, its tokenizer, and a phrase that describes the origin of the weights.

    Raises:
        InputError: If loading fails.
    """
    labels = {"id2label": dict(enumerate(names)), "label2id": {name: i for i, name in enumerate(names)}}
    fields = {**labels, "problem_type": "single_label_classification", **config_fields}
    remote = model_args.trust_remote_code
    model, origin = load_to_train(auto_class, model_args.model, remote, model_args.from_scratch, length, **fields)
    tokenizer = load_tokenizer(
        model_args.model, model_args.tokenizer, remote, model.config, model_args.special_tokens_mode
    )
    if tokenizer.pad_token is None:
        raise InputError(f"--model {model_args.model}: its tokenizer has no padding token; choose a --tokenizer.")
    return model, tokenizer, origin


def longest_input(config: PretrainedConfig, tokenizer: PreTrainedTokenizerBase) -> int | None:
    """Return the maximum input length of a model and its tokenizer, in tokens; `None` without a limit."""
    limits = (getattr(config, "max_position_embeddings", None), tokenizer.model_max_length)
    return min((limit for limit in limits if limit is not None and 0 < limit < 1e9), default=None)


def is_hyenadna(model: PreTrainedModel) -> bool:
    """Return whether a model is HyenaDNA, and not another model of transformers."""
    return model.config.model_type == HyenaDNAConfig.model_type


def has_nucleotide_tokens(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Return whether a tokenizer has HyenaDNA's tokens, one per nucleotide."""
    return tokenizer("ACGTN", add_special_tokens=False)["input_ids"] == list(NUCLEOTIDE_IDS)


def tokenize(
    data: DatasetDict, tokenizer: PreTrainedTokenizerBase, max_length: int | None = None, kmer: int | None = None
) -> DatasetDict:
    """
    Tokenize the sequences of a data set.

    Args:
        data: Data set with columns `sequence` and `label` or `labels`.
        tokenizer: Tokenizer to apply.
        max_length: Truncate longer inputs at their end, in tokens.
        kmer: Split sequences into overlapping words of this many bases first.

    Returns:
        The data set with the columns of the tokenizer and the labels.
    """

    def encode(batch: dict[str, list[str]]) -> Any:
        return tokenizer(
            [words(sequence, kmer) for sequence in batch["sequence"]],
            truncation=max_length is not None,
            max_length=max_length,
        )

    others = [name for name in data["train"].column_names if name not in ("label", "labels")]
    return data.map(encode, batched=True, remove_columns=others, desc="Tokenizing", keep_in_memory=True)


def words(sequence: str, kmer: int | None) -> str:
    """Join the overlapping words of `kmer` bases with blanks; return the sequence itself without `kmer`."""
    if kmer is None:
        return sequence
    return " ".join(sequence[i : i + kmer] for i in range(len(sequence) - kmer + 1))
