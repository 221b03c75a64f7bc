"""`hyenadna soft-prompt`: train soft prompts of several lengths and positions for a frozen language model."""

import itertools
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import Subset
from transformers import EarlyStoppingCallback, set_seed

from ..arguments import CommandParser
from ..errors import InputError
from .adapters import LINEAR_LAYERS
from .prompt_baselines import BASELINES, LEARNING_RATES, draw_in_turn, probe_accuracy
from .prompt_grid import PROMPT_FOLDER, run_grid
from .prompting import (
    POSITIONS,
    PUBLISHED_LETTERS,
    PromptingArguments,
    ShowSteps,
    Task,
    check_arguments,
    evaluate,
    load_task,
    make_trainer,
)
from .runs import last_whole_checkpoint

SETTINGS = (
    "learning_rate",
    "lr_scheduler_type",
    "prompt_init",
    "batch_size",
    "num_train_epochs",
    "early_stopping_patience",
    "dropout",
    "reverse_complement",
)
PUBLISHED = "published"
# Settings of the paper that differ from the defaults (docs/in_context.md).
PUBLISHED_SETTINGS: dict[str, Any] = {
    "softmax": "vocabulary",
    "calibration": "none",
    "learning_rate": 1e-3,
    "lr_scheduler_type": "reduce_lr_on_plateau",
    "prompt_init": "random",
    "early_stopping_patience": 2,
    "reverse_complement": 0.5,
}
SCHEDULES = ("linear", "cosine", "constant", "reduce_lr_on_plateau")
INITIALISATIONS = ("random", "tokens", "class_means")


@dataclass
class SoftPromptArguments(PromptingArguments):
    output_dir: str = field(
        default="hyenadna-soft-prompt", metadata={"help": "Folder for tables, plot, results and trained prompts."}
    )
    prompt_tokens: list[int] = field(
        default_factory=lambda: [0, 2, 32, 128, 512, 2048, 8192, 32768],
        metadata={"help": "Lengths of the soft prompt; 0 for no prompt."},
    )
    prompt_position: list[str] = field(
        default_factory=lambda: ["after"],
        metadata={
            "help": f"Positions of the soft prompt in the input: {', '.join(POSITIONS)} (at equal distances); or "
            f"{PUBLISHED}, before the input with the letters, loss, learning rate and schedule of the paper."
        },
    )
    prompt_init: str = field(
        default="random",
        metadata={
            "help": "Initial values of the soft prompt: random (as in an untrained model), tokens (embeddings of "
            "random bases), or class_means (mean embeddings of the sequences of each class in turn)."
        },
    )
    learning_rate: float = field(default=0.03, metadata={"help": "Learning rate of AdamW."})
    lr_scheduler_type: str = field(
        default="linear",
        metadata={
            "help": f"Schedule of the learning rate: {', '.join(SCHEDULES)} (by 10, after an epoch without gain)."
        },
    )
    num_train_epochs: int = field(default=20, metadata={"help": "Passes over the training split, at the most."})
    early_stopping_patience: int = field(
        default=5,
        metadata={"help": "Stop after this many epochs without a lower validation loss.", "formerly": ["patience"]},
    )
    batch_size: int = field(default=16, metadata={"help": "Prompts per step."})
    dropout: float = field(default=0.1, metadata={"help": "Dropout on the soft prompt in training."})
    reverse_complement: float = field(
        default=0.0, metadata={"help": "Probability with which a training sequence is read on the other strand."}
    )
    baselines: list[str] = field(
        default_factory=list,
        metadata={
            "help": f"Baselines to train on the same sequences, besides the majority class: {', '.join(BASELINES)}."
        },
    )
    baseline_samples: list[int] = field(
        default_factory=lambda: [0],
        metadata={"help": "Training sequences of the baselines, from each class in turn; 0 for all."},
    )


