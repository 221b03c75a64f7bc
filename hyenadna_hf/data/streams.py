"""Streams of examples by number: shuffled, shared out among ranks and workers, and resumable, in constant memory."""

from copy import copy
from functools import lru_cache
from itertools import islice

import numpy as np
import torch
from torch.utils.data import IterableDataset, get_worker_info

from ..errors import InputError

_BLOCK = 1024  # positions to permute at a time


class WindowStream(IterableDataset):
    """
    Base of data sets whose examples can be made from their number alone.

    In an epoch every example comes once over all ranks and dataloader workers together, in an order that follows from
    `seed` and `epoch`. The shares of two ranks differ by one example at most. Subclasses give `size()` and
    `example(index)`.

    It can be resumed as `datasets` and torchdata's `StatefulDataLoader` do it: `load_state_dict(state_dict())` on an
    equal data set goes on behind the last example. Without workers in the dataloader, ask the data set itself; with
    workers each has a copy, which `StatefulDataLoader` (`use_stateful_dataloader` in Accelerate) asks for its state.

    Args:
        shuffle: Whether the order is random, and another one in each epoch (see `set_epoch`).
        seed: Of everything that is random.
        rank: Which share of how many. Those of the torch.distributed process group by default, else 0 of 1. Trainer and
            Accelerate share out a stream themselves: give 0 and 1 there.
        world_size: Which share of how many. Those of the torch.distributed process group by default, else 0 of 1.
            Trainer and Accelerate share out a stream themselves: give 0 and 1 there.
    """

    def __init__(
        self, shuffle: bool = True, seed: int = 0, rank: int | None = None, world_size: int | None = None
    ) -> None:
        if (rank is None) != (world_size is None):
            raise InputError(f"rank={rank}, world_size={world_size}: give both or none of them.")
        if rank is not None and not 0 <= rank < world_size:
            raise InputError(f"rank={rank}: it is 0 to {world_size - 1}, for world_size={world_size}.")
        self.shuffle, self.seed, self.epoch = shuffle, seed, 0
        self._rank, self._world_size = rank, world_size
        self._start, self._done, self._shards_at_start = 0, 0, None

    def size(self) -> None:
        """The number of examples in an epoch over all ranks, those that `example` leaves out included."""
        raise NotImplementedError

    def example(self, index: int) -> None:
        """The example of that number in this epoch, or `None` to leave it out."""
        raise NotImplementedError

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch (`int`, from 0) that the next iteration gives; call it before each."""
        if epoch != self.epoch:
            self.epoch, self._start, self._done, self._shards_at_start = epoch, 0, 0, None

    def __len__(self) -> int:
        rank, world_size = self._share()
        return len(range(rank, self.size(), world_size))

    def __iter__(self):
        worker = get_worker_info()
        rank, world_size = self._share()
        shard, shards = rank, world_size
        if worker is not None:  # a rank's examples are the same whatever the number of its workers
            shard, shards = rank + worker.id * world_size, world_size * worker.num_workers
        if self._shards_at_start not in (None, [shard, shards]):
            raise InputError(
                "the state to resume from is that of share {} of {} (ranks times workers), this is share {} of "
                "{}; resume with the same numbers of both.".format(*self._shards_at_start, shard, shards)
            )
        self._done, self._start, self._shards = self._start, 0, [shard, shards]
        for example in self._share_from(shard + self._done * shards, shards):
            self._done += 1
            if example is not None:
                yield example
        self._shards_at_start = None

    def to_datasets(self, shards: int = 64) -> "IterableDataset":
        """
        This epoch as a `datasets.IterableDataset`, for what that can do: `map`, `with_format`, `state_dict`,
        `datasets.distributed.split_dataset_by_node`, and sharing out among dataloader workers.

        Args:
            shards: What ranks and workers together divide: best a multiple of their number.

        Returns:
            `datasets.IterableDataset` with the `features` of this stream; `rank` and `world_size` have no part in it.
        """
        from datasets import IterableDataset as Streaming

        arguments = {"stream": copy(self), "shards": list(range(shards)), "of": shards}
        return Streaming.from_generator(_examples_of_shards, features=self.features, gen_kwargs=arguments)

    def _share_from(self, first, step):
        """The examples at every `step`-th position of this epoch, `None` for those that are left out."""
        positions = iter(range(first, self.size(), step))
        while block := list(islice(positions, _BLOCK)):
            yield from map(self.example, self._order(block))

    def state_dict(self):
        """What is needed to go on behind the last example: a `dict` of numbers and lists of them."""
        shards = getattr(self, "_shards", None)
        return {"epoch": self.epoch, "done": self._done, "shards": shards, "size": self.size(), "seed": self.seed}

    def load_state_dict(self, state: dict) -> None:
        """
        Go on where another data set was; the next iteration does so.

        Args:
            state: From `state_dict()`.

        Raises:
            InputError: If it is that of other data.
        """
        for name, value in (("size", self.size()), ("seed", self.seed)):
            if state[name] != value:
                raise InputError(
                    f"the state to resume from is that of a stream of {name} {state[name]:,}, this one has {value:,}; "
                    "resume with the same data and arguments."
                )
        self.epoch = state["epoch"]
        self._start = self._done = state["done"]
        self._shards_at_start = state["shards"]

    def _share(self):
        if self._rank is not None:
            return self._rank, self._world_size
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            return torch.distributed.get_rank(), torch.distributed.get_world_size()
        return 0, 1

    def _order(self, positions):
        if not self.shuffle:
            return positions
        return permute(np.array(positions), self.size(), mix(self.seed, self.epoch)).tolist()


def _examples_of_shards(stream, shards, of):
    for shard in shards:
        for example in stream._share_from(shard, of):
            if example is not None:
                yield {name: np.asarray(value) for name, value in example.items()}


@lru_cache(maxsize=4096)
def mix(*numbers):
    """A number from 0 to 2**64 - 1 that depends on all of `numbers` like a random one (splitmix64)."""
    state = 0
    for number in numbers:
        state = (state ^ number) + 0x9E3779B97F4A7C15 & 0xFFFFFFFFFFFFFFFF
        state = (state ^ state >> 30) * 0xBF58476D1CE4E5B9 & 0xFFFFFFFFFFFFFFFF
        state = (state ^ state >> 27) * 0x94D049BB133111EB & 0xFFFFFFFFFFFFFFFF
        state ^= state >> 31
    return state


def permute(indices: np.ndarray, size: int, key: int) -> np.ndarray:
    """
    Where a pseudo-random permutation of `range(size)` sends each index, without holding the permutation.

    A Feistel network on the next power of four, walked until it is back in range.

    Args:
        indices: From 0 to `size - 1`, type `int64`.
        size: Of the permutation.
        key: Chooses the permutation.

    Returns:
        `np.ndarray` of `int64`, of the shape of `indices`.
    """
    bits = max(1, ((size - 1).bit_length() + 1) // 2)
    low = (1 << bits) - 1
    result = indices.astype(np.uint64)
    outside = np.ones(len(result), bool)
    while outside.any():
        left, right = result[outside] >> bits, result[outside] & low
        for turn in range(4):
            scrambled = (right + np.uint64(mix(key, turn) >> 1)) * np.uint64(0xBF58476D1CE4E5B9)
            scrambled = (scrambled ^ scrambled >> 29) * np.uint64(0x94D049BB133111EB)
            left, right = right, left ^ (scrambled >> 32 & low)
        result[outside] = left << bits | right
        outside = result >= size
    return result.astype(np.int64)
