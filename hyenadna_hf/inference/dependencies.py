"""
Dependency maps: how substituting one base changes the predictions of a language model at another.

The dependency of base j on base i is the largest change of the log2 odds of a nucleotide at j, over the four
nucleotides and the three substitutions of base i (nucleotide dependencies; Tomaz da Silva et al. 2024). The maximum
keeps dependencies that a single substitution reveals, such as one that breaks a motif or a base pair of a stem; a mean
would dilute them.

A causal model predicts a base from the bases before it. The sequence therefore gives the dependencies with j > i, and
its reverse complement those with j < i.
"""

import copy

import numpy as np
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ..data.sequence import BASES, normalise, reverse_complement
from ..errors import InputError
from ..model.cache_hyenadna import HyenaDNACache
from .batching import inference_of
from .embed import base_model_of
from .likelihood import MAX_TOKENS, BaseLikelihood

# Positions in the caches of a batch, as a multiple of `max_tokens`; they need less memory than activations.
CACHED = 4


def dependency_map(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    sequence: str,
    start: int = 0,
    end: int | None = None,
    bos: bool = False,
    max_tokens: int = MAX_TOKENS,
) -> np.ndarray:
    """
    Compute the dependencies between all bases of a region.

    Args:
        model: A HyenaDNA language model, with or without PEFT adapters. Its device and mode do not change.
        tokenizer: Tokenizer of the model. No special tokens are added.
        sequence: IUPAC nucleotide codes of the region and its context.
        start: First base of the region, 0-based.
        end: End of the region, exclusive. Defaults to the end of the sequence.
        bos: Prepend [BOS] to the sequence.
        max_tokens: Tokens in a batch.

    Returns:
        A float32 array of shape `(bases, bases)`. Row i, column j holds the change of the prediction at base j of the
        region after substitutions of base i, in log2 odds; NaN on the diagonal and in rows of bases other than A, C, G
        and T.

    Raises:
        InputError: If the region is invalid, or the sequence is too long for the model.
    """
    likelihood = BaseLikelihood(model, tokenizer, bos, max_tokens)
    end = len(sequence) if end is None else end
    check_part(likelihood, sequence, start, end)
    forward = dependencies_on_a_strand(likelihood, sequence[:end], start, start, end)
    reverse = reverse_complement(sequence[start:])
    first = len(sequence) - end
    return combine_strands(forward, dependencies_on_a_strand(likelihood, reverse, first, first, len(reverse)))


def check_part(likelihood: BaseLikelihood, sequence: str, start: int, end: int) -> None:
    """Raise an `InputError` if [`dependency_map`] cannot read a region."""
    base_model_of(likelihood.model)  # rejects soft prompts
    if not 0 <= start < end <= len(sequence):
        raise InputError(
            f"start={start}, end={end}: this is not a region of a sequence of {len(sequence):,} bases; give 0 <= start "
            "< end <= length."
        )
    if len(sequence) > likelihood.longest:
        raise InputError(
            f"sequence: it has {len(sequence):,} bases, but the model reads {likelihood.longest:,} at once; shorten it."
        )


def combine_strands(forward: np.ndarray, reverse: np.ndarray) -> np.ndarray:
    """
    Combine the maps of both strands.

    Args:
        forward: Map from [`dependencies_on_a_strand`], of shape `(bases, bases)`.
        reverse: The same for the reverse complement, in its own direction.

    Returns:
        The map in forward coordinates, of shape `(bases, bases)`.
    """
    return np.where(np.isnan(forward), reverse[::-1, ::-1], forward)


def dependencies_on_a_strand(
    likelihood: BaseLikelihood, sequence: str, start: int, first: int, last: int
) -> np.ndarray:
    """
    Compute the dependencies of later on earlier bases in a region at the end of a sequence.

    The context before the first changed base is read once; each substitution continues from a copy of its cache.

    Args:
        likelihood: Model and tokenizer.
        sequence: IUPAC nucleotide codes.
        start: First base of the region, which extends to the end of the sequence.
        first: First base to change.
        last: End of the bases to change, exclusive.

    Returns:
        A float32 array of shape `(last - first, bases of the region)`, NaN where j <= i.
    """
    dependencies: np.ndarray = np.full((last - first, len(sequence) - start), np.nan, np.float32)
    changed = [first + offset for offset, base in enumerate(normalise(sequence[first:last])) if base in BASES]
    ids = likelihood.tokens([sequence])
    bases = likelihood.base_ids.to(ids.device)
    prefix, ids = ids.tensor_split([ids.shape[1] - len(sequence) + first], dim=1)
    length = ids.shape[1]
    substitutions = [(i - first, token) for i in changed for token in bases if token != ids[0, i - first]]
    # The sequence itself is a row of each batch.
    rows = min(likelihood.max_tokens // length, CACHED * likelihood.max_tokens // (prefix.shape[1] + length))
    batch_size = max(1, (rows - 1) // 3) * 3
    with inference_of(likelihood.model) as model:
        cache = None
        if prefix.shape[1]:
            cache = HyenaDNACache(model.config, expected_length=prefix.shape[1] + length)
            model(prefix, past_key_values=cache)
        for begin in range(0, len(substitutions), batch_size):
            batch = substitutions[begin : begin + batch_size]
            inputs = ids.repeat(1 + len(batch), 1)
            for row, (offset, token) in enumerate(batch, start=1):
                inputs[row, offset] = token
            batch_cache = copy.deepcopy(cache)
            if batch_cache is not None:
                batch_cache.batch_repeat_interleave(len(inputs))
            odds = _log2_odds(model(inputs, past_key_values=batch_cache).logits[..., bases])
            changes = (odds[1:] - odds[:1]).abs().amax(-1)  # [substitutions, length]: at t, of base t + 1
            for offset in dict.fromkeys(offset for offset, _ in batch):
                batch_rows = [row for row, (position, _) in enumerate(batch) if position == offset]
                dependencies[offset, first - start + offset + 1 :] = (
                    changes[batch_rows].amax(0)[offset:-1].cpu().numpy()
                )
    return dependencies


def _log2_odds(logits: torch.Tensor) -> torch.Tensor:
    """Compute the log2 odds of each base against the other three, of shape `(..., 4)`, from their logits."""
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    others = logits[..., None, :].masked_fill(torch.eye(len(BASES), dtype=torch.bool, device=logits.device), -torch.inf)
    return (logits - others.logsumexp(-1)) / np.log(2)
