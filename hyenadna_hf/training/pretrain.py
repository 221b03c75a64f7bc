"""`hyenadna pretrain`: training of language models on genomes and other sequences with the stock Trainer."""

import csv
import json
import math
import shlex
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from datasets import IterableDataset
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from torch.utils.data import ConcatDataset
from transformers import CONFIG_NAME, PreTrainedModel, PreTrainedTokenizerBase, Trainer, TrainerCallback, set_seed

from .. import __version__
from ..data.pretraining import LengthWarmup, MaskedWindows, Mixture, Windows
from ..errors import InputError
from ..hub.card import model_card
from ..jobs import replace_file, write_text
from ..loading import is_size, load_to_train
from ..model.configuration_hyenadna import HyenaDNAConfig
from ..model.tokenization_hyenadna import VOCABULARY, HyenaDNATokenizer
from .objectives import Objective, find_objective
from .optimizer import optimizer_cls_and_kwargs
from .pretrain_arguments import DataArguments, PretrainArguments, PretrainedArguments, parser
from .pretrain_data import data_splits, mean_window, window_length
from .runs import (
    averaging_callbacks,
    check_model_arguments,
    check_run_folder,
    check_trainer_arguments,
    checkpoint_to_resume,
    print_where,
    train,
    writing,
)

RESULTS_FILE = "pretraining.json"
LOG_FILE = "training_log.csv"


def main(argv: list[str]) -> dict[str, Any]:
    """Run `hyenadna pretrain` with the arguments `argv`."""
    data_args, model_args, training_args, _ = parser().parse(argv)
    return pretrain(data_args, model_args, training_args, shlex.join(["hyenadna", "pretrain", *argv]))


@dataclass
class Run:
    """
    A pretraining run that is ready to start.

    Attributes:
        model_args: Model arguments of the command.
        objective: Training objective.
        console: Console of the main process, silent in others.
        origin: Phrase that describes the origin of the weights.
        bases_per_step: Number of bases in a training step, on average if windows differ in length.
        held_out: Windows of `validation` and `test`, if there are any.
        trainer: Trainer with the model.
    """

    model_args: PretrainedArguments
    objective: Objective
    console: Console
    origin: str
    bases_per_step: float
    held_out: dict[str, ConcatDataset | MaskedWindows]
    trainer: Trainer


def pretrain(
    data_args: DataArguments,
    model_args: PretrainedArguments,
    training_args: PretrainArguments,
    command: str | None = None,
) -> dict[str, Any]:
    """
    Train a language model on windows of genomes or other sequences, and evaluate it on held-out windows.

    `output_dir` receives the model, the tokenizer, the code to load them anywhere, a model card, `pretraining.json` and
    `training_log.csv`.

    Args:
        data_args: Genomes, sequences and splits.
        model_args: Model arguments.
        training_args: Training arguments.
        command: Command line to record in the results.

    Returns:
        The content of `pretraining.json`: training settings and, by split, bits per base, perplexity and number of
        predicted bases; of masked bases, these are `bits_per_masked_base`, `masked_perplexity` and `masked_bases`.

    Raises:
        InputError: If an argument, the data or the model is invalid; nothing has been written then.
    """
    started = time.monotonic()
    run = prepare(data_args, model_args, training_args)
    with writing(training_args.output_dir, training_args.process_index == 0):
        seconds = train(run.trainer)
        return report(run, command, seconds, started)


