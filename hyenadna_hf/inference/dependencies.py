"""
Dependency maps: how a change of one base moves what a language model predicts at another.

The dependency of base j on base i is the largest change of the log2 odds of a nucleotide at j, over the four
nucleotides and over the three substitutions of base i: nucleotide dependencies of Tomaz da Silva et al. 2024. The
maximum keeps a dependency that one substitution alone shows, as where only one of them breaks a motif or a pair of a
stem; a mean would dilute it.

A causal model predicts a base from those before it, so the sequence gives the dependencies of j > i, and its reverse
complement those of j < i.
"""

import copy

import numpy as np
import torch
from transformers import PreTrainedTokenizerBase

from ..data.sequence import BASES, normalise, reverse_complement
from ..errors import InputError
from .batching import inference_of
from .embed import base_model_of
from .likelihood import MAX_TOKENS, BaseLikelihood

# Positions in the caches of a batch, in multiples of `max_tokens`: what they hold is less than activations take.
CACHED = 4


def dependency_map(
    model: torch.nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    sequence: str,
    start: int = 0,
    end: int | None = None,
    bos: bool = False,
    max_tokens: int = MAX_TOKENS,
) -> np.ndarray:
    """
    Dependencies between all bases of a part of a sequence.

    Args:
        model ([`HyenaDNAForCausalLM`], also with PEFT adapters): The language model; its device and mode are left as
            they are found.
        tokenizer ([`HyenaDNATokenizer`]): Its tokenizer; no special tokens are added.
        sequence (`str`): IUPAC nucleotide codes: the part, with the bases around it that the model reads as well.
        start (`int`, defaults to 0): First base of the part, from 0.
        end (`int`, *optional*): The base after its last one; by default the end of the sequence.
        bos (`bool`, defaults to `False`): Put [BOS] before the sequence.
        max_tokens (`int`, defaults to 16384): Tokens in a batch.

    Returns:
        `np.ndarray` of shape `(bases, bases)`, float32: in row i and column j how much a change of base i of the part
        moves the prediction at base j, in log2 odds; NaN on the diagonal and in rows of other bases than A, C, G, T.

    Raises:
        InputError: if the part is not one of the sequence, or the sequence is too long for the model.
    """
    likelihood = BaseLikelihood(model, tokenizer, bos, max_tokens)
    end = len(sequence) if end is None else end
    check_part(likelihood, sequence, start, end)
    forward = dependencies_on_a_strand(likelihood, sequence[:end], start, start, end)
    other = reverse_complement(sequence[start:])
    first = len(sequence) - end
    return stitched(forward, dependencies_on_a_strand(likelihood, other, first, first, len(other)))


def check_part(likelihood, sequence, start, end):
    """Refuse, by an `InputError`, what [`dependency_map`] cannot read."""
    base_model_of(likelihood.model)  # refuses soft prompts
    if not 0 <= start < end <= len(sequence):
        raise InputError(f"start={start}, end={end}: this is no part of a sequence of {len(sequence):,} bases.")
    if len(sequence) > likelihood.longest:
        raise InputError(
            f"sequence: it has {len(sequence):,} bases, but the model reads {likelihood.longest:,} at once; shorten it."
        )


def stitched(forward, reverse):
    """
    The map of both strands.

    Args:
        forward, reverse (`np.ndarray` of shape `(bases, bases)`): As from [`dependencies_on_a_strand`], each in the
            direction of its strand.

    Returns:
        `np.ndarray` of shape `(bases, bases)`, on forward coordinates.
    """
    return np.where(np.isnan(forward), reverse[::-1, ::-1], forward)


def dependencies_on_a_strand(likelihood, sequence, start, first, last):
    """
    Dependencies of later bases on earlier ones, from the start of a part to the end of a sequence.

    What stands before the first changed base is read once: each substitution continues from a copy of its cache.

    Args:
        likelihood ([`BaseLikelihood`]): Reads sequences.
        sequence (`str`): IUPAC nucleotide codes.
        start (`int`): First base of the part; it goes to the end of the sequence.
        first, last (`int`): The bases to change, from `first` to before `last`.

    Returns:
        `np.ndarray` of shape `(last - first, bases of the part)`, float32, NaN where j <= i.
    """
    found = np.full((last - first, len(sequence) - start), np.nan, np.float32)
    changed = [first + offset for offset, base in enumerate(normalise(sequence[first:last])) if base in BASES]
    ids = likelihood.tokens([sequence])
    bases = likelihood.base_ids.to(ids.device)
    prefix, ids = ids.tensor_split([ids.shape[1] - len(sequence) + first], dim=1)
    length = ids.shape[1]
    substitutions = [(i - first, token) for i in changed for token in bases if token != ids[0, i - first]]
    # The sequence itself is a row of each batch.
    rows = min(likelihood.max_tokens // length, CACHED * likelihood.max_tokens // (prefix.shape[1] + length))
    at_once = max(1, (rows - 1) // 3) * 3
    with inference_of(likelihood.model) as model:
        cache = model(prefix, use_cache=True).past_key_values if prefix.shape[1] else None
        for begin in range(0, len(substitutions), at_once):
            batch = substitutions[begin : begin + at_once]
            inputs = ids.repeat(1 + len(batch), 1)
            for row, (offset, token) in enumerate(batch, start=1):
                inputs[row, offset] = token
            copied = copy.deepcopy(cache)
            if copied is not None:
                copied.batch_repeat_interleave(len(inputs))
            odds = _log2_odds(model(inputs, past_key_values=copied).logits[..., bases])
            moved = (odds[1:] - odds[:1]).abs().amax(-1)  # [substitutions, length]: at t, of base t + 1
            for offset in dict.fromkeys(offset for offset, _ in batch):
                of_base = [row for row, (changed_here, _) in enumerate(batch) if changed_here == offset]
                found[offset, first - start + offset + 1 :] = moved[of_base].amax(0)[offset:-1].cpu().numpy()
    return found


def _log2_odds(logits):
    """The log2 odds of each base against the other three, of shape `(..., 4)`, from their logits."""
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    others = logits[..., None, :].masked_fill(torch.eye(len(BASES), dtype=torch.bool, device=logits.device), -torch.inf)
    return (logits - others.logsumexp(-1)) / np.log(2)
