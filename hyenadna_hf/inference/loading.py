"""Trained models for the commands that run them."""

import hashlib
import json
from pathlib import Path

import torch
from transformers import AutoTokenizer

from ..data.sequence import NUCLEOTIDES
from ..errors import InputError
from ..model.configuration_hyenadna import HyenaDNAConfig
from ..pretrained import BUNDLED_CHECKPOINTS

DTYPES = ("float32", "bfloat16")


def load_trained(auto_class, source, dtype="float32", tokenizer=None, trust_remote_code=False):
    """
    A HyenaDNA model that has all its weights, and its tokenizer.

    Args:
        auto_class (`type`): As `AutoModel`; what the class does not need, such as another head, is left out.
        source (`str`): A checkpoint that ships with the package, a folder, or the id of a model on the Hub.
        dtype (`str`, defaults to `"float32"`): Of the weights: `float32` or `bfloat16`.
        tokenizer (`str`, *optional*): Folder or Hub id of the tokenizer; `source` by default.
        trust_remote_code (`bool`, defaults to `False`): Allow code that comes with the checkpoint to run.

    Returns:
        `tuple`: the model, in eval mode on the CPU, and the tokenizer.

    Raises:
        InputError: if they cannot be loaded, are no HyenaDNA, or a weight of the model is not in the checkpoint.
    """
    if dtype not in DTYPES:
        raise InputError(f"--dtype {dtype}: it is one of {', '.join(DTYPES)}.")
    path = BUNDLED_CHECKPOINTS.get(source, source)
    remote = {"trust_remote_code": trust_remote_code}
    try:
        model, loading = auto_class.from_pretrained(
            path, dtype=getattr(torch, dtype), output_loading_info=True, **remote
        )
        tokenizer = AutoTokenizer.from_pretrained(tokenizer or path, **remote)
    except Exception as error:  # what absent files, foreign code, configurations and weights may raise
        there = "" if Path(path).is_dir() else f" There is no such folder; {', '.join(BUNDLED_CHECKPOINTS)} ships here."
        reason = " ".join(str(error).split())
        raise InputError(f"--model {source}: cannot be loaded ({reason}).{there}") from error
    if model.config.model_type != HyenaDNAConfig.model_type:
        raise InputError(f"--model {source}: this is a {model.config.model_type} model; give a HyenaDNA checkpoint.")
    missing = sorted(loading["missing_keys"])
    if missing:
        raise InputError(
            f"--model {source}: {missing[0]} and {len(missing) - 1:,} other weights of {type(model).__name__} are not "
            "in the checkpoint; take one that was trained with them."
        )
    return model.eval(), tokenizer


def check_tokenizer(tokenizer):
    """Refuse a tokenizer that does not give one token a base, by an `InputError`."""
    if len(tokenizer("ACGTN", add_special_tokens=False)["input_ids"]) != 5:
        raise InputError(f"tokenizer: {type(tokenizer).__name__} does not give one token a base; give the model's.")


def fingerprint(model, tokenizer):
    """
    What changes with whatever changes a model's output: weights, their dtype, configuration, token ids.

    Returns:
        `str`: hexadecimal digits. Where the checkpoint lies, and which transformers wrote it, have no part in it.
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
