"""Classification by a language model: classes as letters, demonstrations before the query."""

import copy
import hashlib
import json
import random
from dataclasses import dataclass, field, replace
from importlib import import_module

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

# Letters that may stand for classes. By default those of the bases come first: a language model gives N nearly nothing.
LETTERS = "ACGTN"
# The letters of the paper (for four classes, ours in its manner), by the number of classes.
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
    output_dir: str | None = field(default=None, metadata={"help": "Where tables, plot and results go."})
    shots: list[int] = field(
        default_factory=lambda: [0, 2, 32, 128], metadata={"help": "Demonstrations a class before the query."}
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
            "help": "Loss and answers are those of a softmax over the letters of the classes, or as in the paper over "
            f"all tokens: {', '.join(SOFTMAX)}."
        },
    )
    calibration: str = field(
        default="none",
        metadata={
            "help": "contextual: divide the probability of each letter by its mean after the same prompts with random "
            f"bases as the query: {', '.join(CALIBRATIONS)}."
        },
    )
    sequence_column: str | None = field(default=None, metadata={"help": "Default: sequence, seq or dna."})
    label_column: str | None = field(default=None, metadata={"help": "Default: label, class or target."})
    max_bases: int | None = field(
        default=None,
        metadata={
            "help": "Use only so many bases from the start of each sequence (default: all).",
            "formerly": ["max_length"],
        },
    )
    limit: int | None = field(default=None, metadata={"help": "Use so many sequences of each split (default: all)."})
    eval_batch_size: int = field(default=32, metadata={"help": "Prompts a step, evaluating."})
    seed: int = field(default=42, metadata={"help": "Seed of all random choices."})
    seeds: int = field(
        default=1,
        metadata={
            "help": "Run everything with so many seeds, from --seed on: other demonstrations in another order, and "
            "another start of what is trained. The sequences are the same."
        },
    )


@dataclass
class Task:
    """
    Data and model that all runs of a grid share.

    Args:
        model, tokenizer: The language model and its tokenizer.
        splits (`dict[str, list[tuple[torch.LongTensor, int]]]`): Token ids and class, of `train`, `validation`, `test`.
        letters (`list[int]`): The token that stands for each class.
        longest (`int`): Tokens of the longest sequence.
        identity (`dict`): Everything that the results depend on here, for JSON.
    """

    model: object
    tokenizer: object
    splits: dict
    letters: list
    longest: int
    identity: dict

    def tokens(self, shots):
        """Tokens of the longest prompt with so many shots a class, the answer included."""
        return (shots * len(self.letters) + 1) * (self.longest + 1)

    def prompts(self, split, shots, seed, reverse_complement=0.0):
        """The [`Prompts`] of a split, with demonstrations from train."""
        return Prompts(self.splits[split], self.splits["train"], self.letters, shots, seed, reverse_complement)

    def content_free(self, shots, seed):
        """[`Prompts`] whose queries are random bases, as long as the first sequences of validation; all of class 0."""
        random_bases, bases = random.Random(seed), [VOCABULARY[base] for base in BASES]
        lengths = [len(ids) for ids, _ in self.splits["validation"][:CONTENT_FREE]]
        queries = [(torch.tensor(random_bases.choices(bases, k=length)), 0) for length in lengths]
        return Prompts(queries, self.splits["train"], self.letters, shots, seed)

    def with_letters(self, letters):
        """The same task with other letters for the classes (`str`)."""
        return replace(self, letters=[VOCABULARY[letter] for letter in letters])

    def model_to_answer(self, softmax):
        """A copy of the model whose loss is that of `softmax`: over the letters, or over all tokens (the model's)."""
        model = copy.deepcopy(self.model)
        if softmax == "letters":
            model.loss_function = LettersLoss(self.letters)
        return model

    def majority(self):
        """Accuracy on test of the most frequent class of train."""
        classes = [label for _, label in self.splits["train"]]
        most = max(set(classes), key=classes.count)
        return sum(label == most for _, label in self.splits["test"]) / len(self.splits["test"])


