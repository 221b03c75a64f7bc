"""Classification by a language model: classes as letters, demonstrations before the query."""

import copy
import hashlib
import json
import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from importlib import import_module
from typing import Any

import numpy as np
import torch
from scipy.special import log_softmax, logsumexp
from torch.nn import functional as F
from transformers import AutoModelForCausalLM, Trainer, TrainerCallback, TrainingArguments
from transformers.trainer_callback import PrinterCallback

from .. import __version__
from ..data.collators import CausalCollator
from ..data.named import load_labelled
from ..data.sequence import BASES, IGNORED, reverse_complement_ids, token_ids
from ..errors import InputError
from ..loading import (
    CHECKPOINTS,
    DeviceArguments,
    LoadingArguments,
    check_tokenizer,
    fingerprint,
    load_trained,
)
from ..model.tokenization_hyenadna import VOCABULARY
from .prompt_grid import RESULTS_FILE
from .runs import check_output_folder

# Letters for classes. Bases come first by default, because a language model gives N almost no probability.
LETTERS = "ACGTN"
# Letters of the paper by number of classes; it has none for four.
PUBLISHED_LETTERS = {2: "AN", 3: "AGN", 4: "ACGN", 5: "ACGTN"}
POSITIONS = ("before", "after", "both", "spread")  # of a soft prompt in the input
SOFTMAX = ("letters", "vocabulary")
CALIBRATIONS = ("none", "contextual")
CONTENT_FREE = 64  # queries of random bases


@dataclass
class PromptingArguments(LoadingArguments, DeviceArguments):
    dataset: str = field(
        default="splice_sites_chr20",
        metadata={"help": "Labelled sequences, as in hyenadna finetune: files, a published name, or a Hub data set."},
    )
    model: str = field(
        default="hyenadna-tiny-1k-human",
        metadata={"help": f"A HyenaDNA language model: {CHECKPOINTS}."},
    )
    output_dir: str | None = field(default=None, metadata={"help": "Folder for tables, plot and results."})
    shots: list[int] = field(
        default_factory=lambda: [0, 2, 32, 128], metadata={"help": "Demonstrations of each class before the query."}
    )
    class_letters: str | None = field(
        default=None,
        metadata={
            "help": f"Letters of the classes, in their order (default: the first of {LETTERS}; the paper's are "
            f"{', '.join(PUBLISHED_LETTERS[classes] for classes in (2, 3))})."
        },
    )
    softmax: str = field(
        default="letters",
        metadata={
            "help": "Tokens that loss and answers compare: letters (those of the classes) or vocabulary (all, as in "
            "the paper)."
        },
    )
    calibration: str = field(
        default="none",
        metadata={
            "help": "contextual divides the probability of each letter by its mean after the same prompts with "
            "random bases as the query; none does not."
        },
    )
    sequence_column: str | None = field(default=None, metadata={"help": "Default: sequence, seq or dna."})
    label_column: str | None = field(default=None, metadata={"help": "Default: label, class or target."})
    max_bases: int | None = field(
        default=None,
        metadata={
            "help": "Use this many bases from the start of each sequence (default: all).",
            "formerly": ["max_length"],
        },
    )
    limit: int | None = field(default=None, metadata={"help": "Maximum number of sequences per split (default: all)."})
    eval_batch_size: int = field(default=32, metadata={"help": "Prompts per step in evaluation."})
    seed: int = field(default=42, metadata={"help": "Seed of all random choices."})
    seeds: int = field(
        default=1,
        metadata={
            "help": "Number of seeds, starting from --seed. Each has its own demonstrations, order and initial values; "
            "the sequences are the same."
        },
    )


