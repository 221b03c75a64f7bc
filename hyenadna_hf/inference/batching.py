"""Many sequences of many lengths through a model, in bounded memory."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from itertools import islice
from typing import Any

import torch
from transformers import PreTrainedModel

# Sequences are read ahead, to be sorted by length, until they make this many batches.
BATCHES_AHEAD = 8


@contextmanager
def inference_of(model: PreTrainedModel) -> Iterator[None]:
    """The model in eval mode and without gradients; afterwards every module is in the mode that it was found in."""
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        with torch.inference_mode():
            yield model
    finally:
        for module in training:
            module.training = True


def length_bucketed(
    items: Iterable, length: Callable, max_tokens: int, window: int = 4096
) -> Iterator[list[tuple[int, Any]]]:
    """
    Batches of items of like length, so that little of a batch is padding.

    Reads `window` items ahead and no more, so memory does not grow with their number. The order is not kept: each item
    comes with its index.

    Args:
        items: What to batch.
        length: Gives the number of tokens of an item.
        max_tokens: Tokens in a batch, padding included. A single item that is longer is a batch by itself.
        window: How many items to sort at a time.

    Yields:
        The batch, each item with its index in `items`.
    """
    numbered = enumerate(items)
    while ahead := list(islice(numbered, window)):
        batch = []
        # Longest first: what fills a batch is known from its first item, and running out of memory shows at once.
        for index, item in sorted(ahead, key=lambda pair: length(pair[1]), reverse=True):
            if batch and (len(batch) + 1) * max(1, length(batch[0][1])) > max_tokens:
                yield batch
                batch = []
            batch.append((index, item))
        yield batch


def chunks_of(items: Iterable, length: Callable, total: int) -> Iterator[list]:
    """
    Lists of consecutive items, each as short as it can be with `total` tokens: what to hold in memory at a time.

    Args:
        items: What to divide; read no further than the list that is handed over.
        length: Gives the number of tokens of an item.
        total: Tokens at which a list is full.

    Yields:
        Of at least one item.
    """
    chunk, held = [], 0
    for item in items:
        chunk.append(item)
        held += length(item)
        if held >= total:
            yield chunk
            chunk, held = [], 0
    if chunk:
        yield chunk
