"""Embeddings of many sequences: hidden states of a HyenaDNA model, pooled or for every base."""

from collections.abc import Iterable, Iterator

import numpy as np
import torch
from transformers import PreTrainedTokenizerBase

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
    Embed sequences, one after the other, in memory that does not grow with their number.

    At a time it holds the sequences of about 8 batches (8 * `max_tokens` bases, and the rest of the one that reaches
    them), their embeddings, and the activations of one batch. No special tokens are added, padding has no effect, and
    the blocks above `layer` are not run. The model stays on its device, and is in the mode in which it was found
    whenever an embedding is handed over.

    Args:
        model ([`HyenaDNAModel`], or a model with a head, or either with PEFT adapters): Its base model is used.
        tokenizer ([`HyenaDNATokenizer`]): The model's.
        sequences (iterable of `str`):
            DNA in IUPAC codes. Lower case (soft-masked) is read like upper case. Read lazily; a list or a tuple is
            checked whole before any work.
        pooling (`str`, defaults to `"mean"`):
            `"mean"` over the bases, the `"last"` base, which alone has seen all the others, or `"none"`: every base.
        layer (`int`, defaults to -1):
            Which of the model's `n_layer + 1` hidden states: 0 is the token embeddings, i the output of block i, and
            -1, or `n_layer`, that of the last block after the final norm.
        reverse_complement (`bool`, defaults to `False`):
            Mean of both strands. Without pooling, a base is averaged with its partner on the other strand; with
            `"last"`, the last base of the sequence with the last of its reverse complement.
        max_tokens (`int`, defaults to 16384): Tokens in a batch, padding included. A longer sequence is one by itself.
        window (`int`, *optional*):
            Read longer sequences as overlapping tiles of this many bases, stitched at the middle of the overlaps
            before pooling; see [`tiles`]. A base then sees no further back than its tile. Without it a sequence beyond
            the model's `max_seq_len` is an error.
        stride (`int`, *optional*): Bases from one tile to the next; half of `window` by default.

    Returns:
        iterator of `np.ndarray`, float32, in the order of `sequences`: of shape `(d_model,)`, or `(length, d_model)`
        with `pooling="none"`.

    Raises:
        InputError: if an argument will not do, at once; if a sequence is empty, too long or no DNA, at once for a list
            or a tuple, else when it is read.
    """
    base = base_model_of(model)
    check_tokenizer(tokenizer)
    layer, window, stride = check_arguments(base.config, pooling, layer, max_tokens, window, stride)
    if isinstance(sequences, str):
        raise InputError("sequences is a single string; give a list of them.")
    longest = None if window else base.config.max_seq_len
    checked: Iterable = (_checked(number, sequence, longest) for number, sequence in enumerate(sequences))
    if isinstance(sequences, (list, tuple)):
        checked = list(checked)
    # Without a window nothing is longer than max_seq_len: one tile each.
    cut = (window or base.config.max_seq_len, stride or 1)
    return _embed(base, tokenizer, checked, pooling, layer, bool(reverse_complement), max_tokens, cut)


def check_arguments(config, pooling, layer, max_tokens, window, stride):
    """
    Refuse arguments of [`embed`] that do not fit each other or the model.

    Args:
        config ([`HyenaDNAConfig`]): Of the model; the others as in [`embed`].

    Returns:
        `tuple`: `layer`, counted from 0, `window` and `stride`; both `None` without a window.

    Raises:
        InputError: names the argument, its value and what will do.
    """
    if pooling not in POOLINGS:
        raise InputError(f"pooling={pooling!r}: it is one of {', '.join(POOLINGS)}.")
    if not -config.n_layer - 1 <= layer <= config.n_layer:
        raise InputError(
            f"layer={layer}: this model has {config.n_layer} blocks, so give 0 (the token embeddings) to "
            f"{config.n_layer} (the last), or -1 to {-config.n_layer - 1} from the end."
        )
    if max_tokens < 1:
        raise InputError(f"max_tokens={max_tokens}: a batch has at least 1 token.")
    if window is None:
        if stride is not None:
            raise InputError(f"stride={stride}: there are no tiles without window; give it too.")
    else:
        if not 1 <= window <= config.max_seq_len:
            raise InputError(f"window={window}: give 1 to {config.max_seq_len}, the model's max_seq_len.")
        stride = max(1, window // 2) if stride is None else stride
        if not 1 <= stride <= window:
            raise InputError(f"stride={stride}: give 1 to {window}, the window, so that no base falls between tiles.")
    return layer % (config.n_layer + 1), window, stride


def base_model_of(model):
    """The base model of a HyenaDNA model, with PEFT adapters or without; an `InputError` for others."""
    if hasattr(model, "get_base_model"):  # PEFT: adapters are inside the layers, a prompt is not
        if model.active_peft_config.is_prompt_learning:
            raise InputError("the model has a soft prompt, which embed would leave out; give the model itself.")
        model = model.get_base_model()
    if getattr(getattr(model, "config", None), "model_type", None) != HyenaDNAConfig.model_type:
        raise InputError(f"{type(model).__name__} is no HyenaDNA model; only those can be embedded with.")
    return model.base_model


def _checked(number, sequence, longest):
    if not isinstance(sequence, str) or not sequence:
        raise InputError(f"sequence {number:,} (from 0) is {sequence!r}; each is a string of at least one base.")
    if longest is not None and len(sequence) > longest:
        raise InputError(
            f"sequence {number:,} (from 0) has {len(sequence):,} bases, but the model's max_seq_len is {longest:,}; "
            "shorten it, or read it in tiles with window and stride."
        )
    wrong = NOT_A_NUCLEOTIDE.search(sequence)
    if wrong:
        raise InputError(
            f"sequence {number:,} (from 0) holds {wrong[0]!r} at base {wrong.start() + 1:,}; allowed are A, C, G, T, "
            "U, N and the other IUPAC nucleotide codes."
        )
    return sequence


def _embed(base, tokenizer, sequences, pooling, layer, both_strands, max_tokens, cut):
    for chunk in chunks_of(sequences, len, BATCHES_AHEAD * max_tokens):
        with inference_of(base):  # left before anything is handed over
            embedded = _embed_chunk(base, tokenizer, chunk, pooling, layer, both_strands, max_tokens, cut)
        yield from embedded
        del embedded, chunk  # before the next ones are made


def _embed_chunk(base, tokenizer, chunk, pooling, layer, both_strands, max_tokens, cut):
    """The embeddings of a list of sequences; `cut` is the window and stride of their tiles."""
    strands = [(sequence, opposite_strand(sequence)) if both_strands else (sequence,) for sequence in chunk]
    width = base.config.d_model
    embedded = [np.zeros((len(s), width) if pooling == "none" else width, np.float32) for s in chunk]
    pieces = (
        (number, strand, tile)
        for number, sequence in enumerate(chunk)
        for strand in range(len(strands[number]))
        for tile in tiles(len(sequence), *cut)
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


def _hidden_states(base, tokenizer, texts, layer):
    """Hidden states number `layer` of a batch, of shape `(batch, length, d_model)`, float32; padded on the right."""
    tokens = tokenizer(texts, add_special_tokens=False, padding=True, padding_side="right", return_tensors="pt")
    # A causal model never looks forward: what stands behind a sequence changes nothing in it, so it needs no mask.
    input_ids = tokens["input_ids"].to(base.device)
    if layer == base.config.n_layer:
        return base(input_ids=input_ids).last_hidden_state.float()

    embeds = base.backbone.embeddings(input_ids)
    hidden, _ = base.backbone(embeds, base.plan(input_ids), overwrite=True, blocks=layer)
    return hidden.float()