@dataclass
class Task:
    """
    Data and model that all runs of a grid share.

    Args:
        model: Language model.
        tokenizer: Tokenizer of the model.
        splits: Token ids and class of each sequence of `train`, `validation` and `test`.
        letters: Token of each class.
        longest: Number of tokens of the longest sequence.
        identity: Properties of data and model that the results depend on, for JSON.
    """

    model: Any
    tokenizer: Any
    splits: dict[str, list[tuple[torch.Tensor, int]]]
    letters: list[int]
    longest: int
    identity: dict[str, Any]

    def tokens(self, shots: int) -> int:
        """Return the length of the longest prompt with this many shots per class, including the answer, in tokens."""
        return (shots * len(self.letters) + 1) * (self.longest + 1)

    def prompts(self, split: str, shots: int, seed: int, reverse_complement: float = 0.0) -> "Prompts":
        """Return the prompts of a split, with demonstrations from the training split."""
        return Prompts(self.splits[split], self.splits["train"], self.letters, shots, seed, reverse_complement)

    def draw_content_free(self, shots: int, seed: int) -> "Prompts":
        """Return prompts with random bases as queries, of the lengths of the first validation sequences and class 0."""
        random_bases, bases = random.Random(seed), [VOCABULARY[base] for base in BASES]
        lengths = [len(ids) for ids, _ in self.splits["validation"][:CONTENT_FREE]]
        queries = [(torch.tensor(random_bases.choices(bases, k=length)), 0) for length in lengths]
        return Prompts(queries, self.splits["train"], self.letters, shots, seed)

    def with_letters(self, letters: str) -> "Task":
        """Return the same task with other letters for the classes."""
        return replace(self, letters=[VOCABULARY[letter] for letter in letters])

    def build_answering_model(self, softmax: str) -> Any:
        """Return a copy of the model whose loss compares the tokens that `softmax` names."""
        model = copy.deepcopy(self.model)
        if softmax == "letters":
            model.loss_function = LettersLoss(self.letters)
        return model

    def majority(self) -> float:
        """Return the test accuracy of the most frequent class of the training split."""
        classes = [label for _, label in self.splits["train"]]
        most = max(set(classes), key=classes.count)
        return sum(label == most for _, label in self.splits["test"]) / len(self.splits["test"])


@dataclass
class LettersLoss:
    """
    Compute the cross-entropy of a causal language model with a softmax over a few tokens, as its `loss_function`.

    Args:
        letters: The tokens. Other labels are ignored.
    """

    letters: list[int]

    def __call__(
        self,
        logits: torch.Tensor,
        labels: torch.Tensor | None,
        vocab_size: int,
        shift_labels: torch.Tensor,
        num_items_in_batch: Any = None,
        **kwargs: Any,
    ) -> torch.Tensor:
        is_letter = shift_labels[..., None] == torch.tensor(self.letters, device=shift_labels.device)
        targets = is_letter.int().argmax(-1).masked_fill(~is_letter.any(-1), IGNORED)
        chosen = logits[..., self.letters].float()
        loss = F.cross_entropy(chosen.flatten(0, 1), targets.flatten(), ignore_index=IGNORED, reduction="sum")
        return loss / ((targets != IGNORED).sum() if num_items_in_batch is None else num_items_in_batch)


class Prompts(torch.utils.data.Dataset):
    """
    Prompts: demonstrations, each followed by the letter of its class, then the query and its letter.

    The seed determines the demonstrations of each row: `shots` per class, in random order, without the query itself.
    Rows have `input_ids`, and `labels` that are -100 except at the letters.

    Args:
        queries: Token ids and class of the sequences to classify.
        pool: Token ids and class of the sequences to demonstrate.
        letters: Token of each class.
        shots: Demonstrations per class.
        seed: Seed of the choice of demonstrations.
        reverse_complement: Probability of replacing a sequence by its reverse complement; for training only.
    """

    def __init__(
        self,
        queries: list[tuple[torch.Tensor, int]],
        pool: list[tuple[torch.Tensor, int]],
        letters: list[int],
        shots: int,
        seed: int,
        reverse_complement: float = 0.0,
    ) -> None:
        self.queries, self.pool, self.letters = queries, pool, letters
        self.shots, self.seed, self.reverse_complement = shots, seed, reverse_complement
        self.rows_of = [[i for i, (_, label) in enumerate(pool) if label == number] for number in range(len(letters))]

    def __len__(self) -> int:
        return len(self.queries)

    def __getitem__(self, row: int) -> dict[str, torch.Tensor]:
        pieces, labels = [], []
        for ids, label in (*self._demonstrations(row), self.queries[row]):
            flip = self.reverse_complement > 0 and torch.rand(()) < self.reverse_complement
            letter = ids.new_tensor([self.letters[label]])
            pieces += [reverse_complement_ids(ids) if flip else ids, letter]
            labels += [torch.full_like(ids, IGNORED), letter]
        return {"input_ids": torch.cat(pieces), "labels": torch.cat(labels)}

    def _demonstrations(self, row: int) -> list[tuple[torch.Tensor, int]]:
        rng = random.Random(f"{self.seed} {row}")
        query = row if self.queries is self.pool else None
        chosen_rows = []
        for rows in self.rows_of:
            candidates = rng.sample(rows, min(self.shots + 1, len(rows)))
            chosen_rows += [i for i in candidates if i != query][: self.shots]
        rng.shuffle(chosen_rows)
        return [self.pool[i] for i in chosen_rows]


