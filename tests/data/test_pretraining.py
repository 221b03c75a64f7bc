import random
from collections import Counter
from itertools import islice

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import DataLoader, IterableDataset
from transformers import TrainerState

from hyenadna_hf import HyenaDNATokenizer
from hyenadna_hf.data.genome import GenomeDataset
from hyenadna_hf.data.intervals import Interval, subtract_intervals
from hyenadna_hf.data.pretraining import (
    LengthWarmup,
    MaskedPretrainingCollator,
    MaskedStream,
    MaskedWindows,
    Mixture,
    PretrainingCollator,
    Windows,
)
from hyenadna_hf.errors import InputError


@pytest.fixture
def genome(tmp_path):
    rng = random.Random(0)
    path = tmp_path / "genome.fa"
    path.write_text(
        "".join(f">{name}\n{''.join(rng.choices('ACGT', k=size))}\n" for name, size in (("a", 700), ("b", 330)))
    )
    return path


class Numbers(IterableDataset):
    """Windows that say which they are: without end, and other ones in each worker."""

    def __init__(self, length):
        self.length = length

    def __iter__(self):
        worker = torch.utils.data.get_worker_info()
        number = 0 if worker is None else worker.id * 1000
        while True:
            ids = 7 + (torch.arange(self.length) + number) % 4
            yield {"input_ids": ids, "labels": ids.clone()}
            number += 1


@given(
    st.integers(1, 6).flatmap(lambda n: st.tuples(st.just(n), st.integers(2, 9))),
    st.integers(0, 40),
)
def test_lengths_double_in_equal_stages(sizes, steps):
    doublings, initial = sizes
    warmup = LengthWarmup(initial << doublings, initial, steps)
    lengths = [warmup.at(step) for step in range(steps + 3)]
    assert lengths == sorted(lengths)
    assert set(lengths) <= {initial << i for i in range(doublings + 1)}
    assert lengths[steps:] == [initial << doublings] * 3
    if steps >= doublings:
        stages = Counter(lengths[:steps])
        assert len(stages) == doublings and max(stages.values()) - min(stages.values()) <= 1


