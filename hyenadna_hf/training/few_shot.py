"""`hyenadna few-shot`: demonstrations before the query, to a language model as it is or briefly tuned on prompts."""

import itertools
from dataclasses import dataclass, field, replace

from torch.utils.data import Subset
from transformers import set_seed

from ..arguments import CommandParser
from .prompt_baselines import in_turn, probe_accuracy
from .prompt_grid import run_grid
from .prompting import PromptingArguments, ShowSteps, check_arguments, evaluate, load_task, make_trainer

SETTINGS = ("learning_rate", "batch_size")
BASELINES = ("linear_probe",)  # tuning without shots is full fine-tuning


@dataclass
class FewShotArguments(PromptingArguments):
    output_dir: str = field(default="hyenadna-few-shot", metadata={"help": "Where tables, plot and results go."})
    tuning_samples: list[int] = field(
        default_factory=lambda: [0, 2, 4, 8, 16, 32, 64, 128, 256],
        metadata={"help": "Prompts to tune the model on, in turn from each class; 0: the model as it is."},
    )
    learning_rate: float = field(default=1e-4, metadata={"help": "Learning rate of AdamW, constant."})
    batch_size: int = field(default=2, metadata={"help": "Prompts a step, tuning."})
    baselines: list[str] = field(
        default_factory=list,
        metadata={
            "help": "Baselines to train on the sequences of each --tuning_samples, besides the majority class: "
            f"{', '.join(BASELINES)}."
        },
    )


def parser():
    """The arguments of `hyenadna few-shot`."""
    return CommandParser(
        "few-shot",
        FewShotArguments,
        "Put demonstrations of each class before a sequence and let a language model answer with a letter, as it is or "
        "after one pass over a few such prompts; table and plot of the accuracy on test. The same "
        "command resumes a killed run.",
        "[--dataset DATA] [--model MODEL] [--shots N ...] [--tuning_samples N ...] [ARGUMENT ...]",
        ["--dataset my_data/ --shots 0 2 --tuning_samples 0 16", "--dataset my_data/ --model my-lm --limit 500"],
    )


def main(argv):
    """Run `hyenadna few-shot` with the arguments `argv` (a list of `str`)."""
    args, _ = parser().parse(argv)
    return few_shot(args)


def few_shot(args):
    """
    Evaluate each of `tuning_samples` and `shots`.

    A tuned model has seen prompts of the train split with as many shots as it is evaluated with, once, with all its
    weights trained by AdamW without weight decay.

    Args:
        args ([`FewShotArguments`]): The arguments of the command.

    Returns:
        `dict`: the content of `results.json`.

    Raises:
        InputError: if the data, the model or an argument is invalid.
    """
    least = {"tuning_samples": 0, "learning_rate": 0, "batch_size": 1}
    check_arguments(args, least, {"baselines": BASELINES})
    task = load_task(args)
    samples, shots = sorted(set(args.tuning_samples)), sorted(set(args.shots))
    grid = [{"tuning_samples": n, "shots": k} for k, n in itertools.product(shots, samples)]
    grid += [
        {"method": method, "training_sequences": count}
        for count, method in itertools.product(samples, dict.fromkeys(args.baselines))
        if count >= len(task.letters)  # or else a class is unknown
    ]
    job = {"command": "few-shot", **{name: getattr(args, name) for name in SETTINGS}}

    def run(one, seed, show):
        if "method" in one:
            rows = in_turn(task.prompts("train", 0, seed).rows_of, one["training_sequences"], seed)
            return {"accuracy": probe_accuracy(task, args, rows)}
        return tune_and_evaluate(args, task, seed=seed, show=show, **one)

    return run_grid(args, task, job, grid, run)


def tune_and_evaluate(args, task, tuning_samples, shots, seed, show):
    """
    The accuracy on test of k-shot prompts, after tuning on some.

    Args:
        args ([`FewShotArguments`]): The arguments of the command.
        task ([`~hyenadna_hf.training.prompting.Task`]): Data and model; the model is left as it is.
        tuning_samples, shots (`int`): Prompts to tune on; demonstrations a class.
        seed (`int`): Seed of the demonstrations, their order, and tuning.
        show (`Callable[[int, int], None]`): Called with the number of finished steps and of all steps.

    Returns:
        `dict`: what [`~hyenadna_hf.training.prompting.evaluate`] gives.
    """
    args = replace(args, seed=seed)
    set_seed(seed)
    prompts = task.prompts("train", shots, seed)
    trainer = make_trainer(
        task,
        args,
        task.model_to_answer(args.softmax),
        Subset(prompts, in_turn(prompts.rows_of, tuning_samples, seed)),
        callbacks=[ShowSteps(show)],
        output_dir=args.output_dir,
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