def check_arguments(
    args: PromptingArguments,
    least: dict[str, int],
    choices: dict[str, tuple[str, ...]],
    probabilities: Iterable[str] = (),
) -> None:
    """
    Check the arguments of a command.

    Args:
        args: Arguments of the command.
        least: Smallest values of additional arguments, which are numbers or lists of numbers.
        choices: Allowed values of additional arguments, which are strings or lists of strings.
        probabilities: Names of the arguments that must be at least 0 and below 1.

    Raises:
        InputError: If an argument is invalid; the first one is named.
    """
    least = {"shots": 0, "eval_batch_size": 1, "max_bases": 1, "limit": 1, "seeds": 1, **least}
    for name, number in least.items():
        value = getattr(args, name)
        for element in value if isinstance(value, list) else [value]:
            if element is not None and not element >= number:
                raise InputError(f"--{name} {element}: give {number} or more.")
    choices = {"softmax": SOFTMAX, "calibration": CALIBRATIONS, **choices}
    for name, allowed in choices.items():
        value = getattr(args, name)
        for element in value if isinstance(value, list) else [value]:
            if element not in allowed:
                raise InputError(f"--{name} {element}: give {' or '.join(allowed)}.")
    if args.calibration != "none" and args.softmax != "letters":
        raise InputError(f"--calibration {args.calibration}: this requires --softmax letters.")
    for name in probabilities:
        if not 0 <= getattr(args, name) < 1:
            raise InputError(f"--{name} {getattr(args, name)}: give a probability of at least 0 and below 1.")
    check_output_folder(args.output_dir, RESULTS_FILE)  # type: ignore[arg-type]  # commands have a default
    import_module("matplotlib")  # fail early if it is missing


def load_task(args: PromptingArguments) -> Task:
    """
    Load the data and the language model of a command.

    Raises:
        InputError: If they cannot be loaded, or there are too many classes or too few demonstrations.
    """
    data = load_labelled(args.dataset, args.sequence_column, args.label_column, seed=args.seed)
    names = data["train"].features["label"].names
    if len(names) > len(LETTERS):
        raise InputError(
            f"--dataset {args.dataset}: it has {len(names)} classes, but there are letters for at most "
            f"{len(LETTERS)}; fine-tune a classifier (hyenadna finetune)."
        )
    letters = LETTERS[: len(names)] if args.class_letters is None else args.class_letters.upper()
    if len(letters) != len(names) or len(set(letters)) != len(names) or set(letters) - set(LETTERS):
        raise InputError(
            f"--class_letters {args.class_letters}: give {len(names)} different letters of {LETTERS}, one for each of "
            f"{', '.join(names)}."
        )
    model, tokenizer = load_trained(
        AutoModelForCausalLM, args.model, tokenizer=args.tokenizer, trust_remote_code=args.trust_remote_code
    )
    check_tokenizer(tokenizer)
    tokenizer.padding_side = "left"  # so that every row ends with the answer
    digest, splits = hashlib.sha256(), {}
    for name, split in data.items():
        if args.limit is not None:
            split = split.shuffle(seed=args.seed).select(range(min(args.limit, len(split))))
        rows = [(sequence[: args.max_bases], label) for sequence, label in zip(split["sequence"], split["label"])]
        digest.update(json.dumps([name, rows]).encode())
        splits[name] = [(torch.from_numpy(token_ids(sequence)), label) for sequence, label in rows]
    counts = torch.bincount(torch.tensor([label for _, label in splits["train"]]), minlength=len(names)).tolist()
    fewest = min(range(len(names)), key=counts.__getitem__)
    if counts[fewest] <= max(args.shots):  # one of them may be the query
        raise InputError(
            f"--shots {max(args.shots)}: class {names[fewest]} has {counts[fewest]:,} training sequences; give fewer "
            "shots, or a larger --limit."
        )
    identity = {
        "version": __version__,
        "dataset": args.dataset,
        "sequences": {name: len(split) for name, split in splits.items()},
        "letters": dict(zip(names, letters)),
        "data": digest.hexdigest(),
        "model": fingerprint(model, tokenizer),
        "softmax": args.softmax,
        "calibration": args.calibration,
        "seed": args.seed,
    }
    longest = max(len(ids) for split in splits.values() for ids, _ in split)
    return Task(model, tokenizer, splits, [VOCABULARY[letter] for letter in letters], longest, identity)


