"""What the commands that run models share: arguments, processes, the model, and files that appear when whole."""

import os
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM

from .. import __version__
from ..errors import InputError
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


def has_accelerator():
    """Whether there is a GPU or the like."""
    return torch.accelerator.is_available() if hasattr(torch, "accelerator") else torch.cuda.is_available()


def processes(use_cpu=False):
    """Accelerate's `PartialState`: this process among those that were launched together, and its device."""
    from accelerate import PartialState

    # They meet at the end of a job; the first one there waits as long as it takes.
    return PartialState(cpu=use_cpu or not has_accelerator(), timeout=timedelta(days=30))


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


def job(args, model, tokenizer, **more):
    """
    What tells a run of a command from another one, for JSON: a killed run is gone on with only if it is the same.

    Args:
        args ([`ScoringArguments`]): Of the command, with a `window`.
        model, tokenizer: The language model and its tokenizer; what they are counts, not where they come from.
        more: What else there is.

    Returns:
        `dict`
    """
    settings = {"version": __version__, "window": args.window, "bos": args.bos, "model": fingerprint(model, tokenizer)}
    return {**settings, "fasta": file_identity(args.fasta), **more}


def file_identity(path):
    """What tells a file from another one, or from a later version of itself, without reading it."""
    path = Path(path).expanduser().resolve()
    return [str(path), path.stat().st_size, path.stat().st_mtime_ns]


def output_path(argument, path, endings):
    """
    A path that can be written to.

    Args:
        argument, path (`str`): The argument that names it, and what it says.
        endings (`tuple[str]`): What a path may end with.

    Returns:
        `Path`

    Raises:
        InputError: if its ending is another one, its folder is absent, or it is a folder.
    """
    if not path.endswith(endings):
        raise InputError(f"{argument} {path}: the ending says the format; it must be one of {', '.join(endings)}.")
    path = Path(path).expanduser()
    if not path.parent.is_dir():
        raise InputError(f"{argument} {path}: there is no folder {path.parent}; make it first.")
    if path.is_dir():
        raise InputError(f"{argument} {path}: this is a folder; name a file.")
    return path


def replace_file(path, write):
    """
    Make a file, or put a new one in its place, when it is whole.

    Args:
        path (`Path`): The file.
        write (`Callable[[Path], None]`): Writes to the temporary path that it is given, with the same ending.
    """
    temporary = path.with_name(f".unfinished-{path.name}")
    try:
        write(temporary)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
