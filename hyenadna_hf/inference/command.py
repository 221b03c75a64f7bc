"""Arguments and the model of the commands that score with language models."""

from dataclasses import dataclass, field

from transformers import AutoModelForCausalLM

from ..data.source import FASTA, regular_file
from ..jobs import output_path as output_path  # until its users import it from there
from ..jobs import replace_file as replace_file
from ..jobs import sha256
from ..processes import has_accelerator as has_accelerator
from ..processes import processes
from .likelihood import MAX_TOKENS
from .loading import DTYPES, fingerprint, load_trained


@dataclass(kw_only=True)
class ScoringArguments:
    model: str = field(metadata={"help": "Folder or Hub id of a HyenaDNA language model."})
    fasta: str = field(metadata={"help": "The reference: FASTA, plain, bgzip or gzip."})
    bos: bool = field(
        default=False, metadata={"help": "Put [BOS] before what is scored (only for models trained that way)."}
    )
    max_tokens: int = field(default=MAX_TOKENS, metadata={"help": "Tokens in a batch, padding included."})
    dtype: str = field(default="float32", metadata={"help": f"Of the weights: {', '.join(DTYPES)}."})
    tokenizer: str | None = field(
        default=None, metadata={"help": "Folder or Hub id of the tokenizer (default: --model)."}
    )
    trust_remote_code: bool = field(default=False, metadata={"help": "Allow code that comes with --model to run."})
    use_cpu: bool = field(default=False, metadata={"help": "Do not use an accelerator, although there is one."})


def load_language_model(args):
    """
    The language model of a command and its tokenizer.

    Args:
        args ([`ScoringArguments`]): Of the command.

    Returns:
        `tuple`: the model, in eval mode on the device of this process, and the tokenizer.

    Raises:
        InputError: if it cannot be loaded, or is no language model.
    """
    model, tokenizer = load_trained(
        AutoModelForCausalLM, args.model, args.dtype, args.tokenizer, args.trust_remote_code
    )
    return model.to(processes(args.use_cpu).device), tokenizer


def identity_of(args, model, tokenizer, **more):
    """
    All that the scores of a command depend on, for JSON.

    Args:
        args ([`ScoringArguments`]): Of the command.
        model, tokenizer: The language model and its tokenizer: their content counts, not where they lie.
        more: Anything else.

    Returns:
        `dict`
    """
    settings = {
        "bos": args.bos,
        "model": fingerprint(model, tokenizer),
        "fasta": sha256(regular_file(args.fasta, FASTA, unpack=False)),
    }
    return {**settings, **more}
