"""`hyenadna finetune --task token` and `--task track`: train on the classes or the values of every base of a genome."""

import json
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.markup import escape
from transformers import AutoModelForTokenClassification, AutoTokenizer, EvalPrediction, set_seed

from ..baselines.position_weights import PositionWeights
from ..data.base_labels import BaseLabels, LabelledWindows
from ..data.collators import TokenCollator
from ..data.fasta import Fasta
from ..data.intervals import Interval, parse_region
from ..data.pretraining import subtract_intervals
from ..data.sequence import IGNORED, NUCLEOTIDE_IDS
from ..data.track_labels import TrackLabels
from ..errors import InputError
from ..hub.card import model_card
from ..jobs import write_text
from .classifier import load_classifier, longest_input
from .finetune import FinetuneTrainer, build_trainer, describe_weights, is_hyenadna, logits_of, results_table
from .finetune_arguments import (
    RESULTS_FILE,
    ClassifierArguments,
    DataArguments,
    FinetuneArguments,
    check_arguments,
    check_metric,
)
from .loss import WeightedLoss, weights_of_counts
from .metrics import REGRESSION_METRICS, regression_metrics, token_metric_names, token_metrics
from .regression import prepare_outputs, trained_loss
from .runs import check_model_arguments, print_where, train, writing

FLANK = 20  # bases on either side that the position weight matrices read


@dataclass
class TokenRun:
    """
    A run of `--task token` or `--task track` that is ready to start.

    Attributes:
        model_args: Model arguments of the command.
        data_args: Data arguments of the command.
        console: Console of the main process, silent in others.
        labels: Labels of every base.
        windows: Windows of each split.
        origin: Phrase that describes the origin of the weights.
        trainer: Trainer with the model.
    """

    model_args: ClassifierArguments
    data_args: DataArguments
    console: Console
    labels: BaseLabels | TrackLabels
    windows: dict[str, LabelledWindows]
    origin: str
    trainer: FinetuneTrainer


def finetune_token(
    model_args: ClassifierArguments, data_args: DataArguments, training_args: FinetuneArguments
) -> dict[str, Any]:
    """
    Train a model of every base, evaluate it on the windows of the test regions, save it and load it back.

    Args:
        model_args: Model arguments.
        data_args: Data arguments.
        training_args: Training arguments.

    Returns:
        The content of `results.json`: test metrics by model name, sizes, seed and seconds.

    Raises:
        InputError: If the data, the model or an argument is invalid.
    """
    started = time.monotonic()
    run = prepare(model_args, data_args, training_args)
    with writing(training_args.output_dir, training_args.process_index == 0):
        seconds = train(run.trainer)
        return report(run, seconds, started)


