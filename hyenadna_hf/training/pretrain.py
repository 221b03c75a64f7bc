"""`hyenadna pretrain`: next-nucleotide training on genomes with the stock Trainer."""

import csv
import json
import math
import shlex
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import IterableDataset
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from torch.nn import functional as F
from torch.utils.data import ConcatDataset
from transformers import (
    AutoModelForCausalLM,
    EvalPrediction,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    Trainer,
    TrainerCallback,
    set_seed,
)

from .. import __version__
from ..arguments import CommandParser
from ..data.fasta import Fasta
from ..data.files import SPLITS
from ..data.genome import GenomeDataset
from ..data.intervals import Interval, parse_region, read_bed
from ..data.pretraining import LengthWarmup, Mixture, PretrainingCollator, Windows, subtract_intervals
from ..data.sequence import IGNORED
from ..errors import InputError
from ..hub.card import model_card
from ..hub.sizes import SIZE_NAMES
from ..jobs import replace_file, write_text
from ..loading import CHECKPOINTS, CheckpointArguments, load_to_train
from ..model.configuration_hyenadna import HyenaDNAConfig
from ..model.tokenization_hyenadna import VOCABULARY, HyenaDNATokenizer
from .loss import SmoothedCausalLoss
from .optimizer import optimizer_cls_and_kwargs
from .runs import (
    RunArguments,
    averaging_callbacks,
    check_model_arguments,
    check_run_folder,
    check_trainer_arguments,
    print_where,
    train,
    writing,
)

RESULTS_FILE = "pretraining.json"
LOG_FILE = "training_log.csv"
MOST_N = 0.5  # largest fraction of N in a training window; others are skipped


@dataclass
class GenomeArguments:
    fasta: list[str] = field(
        default_factory=list,
        metadata={
            "action": "extend",
            "help": "Genome: FASTA, plain, bgzip or gzip. Can be given several times.",
        },
    )
    weights: list[float] = field(
        default_factory=list,
        metadata={"help": "Relative sampling frequency of each genome (default: its number of training windows)."},
    )
    bed: list[str] = field(
        default_factory=list,
        metadata={
            "action": "extend",
            "help": "BED file for each genome, with train, validation or test in the fourth column.",
        },
    )
    validation: list[str] = field(
        default_factory=list,
        metadata={"help": "Without --bed: sequences or regions (chr7 chr9:1-5000000) for evaluation during training."},
    )
    test: list[str] = field(
        default_factory=list,
        metadata={"help": "Without --bed: sequences or regions for evaluation at the end. The rest is train."},
    )
    window: int | None = field(
        default=None,
        metadata={
            "help": "Bases that the model reads at once (default: its longest input less 2 special tokens).",
            "formerly": ["max_length"],
        },
    )
    both_strands: bool = field(
        default=False,
        metadata={
            "help": "In training, reverse-complement half of the windows at random.",
            "formerly": ["reverse_complement"],
        },
    )
    append_sep: bool = field(default=False, metadata={"help": "End each window with [SEP], as the paper does."})


@dataclass
class PretrainedArguments(CheckpointArguments):
    model: str = field(
        default="hyenadna-tiny-1k-seqlen",
        metadata={
            "help": f"Model to train: a published size, from scratch ({', '.join(SIZE_NAMES)}), gpt (attention at the "
            "size of hyenadna-tiny-1k-seqlen, from scratch), or a language model with HyenaDNA's tokens, trained "
            f"further if it has weights: {CHECKPOINTS} (an adapter is merged into its base model)."
        },
    )
    initial_length: int | None = field(
        default=None, metadata={"help": "Start with sequences of so many bases and double their length up to --window."}
    )
    length_warmup_steps: float = field(
        default=0.4, metadata={"help": "Steps until the last doubling; below 1, a fraction of all steps."}
    )