def parser() -> CommandParser:
    """Return the argument parser of `hyenadna soft-prompt`."""
    return CommandParser(
        "soft-prompt",
        SoftPromptArguments,
        "Train soft prompts of several lengths and places, with and without demonstrations, for a frozen language "
        "model that answers with a letter for the class; table and plot of the accuracy on test. The same "
        "command resumes a killed run.",
        "[--dataset DATA] [--model MODEL] [--prompt_position PLACE ...] [--prompt_tokens N ...] [ARGUMENT ...]",
        [
            "--dataset my_data/ --prompt_position before after --prompt_tokens 0 2 32 128 --shots 0",
            "--dataset my_data/ --model my-lm --limit 500 --baselines linear_probe lora full",
        ],
    )


def main(argv: list[str]) -> dict[str, Any]:
    """Run `hyenadna soft-prompt` with command-line arguments."""
    args, _ = parser().parse(argv)
    return soft_prompt(args)


def soft_prompt(args: SoftPromptArguments) -> dict[str, Any]:
    """
    Train and evaluate a prompt for every combination of `prompt_position`, `prompt_tokens` and `shots`, and baselines.

    AdamW without weight decay trains only the prompt. The prompt of the epoch with the lowest validation loss is saved
    as a PEFT adapter: PEFT's own if it precedes the sequence, otherwise a
    [`~hyenadna_hf.training.prompt_position.PlacedPromptConfig`].

    Args:
        args: Arguments of the command.

    Returns:
        The content of `results.json`.

    Raises:
        InputError: If the data, the model or an argument is invalid.
    """
    least = {
        "prompt_tokens": 0,
        "learning_rate": 0,
        "num_train_epochs": 1,
        "early_stopping_patience": 1,
        "batch_size": 1,
        "baseline_samples": 0,
    }
    choices = {
        "prompt_position": (*POSITIONS, PUBLISHED),
        "prompt_init": INITIALISATIONS,
        "lr_scheduler_type": SCHEDULES,
        "baselines": BASELINES,
    }
    check_arguments(args, least, choices, probabilities=("dropout", "reverse_complement"))
    task = load_task(args)
    grid = []
    for shots, tokens in itertools.product(sorted(set(args.shots)), sorted(set(args.prompt_tokens))):
        places = sorted(set(args.prompt_position))
        if tokens == 0:  # without a prompt there is no position
            places = sorted({place if place == PUBLISHED else "none" for place in places})
        grid += [{"prompt_position": place, "prompt_tokens": tokens, "shots": shots} for place in places]
    available = len(task.splits["train"])
    for count in args.baseline_samples:
        if 0 < count < len(task.letters):
            raise InputError(
                f"--baseline_samples {count}: give 0 for all, or at least {len(task.letters)}, one per class."
            )
    samples = sorted({min(count or available, available) for count in args.baseline_samples})
    grid += [
        {"method": method, "training_sequences": count}
        for count, method in itertools.product(samples, dict.fromkeys(args.baselines))
    ]
    fixed = {"command": "soft-prompt", **{name: getattr(args, name) for name in SETTINGS}}

    def run(settings: dict[str, Any], seed: int, folder: Path, show: Callable[[float], None]) -> dict[str, Any]:
        train = train_baseline if "method" in settings else train_prompt
        return train(args, task, seed=seed, folder=folder, show=show, **settings)

    return run_grid(args, task, fixed, grid, run)


