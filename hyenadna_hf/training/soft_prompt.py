"""`hyenadna soft-prompt`: train soft prompts of several lengths and places for a frozen language model."""

import itertools
import shutil
import warnings
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from torch.utils.data import Subset
from transformers import EarlyStoppingCallback, set_seed
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

from ..arguments import CommandParser
from ..errors import InputError
from .adapters import LINEAR_LAYERS
from .prompt_baselines import BASELINES, LEARNING_RATES, in_turn, probe_accuracy
from .prompt_grid import run_grid
from .prompting import (
    POSITIONS,
    PUBLISHED_LETTERS,
    PromptingArguments,
    ShowSteps,
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
# The paper's settings that are not ours: see docs/in_context.md.
PUBLISHED_SETTINGS = {
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
        default="hyenadna-soft-prompt", metadata={"help": "Where tables, plot, results and trained prompts go."}
    )
    prompt_tokens: list[int] = field(
        default_factory=lambda: [0, 2, 32, 128, 512, 2048, 8192, 32768],
        metadata={"help": "Lengths of the soft prompt; with 0 nothing is trained."},
    )
    prompt_position: list[str] = field(
        default_factory=lambda: ["after"],
        metadata={
            "help": f"Where the soft prompt stands: {', '.join(POSITIONS)} (at equal distances) the sequence and its "
            f"demonstrations; or {PUBLISHED}: before, with the letters, loss, learning rate and schedule of the paper."
        },
    )
    prompt_init: str = field(
        default="random",
        metadata={
            "help": "What the soft prompt begins as: random, as the embeddings of an untrained model; tokens: "
            "embeddings of random bases; class_means: mean embeddings of the sequences of each class in turn."
        },
    )
    learning_rate: float = field(default=0.03, metadata={"help": "Learning rate of AdamW."})
    lr_scheduler_type: str = field(
        default="linear",
        metadata={
            "help": f"Schedule of the learning rate: {', '.join(SCHEDULES)} (by 10, after an epoch without gain)."
        },
    )
    num_train_epochs: int = field(default=20, metadata={"help": "Passes over the training split, at most."})
    early_stopping_patience: int = field(
        default=5,
        metadata={"help": "Stop after so many epochs without a lower validation loss.", "formerly": ["patience"]},
    )
    batch_size: int = field(default=16, metadata={"help": "Prompts a step."})
    dropout: float = field(default=0.1, metadata={"help": "Dropout on the soft prompt, in training."})
    reverse_complement: float = field(
        default=0.0, metadata={"help": "Probability of the other strand of a sequence, in training."}
    )
    baselines: list[str] = field(
        default_factory=list,
        metadata={
            "help": f"Baselines to train on the same sequences, besides the majority class: {', '.join(BASELINES)}."
        },
    )
    baseline_samples: list[int] = field(
        default_factory=lambda: [0],
        metadata={"help": "Training sequences of the baselines, in turn from each class; 0: all."},
    )


def parser():
    """The arguments of `hyenadna soft-prompt`."""
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


def main(argv):
    """Run `hyenadna soft-prompt` with the arguments `argv` (a list of `str`)."""
    args, _ = parser().parse(argv)
    return soft_prompt(args)


def soft_prompt(args):
    """
    Train and evaluate one prompt for each of `prompt_position`, `prompt_tokens` and `shots`, and the baselines.

    Only the prompt is trained, by AdamW without weight decay; the prompt of the epoch with the lowest validation loss
    is kept. Each trained prompt is saved as a PEFT adapter: PEFT's own before the sequence, and elsewhere a
    [`~hyenadna_hf.training.prompt_position.PlacedPromptConfig`].

    Args:
        args ([`SoftPromptArguments`]): The arguments of the command.

    Returns:
        `dict`: the content of `results.json`.

    Raises:
        InputError: if the data, the model or an argument is invalid.
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
        if tokens == 0:  # nothing that could have a place
            places = sorted({place if place == PUBLISHED else "none" for place in places})
        grid += [{"prompt_position": place, "prompt_tokens": tokens, "shots": shots} for place in places]
    available = len(task.splits["train"])
    for count in args.baseline_samples:
        if 0 < count < len(task.letters):
            raise InputError(
                f"--baseline_samples {count}: give 0 for all, or one for each of {len(task.letters)} classes."
            )
    samples = sorted({min(count or available, available) for count in args.baseline_samples})
    grid += [
        {"method": method, "training_sequences": count}
        for count, method in itertools.product(samples, dict.fromkeys(args.baselines))
    ]
    job = {"command": "soft-prompt", **{name: getattr(args, name) for name in SETTINGS}}

    def run(one, seed, show):
        if "method" in one:
            return train_baseline(args, task, seed, show, **one)
        return train_prompt(args, task, seed=seed, show=show, **one)

    return run_grid(args, task, job, grid, run)


def train_prompt(args, task, prompt_position, prompt_tokens, shots, seed, show):
    """
    Train one soft prompt, or resume from its last checkpoint, and evaluate it on test.

    Args:
        args ([`SoftPromptArguments`]): The arguments of the command.
        task ([`~hyenadna_hf.training.prompting.Task`]): Data and model; the model is left as it is.
        prompt_position (`str`): Where the soft prompt stands.
        prompt_tokens, shots (`int`): Length of the soft prompt; demonstrations a class.
        seed (`int`): Seed of the demonstrations and of training.
        show (`Callable[[int, int], None]`): Called with the number of finished steps and of all steps.

    Returns:
        `dict`: `accuracy` on test, `validation_loss` (of the best epoch, in nats), `epochs`, and `parameters` trained.
    """
    if prompt_position == PUBLISHED:
        args = replace(args, **PUBLISHED_SETTINGS)
        task = task.with_letters(PUBLISHED_LETTERS[len(task.letters)])
    args = replace(args, seed=seed)
    set_seed(seed)
    model = task.model_to_answer(args.softmax)
    if prompt_tokens == 0:
        validation, steps = task.prompts("validation", shots, seed), [ShowSteps(show)]
        trainer = make_trainer(task, args, model, None, validation, steps, output_dir=args.output_dir)
        loss = trainer.evaluate()["eval_loss"]
        found = evaluate(task, args, trainer, shots, seed)
        return {**found, "validation_loss": loss, "epochs": 0, "parameters": 0}
    place = "before" if prompt_position == PUBLISHED else prompt_position
    model = prompted(model, prompt_tokens, args.dropout, place)
    initialise(model, task, args.prompt_init)
    folder = Path(args.output_dir) / f"prompt-{prompt_tokens}-{prompt_position}-shots-{shots}-seed-{seed}"
    return _fit(args, task, model, None, shots, folder, show)


def train_baseline(args, task, seed, show, method, training_sequences):
    """
    Train one baseline on some sequences, without demonstrations, and evaluate it on test.

    LoRA and full fine-tuning are trained as the prompts are, to answer by a letter, with learning rates of their own.

    Args:
        args ([`SoftPromptArguments`]): The arguments of the command.
        task ([`~hyenadna_hf.training.prompting.Task`]): Data and model; the model is left as it is.
        seed (`int`): Seed of training and of the choice of sequences.
        show (`Callable[[int, int], None]`): Called with the number of finished steps and of all steps.
        method (`str`): One of `BASELINES`.
        training_sequences (`int`): How many, in turn from each class.

    Returns:
        `dict`: as that of [`train_prompt`]; a linear probe has the accuracy alone.
    """
    rows_of = task.prompts("train", 0, seed).rows_of
    rows = in_turn(rows_of, training_sequences, seed)
    if method == "linear_probe":
        return {"accuracy": probe_accuracy(task, args, rows)}
    from peft import LoraConfig, get_peft_model

    args = replace(args, seed=seed, learning_rate=LEARNING_RATES[method])
    set_seed(seed)
    model = task.model_to_answer(args.softmax)
    if method == "lora":
        with warnings.catch_warnings():  # PEFT asks transformers by an old name
            warnings.filterwarnings("ignore", "`is_gradient_checkpointing`", FutureWarning)
            model = get_peft_model(model, LoraConfig(task_type="CAUSAL_LM", target_modules=list(LINEAR_LAYERS)))
    folder = Path(args.output_dir) / f"{method}-{training_sequences}-seed-{seed}"
    found = _fit(args, task, model, rows, 0, folder, show)
    shutil.rmtree(folder)
    return found


def _fit(args, task, model, rows, shots, folder, show):
    """Train what is trainable of a model in a folder, or resume, save it there, and evaluate it on test."""
    parameters = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    train = task.prompts("train", shots, args.seed, args.reverse_complement)
    falls = args.lr_scheduler_type == "reduce_lr_on_plateau"
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
        lr_scheduler_kwargs={"factor": 0.1, "patience": 0} if falls else {},
        eval_strategy="epoch",
        save_strategy="epoch",
        save_total_limit=1,
        load_best_model_at_end=True,
        metric_for_best_model="loss",
        greater_is_better=False,
        restore_callback_states_from_checkpoint=True,
    )
    trainer.train(resume_from_checkpoint=last_whole_checkpoint(folder))
    found = evaluate(task, args, trainer, shots, args.seed)
    trainer.save_model()
    for checkpoint in folder.glob(f"{PREFIX_CHECKPOINT_DIR}-*"):
        shutil.rmtree(checkpoint)
    return {
        **found,
        "validation_loss": trainer.state.best_metric,
        "epochs": round(trainer.state.epoch),
        "parameters": parameters,
    }


def prompted(model, prompt_tokens, dropout=0.0, position="before"):
    """
    Put a soft prompt to train into the input of a frozen language model.

    Args:
        model ([`HyenaDNAForCausalLM`]): The language model; it is changed.
        prompt_tokens (`int`): Length of the prompt. Its embeddings begin like those of an untrained model.
        dropout (`float`, defaults to 0): Dropout on the prompt, in training.
        position (`str`, defaults to `"before"`): Where the prompt stands: PEFT's own before the input, or one of
            [`~hyenadna_hf.training.prompt_position.PlacedPromptConfig`].

    Returns:
        `peft.PeftModelForCausalLM`
    """
    from peft import PromptTuningConfig, get_peft_model

    from .prompt_position import PlacedPromptConfig

    common = {"task_type": "CAUSAL_LM", "num_virtual_tokens": prompt_tokens}
    if position == "before":
        config = PromptTuningConfig(**common)
    else:
        config = PlacedPromptConfig(**common, prompt_position=position, prompt_dropout=dropout)

    def drop(module, args, kwargs):
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
        # On the model and not on the prompt's module, which is called for saving as well.
        model.register_forward_pre_hook(drop, with_kwargs=True)
    return peft_model


def _embedding(peft_model):
    """The weight of its prompt, of shape `(prompt_tokens, d_model)`."""
    return peft_model.prompt_encoder[peft_model.active_adapter].embedding.weight


@torch.no_grad()
def initialise(model, task, how):
    """
    Set what a soft prompt begins as.

    Args:
        model (`peft.PeftModelForCausalLM`): That of [`prompted`].
        task ([`~hyenadna_hf.training.prompting.Task`]): Has the training sequences.
        how (`str`): One of `INITIALISATIONS`.
    """
    prompt, embed = _embedding(model), model.get_input_embeddings()
    if how == "tokens":
        bases = torch.cat([ids for ids, _ in task.splits["train"]])
        chosen = bases[torch.randint(len(bases), (len(prompt),))]
        prompt.copy_(embed(chosen.to(prompt.device)))
    elif how == "class_means":
        means = []
        for number in range(len(task.letters)):
            ids = torch.cat([ids for ids, label in task.splits["train"] if label == number])
            means.append(embed(ids.to(prompt.device)).mean(0))
        prompt.copy_(torch.stack(means)[torch.arange(len(prompt)) % len(means)])