@dataclass
class PretrainArguments(RunArguments):
    """Arguments of transformers, with the settings of the paper as defaults."""

    output_dir: str = field(default="hyenadna-pretrained", metadata={"help": "Folder for the checkpoint."})
    num_train_epochs: float = field(default=1.0, metadata={"help": "Passes over the training bases."})
    per_device_train_batch_size: int = field(default=32, metadata={"help": "Windows per step and device."})
    per_device_eval_batch_size: int = field(default=32, metadata={"help": "Windows per step and device in evaluation."})
    learning_rate: float = field(default=6e-4, metadata={"help": "Peak learning rate of AdamW."})
    weight_decay: float = field(default=0.1, metadata={"help": "Weight decay, except for filters, biases and norms."})
    min_lr_rate: float = field(
        default=0.1, metadata={"help": "Final learning rate of cosine_with_min_lr, as a fraction of the peak, 0 to 1."}
    )
    warmup_steps: float = field(default=0.01, metadata={"help": "Warm-up steps; below 1, a fraction of all steps."})
    eval_strategy: str = field(default="steps", metadata={"help": "When to evaluate on validation."})
    eval_steps: float | None = field(
        default=0.1, metadata={"help": "Steps between evaluations; below 1, a fraction of all steps."}
    )
    save_steps: float = field(
        default=0.1, metadata={"help": "Steps between checkpoints; below 1, a fraction of all steps."}
    )
    logging_steps: float = field(
        default=0.005, metadata={"help": "Steps between log entries; below 1, a fraction of all steps."}
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        # One process reads for all, so that the n-th example is the same everywhere.
        self.accelerator_config.dispatch_batches = True


def parser() -> CommandParser:
    """Build the argument parser of `hyenadna pretrain`."""
    return CommandParser(
        "pretrain",
        [GenomeArguments, PretrainedArguments, PretrainArguments],
        "Train a language model to predict the next nucleotide of genomes.",
        "--fasta GENOME [--fasta GENOME ...] [--output_dir FOLDER] [ARGUMENT ...]",
        [
            "--fasta hg38.fa --validation chr8 --test chr9 --bf16",
            "--fasta hg38.fa --fasta mm39.fa --bed human.bed --bed mouse.bed --weights 2 1",
            "--fasta hg38.fa --model hyenadna-large-1m-seqlen --initial_length 15625 --per_device_train_batch_size 1",
        ],
    )


def main(argv: list[str]) -> dict[str, Any]:
    """Run `hyenadna pretrain` with the arguments `argv`."""
    genome_args, model_args, training_args, _ = parser().parse(argv)
    return pretrain(genome_args, model_args, training_args, shlex.join(["hyenadna", "pretrain", *argv]))


@dataclass
class Run:
    """
    A pretraining run that is ready to start.

    Attributes:
        model_args: Model arguments of the command.
        console: Console of the main process, silent in others.
        origin: Phrase that describes the origin of the weights.
        bases_per_step: Number of bases in a training step.
        held_out: Windows of `validation` and `test`, if there are any.
        trainer: Trainer with the model.
    """

    model_args: PretrainedArguments
    console: Console
    origin: str
    bases_per_step: int
    held_out: dict[str, ConcatDataset]
    trainer: Trainer


def pretrain(
    genome_args: GenomeArguments,
    model_args: PretrainedArguments,
    training_args: PretrainArguments,
    command: str | None = None,
) -> dict[str, Any]:
    """
    Train a language model on windows of genomes, and evaluate it on held-out windows.

    `output_dir` receives the model, the tokenizer, the code to load them anywhere, a model card, `pretraining.json` and
    `training_log.csv`.

    Args:
        genome_args: Genomes and splits.
        model_args: Model arguments.
        training_args: Training arguments.
        command: Command line to record in the results.

    Returns:
        The content of `pretraining.json`: perplexity, bits per base and number of bases by split, and training
        settings.

    Raises:
        InputError: If an argument, a genome or the model is invalid; nothing has been written then.
    """
    started = time.monotonic()
    run = prepare(genome_args, model_args, training_args)
    with writing(training_args.output_dir, training_args.process_index == 0):
        seconds = train(run.trainer)
        return report(run, command, seconds, started)


def prepare(genome_args: GenomeArguments, model_args: PretrainedArguments, training_args: PretrainArguments) -> Run:
    """
    Check the arguments, load genomes and model, and build the Trainer.

    Args:
        genome_args: Genomes and splits.
        model_args: Model arguments.
        training_args: Training arguments.

    Raises:
        InputError: If an argument, a genome or the model is invalid.
    """
    console = Console(quiet=training_args.process_index > 0)
    check_arguments(training_args)
    set_seed(training_args.seed)
    model, origin = load_language_model(model_args)
    check_model_arguments(training_args, model)
    length = _window_length(genome_args, model.config)
    splits = genome_splits(genome_args, length, training_args.seed)
    data = Mixture(splits["train"], genome_args.weights or None, training_args.seed)
    windows = sum(stream.size() for stream in splits["train"])
    batches_per_step = training_args.world_size * training_args.gradient_accumulation_steps
    windows_per_step = training_args.per_device_train_batch_size * batches_per_step
    if training_args.max_steps <= 0:  # an endless stream has no epochs
        training_args.max_steps = math.ceil(windows * training_args.num_train_epochs / windows_per_step)
    callbacks = averaging_callbacks(training_args)
    if model_args.initial_length is not None:
        if genome_args.append_sep:
            raise InputError("--append_sep and --initial_length: cut windows have no [SEP]; omit one of them.")
        steps = model_args.length_warmup_steps
        steps = math.ceil(steps * training_args.max_steps) if steps < 1 else int(steps)
        warmup = LengthWarmup(length, model_args.initial_length, steps)
        data = warmup.cut(data, training_args.per_device_train_batch_size, batches_per_step)
        callbacks.append(warmup)
    held_out = {name: ConcatDataset(map(Windows, splits[name])) for name in ("validation", "test") if splits[name]}
    if "validation" not in held_out:
        training_args.eval_strategy = "no"

    console.print(f"[bold]Model[/bold] {escape(model_args.model)} ({origin}), {model.num_parameters():,} parameters")
    console.print(
        f"[bold]Data[/bold] {escape(', '.join(genome_args.fasta))}: {windows:,} windows of {length:,} bases to train "
        f"on, {training_args.max_steps:,} steps of {windows_per_step:,}"
        + "".join(f"; {len(split):,} windows for {name}" for name, split in held_out.items())
    )
    tokenizer = HyenaDNATokenizer(
        model_max_length=model.config.max_position_embeddings,
        special_tokens_mode="sep" if genome_args.append_sep else "none",
    )
    trainer = _trainer(training_args, model, tokenizer, data, held_out.get("validation"), callbacks)
    return Run(model_args, console, origin, windows_per_step * length, held_out, trainer)


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
    trainer = run.trainer
    splits: dict[str, dict[str, Any]] = {}
    trainer.eval_dataset = run.held_out
    for name in run.held_out:  # not the data sets: with persistent workers, the Trainer would use its first one for all
        metrics = trainer.evaluate(name, metric_key_prefix=name)
        splits[name] = {metric: metrics[f"{name}_{metric}"] for metric in ("bits_per_base", "perplexity", "bases")}
    steps = trainer.state.global_step
    results = {
        "command": command,
        "version": __version__,
        "model": run.model_args.model,
        "start": run.origin,
        "seed": trainer.args.seed,
        "steps": steps,
        "bases_seen": steps * run.bases_per_step,
        "train_seconds": round(seconds, 1),
        "splits": splits,
    }
    if trainer.is_world_process_zero():
        folder = Path(trainer.args.output_dir)
        _write(folder, results, trainer, run.bases_per_step)
        run.console.print(_table(splits))
        print_where(run.console, folder, "AutoModelForCausalLM", started)
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


def load_language_model(model_args: PretrainedArguments) -> tuple[PreTrainedModel, str]:
    """
    Load the language model of `--model`; also return a phrase that describes the origin of its weights.

    Raises:
        InputError: If loading fails, or the model does not use HyenaDNA's tokens.
    """
    model, origin = load_to_train(AutoModelForCausalLM, model_args.model, model_args.trust_remote_code)
    tokens = model.get_input_embeddings().num_embeddings
    if tokens not in (HyenaDNAConfig().vocab_size, len(VOCABULARY)):
        raise InputError(
            f"--model {model_args.model}: it has {tokens} tokens; only models with HyenaDNA's tokens, one per "
            "nucleotide, can be trained on windows of a genome."
        )
    return model, origin


def _window_length(args: GenomeArguments, config: PretrainedConfig) -> int:
    longest = config.max_position_embeddings
    length = longest - 2 if args.window is None else args.window
    if not 2 <= length <= longest - args.append_sep:
        raise InputError(f"--window {length}: give 2 to {longest - args.append_sep:,} bases, the limit of the model.")
    return length


def genome_splits(args: GenomeArguments, length: int, seed: int) -> dict[str, list[GenomeDataset]]:
    """
    Build the streams of each split, one per genome that has bases in it.

    Args:
        args: Genomes and splits.
        length: Length of a window, in bases.
        seed: Random seed of the order in training.

    Returns:
        Streams by split: `train`, `validation` and `test`.

    Raises:
        InputError: If the genomes or splits are invalid.
    """
    if not args.fasta:
        raise InputError("--fasta: give at least one genome to train on.")
    if args.bed and len(args.bed) != len(args.fasta):
        raise InputError(
            f"--bed: there are {len(args.bed)} for {len(args.fasta)} genomes; give one per genome or none."
        )
    if args.bed and (args.validation or args.test):
        raise InputError("--bed and --validation or --test: the BED file defines the splits; omit one of them.")
    genomes = [Fasta(path) for path in args.fasta]
    splits: dict[str, list[GenomeDataset]] = {"train": [], "validation": [], "test": []}

    def add(split: str, genome: Fasta, **source: Any) -> None:
        is_train = split == "train"
        n_policy: dict[str, Any] = {"n_policy": "drop", "max_n": MOST_N} if is_train else {}
        stream = GenomeDataset(
            genome, split=split, max_length=length, reverse_complement=args.both_strands, seed=seed,
            append_sep=args.append_sep, rank=0, world_size=1, **n_policy, **source,
        )  # fmt: skip
        splits[split].append(stream)

    if args.bed:
        for genome, bed in zip(genomes, args.bed):
            for split in splits:
                if split in _bed_splits(bed, genome):
                    add(split, genome, bed=bed)
        return splits
    held_out = {
        name: [_find_region(region, genomes) for region in getattr(args, name)] for name in ("validation", "test")
    }
    for i, genome in enumerate(genomes):
        pieces_by_split = {
            name: [piece for number, piece in pieces if number == i] for name, pieces in held_out.items()
        }
        sequences = [Interval(name, 0, size) for name, size in genome.lengths.items()]
        pieces_by_split["train"] = subtract_intervals(
            sequences, pieces_by_split["validation"] + pieces_by_split["test"]
        )
        if not pieces_by_split["train"]:
            raise InputError(f"--validation and --test: they cover all of {genome.path}; leave regions to train on.")
        if subtract_intervals(pieces_by_split["validation"], pieces_by_split["test"]) != pieces_by_split["validation"]:
            raise InputError(f"--validation and --test: they overlap in {genome.path}.")
        for split, pieces in pieces_by_split.items():
            if pieces:
                add(split, genome, regions=pieces)
    return splits


def _bed_splits(bed: str, genome: Fasta) -> set[str]:
    names = (interval.rest[0] for interval in read_bed(bed, genome) if interval.rest)
    return {SPLITS[name] for name in names if name in SPLITS} or {"train"}


def _find_region(region: str, genomes: list[Fasta]) -> tuple[int, Interval]:
    matches = []
    for number, genome in enumerate(genomes):
        try:
            matches.append((number, parse_region(region, genome)))
        except InputError as error:
            reason = str(error)
    if len(matches) != 1:
        problem = f"{len(matches)} of the genomes have it; define the splits with --bed" if matches else reason
        raise InputError(f"--validation and --test {region}: {problem}")
    return matches[0]


def _trainer(
    args: PretrainArguments,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    data: IterableDataset,
    validation: ConcatDataset | None,
    callbacks: list[TrainerCallback],
) -> Trainer:
    smoothing = args.label_smoothing_factor
    return Trainer(
        model=model,
        args=args,
        train_dataset=data,
        eval_dataset=validation,
        processing_class=tokenizer,
        data_collator=PretrainingCollator(tokenizer),
        compute_metrics=split_metrics,
        preprocess_logits_for_metrics=window_losses,
        compute_loss_func=SmoothedCausalLoss(smoothing) if smoothing else None,
        callbacks=callbacks,
        optimizer_cls_and_kwargs=optimizer_cls_and_kwargs(model, args, muon_learning_rate=args.muon_learning_rate),
    )


def window_losses(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Compute the sum of the losses, in nats, and the number of predicted bases of each row, shape `(batch, 2)`."""
    losses = F.cross_entropy(logits[:, :-1].flatten(0, 1).float(), labels[:, 1:].flatten(), reduction="none")
    return torch.stack([losses.view(len(labels), -1).sum(1), (labels[:, 1:] != IGNORED).sum(1)], dim=1)


def split_metrics(output: EvalPrediction) -> dict[str, float]:
    """Compute `perplexity`, `bits_per_base` and the number of predicted `bases` of a split from [`window_losses`]."""
    nats, bases = np.asarray(output.predictions, dtype=np.float64).sum(0)
    return {"bits_per_base": nats / bases / math.log(2), "perplexity": math.exp(nats / bases), "bases": int(bases)}


def _write(folder: Path, results: dict[str, Any], trainer: Trainer, bases_per_step: int) -> None:
    columns = ("step", "bases", "length", "loss", "learning_rate", "grad_norm", "eval_bits_per_base")

    def write_log(path: Path) -> None:
        with open(path, "w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, columns, extrasaction="ignore", restval="")
            writer.writeheader()
            for entry in trainer.state.log_history:
                if "loss" in entry or "eval_bits_per_base" in entry:
                    writer.writerow({**entry, "bases": entry["step"] * bases_per_step})

    replace_file(folder / LOG_FILE, write_log)
    write_text(folder / RESULTS_FILE, json.dumps(results, indent=2) + "\n")
    if trainer.model.config.model_type == HyenaDNAConfig.model_type:
        summary = f"It was trained on {results['bases_seen']:,} bases to predict the next one"
        held_out = ", ".join(f"{split['bits_per_base']:.4f} on {name}" for name, split in results["splits"].items())
        note = f"{summary}{f'; bits per base: {held_out}' if held_out else ''}."
        write_text(folder / "README.md", model_card(folder, folder.name, note=note))


def _table(evaluations: dict[str, dict[str, Any]]) -> Table:
    table = Table(title="Held-out windows")
    for column in ("split", "bits per base", "perplexity", "bases"):
        table.add_column(column, justify="left" if column == "split" else "right")
    for name, values in evaluations.items():
        table.add_row(name, f"{values['bits_per_base']:.4f}", f"{values['perplexity']:.4f}", f"{values['bases']:,}")
    return table
