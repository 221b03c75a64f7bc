"""Embed sequences with any Hugging Face model: hidden states of several layers, pooled in several ways, in one pass."""

import inspect
from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch.nn.utils.rnn import pad_sequence
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ..errors import InputError
from ..inference.batching import inference_of, length_bucketed
from ..model.configuration_hyenadna import HyenaDNAConfig
from ..model.padding_hyenadna import pool_positions
from ..training.classifier import longest_input, words

POOLINGS = ("mean", "max", "first", "last")
MAX_TOKENS = 16_384  # per batch
_EXAMPLE = "ACGT" * 16


def pooled_states(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    sequences: Sequence[str],
    layers: Sequence[int] | None = None,
    poolings: Sequence[str] = ("mean",),
    kmer: int | None = None,
    max_tokens: int = MAX_TOKENS,
) -> np.ndarray:
    """
    Embed sequences by the pooled hidden states of a model, with or without a head.

    Padding has no effect: it is masked, and a model that accepts no mask reads sequences of one length at a time. The
    model stays on its device and in its mode.

    Args:
        model: Model of any architecture. Its base model is used.
        tokenizer: Its tokenizer. HyenaDNA gets no special tokens; other models get those of their tokenizer, which are
            pooled like the other positions.
        sequences: DNA sequences. Longer ones than the model reads are truncated at their end (see [`tokenize`]).
        layers: Indices of hidden states: 0 for the embeddings, i for the output of block i, negative ones from the end.
            A model that returns its last hidden state only has one layer. Defaults to all.
        poolings: Poolings over all positions but padding: `"mean"`, `"max"`, `"first"` (such as [CLS]) and `"last"`.
        kmer: Length in bases of the overlapping words to split sequences into. Defaults to no splitting.
        max_tokens: Tokens in a batch, padding included. A longer sequence is a batch by itself.

    Returns:
        A float32 array of shape `(sequences, layers, poolings, width)`.

    Raises:
        InputError: If a layer or pooling does not exist, or the model has no hidden states.
    """
    token_ids, _ = tokenize(model, tokenizer, sequences, kmer)
    return pooled_states_of_tokens(model, tokenizer, token_ids, layers, poolings, max_tokens)


def pooled_states_of_tokens(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    token_ids: Sequence[list[int]],
    layers: Sequence[int] | None = None,
    poolings: Sequence[str] = ("mean",),
    max_tokens: int = MAX_TOKENS,
) -> np.ndarray:
    """
    Embed tokenized sequences like [`pooled_states`].

    Args:
        model: See [`pooled_states`].
        tokenizer: See [`pooled_states`].
        token_ids: Token ids of each sequence, from [`tokenize`].
        layers: See [`pooled_states`].
        poolings: See [`pooled_states`].
        max_tokens: See [`pooled_states`].

    Returns:
        A float32 array of shape `(sequences, layers, poolings, width)`.

    Raises:
        InputError: If a layer or pooling does not exist, or the model has no hidden states.
    """
    wrong = [pooling for pooling in poolings if pooling not in POOLINGS]
    if wrong:
        raise InputError(f"poolings: {wrong[0]!r} is not one of {', '.join(POOLINGS)}.")
    base = model.base_model
    parameters = inspect.signature(base.forward).parameters
    takes_mask = "attention_mask" in parameters
    has_states = "output_hidden_states" in parameters or any(p.kind == p.VAR_KEYWORD for p in parameters.values())
    embedded: list[Any] = [None] * len(token_ids)
    with inference_of(base):
        for numbers in _batches(token_ids, max_tokens, same_length=not takes_mask):
            rows = [torch.tensor(token_ids[number]) for number in numbers]
            ids = pad_sequence(rows, batch_first=True, padding_value=tokenizer.pad_token_id or 0)
            valid = torch.arange(ids.shape[1]) < torch.tensor([[len(row)] for row in rows])
            ids, valid = ids.to(base.device), valid.to(base.device)
            options: dict[str, Any] = {"attention_mask": valid.long()} if takes_mask else {}
            if has_states:
                options["output_hidden_states"] = True
            states = _hidden_states(base(input_ids=ids, **options), type(model).__name__)
            chosen = [states[layer] for layer in check_layers(layers, len(states))]
            pooled = [[pool_positions(state.float(), valid, pooling) for pooling in poolings] for state in chosen]
            for number, vectors in zip(numbers, torch.stack([torch.stack(row, 1) for row in pooled], 1).cpu().numpy()):
                embedded[number] = vectors
    return np.stack(embedded)


def count_layers(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> int:
    """Count the hidden states of a model, by a call; raise an `InputError` if it has none."""
    return pooled_states(model, tokenizer, [_EXAMPLE]).shape[1]


def check_layers(layers: Sequence[int] | None, count: int) -> list[int]:
    """Count layers from 0; return all without `layers`, and raise an `InputError` if one does not exist."""
    if layers is None:
        return list(range(count))
    wrong = [layer for layer in layers if not -count <= layer < count]
    if wrong:
        raise InputError(
            f"layers: {wrong[0]} does not exist; the model has the layers 0 to {count - 1}, or -1 to {-count}."
        )
    return [layer % count for layer in layers]


def tokenize(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, sequences: Sequence[str], kmer: int | None = None
) -> tuple[list[list[int]], int]:
    """
    Tokenize sequences as a model reads them, truncated to its longest input.

    Args:
        model: See [`pooled_states`].
        tokenizer: See [`pooled_states`].
        sequences: DNA sequences.
        kmer: See [`pooled_states`].

    Returns:
        The token ids of each sequence, and the number of truncated sequences.
    """
    special = {"add_special_tokens": model.config.model_type != HyenaDNAConfig.model_type, "verbose": False}
    texts = [words(sequence, kmer) for sequence in sequences]
    token_ids = list(tokenizer(texts, **special)["input_ids"])
    limit = longest_input(model.config, tokenizer)
    longer = [number for number, ids in enumerate(token_ids) if limit is not None and len(ids) > limit]
    for number in longer:
        token_ids[number] = tokenizer(texts[number], truncation=True, max_length=limit, **special)["input_ids"]
    return token_ids, len(longer)


def _batches(token_ids: Sequence[list[int]], max_tokens: int, same_length: bool) -> Iterator[list[int]]:
    """Batch the indices of sequences of similar or equal length."""
    groups: defaultdict[int, list[int]] = defaultdict(list)
    for number, ids in enumerate(token_ids):
        groups[len(ids) if same_length else 0].append(number)
    for group in groups.values():
        for batch in length_bucketed(group, lambda number: len(token_ids[number]), max_tokens):
            yield [number for _, number in batch]


def _hidden_states(output: Any, name: str) -> Sequence[torch.Tensor]:
    states = getattr(output, "hidden_states", None)
    if states:
        return states
    last = getattr(output, "last_hidden_state", None)
    if last is None and isinstance(output, tuple):  # remote code of older models
        last = output[0]
    if last is None or last.dim() != 3:
        raise InputError(f"--model: {name} has no hidden states to embed with.")
    return (last,)
