"""Options of the commands that score with language models, and the identity of their jobs."""

from dataclasses import dataclass, field
from typing import Any

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ..data.source import FASTA, regular_file
from ..jobs import sha256
from ..loading import CHECKPOINTS, InferenceArguments, fingerprint
from .likelihood import MAX_TOKENS


@dataclass(kw_only=True)
class ScoringArguments(InferenceArguments):
    model: str = field(metadata={"help": f"A HyenaDNA language model: {CHECKPOINTS}."})
    fasta: str = field(metadata={"help": "DNA sequences: FASTA, plain, bgzip or gzip; - for standard input."})
    bos: bool = field(
        default=False, metadata={"help": "Put [BOS] before each sequence (only for models trained that way)."}
    )
    max_tokens: int = field(default=MAX_TOKENS, metadata={"help": "Tokens in a batch, padding included."})


def identity_of(
    args: ScoringArguments, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, **more: Any
) -> dict[str, Any]:
    """
    Collect everything that the scores of a command depend on, JSON-serializable.

    Args:
        args: Arguments of the command.
        model: Language model, identified by its content, not its location.
        tokenizer: Tokenizer of the model, identified by its content.
        more: Further entries.
    """
    settings = {
        "bos": args.bos,
        "model": fingerprint(model, tokenizer),
        "fasta": sha256(regular_file(args.fasta, FASTA, unpack=False)),
    }
    return {**settings, **more}