def prepare(data_args: DataArguments, model_args: PretrainedArguments, training_args: PretrainArguments) -> Run:
    """
    Check the arguments, load data and model, and build the Trainer.

    Args:
        data_args: Genomes, sequences and splits.
        model_args: Model arguments.
        training_args: Training arguments.

    Raises:
        InputError: If an argument, the data or the model is invalid.
    """
    console = Console(quiet=training_args.process_index > 0)
    check_arguments(training_args)
    objective = find_objective(model_args.objective, model_args.mlm_probability)
    set_seed(training_args.seed)
    model, origin = load_language_model(model_args, objective)
    check_model_arguments(training_args, model)
    _check_checkpoint(training_args, model)
    length = window_length(data_args, model.config)
    splits = data_splits(data_args, length, training_args.seed)
    mixture = Mixture(splits["train"], data_args.weights or None, training_args.seed)
    mean_length = mean_window(splits["train"], mixture.weights)
    data = objective.train_stream(mixture, training_args.seed)
    windows = sum(stream.size() for stream in splits["train"])
    batches_per_step = training_args.world_size * training_args.gradient_accumulation_steps
    windows_per_step = training_args.per_device_train_batch_size * batches_per_step
    if training_args.max_steps <= 0:  # an endless stream has no epochs
        training_args.max_steps = math.ceil(windows * training_args.num_train_epochs / windows_per_step)
    callbacks = averaging_callbacks(training_args)
    if model_args.initial_length is not None:
        if data_args.append_sep:
            raise InputError("--append_sep and --initial_length: cut windows have no [SEP]; omit one of them.")
        steps = model_args.length_warmup_steps
        steps = math.ceil(steps * training_args.max_steps) if steps < 1 else int(steps)
        warmup = LengthWarmup(length, model_args.initial_length, steps)
        data = warmup.cut(data, training_args.per_device_train_batch_size, batches_per_step)
        callbacks.append(warmup)
    held_out = {
        name: objective.evaluation_set(ConcatDataset(map(Windows, splits[name])))
        for name in ("validation", "test")
        if splits[name]
    }
    if "validation" not in held_out:
        training_args.eval_strategy = "no"

    sources = [*data_args.fasta, *([] if data_args.dataset is None else [data_args.dataset])]
    console.print(f"[bold]Model[/bold] {escape(model_args.model)} ({origin}), {model.num_parameters():,} parameters")
    console.print(
        f"[bold]Data[/bold] {escape(', '.join(sources))}: {windows:,} windows of "
        f"{'up to ' if mean_length < length else ''}{length:,} bases to train on, {training_args.max_steps:,} steps of "
        f"{windows_per_step:,}" + "".join(f"; {len(split):,} windows for {name}" for name, split in held_out.items())
    )
    tokenizer = HyenaDNATokenizer(
        model_max_length=model.config.max_position_embeddings,
        special_tokens_mode="sep" if data_args.append_sep else "none",
    )
    trainer = _trainer(training_args, model, tokenizer, objective, data, held_out.get("validation"), callbacks)
    return Run(model_args, objective, console, origin, windows_per_step * mean_length, held_out, trainer)


def report(run: Run, command: str | None, seconds: float, started: float) -> dict[str, Any]:
    """
    Evaluate a trained model on the held-out windows, and write results, log and model card.

    Args:
        run: Run after training.
        command: Command line to record in the results.
        seconds: Training time.
        started: Start time of the command, from `time.monotonic()`.

    Returns:
        The content of `pretraining.json`.
    """
    trainer, objective = run.trainer, run.objective
    names = (objective.bits, objective.perplexity, objective.bases)
    splits: dict[str, dict[str, Any]] = {}
    trainer.eval_dataset = run.held_out
    for name in run.held_out:  # not the data sets: with persistent workers, the Trainer would use its first one for all
        metrics = trainer.evaluate(name, metric_key_prefix=name)
        splits[name] = {metric: metrics[f"{name}_{metric}"] for metric in names}
    steps = trainer.state.global_step
    results = {
        "command": command,
        "version": __version__,
        "model": run.model_args.model,
        "start": run.origin,
        **objective.settings(),
        "seed": trainer.args.seed,
        "steps": steps,
        "bases_seen": round(steps * run.bases_per_step),
        "train_seconds": round(seconds, 1),
        "splits": splits,
    }
    if trainer.is_world_process_zero():
        folder = Path(trainer.args.output_dir)
        _write(folder, results, run)
        run.console.print(_table(splits, objective))
        print_where(run.console, folder, objective.auto_class.__name__, started)
    return results


def check_arguments(args: PretrainArguments) -> None:
    """Raise an `InputError` for invalid arguments, before any work. Called by [`pretrain`]."""
    check_trainer_arguments(args)
    # The second is the name in transformers 4.
    for name, suitable in {"train_sampling_strategy": "random", "group_by_length": False}.items():
        value = getattr(args, name, suitable)
        if value != suitable:
            raise InputError(f"--{name} {value}: windows are a stream with its own order; omit it.")
    check_run_folder(args, RESULTS_FILE)