def prepare(model_args: ClassifierArguments, data_args: DataArguments, training_args: FinetuneArguments) -> TokenRun:
    """
    Check the arguments, load data and model, and build the Trainer.

    Args:
        model_args: Model arguments.
        data_args: Data arguments.
        training_args: Training arguments.

    Raises:
        InputError: If the data, the model or an argument is invalid.
    """
    console = Console(quiet=training_args.process_index > 0)
    check_arguments(model_args, data_args, training_args)
    genome, labels = _read_labels(data_args)
    regions = split_regions(genome, labels, data_args.validation, data_args.test)
    check_metric(training_args, _metric_names(labels))
    set_seed(training_args.seed)
    is_track = isinstance(labels, TrackLabels)
    fields = {"regression_loss": "poisson"} if is_track else {}
    model, tokenizer, origin = load_classifier(
        model_args,
        labels.names,
        auto_class=AutoModelForTokenClassification,
        problem_type=labels.problem_type,
        **{**model_args.config_fields(), **fields},
    )
    check_model_arguments(training_args, model)
    if tokenizer("ACGTN", add_special_tokens=False)["input_ids"] != list(NUCLEOTIDE_IDS):
        raise InputError(
            f"--model {model_args.model}: --task {data_args.task} needs HyenaDNA's tokens, one per nucleotide."
        )
    limit = longest_input(model.config, tokenizer)
    window = limit if data_args.window is None else data_args.window
    if window is None or not 1 <= window <= (limit or window):
        raise InputError(f"--window {window}: give 1 to {limit:,} bases, the limit of {model_args.model}.")
    if isinstance(labels, TrackLabels) and window % labels.bin_size:
        if data_args.window is not None:
            raise InputError(f"--window {window}: give a multiple of --bin_size {labels.bin_size}.")
        window -= window % labels.bin_size
    windows = {
        split: LabelledWindows(genome, labels, pieces, window, only_whole=is_track) for split, pieces in regions.items()
    }
    empty = next((split for split, pieces in windows.items() if not len(pieces)), None)
    if empty:
        raise InputError(
            f"{genome.path}: the {empty} regions have no window of {window:,} bases that is not mostly N; change them."
        )
    counts, bases = count_labels(windows["train"])
    absent = [name for name, count in zip(labels.names, counts) if not count]
    if absent:
        raise InputError(f"{labels.path}: the train regions have no {absent[0]}; omit it, or choose other regions.")
    if is_track:
        is_trained = origin == "pretrained" and trained_loss(model_args.model) == "poisson"
        prepare_outputs(model, "poisson", (counts / bases)[None], labels.names, is_trained)
    tokenizer.padding_side = data_args.padding_side or tokenizer.padding_side
    collators = (
        TokenCollator(tokenizer),
        TokenCollator(tokenizer, reverse_complement=data_args.reverse_complement),
    )
    console.print(
        f"[bold]Data[/bold] {escape(str(labels.path))}: "
        + ", ".join(f"{len(pieces):,} {split}" for split, pieces in windows.items())
        + f" windows of {window:,} bases; in train: "
        + ", ".join(
            f"{escape(name)} {count / bases:{'.4g' if is_track else '.2%'}}"
            for name, count in zip(labels.names, counts)
        )
    )
    console.print(f"[bold]Model[/bold] {escape(model_args.model)} ({origin}), {model.num_parameters():,} parameters")
    compute_loss = None
    if training_args.class_weights or training_args.label_smoothing_factor:
        multi_label = labels.problem_type == "multi_label_classification"
        weights = weights_of_counts(counts, bases, multi_label) if training_args.class_weights else None
        compute_loss = WeightedLoss(weights, training_args.label_smoothing_factor)

    def measure(output: EvalPrediction) -> dict[str, float]:
        return _measure(labels, logits_of(output.predictions), output.label_ids)

    trainer = build_trainer(training_args, model, tokenizer, windows, measure, collators, compute_loss)
    return TokenRun(model_args, data_args, console, labels, windows, origin, trainer)


