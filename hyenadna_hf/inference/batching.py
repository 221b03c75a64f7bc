"""Batch many sequences of different lengths, in bounded memory."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from itertools import islice
from typing import TypeVar

import torch
from transformers import PreTrainedModel

# Sequences are read ahead and sorted by length until they fill this many batches.
BATCHES_AHEAD = 8
Item = TypeVar("Item")


@contextmanager
def inference_of(model: PreTrainedModel) -> Iterator[PreTrainedModel]:
    """Run a model in evaluation mode without gradients; afterwards restore the mode of every module."""
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        with torch.inference_mode():
            yield model
    finally:
        for module in training:
            module.training = True


def length_bucketed(
    items: Iterable[Item], length: Callable[[Item], int], max_tokens: int, window: int = 4096
) -> Iterator[list[tuple[int, Item]]]:
    """
    Batch items of similar length, so that batches contain little padding.

    At most `window` items are read ahead, so memory does not grow with their number. The order changes: each item comes
    with its index.

    Args:
        items: Items to batch.
        length: Returns the number of tokens of an item.
        max_tokens: Tokens in a batch, padding included. A longer item is a batch by itself.
        window: Number of items to sort at a time.

    Yields:
        Batches of items with their indices in `items`.
    """
    numbered = enumerate(items)
    while ahead := list(islice(numbered, window)):
        batch: list[tuple[int, Item]] = []
        # Longest first: the first item sets the width of a batch, and running out of memory shows early.
        for index, item in sorted(ahead, key=lambda pair: length(pair[1]), reverse=True):
            if batch and (len(batch) + 1) * max(1, length(batch[0][1])) > max_tokens:
                yield batch
                batch = []
            batch.append((index, item))
        yield batch


def chunks_of(items: Iterable[Item], length: Callable[[Item], float], total: float) -> Iterator[list[Item]]:
    """
    Divide items into lists of consecutive items, each as short as possible with at least `total` tokens.

    Args:
        items: Items to divide, read lazily.
        length: Returns the number of tokens of an item.
        total: Number of tokens at which a list is complete.

    Yields:
        Non-empty lists of items.
    """
    chunk: list[Item] = []
    size = 0.0
    for item in items:
        chunk.append(item)
        size += length(item)
        if size >= total:
            yield chunk
            chunk, size = [], 0.0
    if chunk:
        yield chunk
