"""Streams of examples by index: shuffled, divided among ranks and workers, and resumable, in constant memory."""

from collections.abc import Iterator
from copy import copy
from functools import lru_cache
from itertools import islice
from typing import Any

import numpy as np
import torch
from torch.utils.data import IterableDataset, get_worker_info

from ..errors import InputError

_BLOCK = 1024  # indices permuted at a time


class WindowStream(IterableDataset):
    """
    Base class of data sets that can make an example from its index.

    In an epoch, every example occurs once over all ranks and dataloader workers, in an order that depends on `seed` and
    `epoch`. Ranks differ by at most one example. Subclasses implement `size()` and `example(index)`.

    Streams resume like those of `datasets` and torchdata's `StatefulDataLoader`: after `load_state_dict(state_dict())`
    on an equal data set, iteration continues after the last example. Without dataloader workers, call `state_dict()` on
    the data set itself; with workers, each has a copy, whose state `StatefulDataLoader` (`use_stateful_dataloader` in
    Accelerate) collects.

    Args:
        shuffle: Shuffle the examples, differently in each epoch (see `set_epoch`).
        seed: Random seed.
        rank: Index of the share of this process. Defaults to the rank in the torch.distributed process group, or 0.
        world_size: Number of shares. Defaults to the size of the process group, or 1. Trainer and Accelerate divide
            streams themselves: use `rank=0, world_size=1` with them.
    """

    def __init__(
        self, shuffle: bool = True, seed: int = 0, rank: int | None = None, world_size: int | None = None
    ) -> None:
        if (rank is None) != (world_size is None):
            raise InputError(f"rank={rank}, world_size={world_size}: give both or neither.")
        if rank is not None and world_size is not None and not 0 <= rank < world_size:
            raise InputError(f"rank={rank}: give 0 to {world_size - 1}, for world_size={world_size}.")
        self.shuffle, self.seed, self.epoch = shuffle, seed, 0
        self._rank, self._world_size = rank, world_size
        self._start, self._done, self._shards_at_start = 0, 0, None

    def size(self) -> int:
        """Return the number of examples in an epoch over all ranks, including skipped ones."""
        raise NotImplementedError

    def example(self, index: int) -> dict[str, Any] | None:
        """Return the example with an index in this epoch, or `None` to skip it."""
        raise NotImplementedError

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch, counted from 0, of the next iteration. Call it before each epoch."""
        if epoch != self.epoch:
            self.epoch, self._start, self._done, self._shards_at_start = epoch, 0, 0, None

    def __len__(self) -> int:
        rank, world_size = self._share()
        return len(range(rank, self.size(), world_size))

    def __iter__(self) -> Iterator[dict[str, Any]]:
        worker = get_worker_info()
        rank, world_size = self._share()
        shard, shards = rank, world_size
        if worker is not None:  # the examples of a rank do not depend on the number of workers
            shard, shards = rank + worker.id * world_size, world_size * worker.num_workers
        if self._shards_at_start not in (None, [shard, shards]):
            raise InputError(
                "the saved state is from share {} of {} (ranks times workers), but this is share {} of "
                "{}; resume with the same numbers of ranks and workers.".format(*self._shards_at_start, shard, shards)
            )
        self._done, self._start, self._shards = self._start, 0, [shard, shards]
        for example in self._share_from(shard + self._done * shards, shards):
            self._done += 1
            if example is not None:
                yield example
        self._shards_at_start = None

    def to_datasets(self, shards: int = 64) -> "IterableDataset":
        """
        Convert this epoch to a `datasets.IterableDataset`, for `map`, `with_format`, `state_dict`,
        `datasets.distributed.split_dataset_by_node`, and division among dataloader workers.

        Args:
            shards: Number of shards to divide among ranks and workers, preferably a multiple of their number.

        Returns:
            A data set with the `features` of this stream. It ignores `rank` and `world_size`.
        """
        from datasets import IterableDataset as Streaming

        arguments = {"stream": copy(self), "shards": list(range(shards)), "count": shards}
        return Streaming.from_generator(_examples_of_shards, features=self.features, gen_kwargs=arguments)

    def _share_from(self, first: int, step: int) -> Iterator[dict[str, Any] | None]:
        """Yield the examples at every `step`-th position of this epoch, `None` for skipped ones."""
        positions = iter(range(first, self.size(), step))
        while block := list(islice(positions, _BLOCK)):
            yield from map(self.example, self._order(block))

    def state_dict(self) -> dict[str, Any]:
        """Return the state from which an equal data set can resume after the last example."""
        shards = getattr(self, "_shards", None)
        return {"epoch": self.epoch, "done": self._done, "shards": shards, "size": self.size(), "seed": self.seed}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """
        Resume in the next iteration from the state of another data set.

        Args:
            state: Result of `state_dict()`.

        Raises:
            InputError: If the state is from different data.
        """
        for name, value in (("size", self.size()), ("seed", self.seed)):
            if state[name] != value:
                raise InputError(
                    f"the saved state is from a stream with {name} {state[name]:,}, but this one has {value:,}; "
                    "resume with the same data and arguments."
                )
        self.epoch = state["epoch"]
        self._start = self._done = state["done"]
        self._shards_at_start = state["shards"]

    def _share(self) -> tuple[int, int]:
        if self._rank is not None and self._world_size is not None:
            return self._rank, self._world_size
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            return torch.distributed.get_rank(), torch.distributed.get_world_size()
        return 0, 1

    def _order(self, positions: list[int]) -> list[int]:
        if not self.shuffle:
            return positions
        return permute(np.array(positions), self.size(), mix(self.seed, self.epoch)).tolist()


def _examples_of_shards(stream: WindowStream, shards: list[int], count: int) -> Iterator[dict[str, np.ndarray]]:
    for shard in shards:
        for example in stream._share_from(shard, count):
            if example is not None:
                yield {name: np.asarray(value) for name, value in example.items()}


@lru_cache(maxsize=4096)
def mix(*numbers: int) -> int:
    """Hash integers to a pseudo-random number from 0 to 2**64 - 1 (splitmix64)."""
    state = 0
    for number in numbers:
        state = (state ^ number) + 0x9E3779B97F4A7C15 & 0xFFFFFFFFFFFFFFFF
        state = (state ^ state >> 30) * 0xBF58476D1CE4E5B9 & 0xFFFFFFFFFFFFFFFF
        state = (state ^ state >> 27) * 0x94D049BB133111EB & 0xFFFFFFFFFFFFFFFF
        state ^= state >> 31
    return state


def permute(indices: np.ndarray, size: int, key: int) -> np.ndarray:
    """
    Apply a pseudo-random permutation of `range(size)` without storing it.

    The permutation is a Feistel network on the next power of four, applied until the result is in range.

    Args:
        indices: Integers from 0 to `size - 1`, type `int64`.
        size: Size of the permutation.
        key: Seed of the permutation.

    Returns:
        The permuted indices, of the type and shape of `indices`.
    """
    bits = max(1, ((size - 1).bit_length() + 1) // 2)
    low = (1 << bits) - 1
    result: np.ndarray = indices.astype(np.uint64)
    is_outside: np.ndarray = np.ones(len(result), bool)
    while is_outside.any():
        left, right = result[is_outside] >> bits, result[is_outside] & low
        for step in range(4):
            scrambled = (right + np.uint64(mix(key, step) >> 1)) * np.uint64(0xBF58476D1CE4E5B9)
            scrambled = (scrambled ^ scrambled >> 29) * np.uint64(0x94D049BB133111EB)
            left, right = right, left ^ (scrambled >> 32 & low)
        result[is_outside] = left << bits | right
        is_outside = result >= size
    return result.astype(np.int64)