def report(run: TokenRun, seconds: float, started: float) -> dict[str, Any]:
    """
    Evaluate a trained model on the test windows, write results and model card, and load the checkpoint back.

    Args:
        run: Run after training.
        seconds: Training time.
        started: Start time of the command, from `time.monotonic()`.

    Returns:
        The content of `results.json`.
    """
    trainer, model_args, labels = run.trainer, run.model_args, run.labels
    args, test = trainer.args, run.windows["test"]
    trainer.compute_metrics = None
    output = trainer.predict(test)
    first = logits_of(trainer.predict([test[0]]).predictions)[0]
    results: dict[str, Any] = {
        "dataset": str(labels.path),
        "model": model_args.model,
        "start": run.origin,
        "task": run.data_args.task,
        "seed": args.seed,
        "epochs": round(trainer.state.epoch, 2),
        "weights": describe_weights(args),
        "windows": {name: len(pieces) for name, pieces in run.windows.items()},
        "labels": labels.names,
        "test": {"model": _measure(labels, logits_of(output.predictions), output.label_ids)},
        "fit_seconds": {"model": round(seconds, 1)},
    }
    if not trainer.is_world_process_zero():
        return results
    if run.data_args.baselines:
        for name, (metrics, fit_seconds) in compare(run).items():
            results["test"][name], results["fit_seconds"][name] = metrics, round(fit_seconds, 1)
    results["seconds"] = round(time.monotonic() - started, 1)
    output_dir = Path(args.output_dir)
    write_text(output_dir / RESULTS_FILE, json.dumps(results, indent=2) + "\n")
    if is_hyenadna(trainer.model):
        outputs = "rates of" if isinstance(labels, TrackLabels) else "classes"
        note = f"Fine-tuned from {model_args.model} ({run.origin}) to predict {outputs} {', '.join(labels.names)}"
        note += " at every base."
        write_text(output_dir / "README.md", model_card(output_dir, output_dir.name, note=note, results=results))
    shown = REGRESSION_METRICS if isinstance(labels, TrackLabels) else ("f1", "auprc")
    title = f"Held-out test regions: {len(test):,} windows"
    run.console.print(results_table(results, model_args.model, title, shown))
    is_exact = trainer.accelerator.mixed_precision == "no" and args.device.type == "cpu"
    _check_checkpoint(run, output_dir, torch.as_tensor(first), tolerance=1e-4 if is_exact else 0.1)
    print_where(run.console, output_dir, "AutoModelForTokenClassification", started)
    return results


def _read_labels(args: DataArguments) -> tuple[Fasta, BaseLabels | TrackLabels]:
    """Open the genome, and read the labels of its bases."""
    if args.fasta is None or (args.task == "token" and args.annotation is None):
        raise InputError("--task token: give the genome with --fasta and the intervals with --annotation.")
    if args.task == "track" and not args.bigwig:
        raise InputError("--task track: give the bigWig files with --bigwig.")
    genome = Fasta(args.fasta)
    if args.task == "track":
        if args.bin_size < 1:
            raise InputError(f"--bin_size {args.bin_size}: give at least 1.")
        return genome, TrackLabels(args.bigwig, genome, args.bin_size)
    return genome, BaseLabels(str(args.annotation), genome, args.features, args.multi_label)


def _metric_names(labels: BaseLabels | TrackLabels) -> list[str]:
    if isinstance(labels, TrackLabels):
        return list(REGRESSION_METRICS[:-1])
    return token_metric_names(labels.names, labels.multi_label)


def _measure(labels: BaseLabels | TrackLabels, outputs: np.ndarray, truth: np.ndarray) -> dict[str, float]:
    """Compute the metrics of outputs for windows; those of tracks for the means of bins."""
    if isinstance(labels, TrackLabels):
        outputs, truth = (values.reshape(-1, labels.bin_size, len(labels.names)) for values in (outputs, truth))
        is_used = truth[..., 0] != IGNORED
        weights = is_used / np.maximum(is_used.sum(1, keepdims=True), 1)
        predicted, true = (np.einsum("bp,bpt->bt", weights, values)[is_used.any(1)] for values in (outputs, truth))
        return regression_metrics(predicted, true, labels.names)
    return token_metrics(outputs, truth, labels.names)


def split_regions(
    genome: Fasta, labels: BaseLabels | TrackLabels, validation: Iterable[str], test: Iterable[str]
) -> dict[str, list[Interval]]:
    """
    Divide the annotated sequences of a genome into splits.

    Args:
        genome: Genome.
        labels: Labels; sequences without labels are used only if they are in `validation` or `test`.
        validation: Sequences or regions of validation.
        test: Sequences or regions of test.

    Returns:
        Regions of `train`, `validation` and `test`.

    Raises:
        InputError: If a split is empty, or validation and test overlap.
    """
    held_out = {}
    for name, places in (("validation", validation), ("test", test)):
        held_out[name] = [parse_region(place, genome) for place in places]
        if not held_out[name]:
            raise InputError(f"--{name}: give the sequences or regions of the {name} split (chr7 chr9:1-5000000).")
    if subtract_intervals(held_out["validation"], held_out["test"]) != held_out["validation"]:
        raise InputError("--validation and --test: they overlap.")
    contigs = [Interval(contig, 0, genome.lengths[contig]) for contig in labels.contigs]
    train_regions = subtract_intervals(contigs, held_out["validation"] + held_out["test"])
    if not train_regions:
        raise InputError("--validation and --test: they cover all annotated sequences; leave regions to train on.")
    return {"train": train_regions, **held_out}


