"""`hyenadna soft-prompt`: train soft prompts of several lengths before a frozen language model."""

import copy
import itertools
import shutil
import warnings
from dataclasses import dataclass, field
from pathlib import Path

import torch
from transformers import EarlyStoppingCallback, set_seed
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

from ..arguments import CommandParser
from .prompt_grid import run_grid
from .prompting import PromptingArguments, ShowSteps, check_arguments, load_task, make_trainer
from .runs import last_whole_checkpoint

SETTINGS = (
    "learning_rate",
    "batch_size",
    "num_train_epochs",
    "early_stopping_patience",
    "dropout",
    "reverse_complement",
)


@dataclass
class SoftPromptArguments(PromptingArguments):
    output_dir: str = field(
        default="hyenadna-soft-prompt", metadata={"help": "Where tables, plot, results and trained prompts go."}
    )
    prompt_tokens: list[int] = field(
        default_factory=lambda: [0, 2, 32, 128, 512, 2048, 8192, 32768],
        metadata={"help": "Lengths of the soft prompt; with 0 nothing is trained."},
    )
    learning_rate: float = field(
        default=1e-3, metadata={"help": "Of AdamW; divided by 10 after an epoch without gain."}
    )
    num_train_epochs: int = field(default=20, metadata={"help": "Passes over the training split, at most."})
    early_stopping_patience: int = field(
        default=2,
        metadata={"help": "Stop after so many epochs without a lower validation loss.", "formerly": ["patience"]},
    )
    batch_size: int = field(default=16, metadata={"help": "Prompts a step."})
    dropout: float = field(default=0.1, metadata={"help": "Dropout on the soft prompt, in training."})
    reverse_complement: float = field(
        default=0.5, metadata={"help": "Probability of the other strand of a sequence, in training."}
    )


def parser():
    """The arguments of `hyenadna soft-prompt`."""
    return CommandParser(
        "soft-prompt",
        SoftPromptArguments,
        "Train soft prompts of several lengths, with and without demonstrations, before a frozen language model that "
        "answers with a letter for the class; table and plot of the accuracy on test. The same "
        "command resumes a killed run.",
        "[--dataset DATA] [--model MODEL] [--prompt_tokens N ...] [--shots N ...] [ARGUMENT ...]",
        ["--dataset my_data/ --prompt_tokens 0 2 32 128 --shots 0 2", "--dataset my_data/ --model my-lm --limit 500"],
    )


def main(argv):
    """Run `hyenadna soft-prompt` with the arguments `argv` (a list of `str`)."""
    args, _ = parser().parse(argv)
    return soft_prompt(args)


def soft_prompt(args):
    """
    Train and evaluate one prompt for each of `prompt_tokens` and `shots`, as the paper does.

    Only the prompt is trained: AdamW without weight decay, the learning rate divided by ten after an epoch without a
    lower validation loss, the prompt of the best epoch kept. Each trained prompt is saved as a PEFT adapter.

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
    }
    check_arguments(args, least, probabilities=("dropout", "reverse_complement"))
    task = load_task(args)
    lengths, shots = sorted(set(args.prompt_tokens)), sorted(set(args.shots))
    grid = [{"prompt_tokens": n, "shots": k} for k, n in itertools.product(shots, lengths)]
    job = {"command": "soft-prompt", **{name: getattr(args, name) for name in SETTINGS}}
    return run_grid(args, task, job, grid, lambda one, show: train_prompt(args, task, **one, show=show))


def train_prompt(args, task, prompt_tokens, shots, show):
    """
    Train one soft prompt, or resume from its last checkpoint, and evaluate it on test.

    Args:
        args ([`SoftPromptArguments`]): The arguments of the command.
        task ([`~hyenadna_hf.training.prompting.Task`]): Data and model; the model is left as it is.
        prompt_tokens, shots (`int`): Length of the soft prompt; demonstrations a class.
        show (`Callable[[int, int], None]`): Called with the number of finished steps and of all steps.

    Returns:
        `dict`: `accuracy` on test, `validation_loss` (of the best epoch, in nats), `epochs`, and `parameters` trained.
    """
    set_seed(args.seed)
    folder = Path(args.output_dir) / f"prompt-{prompt_tokens}-shots-{shots}"
    validation, test = (task.prompts(split, shots, args.seed) for split in ("validation", "test"))
    if prompt_tokens == 0:
        show_steps = [ShowSteps(show)]
        trainer = make_trainer(task, args, task.model, None, validation, show_steps, output_dir=args.output_dir)
        loss = trainer.evaluate()["eval_loss"]
        accuracy = trainer.predict(test).metrics["test_accuracy"]
        return {"accuracy": accuracy, "validation_loss": loss, "epochs": 0, "parameters": 0}
    model = prompted(copy.deepcopy(task.model), prompt_tokens, args.dropout)
    parameters = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    trainer = make_trainer(
        task,
        args,
        model,
        task.prompts("train", shots, args.seed, args.reverse_complement),
        validation,
        callbacks=[EarlyStoppingCallback(args.early_stopping_patience), ShowSteps(show)],
        output_dir=str(folder),
        num_train_epochs=args.num_train_epochs,
        per_device_train_batch_size=args.batch_size,
        learning_rate=args.learning_rate,
        weight_decay=0.0,
        lr_scheduler_type="reduce_lr_on_plateau",
        lr_scheduler_kwargs={"factor": 0.1, "patience": 0},
        eval_strategy="epoch",
        save_strategy="epoch",
        save_total_limit=1,
        load_best_model_at_end=True,
        metric_for_best_model="loss",
        greater_is_better=False,
        restore_callback_states_from_checkpoint=True,
    )
    trainer.train(resume_from_checkpoint=last_whole_checkpoint(folder))
    accuracy = trainer.predict(test).metrics["test_accuracy"]
    trainer.save_model()
    for checkpoint in folder.glob(f"{PREFIX_CHECKPOINT_DIR}-*"):
        shutil.rmtree(checkpoint)
    return {
        "accuracy": accuracy,
        "validation_loss": trainer.state.best_metric,
        "epochs": round(trainer.state.epoch),
        "parameters": parameters,
    }


def prompted(model, prompt_tokens, dropout=0.0):
    """
    Put a soft prompt to train before a frozen language model.

    Args:
        model ([`HyenaDNAForCausalLM`]): The language model; it is changed.
        prompt_tokens (`int`): Length of the prompt. Its embeddings begin like those of an untrained model.
        dropout (`float`, defaults to 0): Dropout on the prompt, in training.

    Returns:
        `peft.PeftModelForCausalLM`
    """
    from peft import PromptTuningConfig, get_peft_model

    def drop(module, args, kwargs):
        if module.training:
            prompt, sequence = kwargs["inputs_embeds"].tensor_split([prompt_tokens], dim=1)
            prompt = torch.nn.functional.dropout(prompt, dropout)
            kwargs["inputs_embeds"] = torch.cat([prompt, sequence], dim=1)
        return args, kwargs

    with warnings.catch_warnings():  # PEFT asks transformers by an old name
        warnings.filterwarnings("ignore", "`is_gradient_checkpointing`", FutureWarning)
        peft_model = get_peft_model(model, PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=prompt_tokens))
    embedding = peft_model.prompt_encoder[peft_model.active_adapter].embedding
    torch.nn.init.normal_(embedding.weight, std=model.config.initializer_range)
    # On the model and not on the prompt's module, which is called for saving as well.
    model.register_forward_pre_hook(drop, with_kwargs=True)
    return peft_model
