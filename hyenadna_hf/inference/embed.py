"""Embed many sequences: hidden states of a HyenaDNA model, pooled or for every base."""

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ..data.sequence import NOT_A_NUCLEOTIDE
from ..data.sequence import reverse_complement as opposite_strand
from ..errors import InputError
from ..loading import check_tokenizer
from ..model.configuration_hyenadna import HyenaDNAConfig
from ..model.padding_hyenadna import pool_positions
from .batching import BATCHES_AHEAD, chunks_of, inference_of, length_bucketed
from .tiling import tiles

POOLINGS = ("mean", "last", "none")


def embed(
    model: torch.nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    sequences: Iterable[str],
    pooling: str = "mean",
    layer: int = -1,
    reverse_complement: bool = False,
    max_tokens: int = 16384,
    window: int | None = None,
    stride: int | None = None,
) -> Iterator[np.ndarray]:
    """
    Embed sequences one after the other, in memory that does not grow with their number.

    Memory holds the sequences of about 8 batches (8 * `max_tokens` bases, and the rest of the last sequence), their
    embeddings, and the activations of one batch. No special tokens are added, padding has no effect, and the blocks
    above `layer` are not run. The model stays on its device, and is back in its original mode whenever an embedding is
    yielded.

    Args:
        model: A HyenaDNA model, with or without a head or PEFT adapters. Its base model is used.
        tokenizer: Tokenizer of the model.
        sequences: DNA in IUPAC codes; case is ignored. Read lazily; a list or tuple is checked as a whole first.
        pooling: `"mean"` over the bases, `"last"` for the last base, which alone has seen all others, or `"none"` for
            every base.
        layer: Index among the `n_layer + 1` hidden states: 0 for the token embeddings, i for the output of block i, and
            -1 or `n_layer` for the output of the last block after the final norm.
        reverse_complement: Average over both strands. Without pooling, a base is averaged with its partner on the other
            strand; with `"last"`, the last base of the sequence with the last base of its reverse complement.
        max_tokens: Tokens in a batch, padding included. A longer sequence is a batch by itself.
        window: Read longer sequences as overlapping tiles of this many bases, stitched in the middle of the overlaps
            before pooling (see [`tiles`]). The context of a base is then limited to its tile. Without a window,
            sequences longer than the model's `max_seq_len` are an error.
        stride: Bases from one tile to the next. Defaults to half of `window`.

    Returns:
        An iterator of float32 arrays in the order of `sequences`, of shape `(d_model,)`, or `(length, d_model)` with
        `pooling="none"`.

    Raises:
        InputError: Immediately if an argument is invalid; if a sequence is empty, too long or not DNA, immediately for
            a list or tuple, otherwise when it is read.
    """
    base = base_model_of(model)
    check_tokenizer(tokenizer)
    layer, window, stride = check_arguments(base.config, pooling, layer, max_tokens, window, stride)
    if isinstance(sequences, str):
        raise InputError("sequences is a single string; give a list of strings.")
    longest = None if window else base.config.max_seq_len
    checked: Iterable[str] = (_check_sequence(number, sequence, longest) for number, sequence in enumerate(sequences))
    if isinstance(sequences, (list, tuple)):
        checked = list(checked)
    # Without a window, no sequence is longer than max_seq_len: one tile each.
    tiling = (window or base.config.max_seq_len, stride or 1)
    return _embed(base, tokenizer, checked, pooling, layer, bool(reverse_complement), max_tokens, tiling)