@pytest.mark.parametrize(("length", "initial"), [(1024, 100), (1024, 0), (64, 128), (1024, 1), (96, 32)])
def test_lengths_that_do_not_double_are_refused(length, initial):
    with pytest.raises(InputError, match=f"initial_length={initial}"):
        LengthWarmup(length, initial, 10)


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("batches_per_step", [1, 2])
def test_each_step_has_its_length_and_the_tokens_it_would_have_had(workers, batches_per_step):
    warmup = LengthWarmup(16, 2, 6)
    tokenizer = HyenaDNATokenizer()

    def batches(stream):
        loader = DataLoader(stream, 3, collate_fn=PretrainingCollator(tokenizer), num_workers=workers)
        return list(islice(loader, 8 * batches_per_step))

    plain = batches(Numbers(16))
    cut = batches(warmup.cut(Numbers(16), 3, batches_per_step))
    for number, (before, after) in enumerate(zip(plain, cut)):
        length = warmup.at(number // batches_per_step)
        assert after["input_ids"].shape == (3 * 16 // length, length)
        assert torch.equal(after["input_ids"].reshape(3, 16), before["input_ids"])
        assert (after["labels"][:, 0] == -100).all()
        assert torch.equal(after["labels"][:, 1:], after["input_ids"][:, 1:])


def test_the_log_says_the_length():
    warmup = LengthWarmup(16, 4, 6)
    state = TrainerState(global_step=4, log_history=[{"loss": 1.0}])
    warmup.on_log(None, state, None, logs={"loss": 1.0})
    assert state.log_history[-1]["length"] == warmup.at(3) == 8


def test_a_mixture_takes_each_window_once_an_epoch_and_streams_by_weight(genome):
    streams = [GenomeDataset(genome, regions=[r], max_length=10, rank=0, world_size=1) for r in ("a", "b")]
    sizes = [stream.size() for stream in streams]
    by_bases = Mixture(streams, seed=3)
    assert by_bases.weights == sizes

    class Which(IterableDataset):
        def __init__(self, name):
            self.name = name

        def size(self):
            return 5

        def set_epoch(self, epoch):
            self.epoch = epoch

        def __iter__(self):
            return iter([(self.name, self.epoch, i) for i in range(5)])

    taken = list(islice(Mixture([Which("a"), Which("b")], [3, 1], seed=1), 4000))
    share = sum(name == "a" for name, *_ in taken) / 4000
    assert abs(share - 0.75) < 0.05
    for name in "ab":
        mine = [rest for which, *rest in taken if which == name]
        assert mine == [[i // 5, i % 5] for i in range(len(mine))]
    assert taken == list(islice(Mixture([Which("a"), Which("b")], [3, 1], seed=1), 4000))
    assert taken != list(islice(Mixture([Which("a"), Which("b")], [3, 1], seed=2), 4000))


def test_a_genome_of_n_is_an_error_not_a_hang(tmp_path):
    path = tmp_path / "n.fa"
    path.write_text(">n\n" + "N" * 100 + "\n")
    stream = GenomeDataset(path, max_length=10, n_policy="drop", rank=0, world_size=1)
    with pytest.raises(InputError, match="no window"):
        next(iter(Mixture([stream])))


@pytest.mark.parametrize("weights", [[1], [1, 0], [1, -2]])
def test_weights_that_will_not_do(genome, weights):
    streams = [GenomeDataset(genome, max_length=10, rank=0, world_size=1)] * 2
    with pytest.raises(InputError, match="weights"):
        Mixture(streams, weights)


def test_windows_are_the_examples_by_number(genome):
    stream = GenomeDataset(genome, split="validation", max_length=100, rank=0, world_size=1)
    windows = Windows(stream)
    assert len(windows) == 7 + 4
    assert [w["input_ids"].tolist() for w in map(windows.__getitem__, range(11))] == [
        w["input_ids"].tolist() for w in stream
    ]


@pytest.mark.parametrize("workers", [0, 2])
def test_masks_of_a_stream_depend_on_its_seed_and_the_number_of_the_example(workers):
    def batches(seed, warmup=None):
        stream = MaskedStream(Numbers(16), 0.3, seed)
        stream = stream if warmup is None else warmup.cut(stream, 3, 1)
        loader = DataLoader(stream, 3, collate_fn=MaskedPretrainingCollator(HyenaDNATokenizer()), num_workers=workers)
        return [{name: tensor.reshape(3, 16) for name, tensor in batch.items()} for batch in islice(loader, 6)]

    one, same, other, cut = batches(1), batches(1), batches(2), batches(1, LengthWarmup(16, 4, 4))
    plain = list(islice(DataLoader(Numbers(16), 3, num_workers=workers), 6))
    for name in ("input_ids", "attention_mask", "labels"):
        for batch, again, pieces in zip(one, same, cut, strict=True):
            assert torch.equal(batch[name], again[name]) and torch.equal(batch[name], pieces[name])
    assert not all(torch.equal(batch["labels"], again["labels"]) for batch, again in zip(one, other))
    masks = torch.cat([batch["labels"] != -100 for batch in one])
    assert masks.any(1).all() and len({tuple(row) for row in masks.tolist()}) > 10  # others in each example
    for batch, before in zip(one, plain):
        predicted = batch["labels"] != -100
        assert torch.equal(torch.where(predicted, batch["labels"], batch["input_ids"]), before["input_ids"])


def test_masks_of_windows_are_always_the_same(genome):
    windows = Windows(GenomeDataset(genome, split="validation", max_length=100, rank=0, world_size=1))
    masked = MaskedWindows(windows, 0.2)
    assert len(masked) == len(windows)
    rows = [masked[i] for i in range(len(masked))]
    torch.manual_seed(1)
    for i in reversed(range(len(masked))):
        again, ids = MaskedWindows(windows, 0.2)[i], windows[i]["input_ids"]
        assert torch.equal(again["input_ids"], rows[i]["input_ids"])
        predicted = rows[i]["labels"] != -100
        assert torch.equal(rows[i]["labels"], again["labels"]) and torch.equal(
            rows[i]["labels"][predicted], ids[predicted]
        )
        assert torch.equal(rows[i]["input_ids"], ids.masked_fill(predicted, 3))
    assert len({tuple((row["labels"] != -100)[:30].tolist()) for row in rows}) > 5


pieces = st.lists(
    st.tuples(st.sampled_from("ab"), st.integers(0, 30), st.integers(1, 12)).map(
        lambda t: Interval(t[0], t[1], t[1] + t[2])
    ),
    max_size=5,
)


@given(pieces, pieces)
def test_without_is_set_difference(kept, removed):
    def positions(intervals):
        return Counter((piece.name, i) for piece in intervals for i in range(piece.start, piece.end))

    gone = positions(removed)
    expected = Counter({place: n for place, n in positions(kept).items() if place not in gone})
    assert positions(subtract_intervals(kept, removed)) == expected
