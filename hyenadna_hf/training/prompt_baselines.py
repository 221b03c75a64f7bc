"""Baselines of prompts: the training sequences that they get, and the linear probe."""

import itertools
import random

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch.utils.data import DataLoader

from ..data.collators import CausalCollator
from ..model.padding_hyenadna import pool_positions
from ..processes import processes
from .prompting import PromptingArguments, Task

BASELINES = ("linear_probe", "lora", "full")
LEARNING_RATES = {"lora": 3e-3, "full": 1e-3}  # peaks of AdamW


def draw_in_turn(rows_of: list[list[int]], count: int, seed: int) -> list[int]:
    """
    Draw rows from each class in turn.

    Args:
        rows_of: Rows of each class.
        count: Number of rows to draw, or all rows if there are fewer.
        seed: Seed of the draw. A larger `count` extends the rows of a smaller one.
    """
    rng = random.Random(seed)
    shuffled = [rng.sample(rows, len(rows)) for rows in rows_of]
    turns = itertools.chain.from_iterable(itertools.zip_longest(*shuffled))
    return list(itertools.islice((row for row in turns if row is not None), count))


def probe_accuracy(task: Task, args: PromptingArguments, rows: list[int]) -> float:
    """
    Fit a linear model to mean hidden states of the frozen model, and return its test accuracy.

    Args:
        task: Data and model.
        args: Arguments of the command.
        rows: Training sequences to fit.
    """
    train, test = [task.splits["train"][row] for row in rows], task.splits["test"]
    probe = make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000))
    probe.fit(mean_hidden_states(task, args, train), [label for _, label in train])
    return float(probe.score(mean_hidden_states(task, args, test), [label for _, label in test]))


@torch.no_grad()
def mean_hidden_states(task: Task, args: PromptingArguments, sequences: list[tuple[torch.Tensor, int]]) -> np.ndarray:
    """
    Compute the mean hidden states of the frozen model for each sequence.

    Args:
        task: Data and model; the mode of the model does not change.
        args: Arguments of the command.
        sequences: Token ids and class of each sequence.

    Returns:
        Embeddings of shape `(sequences, d_model)`.
    """
    device = processes(args.use_cpu).device
    model = task.model.base_model.to(device)
    loader = DataLoader(
        [{"input_ids": ids} for ids, _ in sequences], args.eval_batch_size, collate_fn=CausalCollator(task.tokenizer)
    )
    pooled = []
    for batch in loader:
        ids, mask = batch["input_ids"].to(device), batch["attention_mask"].to(device)
        hidden = model(input_ids=ids, attention_mask=mask).last_hidden_state
        pooled.append(pool_positions(hidden, mask != 0, "mean").float().cpu())
    return torch.cat(pooled).numpy()
