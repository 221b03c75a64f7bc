"""Baselines on the training sequences of prompts: which sequences they get, and the linear probe."""

import itertools
import random

import torch
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch.utils.data import DataLoader

from ..data.collators import CausalCollator
from ..model.padding_hyenadna import pool_positions
from ..processes import processes

BASELINES = ("linear_probe", "lora", "full")
LEARNING_RATES = {"lora": 3e-3, "full": 1e-3}  # peaks, of AdamW


def in_turn(rows_of, count, seed):
    """
    Rows drawn from each class in turn.

    Args:
        rows_of (`list[list[int]]`): The rows of each class.
        count (`int`): How many to draw.
        seed (`int`): Seed of the draw. A larger `count` begins with the rows of a smaller one.

    Returns:
        `list[int]`: fewer than `count` if there are no more.
    """
    rng = random.Random(seed)
    shuffled = [rng.sample(rows, len(rows)) for rows in rows_of]
    turns = itertools.chain.from_iterable(itertools.zip_longest(*shuffled))
    return list(itertools.islice((row for row in turns if row is not None), count))


def probe_accuracy(task, args, rows):
    """
    Fit a linear model on mean hidden states of the frozen model and score it on test.

    Args:
        task ([`~hyenadna_hf.training.prompting.Task`]): Data and model.
        args ([`~hyenadna_hf.training.prompting.PromptingArguments`]): The arguments of the command.
        rows (`list[int]`): Training sequences to fit it on.

    Returns:
        `float`: the accuracy on test.
    """
    train, test = [task.splits["train"][row] for row in rows], task.splits["test"]
    probe = make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000))
    probe.fit(mean_hidden_states(task, args, train), [label for _, label in train])
    return float(probe.score(mean_hidden_states(task, args, test), [label for _, label in test]))


@torch.no_grad()
def mean_hidden_states(task, args, sequences):
    """
    Mean hidden states of the frozen model over each sequence.

    Args:
        task ([`~hyenadna_hf.training.prompting.Task`]): Has the model; its mode is left as it is.
        args ([`~hyenadna_hf.training.prompting.PromptingArguments`]): The arguments of the command.
        sequences (`list[tuple[torch.LongTensor, int]]`): Token ids and class of each.

    Returns:
        `np.ndarray` of shape `(sequences, d_model)`
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