@dataclass
class LettersLoss:
    """
    Cross-entropy of a causal language model in a softmax over some tokens, for its `loss_function`.

    Args:
        letters (`list[int]`): The tokens. Other labels are not scored.
    """

    letters: list

    def __call__(self, logits, labels, vocab_size, shift_labels, num_items_in_batch=None, **kwargs):
        is_letter = shift_labels[..., None] == torch.tensor(self.letters, device=shift_labels.device)
        targets = is_letter.int().argmax(-1).masked_fill(~is_letter.any(-1), IGNORED)
        chosen = logits[..., self.letters].float()
        loss = F.cross_entropy(chosen.flatten(0, 1), targets.flatten(), ignore_index=IGNORED, reduction="sum")
        return loss / ((targets != IGNORED).sum() if num_items_in_batch is None else num_items_in_batch)


class Prompts(torch.utils.data.Dataset):
    """
    Demonstrations, each followed by the letter of its class, then the query and its letter.

    Each row has demonstrations of its own, which follow from the seed: `shots` a class, in random order, without the
    query itself. Rows have `input_ids`, and `labels` that are -100 but at the letters.

    Args:
        queries, pool (`list[tuple[torch.LongTensor, int]]`): Token ids and classes: to ask for, and to show.
        letters (`list[int]`): The token that stands for each class.
        shots (`int`): Demonstrations a class.
        seed (`int`): Of the choice of demonstrations.
        reverse_complement (`float`, defaults to 0): Probability with which a sequence is replaced by its other strand;
            for training only.
    """

    def __init__(self, queries, pool, letters, shots, seed, reverse_complement=0.0):
        self.queries, self.pool, self.letters = queries, pool, letters
        self.shots, self.seed, self.reverse_complement = shots, seed, reverse_complement
        self.rows_of = [[i for i, (_, label) in enumerate(pool) if label == one] for one in range(len(letters))]

    def __len__(self):
        return len(self.queries)

    def __getitem__(self, row):
        pieces, labels = [], []
        for ids, label in (*self._demonstrations(row), self.queries[row]):
            flip = self.reverse_complement > 0 and torch.rand(()) < self.reverse_complement
            letter = ids.new_tensor([self.letters[label]])
            pieces += [reverse_complement_ids(ids) if flip else ids, letter]
            labels += [torch.full_like(ids, IGNORED), letter]
        return {"input_ids": torch.cat(pieces), "labels": torch.cat(labels)}

    def _demonstrations(self, row):
        rng = random.Random(f"{self.seed} {row}")
        itself = row if self.queries is self.pool else None
        shown = []
        for rows in self.rows_of:
            drawn = rng.sample(rows, min(self.shots + 1, len(rows)))
            shown += [i for i in drawn if i != itself][: self.shots]
        rng.shuffle(shown)
        return [self.pool[i] for i in shown]


def check_arguments(args, least, choices, probabilities=()):
    """
    Refuse invalid arguments.

    Args:
        args ([`PromptingArguments`]): The arguments of the command.
        least (`dict[str, int]`): The least value of further arguments, each a number or a list of them.
        choices (`dict[str, tuple[str]]`): Values of further arguments that are one of some, or a list of them.
        probabilities: Names of arguments that are probabilities of at least 0 and below 1.

    Raises:
        InputError: naming the first invalid one.
    """
    least = {"shots": 0, "eval_batch_size": 1, "max_bases": 1, "limit": 1, "seeds": 1, **least}
    for name, number in least.items():
        value = getattr(args, name)
        for one in value if isinstance(value, list) else [value]:
            if one is not None and not one >= number:
                raise InputError(f"--{name} {one}: give {number} or more.")
    choices = {"softmax": SOFTMAX, "calibration": CALIBRATIONS, **choices}
    for name, allowed in choices.items():
        value = getattr(args, name)
        for one in value if isinstance(value, list) else [value]:
            if one not in allowed:
                raise InputError(f"--{name} {one}: give {' or '.join(allowed)}.")
    if args.calibration != "none" and args.softmax != "letters":
        raise InputError(f"--calibration {args.calibration}: it is for --softmax letters.")
    for name in probabilities:
        if not 0 <= getattr(args, name) < 1:
            raise InputError(f"--{name} {getattr(args, name)}: give a probability of at least 0 and below 1.")
    check_output_folder(args.output_dir, RESULTS_FILE)
    import_module("matplotlib")  # if it is missing, that shows before the work