def count_labels(windows: LabelledWindows) -> tuple[np.ndarray, int]:
    """Count the bases with each label, or add up the values of each track, and count all labelled bases."""
    names, bases = windows.labels.names, 0
    counts: np.ndarray = np.zeros(len(names))
    for _, labels in _examples(windows):
        if labels.ndim == 1:
            labels = labels[labels != IGNORED]
            counts += np.bincount(labels, minlength=len(names))
        else:
            labels = labels[labels[:, 0] != IGNORED]
            counts += labels.sum(0, dtype=np.float64)
        bases += len(labels)
    return counts, bases


def compare(run: TokenRun) -> dict[str, tuple[dict[str, float], float]]:
    """
    Train baselines on the train windows and score them on the test windows.

    The baselines are, for tracks, the mean of train; for classes, their frequencies in train, and position weight
    matrices over 41 bases around each base.

    Returns:
        The test metrics of each baseline, and its training time in seconds.
    """
    labels, (counts, bases) = run.labels, count_labels(run.windows["train"])
    truth = [numbers for _, numbers in _examples(run.windows["test"])]
    results = {}

    def score(name: str, fit: Callable[[], Callable[[np.ndarray], np.ndarray]]) -> None:
        started = time.monotonic()
        predict = fit()
        outputs = [predict(ids) for ids, _ in _examples(run.windows["test"])]
        metrics = _measure(labels, np.concatenate(outputs), np.concatenate(truth))
        results[name] = metrics, time.monotonic() - started

    if isinstance(labels, TrackLabels):
        score("mean of train", lambda: lambda ids: np.tile(counts / bases, (len(ids), 1)))
        return results
    others = bases - counts if labels.multi_label else np.full(len(counts), bases)
    frequencies = np.log(np.maximum(counts, 1e-9) / np.maximum(others, 1e-9))
    score("frequencies of train", lambda: lambda ids: np.tile(frequencies, (len(ids), 1)))
    weights = PositionWeights(len(labels.names), FLANK, labels.multi_label)
    score(f"position weights, {2 * FLANK + 1} bases", lambda: weights.fit(_examples(run.windows["train"])).predict)
    return results


def _examples(windows: LabelledWindows) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    for number in range(len(windows)):
        example = windows[number]
        yield example["input_ids"], example["labels"]


def _check_checkpoint(run: TokenRun, folder: Path, expected_logits: torch.Tensor, tolerance: float) -> None:
    """Load the checkpoint as a user would, and check that the logits of one test window are unchanged."""
    window, remote = run.windows["test"].windows[0], {"trust_remote_code": run.model_args.trust_remote_code}
    tokenizer = AutoTokenizer.from_pretrained(folder, **remote)
    model = AutoModelForTokenClassification.from_pretrained(folder, **remote).eval()
    sequence = run.windows["test"].fasta.fetch(*window[:3])
    with torch.no_grad():
        logits = model(**tokenizer(sequence, add_special_tokens=False, return_tensors="pt")).logits[0]
    difference = float((logits - expected_logits).abs().max())
    if not difference < tolerance * max(1.0, float(expected_logits.abs().max())):
        raise RuntimeError(
            f"The logits of the checkpoint in {folder} differ from those of the trained model by {difference:.3g}."
        )
    run.console.print(
        f"Loaded back by AutoModelForTokenClassification: its logits of {window.name}:{window.start + 1:,}-"
        f"{window.end:,} differ from the trained model's by {difference:.1e}."
    )