def check_arguments(
    config: HyenaDNAConfig, pooling: str, layer: int, max_tokens: int, window: int | None, stride: int | None
) -> tuple[int, int | None, int | None]:
    """
    Check arguments of [`embed`] against each other and the model.

    Args:
        config: Configuration of the model.
        pooling: See [`embed`].
        layer: See [`embed`].
        max_tokens: See [`embed`].
        window: See [`embed`].
        stride: See [`embed`].

    Returns:
        `layer` counted from 0, `window` and `stride`; the latter two are `None` without a window.

    Raises:
        InputError: If an argument is invalid. The error names the argument, its value and the valid values.
    """
    if pooling not in POOLINGS:
        raise InputError(f"pooling={pooling!r}: choose one of {', '.join(POOLINGS)}.")
    if not -config.n_layer - 1 <= layer <= config.n_layer:
        raise InputError(
            f"layer={layer}: this model has {config.n_layer} blocks, so give 0 (the token embeddings) to "
            f"{config.n_layer} (the last), or -1 to {-config.n_layer - 1} from the end."
        )
    if max_tokens < 1:
        raise InputError(f"max_tokens={max_tokens}: give at least 1.")
    if window is None:
        if stride is not None:
            raise InputError(f"stride={stride}: it has no effect without window; give both.")
    else:
        if not 1 <= window <= config.max_seq_len:
            raise InputError(f"window={window}: give 1 to {config.max_seq_len}, the model's max_seq_len.")
        stride = max(1, window // 2) if stride is None else stride
        if not 1 <= stride <= window:
            raise InputError(f"stride={stride}: give 1 to {window}, the window, so that tiles cover every base.")
    return layer % (config.n_layer + 1), window, stride


def base_model_of(model: Any) -> PreTrainedModel:
    """
    Return the base model of a HyenaDNA model with or without PEFT adapters; raise an `InputError` for other models.
    """
    if hasattr(model, "get_base_model"):  # PEFT: adapters are inside the layers, unlike a prompt
        if model.active_peft_config.is_prompt_learning:
            raise InputError("the model has a soft prompt, which embed would ignore; give its base model.")
        model = model.get_base_model()
    if getattr(getattr(model, "config", None), "model_type", None) != HyenaDNAConfig.model_type:
        raise InputError(f"{type(model).__name__} is not a HyenaDNA model; embed supports only those.")
    return model.base_model


def _check_sequence(number: int, sequence: str, longest: int | None) -> str:
    if not isinstance(sequence, str) or not sequence:
        raise InputError(f"sequence {number:,} (from 0) is {sequence!r}; give strings of at least one base.")
    if longest is not None and len(sequence) > longest:
        raise InputError(
            f"sequence {number:,} (from 0) has {len(sequence):,} bases, but the model's max_seq_len is {longest:,}; "
            "shorten it, or set window to read it in tiles."
        )
    wrong = NOT_A_NUCLEOTIDE.search(sequence)
    if wrong:
        raise InputError(
            f"sequence {number:,} (from 0) contains {wrong[0]!r} at base {wrong.start() + 1:,}; allowed are A, C, G, "
            "T, U, N and the other IUPAC nucleotide codes."
        )
    return sequence


def _embed(
    base: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    sequences: Iterable[str],
    pooling: str,
    layer: int,
    both_strands: bool,
    max_tokens: int,
    tiling: tuple[int, int],
) -> Iterator[np.ndarray]:
    for chunk in chunks_of(sequences, len, BATCHES_AHEAD * max_tokens):
        with inference_of(base):  # left before anything is yielded
            embedded = _embed_chunk(base, tokenizer, chunk, pooling, layer, both_strands, max_tokens, tiling)
        yield from embedded
        del embedded, chunk  # free memory before the next chunk


def _embed_chunk(
    base: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    chunk: list[str],
    pooling: str,
    layer: int,
    both_strands: bool,
    max_tokens: int,
    tiling: tuple[int, int],
) -> list[np.ndarray]:
    """Embed a list of sequences; `tiling` is the window and stride of their tiles."""
    strands = [(sequence, opposite_strand(sequence)) if both_strands else (sequence,) for sequence in chunk]
    width = base.config.d_model
    embedded = [np.zeros((len(s), width) if pooling == "none" else width, np.float32) for s in chunk]
    pieces = (
        (number, strand, tile)
        for number, sequence in enumerate(chunk)
        for strand in range(len(strands[number]))
        for tile in tiles(len(sequence), *tiling)
        if pooling != "last" or tile.end == len(sequence)
    )
    for numbered in length_bucketed(pieces, lambda piece: piece[2].end - piece[2].start, max_tokens):
        batch = [piece for _, piece in numbered]
        texts = [strands[number][strand][tile.start : tile.end] for number, strand, tile in batch]
        hidden = _hidden_states(base, tokenizer, texts, layer)
        if pooling == "none":
            for (number, strand, tile), values in zip(batch, hidden):
                target = embedded[number][:: -1 if strand else 1]
                target[tile.keep_start : tile.keep_end] += values[tile.kept].cpu().numpy() / len(strands[number])
            continue
        kept = torch.zeros(hidden.shape[:2], dtype=torch.bool)
        for row, (*_, tile) in enumerate(batch):
            kept[row, tile.kept] = True
        pooled = pool_positions(hidden, kept.to(hidden.device), pooling).cpu().numpy()
        for (number, _, tile), vector in zip(batch, pooled):
            share = (tile.keep_end - tile.keep_start) / len(chunk[number]) if pooling == "mean" else 1.0
            embedded[number] += vector * (share / len(strands[number]))
    return embedded


def _hidden_states(
    base: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, texts: list[str], layer: int
) -> torch.Tensor:
    """
    Return hidden states number `layer` of a batch, shape `(batch, length, d_model)`, float32, padded on the right.
    """
    tokens = tokenizer(texts, add_special_tokens=False, padding=True, padding_side="right", return_tensors="pt")
    input_ids = tokens["input_ids"].to(base.device)
    if base.config.bidirectional:
        lengths = torch.tensor([[len(text)] for text in texts], device=base.device)
        mask = torch.arange(input_ids.shape[1], device=base.device) < lengths
        return base(input_ids=input_ids, attention_mask=mask, output_hidden_states=True).hidden_states[layer].float()
    # In a causal model, padding on the right has no effect, so no mask is needed.
    if layer == base.config.n_layer:
        return base(input_ids=input_ids).last_hidden_state.float()

    embeds = base.backbone.embeddings(input_ids)
    hidden, _ = base.backbone(embeds, base.plan(input_ids), overwrite=True, blocks=layer)
    return hidden.float()