def make_trainer(
    task: Task,
    args: PromptingArguments,
    model: Any,
    train: Any = None,
    validation: Prompts | None = None,
    callbacks: Iterable[TrainerCallback] = (),
    **options: Any,
) -> Trainer:
    """
    Create a stock Trainer for prompts.

    Args:
        task: Data and tokenizer.
        args: Arguments of the command.
        model: Language model with or without an adapter.
        train: Prompts for training.
        validation: Prompts for evaluation after each epoch.
        callbacks: Callbacks of the Trainer.
        options: More fields of `TrainingArguments`.

    Returns:
        A Trainer whose predictions, which [`evaluate`] reads, are the logits at the answer and the answer.
    """
    arguments = TrainingArguments(
        per_device_eval_batch_size=args.eval_batch_size,
        seed=args.seed,
        use_cpu=args.use_cpu,
        report_to="none",
        disable_tqdm=True,
        remove_unused_columns=False,
        label_names=["labels"],
        dataloader_pin_memory=torch.cuda.is_available(),
        **options,
    )
    trainer = Trainer(
        model,
        arguments,
        train_dataset=train,
        eval_dataset=validation,
        data_collator=CausalCollator(task.tokenizer, ignore_n=False),
        preprocess_logits_for_metrics=_answers,
        compute_metrics=lambda output: {},
        callbacks=list(callbacks),
    )
    trainer.remove_callback(PrinterCallback)
    return trainer


def _answers(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """
    Select the logits at the answer of each query, followed by the true answer, of shape `(batch, vocab_size + 1)`.

    Rows are padded on the left and end with the answer, wherever the soft prompt is.
    """
    return torch.cat([logits[:, -2].float(), labels[:, -1:]], dim=1)


def evaluate(task: Task, args: PromptingArguments, trainer: Trainer, shots: int, seed: int) -> dict[str, float]:
    """
    Evaluate on the test split.

    Args:
        task: Sequences and letters.
        args: Arguments of the command, of which `softmax` and `calibration` are used.
        trainer: Trainer from [`make_trainer`].
        shots: Demonstrations per class.
        seed: Seed of the choice of demonstrations.

    Returns:
        `accuracy` and, with calibration, `uncalibrated_accuracy`.
    """
    predictions = trainer.predict(task.prompts("test", shots, seed)).predictions
    logits, answers = predictions[:, :-1], predictions[:, -1]
    if args.softmax == "vocabulary":
        return {"accuracy": float((logits.argmax(1) == answers).mean())}
    scores = log_softmax(logits[:, task.letters], axis=1)
    metrics = {"accuracy": accuracy_of_letters(scores, answers, task.letters)}
    if args.calibration == "contextual":
        content_free = trainer.predict(task.draw_content_free(shots, seed)).predictions[:, :-1]
        prior = logsumexp(log_softmax(content_free[:, task.letters], axis=1), axis=0)
        calibrated = accuracy_of_letters(scores - prior, answers, task.letters)
        metrics = {"accuracy": calibrated, "uncalibrated_accuracy": metrics["accuracy"]}
    return metrics


def accuracy_of_letters(scores: np.ndarray, answers: np.ndarray, letters: Sequence[int]) -> float:
    """
    Compute the fraction of queries whose true letter has the highest score.

    Args:
        scores: Log-probabilities or other scores, of shape `(queries, letters)`.
        answers: True tokens, of shape `(queries,)`.
        letters: Tokens of the columns of `scores`.
    """
    return float((np.asarray(letters)[scores.argmax(1)] == answers).mean())


class ShowSteps(TrainerCallback):
    """Call a function with the finished fraction of the training steps."""

    def __init__(self, show: Callable[[float], None]) -> None:
        self.show = show

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.show(state.global_step / state.max_steps)
