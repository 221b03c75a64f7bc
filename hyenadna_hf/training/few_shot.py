"""`hyenadna few-shot`: demonstrations before the query, for a language model with or without brief tuning."""

import itertools
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from torch.utils.data import Subset
from transformers import set_seed

from ..arguments import CommandParser
from .prompt_baselines import draw_in_turn, probe_accuracy
from .prompt_grid import run_grid
from .prompting import PromptingArguments, ShowSteps, Task, check_arguments, evaluate, load_task, make_trainer

SETTINGS = ("learning_rate", "batch_size")
BASELINES = ("linear_probe",)  # tuning without shots is full fine-tuning


@dataclass
class FewShotArguments(PromptingArguments):
    output_dir: str = field(default="hyenadna-few-shot", metadata={"help": "Folder for tables, plot and results."})
    tuning_samples: list[int] = field(
        default_factory=lambda: [0, 2, 4, 8, 16, 32, 64, 128, 256],
        metadata={"help": "Prompts to tune the model on, from each class in turn; 0 for no tuning."},
    )
    learning_rate: float = field(default=1e-4, metadata={"help": "Constant learning rate of AdamW."})
    batch_size: int = field(default=2, metadata={"help": "Prompts per step in tuning."})
    baselines: list[str] = field(
        default_factory=list,
        metadata={
            "help": "Baselines to train on the sequences of each --tuning_samples, besides the majority class: "
            f"{', '.join(BASELINES)}."
        },
    )


def parser() -> CommandParser:
    """Return the argument parser of `hyenadna few-shot`."""
    return CommandParser(
        "few-shot",
        FewShotArguments,
        "Put demonstrations of each class before a sequence and let a language model answer with a letter, as it is or "
        "after one pass over a few such prompts; table and plot of the accuracy on test. The same "
        "command resumes a killed run.",
        "[--dataset DATA] [--model MODEL] [--shots N ...] [--tuning_samples N ...] [ARGUMENT ...]",
        ["--dataset my_data/ --shots 0 2 --tuning_samples 0 16", "--dataset my_data/ --model my-lm --limit 500"],
    )


def main(argv: list[str]) -> dict[str, Any]:
    """Run `hyenadna few-shot` with command-line arguments."""
    args, _ = parser().parse(argv)
    return few_shot(args)


def few_shot(args: FewShotArguments) -> dict[str, Any]:
    """
    Evaluate every combination of `tuning_samples` and `shots`.

    Tuning is one pass over prompts of the training split, with as many shots as in the evaluation. AdamW without weight
    decay updates all weights.

    Args:
        args: Arguments of the command.

    Returns:
        The content of `results.json`.

    Raises:
        InputError: If the data, the model or an argument is invalid.
    """
    least = {"tuning_samples": 0, "learning_rate": 0, "batch_size": 1}
    check_arguments(args, least, {"baselines": BASELINES})
    task = load_task(args)
    samples, shots = sorted(set(args.tuning_samples)), sorted(set(args.shots))
    grid = [{"tuning_samples": n, "shots": k} for k, n in itertools.product(shots, samples)]
    grid += [
        {"method": method, "training_sequences": count}
        for count, method in itertools.product(samples, dict.fromkeys(args.baselines))
        if count >= len(task.letters)  # otherwise the probe does not know all classes
    ]
    fixed = {"command": "few-shot", **{name: getattr(args, name) for name in SETTINGS}}

    def run(settings: dict[str, Any], seed: int, folder: Path, show: Callable[[float], None]) -> dict[str, Any]:
        if "method" in settings:
            rows = draw_in_turn(task.prompts("train", 0, seed).rows_of, settings["training_sequences"], seed)
            return {"accuracy": probe_accuracy(task, args, rows)}
        return tune_and_evaluate(args, task, seed=seed, folder=folder, show=show, **settings)

    return run_grid(args, task, fixed, grid, run)


def tune_and_evaluate(
    args: FewShotArguments,
    task: Task,
    tuning_samples: int,
    shots: int,
    seed: int,
    folder: Path,
    show: Callable[[float], None],
) -> dict[str, float]:
    """
    Tune a copy of the model on few-shot prompts, and evaluate it on the test split.

    Args:
        args: Arguments of the command.
        task: Data and model, which does not change.
        tuning_samples: Number of prompts to tune on.
        shots: Demonstrations per class.
        seed: Seed of the demonstrations, their order, and tuning.
        folder: Folder for temporary files.
        show: Called with the finished fraction.

    Returns:
        The result of [`~hyenadna_hf.training.prompting.evaluate`].
    """
    args = replace(args, seed=seed)
    set_seed(seed)
    prompts = task.prompts("train", shots, seed)
    trainer = make_trainer(
        task,
        args,
        task.build_answering_model(args.softmax),
        Subset(prompts, draw_in_turn(prompts.rows_of, tuning_samples, seed)),
        callbacks=[ShowSteps(show)],
        output_dir=str(folder),
        num_train_epochs=1,
        per_device_train_batch_size=args.batch_size,
        learning_rate=args.learning_rate,
        weight_decay=0.0,
        lr_scheduler_type="constant",
        save_strategy="no",
    )
    if tuning_samples:
        trainer.train()
    return evaluate(task, args, trainer, shots, seed)