def train_prompt(
    args: SoftPromptArguments,
    task: Task,
    prompt_position: str,
    prompt_tokens: int,
    shots: int,
    seed: int,
    folder: Path,
    show: Callable[[float], None],
) -> dict[str, Any]:
    """
    Train a soft prompt, or resume from its last checkpoint, save it, and evaluate it on the test split.

    Args:
        args: Arguments of the command.
        task: Data and model, which does not change.
        prompt_position: Position of the soft prompt.
        prompt_tokens: Length of the soft prompt.
        shots: Demonstrations per class.
        seed: Seed of the demonstrations and of training.
        folder: Folder for the folder of the prompt, which begins with `PROMPT_FOLDER`.
        show: Called with the finished fraction.

    Returns:
        Test `accuracy`, `validation_loss` of the best epoch in nats, `epochs`, and number of trained `parameters`.
    """
    if prompt_position == PUBLISHED:
        args = replace(args, **PUBLISHED_SETTINGS)
        task = task.with_letters(PUBLISHED_LETTERS[len(task.letters)])
    args = replace(args, seed=seed)
    set_seed(seed)
    model = task.build_answering_model(args.softmax)
    if prompt_tokens == 0:
        validation = task.prompts("validation", shots, seed)
        trainer = make_trainer(task, args, model, None, validation, output_dir=str(folder))
        loss = trainer.evaluate()["eval_loss"]
        metrics = evaluate(task, args, trainer, shots, seed)
        return {**metrics, "validation_loss": loss, "epochs": 0, "parameters": 0}
    place = "before" if prompt_position == PUBLISHED else prompt_position
    model = add_prompt(model, prompt_tokens, args.dropout, place)
    initialise(model, task, args.prompt_init)
    folder = folder / f"{PROMPT_FOLDER}{prompt_tokens}-{prompt_position}-shots-{shots}-seed-{seed}"
    metrics = _fit(args, task, model, None, shots, folder, show)
    model.save_pretrained(folder)
    return metrics


def train_baseline(
    args: SoftPromptArguments,
    task: Task,
    seed: int,
    folder: Path,
    show: Callable[[float], None],
    method: str,
    training_sequences: int,
) -> dict[str, Any]:
    """
    Train a baseline without demonstrations, and evaluate it on the test split.

    LoRA and full fine-tuning learn to answer with a letter, as prompts do, but with their own learning rates.

    Args:
        args: Arguments of the command.
        task: Data and model, which does not change.
        seed: Seed of training and of the choice of sequences.
        folder: Folder for the checkpoints.
        show: Called with the finished fraction.
        method: One of `BASELINES`.
        training_sequences: Number of training sequences, drawn from each class in turn.

    Returns:
        Values as from [`train_prompt`], or the accuracy alone for a linear probe.
    """
    rows_of = task.prompts("train", 0, seed).rows_of
    rows = draw_in_turn(rows_of, training_sequences, seed)
    if method == "linear_probe":
        return {"accuracy": probe_accuracy(task, args, rows)}
    from peft import LoraConfig, get_peft_model

    args = replace(args, seed=seed, learning_rate=LEARNING_RATES[method])
    set_seed(seed)
    model = task.build_answering_model(args.softmax)
    if method == "lora":
        with warnings.catch_warnings():  # PEFT asks transformers by an old name
            warnings.filterwarnings("ignore", "`is_gradient_checkpointing`", FutureWarning)
            model = get_peft_model(model, LoraConfig(task_type="CAUSAL_LM", target_modules=list(LINEAR_LAYERS)))
    return _fit(args, task, model, rows, 0, folder / f"{method}-{training_sequences}-seed-{seed}", show)