def load_language_model(model_args: PretrainedArguments, objective: Objective) -> tuple[PreTrainedModel, str]:
    """
    Load the language model of `--model`; also return a phrase that describes the origin of its weights.

    Raises:
        InputError: If loading fails, the model has another objective, or it does not use HyenaDNA's tokens.
    """
    fields = objective.config_fields() if is_size(model_args.model) else {}
    check = partial(objective.check_config, model_args.model)
    model, origin = load_to_train(
        objective.auto_class, model_args.model, model_args.trust_remote_code, check=check, **fields
    )
    tokens = model.get_input_embeddings().num_embeddings
    if tokens not in (HyenaDNAConfig().vocab_size, len(VOCABULARY)):
        raise InputError(
            f"--model {model_args.model}: it has {tokens} tokens; only models with HyenaDNA's tokens, one per "
            "nucleotide, can be trained on windows of a genome."
        )
    return model, origin


def _check_checkpoint(args: PretrainArguments, model: PreTrainedModel) -> None:
    """Raise an `InputError` if the checkpoint to resume from is of another class, and thus of another objective."""
    checkpoint = checkpoint_to_resume(args)
    file = Path(checkpoint or "", CONFIG_NAME)
    if checkpoint and file.is_file():
        saved, trained = json.loads(file.read_text(encoding="utf-8")).get("architectures"), type(model).__name__
        if saved and saved[0] != trained:
            raise InputError(
                f"--resume_from_checkpoint {checkpoint}: it is a {saved[0]}, but this run trains a {trained}; give the "
                "--model and --objective that the run started with."
            )


def _trainer(
    args: PretrainArguments,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    objective: Objective,
    data: IterableDataset,
    validation: ConcatDataset | MaskedWindows | None,
    callbacks: list[TrainerCallback],
) -> Trainer:
    smoothing = args.label_smoothing_factor
    return Trainer(
        model=model,
        args=args,
        train_dataset=data,
        eval_dataset=validation,
        processing_class=tokenizer,
        data_collator=objective.collator(tokenizer),
        compute_metrics=objective.metrics,
        preprocess_logits_for_metrics=objective.row_losses,
        compute_loss_func=objective.smoothed_loss(smoothing) if smoothing else None,
        callbacks=callbacks,
        optimizer_cls_and_kwargs=optimizer_cls_and_kwargs(model, args, muon_learning_rate=args.muon_learning_rate),
    )


def _write(folder: Path, results: dict[str, Any], run: Run) -> None:
    trainer, objective = run.trainer, run.objective
    evaluated = f"eval_{objective.bits}"
    columns = ("step", "bases", "length", "loss", "learning_rate", "grad_norm", evaluated)

    def write_log(path: Path) -> None:
        with open(path, "w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, columns, extrasaction="ignore", restval="")
            writer.writeheader()
            for entry in trainer.state.log_history:
                if "loss" in entry or evaluated in entry:
                    writer.writerow({**entry, "bases": round(entry["step"] * run.bases_per_step)})

    replace_file(folder / LOG_FILE, write_log)
    write_text(folder / RESULTS_FILE, json.dumps(results, indent=2) + "\n")
    if trainer.model.config.model_type == HyenaDNAConfig.model_type:
        summary = f"It was trained on {results['bases_seen']:,} bases {objective.purpose}"
        held_out = ", ".join(f"{split[objective.bits]:.4f} on {name}" for name, split in results["splits"].items())
        note = f"{summary}{f'; {_format_metric(objective.bits)}: {held_out}' if held_out else ''}."
        write_text(folder / "README.md", model_card(folder, folder.name, note=note))


def _table(evaluations: dict[str, dict[str, Any]], objective: Objective) -> Table:
    bits, perplexity, bases = objective.bits, objective.perplexity, objective.bases
    table = Table(title="Held-out windows")
    for column in ("split", bits, perplexity, bases):
        table.add_column(_format_metric(column), justify="left" if column == "split" else "right")
    for name, values in evaluations.items():
        table.add_row(name, f"{values[bits]:.4f}", f"{values[perplexity]:.4f}", f"{values[bases]:,}")
    return table


def _format_metric(metric: str) -> str:
    return metric.replace("_", " ")
