import multiprocessing
import os
from itertools import islice

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader

from hyenadna_hf.data.streams import WindowStream, mix, permute
from hyenadna_hf.errors import InputError


class Numbers(WindowStream):
    """Every number below `count`, but not those that `left_out` divides."""

    def __init__(self, count, left_out=None, **kwargs):
        super().__init__(**kwargs)
        self.count, self.left_out = count, left_out

    def size(self):
        return self.count

    def example(self, index):
        return None if self.left_out and index % self.left_out == 0 else index


@given(st.integers(1, 5000), st.integers(0, 2**64 - 1))
@settings(max_examples=60)
def test_a_permutation_has_every_number_once(size, key):
    numbers = permute(np.arange(size), size, key)
    assert sorted(numbers.tolist()) == list(range(size))
    assert permute(np.arange(size)[::-3], size, key).tolist() == numbers[::-3].tolist()


def test_a_permutation_looks_random():
    size = 20_000
    first, second = (permute(np.arange(size), size, mix(0, epoch)) for epoch in (0, 1))
    for a, b in ((first, np.arange(size)), (first, second), (first[1:], first[:-1])):
        assert abs(np.corrcoef(a, b)[0, 1]) < 0.03
    steps = np.bincount(first[:2000] * 20 // size, minlength=20)
    assert steps.min() > 60 and steps.max() < 140


@settings(max_examples=60)
@given(
    st.integers(0, 60), st.integers(1, 5), st.booleans(), st.integers(0, 3), st.sampled_from([None, 2, 3]), st.data()
)
def test_every_example_once_over_all_ranks(count, world_size, shuffle, epoch, left_out, data):
    shares = []
    for rank in range(world_size):
        stream = Numbers(count, left_out, shuffle=shuffle, rank=rank, world_size=world_size)
        stream.set_epoch(epoch)
        shares.append(list(stream))
        if left_out is None:
            assert len(shares[-1]) == len(stream)
        # Resumed anywhere, the rest is what it would have been.
        stop = data.draw(st.integers(0, len(shares[-1])))
        begun, resumed = (Numbers(count, left_out, shuffle=shuffle, rank=rank, world_size=world_size) for _ in range(2))
        begun.set_epoch(epoch)
        head = list(islice(begun, stop))
        resumed.load_state_dict(begun.state_dict())
        resumed.set_epoch(epoch)  # as a training loop does that resumes
        assert head + list(resumed) == shares[-1]
        assert list(resumed) == shares[-1]  # and from the first again
    kept = [number for number in range(count) if not left_out or number % left_out]
    assert sorted(number for share in shares for number in share) == kept
    if left_out is None:
        assert max(map(len, shares)) - min(map(len, shares)) <= 1


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_every_example_once_over_workers(workers):
    shares = []
    for rank in range(2):
        stream = Numbers(101, shuffle=True, seed=3, rank=rank, world_size=2)
        loader = DataLoader(stream, batch_size=4, num_workers=workers)
        shares.append([number for batch in loader for number in batch.tolist()])
        assert sorted(shares[-1]) == sorted(stream)  # the same for any number of workers
    assert sorted(shares[0] + shares[1]) == list(range(101))


def test_epochs_and_seeds_differ():
    orders = {}
    for seed in (0, 1):
        stream = Numbers(50, seed=seed)
        for epoch in (0, 1):
            stream.set_epoch(epoch)
            orders[seed, epoch] = tuple(stream)
    assert len(set(orders.values())) == 4
    assert tuple(Numbers(50)) == orders[0, 0]
    assert list(Numbers(5, shuffle=False)) == [0, 1, 2, 3, 4]


def test_what_cannot_be_resumed_is_refused():
    stream = Numbers(50, rank=0, world_size=2)
    next(iter(stream))
    state = stream.state_dict()
    with pytest.raises(InputError, match="is from a stream with size 50, but this one has 51"):
        Numbers(51).load_state_dict(state)
    with pytest.raises(InputError, match="seed 0, but this one has 1"):
        Numbers(50, seed=1).load_state_dict(state)
    other = Numbers(50, rank=1, world_size=2)
    other.load_state_dict(state)
    with pytest.raises(InputError, match="is from share 0 of 2 .* this is share 1 of 2"):
        next(iter(other))


@pytest.mark.parametrize("rank, world_size", [(0, None), (2, 2), (-1, 2)])
def test_bad_shares_are_named(rank, world_size):
    with pytest.raises(InputError, match=f"rank={rank}"):
        Numbers(5, rank=rank, world_size=world_size)


def _share(rank, world_size, port, queue):
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    torch.distributed.init_process_group("gloo", rank=rank, world_size=world_size)
    queue.put(list(Numbers(31)))
    torch.distributed.destroy_process_group()


def test_ranks_of_the_process_group():
    import socket

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    processes = [context.Process(target=_share, args=(rank, 2, port, queue)) for rank in range(2)]
    for process in processes:
        process.start()
    shares = [queue.get(timeout=60) for _ in processes]
    for process in processes:
        process.join(timeout=60)
    assert sorted(shares[0] + shares[1]) == list(range(31)) and abs(len(shares[0]) - len(shares[1])) == 1