def _fit(
    args: SoftPromptArguments,
    task: Task,
    model: Any,
    rows: list[int] | None,
    shots: int,
    folder: Path,
    show: Callable[[float], None],
) -> dict[str, Any]:
    """Train a model, or resume from its last checkpoint in a folder, and evaluate it on the test split."""
    parameters = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    train = task.prompts("train", shots, args.seed, args.reverse_complement)
    reduces_on_plateau = args.lr_scheduler_type == "reduce_lr_on_plateau"
    trainer = make_trainer(
        task,
        args,
        model,
        train if rows is None else Subset(train, rows),
        task.prompts("validation", shots, args.seed),
        callbacks=[EarlyStoppingCallback(args.early_stopping_patience), ShowSteps(show)],
        output_dir=str(folder),
        num_train_epochs=args.num_train_epochs,
        per_device_train_batch_size=args.batch_size,
        learning_rate=args.learning_rate,
        weight_decay=0.0,
        lr_scheduler_type=args.lr_scheduler_type,
        lr_scheduler_kwargs={"factor": 0.1, "patience": 0} if reduces_on_plateau else {},
        eval_strategy="epoch",
        save_strategy="epoch",
        save_total_limit=1,
        load_best_model_at_end=True,
        metric_for_best_model="loss",
        greater_is_better=False,
        restore_callback_states_from_checkpoint=True,
    )
    trainer.train(resume_from_checkpoint=last_whole_checkpoint(folder))
    metrics = evaluate(task, args, trainer, shots, args.seed)
    return {
        **metrics,
        "validation_loss": trainer.state.best_metric,
        "epochs": round(trainer.state.epoch),
        "parameters": parameters,
    }


def add_prompt(model: Any, prompt_tokens: int, dropout: float = 0.0, position: str = "before") -> Any:
    """
    Add a trainable soft prompt to a frozen language model.

    Args:
        model: Language model, which is modified.
        prompt_tokens: Length of the prompt. It is initialised like the embeddings of an untrained model.
        dropout: Dropout on the prompt in training.
        position: Position of the prompt: `"before"` for PEFT's own prompt tuning, or another position of
            [`~hyenadna_hf.training.prompt_position.PlacedPromptConfig`].

    Returns:
        A `peft.PeftModelForCausalLM`.
    """
    from peft import PromptTuningConfig, get_peft_model

    from .prompt_position import PlacedPromptConfig

    common = {"task_type": "CAUSAL_LM", "num_virtual_tokens": prompt_tokens}
    if position == "before":
        config = PromptTuningConfig(**common)
    else:
        config = PlacedPromptConfig(**common, prompt_position=position, prompt_dropout=dropout)

    def drop(module: torch.nn.Module, args: tuple, kwargs: dict[str, Any]) -> tuple[tuple, dict[str, Any]]:
        if module.training:
            prompt, sequence = kwargs["inputs_embeds"].tensor_split([prompt_tokens], dim=1)
            prompt = torch.nn.functional.dropout(prompt, dropout)
            kwargs["inputs_embeds"] = torch.cat([prompt, sequence], dim=1)
        return args, kwargs

    with warnings.catch_warnings():  # PEFT asks transformers by an old name
        warnings.filterwarnings("ignore", "`is_gradient_checkpointing`", FutureWarning)
        peft_model = get_peft_model(model, config)
    torch.nn.init.normal_(_embedding(peft_model), std=model.config.initializer_range)
    if position == "before":
        # On the model, because the module of the prompt is also called for saving.
        model.register_forward_pre_hook(drop, with_kwargs=True)
    return peft_model


def _embedding(peft_model: Any) -> torch.Tensor:
    """Return the prompt of a model, of shape `(prompt_tokens, d_model)`."""
    return peft_model.prompt_encoder[peft_model.active_adapter].embedding.weight


@torch.no_grad()
def initialise(model: Any, task: Task, method: str) -> None:
    """
    Initialise a soft prompt.

    Args:
        model: Model from [`add_prompt`].
        task: Training sequences.
        method: One of `INITIALISATIONS`.
    """
    prompt, embed = _embedding(model), model.get_input_embeddings()
    if method == "tokens":
        bases = torch.cat([ids for ids, _ in task.splits["train"]])
        chosen = bases[torch.randint(len(bases), (len(prompt),))]
        prompt.copy_(embed(chosen.to(prompt.device)))
    elif method == "class_means":
        means = []
        for number in range(len(task.letters)):
            ids = torch.cat([ids for ids, label in task.splits["train"] if label == number])
            means.append(embed(ids.to(prompt.device)).mean(0))
        prompt.copy_(torch.stack(means)[torch.arange(len(prompt)) % len(means)])