def load_task(args):
    """
    Load the data and the language model of a command.

    Args:
        args ([`PromptingArguments`]): The arguments of the command.

    Returns:
        [`Task`]

    Raises:
        InputError: if they cannot be loaded, or there are too many classes or too few demonstrations.
    """
    data = load_labelled(args.dataset, args.sequence_column, args.label_column, seed=args.seed)
    names = data["train"].features["label"].names
    if len(names) > len(LETTERS):
        raise InputError(
            f"--dataset {args.dataset}: it has {len(names)} classes, but there are letters for {len(LETTERS)} at "
            "most; fine-tune a classifier (hyenadna finetune)."
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


def make_trainer(task, args, model, train=None, validation=None, callbacks=(), **options):
    """
    Make a stock Trainer for prompts.

    Args:
        task ([`Task`]): Has the tokenizer.
        args ([`PromptingArguments`]): The arguments of the command.
        model: The language model, with an adapter or without.
        train, validation ([`Prompts`], *optional*): To train on, and to evaluate on after each epoch.
        callbacks: Callbacks of the Trainer.
        options: Further fields of `TrainingArguments`.

    Returns:
        `Trainer`, whose `predict` gives what [`evaluate`] reads: the logits of all tokens in the place of the answer,
        and the answer.
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


def _answers(logits, labels):
    """
    Logits of the answer of each query, and the true one, `(batch, vocab_size + 1)`.

    Rows are padded on the left and end with the answer, wherever a soft prompt stands.
    """
    return torch.cat([logits[:, -2].float(), labels[:, -1:]], dim=1)


def evaluate(task, args, trainer, shots, seed):
    """
    Accuracy on test.

    Args:
        task ([`Task`]): Has the sequences and the letters.
        args ([`PromptingArguments`]): The arguments of the command: `softmax` and `calibration`.
        trainer (`Trainer`): That of [`make_trainer`].
        shots (`int`): Demonstrations a class.
        seed (`int`): Of their choice.

    Returns:
        `dict`: `accuracy`, and with a calibration, `uncalibrated_accuracy`.
    """
    predictions = trainer.predict(task.prompts("test", shots, seed)).predictions
    logits, answers = predictions[:, :-1], predictions[:, -1]
    if args.softmax == "vocabulary":
        return {"accuracy": float((logits.argmax(1) == answers).mean())}
    scores = log_softmax(logits[:, task.letters], axis=1)
    found = {"accuracy": accuracy_of_letters(scores, answers, task.letters)}
    if args.calibration == "contextual":
        content_free = trainer.predict(task.content_free(shots, seed)).predictions[:, :-1]
        prior = logsumexp(log_softmax(content_free[:, task.letters], axis=1), axis=0)
        calibrated = accuracy_of_letters(scores - prior, answers, task.letters)
        found = {"accuracy": calibrated, "uncalibrated_accuracy": found["accuracy"]}
    return found


def accuracy_of_letters(scores, answers, letters):
    """
    The share of queries whose letter has the highest score of all letters.

    Args:
        scores (`np.ndarray` of shape `(queries, letters)`): Logarithms of probabilities, or the like.
        answers (`np.ndarray` of shape `(queries,)`): The true tokens.
        letters (`list[int]`): The tokens of the columns.

    Returns:
        `float`
    """
    return float((np.asarray(letters)[scores.argmax(1)] == answers).mean())


class ShowSteps(TrainerCallback):
    """Call a function with the number of finished steps and of all steps, of training or of an evaluation."""

    def __init__(self, show):
        self.show = show
        self.evaluated = 0

    def on_step_end(self, args, state, control, **kwargs):
        self.show(state.global_step, state.max_steps)

    def on_prediction_step(self, args, state, control, eval_dataloader, **kwargs):
        self.evaluated += 1
        self.show(self.evaluated, len(eval_dataloader))

    def on_evaluate(self, args, state, control, **kwargs):
        self.evaluated = 0

    on_predict = on_evaluate
