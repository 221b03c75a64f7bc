"""Training data for pretraining: endless mixtures of genomes, masks, and sequence-length warm-up."""

import random
from collections.abc import Iterator, Sequence
from copy import copy
from itertools import count
from typing import Any

import torch
from torch.utils.data import ConcatDataset, Dataset, IterableDataset, get_worker_info
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from ..errors import InputError
from .collators import CausalCollator, TokenCollator, mask_bases
from .streams import WindowStream, mix


class Windows(Dataset):
    """
    Map-style data set of the windows of a [`WindowStream`], for evaluation: each occurs once for any number of ranks.
    """

    def __init__(self, stream: WindowStream) -> None:
        self.stream = stream

    def __len__(self) -> int:
        return self.stream.size()

    def __getitem__(self, index: int) -> dict[str, Any] | None:
        return self.stream.example(index)


class Mixture(IterableDataset):
    """
    Sample examples from several streams, each epoch after epoch, without end.

    The choice of the stream depends only on `seed` and the worker, so a restarted run that skips what it has already
    read continues identically.

    Args:
        streams: Streams with `rank=0, world_size=1`: Trainer and Accelerate divide the mixture among ranks.
        weights: Relative sampling frequencies. Default to the numbers of windows.
        seed: Random seed of the choice.
    """

    def __init__(self, streams: list[WindowStream], weights: Sequence[float] | None = None, seed: int = 0) -> None:
        weights = [stream.size() for stream in streams] if weights is None else weights
        if len(weights) != len(streams) or not all(weight > 0 for weight in weights):
            raise InputError(f"weights={weights}: give a number above 0 for each of the {len(streams)} sources.")
        self.streams, self.weights, self.seed = streams, weights, seed

    def __iter__(self) -> Iterator[dict[str, Any]]:
        worker = get_worker_info()
        rng = random.Random(mix(self.seed, 0 if worker is None else worker.id))
        sources = [_repeat(stream) for stream in self.streams]
        while True:
            yield next(*rng.choices(sources, self.weights))


def _repeat(stream: WindowStream) -> Iterator[dict[str, Any]]:
    stream = copy(stream)
    for epoch in count():
        stream.set_epoch(epoch)
        is_empty = True
        for example in stream:
            is_empty = False
            yield example
        if is_empty:
            raise InputError("a genome or data set has no window to train on: all have too many N; remove it.")


class MaskedStream(IterableDataset):
    """
    Mask bases of an endless stream of examples, for masked-language training.

    The masks depend only on `seed`, the worker and the number of the example, so a restarted run continues identically.

    Args:
        stream: Stream of examples with `input_ids`.
        probability: Fraction of the bases to predict.
        seed: Random seed of the masks.
    """

    def __init__(self, stream: IterableDataset, probability: float, seed: int = 0) -> None:
        self.stream, self.probability, self.seed = stream, probability, seed

    def __iter__(self) -> Iterator[dict[str, torch.Tensor]]:
        worker = get_worker_info()
        number_of_worker = 0 if worker is None else worker.id
        for number, example in enumerate(self.stream):
            seed = mix(self.seed, number_of_worker, number)
            yield mask_bases(torch.as_tensor(example["input_ids"]), self.probability, seed)


class MaskedWindows(Dataset):
    """
    Replace bases of windows by [MASK], for evaluation. The masks of a window depend only on its index.

    Args:
        windows: Map-style data set of examples with `input_ids`.
        probability: Fraction of the bases to mask.
    """

    def __init__(self, windows: ConcatDataset, probability: float) -> None:
        self.windows, self.probability = windows, probability

    def __len__(self) -> int:
        return len(self.windows)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        ids = torch.as_tensor(self.windows[index]["input_ids"])
        return mask_bases(ids, self.probability, mix(index), training=False)


class LengthWarmup(TrainerCallback):
    """
    Sequence-length warm-up: training starts with short sequences, whose length doubles from stage to stage.

    Windows of the full length are cut into shorter sequences, so that the number of tokens per step, and the bases in
    each step, are the same as without warm-up. `max_seq_len` of the model does not change, because the filters depend
    on it. The length is a function of the number of the example, so it does not depend on the number of processes or
    dataloader workers, or on interruptions. As a callback of the Trainer, it adds the `length` to every log entry.

    Args:
        length: Length of the windows and of the last stage, in tokens.
        initial_length: Length of the first stage; `length` must be 2, 4, 8, ... times as large.
        steps: Number of optimizer steps before the last stage, divided equally among the other stages.

    Raises:
        InputError: If doubling `initial_length` does not lead to `length`.
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

    def at(self, step: int) -> int:
        """Return the length of the sequences in an optimizer step, counted from 0."""
        if step >= self.steps:
            return self.length
        return self.initial_length << step * self.stages // self.steps

    def cut(self, stream: IterableDataset, batch_size: int, batches_per_step: int) -> IterableDataset:
        """
        Cut the examples of a stream to the length of their step, for [`PretrainingCollator`].

        Args:
            stream: Endless stream of examples of at most `length` tokens.
            batch_size: Number of examples in a batch of the dataloader.
            batches_per_step: Number of such batches in an optimizer step, over all processes.

        Returns:
            A stream of lists of pieces of `(input_ids, labels)` examples.
        """
        return _CutStream(self, stream, batch_size, batches_per_step)

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        if logs is not None and "loss" in logs:
            logs["length"] = state.log_history[-1]["length"] = self.at(state.global_step - 1)


class _CutStream(IterableDataset):
    """Cut the examples of a stream to the sequence length of their optimizer step."""

    def __init__(self, warmup: LengthWarmup, stream: IterableDataset, batch_size: int, batches_per_step: int) -> None:
        self.warmup, self.stream = warmup, stream
        self.batch_size, self.batches_per_step = batch_size, batches_per_step

    def __iter__(self) -> Iterator[dict[str, tuple[torch.Tensor, ...]]]:
        worker = get_worker_info()
        first, workers = (0, 1) if worker is None else (worker.id, worker.num_workers)
        for number, example in enumerate(self.stream):
            batch = number // self.batch_size * workers + first  # dataloaders take batches from their workers in turn
            length = self.warmup.at(batch // self.batches_per_step)
            yield {name: torch.as_tensor(values).split(length) for name, values in example.items()}


class _PieceRows:
    """Make each piece of a cut window a row of the batch, of shape `(batch * pieces, length)`."""

    def __call__(self, examples: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        return super().__call__([piece for example in examples for piece in _pieces(example)])  # type: ignore[misc]


class PretrainingCollator(_PieceRows, CausalCollator):
    """Collate like [`CausalCollator`], with a row per piece of a cut window."""


class MaskedPretrainingCollator(_PieceRows, TokenCollator):
    """Collate the examples of [`MaskedStream`] and [`MaskedWindows`], with a row per piece of a cut window."""


def _pieces(example: dict[str, Any]) -> list[dict[str, Any]]:
    if not isinstance(example["input_ids"], tuple):
        return [example]
    return [dict(zip(example, piece)) for piece in zip(*example.values())]
