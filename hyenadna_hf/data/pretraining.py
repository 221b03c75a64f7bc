"""What pretraining reads: windows of several genomes, mixed, without end, and of growing length."""

import random
from copy import copy
from itertools import count
from typing import Any

import torch
from torch.utils.data import Dataset, IterableDataset, get_worker_info
from transformers import TrainerCallback

from ..errors import InputError
from .collators import CausalCollator
from .intervals import Interval
from .streams import WindowStream, mix


class Windows(Dataset):
    """The examples of one [`WindowStream`] by number, for evaluation: each comes once, whatever the number of ranks."""

    def __init__(self, stream) -> None:
        self.stream = stream

    def __len__(self) -> int:
        return self.stream.size()

    def __getitem__(self, index: int):
        return self.stream.example(index)


class Mixture(IterableDataset):
    """
    Examples of several streams in random turn, each stream epoch after epoch, without end.

    Which stream comes next depends on `seed` and the worker alone, so that a run that is begun again and passes over
    what it has read goes on exactly as it would have.

    Args:
        streams: With `rank=0, world_size=1`: Trainer and Accelerate share the mixture out.
        weights: How often each is chosen; by default as its share of all windows.
        seed: Of the choice.
    """

    def __init__(self, streams: list[WindowStream], weights: list[float] | None = None, seed: int = 0) -> None:
        weights = [stream.size() for stream in streams] if weights is None else weights
        if len(weights) != len(streams) or not all(weight > 0 for weight in weights):
            raise InputError(f"weights={weights}: give a number above 0 for each of the {len(streams)} genomes.")
        self.streams, self.weights, self.seed = streams, weights, seed

    def __iter__(self):
        worker = get_worker_info()
        chance = random.Random(mix(self.seed, 0 if worker is None else worker.id))
        sources = [_endless(stream) for stream in self.streams]
        while True:
            yield next(*chance.choices(sources, self.weights))


def _endless(stream):
    stream = copy(stream)
    for epoch in count():
        stream.set_epoch(epoch)
        empty = True
        for example in stream:
            empty = False
            yield example
        if empty:
            raise InputError("a genome has no window to train on: all are left out for their N.")


class LengthWarmup(TrainerCallback):
    """
    Sequence-length warm-up: training begins with short sequences, which double in length stage by stage.

    Each window of the full length is cut into shorter sequences, so that tokens a step, and which bases a step sees,
    are the same as without warm-up. `max_seq_len` of the model stays what it is: the filters are functions of it. The
    length belongs to the number of the example, not to a clock: runs with several processes or dataloader workers and
    resumed runs see the same. As a callback of the Trainer it adds the `length` to every log entry.

    Args:
        length: Of the last stage and of the windows, in tokens.
        initial_length: Of the first stage; `length` is 2, 4, 8, ... times as much.
        steps: Optimizer steps of all stages before the last one, which they share equally.

    Raises:
        InputError: If doubling does not lead from `initial_length` to `length`.
    """

    def __init__(self, length: int, initial_length: int, steps: int) -> None:
        factor = length // max(initial_length, 1)
        if initial_length < 2 or initial_length * factor != length or factor & (factor - 1):
            raise InputError(
                f"initial_length={initial_length}: doubling it does not lead to windows of {length}; give "
                f"{length} / 2, / 4, / 8, ..."
            )
        self.length, self.initial_length, self.steps = length, initial_length, steps
        self.stages = factor.bit_length() - 1

    def at(self, step):
        """The length of sequences in an optimizer step, counted from 0."""
        if step >= self.steps:
            return self.length
        return self.initial_length << step * self.stages // self.steps

    def cut(self, stream: IterableDataset, batch_size: int, batches_per_step: int):
        """
        The examples of a stream, each cut as belongs to its step, for [`PretrainingCollator`].

        Args:
            stream: Gives examples of `length` tokens, without end.
            batch_size: Examples that a dataloader takes at a time.
            batches_per_step: Such batches in an optimizer step, over all processes.
        """
        return _Cut(self, stream, batch_size, batches_per_step)

    def on_log(self, args, state: dict[str, Any], control, logs=None, **kwargs: Any) -> None:
        if logs is not None and "loss" in logs:
            logs["length"] = state.log_history[-1]["length"] = self.at(state.global_step - 1)


class _Cut(IterableDataset):
    def __init__(self, warmup, stream, batch_size: int, batches_per_step) -> None:
        self.warmup, self.stream = warmup, stream
        self.batch_size, self.batches_per_step = batch_size, batches_per_step

    def __iter__(self):
        worker = get_worker_info()
        first, workers = (0, 1) if worker is None else (worker.id, worker.num_workers)
        for number, example in enumerate(self.stream):
            batch = number // self.batch_size * workers + first  # dataloaders take a batch of each worker in turn
            length = self.warmup.at(batch // self.batches_per_step)
            yield {name: torch.as_tensor(values).split(length) for name, values in example.items()}


class PretrainingCollator(CausalCollator):
    """As [`CausalCollator`], and every piece of a window that was cut becomes a row: `(batch * pieces, length)`."""

    def __call__(self, examples):
        return super().__call__([piece for example in examples for piece in _pieces(example)])


def _pieces(example):
    if not isinstance(example["input_ids"], tuple):
        return [example]
    return [dict(zip(example, piece)) for piece in zip(*example.values())]


def without(pieces: list[Interval], removed: list[Interval]) -> list[Interval]:
    """
    What is left of some intervals when others are taken out of them.

    Args:
        pieces: In any order; they may overlap.
        removed: In any order; they may overlap.

    Returns:
        `list[Interval]`, in the order of `pieces`.
    """
    for taken in removed:
        pieces = [
            Interval(piece.name, start, end)
            for piece in pieces
            for start, end in (
                [(piece.start, min(piece.end, taken.start)), (max(piece.start, taken.end), piece.end)]
                if piece.name == taken.name and taken.start < piece.end and piece.start < taken.end
                else [piece[1:3]]
            )
            if start < end
        ]
    return pieces
