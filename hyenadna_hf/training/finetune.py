"""`hyenadna finetune`: train a sequence classifier or regressor with the stock Trainer and evaluate it."""

import inspect
import json
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset, DatasetDict, Sequence, Value
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from torch.utils.data import DataLoader
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    DataCollatorWithPadding,
    EarlyStoppingCallback,
    EvalPrediction,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    Trainer,
    set_seed,
)

from ..data.collators import ClassificationCollator
from ..data.leakage import leakage_summary, split_by_similarity
from ..data.sequence import NUCLEOTIDE_IDS
from ..errors import InputError
from ..hub.card import model_card
from ..jobs import write_text
from ..loading import is_baseline
from ..model.configuration_hyenadna import HyenaDNAConfig
from ..model.tokenization_hyenadna import SPECIAL_TOKENS_MODES
from .classifier import load_classifier, longest_input, tokenize, words
from .comparison import compare, compare_regressors, targets_of
from .finetune_arguments import (
    RESULTS_FILE,
    ClassifierArguments,
    DataArguments,
    FinetuneArguments,
    check_arguments,
    check_metric,
    parse_arguments,
)
from .finetune_arguments import parser as parser
from .finetune_data import label_columns, load_data
from .loss import WeightedLoss, balanced_weights
from .metrics import REGRESSION_METRICS, metric_names, metrics_of_scores, regression_metrics
from .optimizer import optimizer_cls_and_kwargs
from .recipes import RECIPES, print_recipes, recipe_of
from .regression import TargetScale, output_layer, prepare_outputs, trained_loss
from .runs import averaging_callbacks, check_model_arguments, print_where, train, writing

METRIC_TITLES = {
    "mcc": "MCC",
    "f1": "macro F1",
    "auroc": "AUROC",
    "auprc": "AUPRC",
    "pearson": "Pearson",
    "spearman": "Spearman",
    "r2": "R2",
    "mse": "MSE",
}


class FinetuneTrainer(Trainer):
    """The stock Trainer with a separate data collator for training, which may augment."""

    def __init__(self, *args: Any, train_collator: Callable[[list[Any]], dict[str, Any]], **kwargs: Any) -> None:
        with warnings.catch_warnings():  # from transformers' own label smoothing, which is not used
            warnings.filterwarnings("ignore", "Label smoothing is not compatible with multi-label", UserWarning)
            super().__init__(*args, **kwargs)
        self.train_collator = train_collator

    def get_train_dataloader(self) -> DataLoader:
        collator, self.data_collator = self.data_collator, self.train_collator  # type: ignore[has-type]
        try:
            return super().get_train_dataloader()
        finally:
            self.data_collator = collator


def main(argv: list[str]) -> dict[str, Any]:
    """Run `hyenadna finetune` with the arguments `argv`."""
    arguments = parse_arguments(argv)
    if arguments[1].recipe != "list":
        return finetune(*arguments)
    print_recipes(Console())
    return {name: asdict(recipe) for name, recipe in RECIPES.items()}


@dataclass
class Run:
    """
    A fine-tuning run that is ready to start.

    Attributes:
        model_args: Model arguments of the command.
        data_args: Data arguments of the command.
        console: Console of the main process, silent in others.
        data: Sequences and their labels.
        names: Names of the classes or labels.
        groups: Columns of each group of labels.
        scale: Scale of the targets in training; `None` for classification.
        origin: Phrase that describes the origin of the weights.
        max_length: Longest input, in tokens.
        tokens: Tokenized sequences.
        trainer: Trainer with the model.
    """

    model_args: ClassifierArguments
    data_args: DataArguments
    console: Console
    data: DatasetDict
    names: list[str]
    groups: Mapping[str, Iterable[int]] | None
    scale: TargetScale | None
    origin: str
    max_length: int | None
    tokens: DatasetDict
    trainer: FinetuneTrainer

    def predict(self, tokens: Dataset) -> tuple[np.ndarray, np.ndarray]:
        """Predict sequences: logits, or numbers in the units of the data, and the labels in the same order."""
        predicted = self.trainer.predict(tokens)
        outputs, labels = logits_of(predicted.predictions), predicted.label_ids
        return (outputs, labels) if self.scale is None else (self.scale.restore(outputs), self.scale.restore(labels))

    @contextmanager
    def in_units_of_data(self) -> Iterator[None]:
        """Fold the scale of the targets into the output layer, for saving."""
        layer = None if self.scale is None else output_layer(self.trainer.model, len(self.names))
        if self.scale is None or layer is None:
            yield
            return
        self.scale.restore_outputs(layer)
        yield
        self.scale.standardise_outputs(layer)


def finetune(
    model_args: ClassifierArguments, data_args: DataArguments, training_args: FinetuneArguments
) -> dict[str, Any]:
    """
    Train, evaluate on the test split, save, load the checkpoint back and predict one sequence.

    `finetune(*parse_arguments(["--dataset", "my_data", "--recipe", "H3"]))` is equivalent to the command. All arguments
    are checked before anything is written. `output_dir` receives the model, the tokenizer, the code to load them
    anywhere, and `results.json`.

    Args:
        model_args: Model arguments.
        data_args: Data arguments.
        training_args: Training arguments.

    Returns:
        The content of `results.json`: test metrics by model name, sizes, seed and seconds.

    Raises:
        InputError: If the data, the model or an argument is invalid.
    """
    if data_args.task in ("token", "track"):
        from .finetune_token import finetune_token  # which imports this module

        return finetune_token(model_args, data_args, training_args)
    started = time.monotonic()
    run = prepare(model_args, data_args, training_args)
    with writing(training_args.output_dir, training_args.process_index == 0):
        seconds = train(run.trainer, run.in_units_of_data())
        return report(run, seconds, started)


def prepare(model_args: ClassifierArguments, data_args: DataArguments, training_args: FinetuneArguments) -> Run:
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
    data, names = load_data(data_args, training_args.seed)
    if data_args.split_by_similarity:
        fractions = (data_args.validation_fraction, data_args.test_fraction)
        data = split_by_similarity(data, *fractions, training_args.seed)
    is_regression = data_args.task == "regression"
    multi_label = not is_regression and "labels" in data["train"].column_names
    groups = label_columns(data_args.label_groups, names, multi_label)
    check_metric(training_args, list(REGRESSION_METRICS[:-1]) if is_regression else metric_names(multi_label, groups))
    set_seed(training_args.seed)
    fields = model_args.config_fields()
    length = data_args.max_length or _longest(data, model_args)
    model, tokenizer, origin = load_classifier(
        model_args, names, length, **_problem(model_args, is_regression, multi_label), **fields
    )
    check_model_arguments(training_args, model)
    scale = None
    if is_regression:
        is_sharded = bool(training_args.fsdp or training_args.deepspeed)
        loss, targets = model_args.regression_loss or "mse", targets_of(data["train"])
        is_trained = origin == "pretrained" and trained_loss(model_args.model) == loss
        scale = prepare_outputs(model, loss, targets, names, is_trained, is_sharded)
        origin = "pretrained; new: output layer" if origin == "pretrained" and not is_trained else origin
    tokenizer.padding_side = data_args.padding_side or tokenizer.padding_side
    max_length = _max_length(data_args, model_args, longest_input(model.config, tokenizer))
    collators = _collators(data_args, model_args, tokenizer)

    console.print(
        f"[bold]Data[/bold] {escape(data_args.dataset)}: "
        + ", ".join(f"{len(split):,} {name}" for name, split in data.items())
        + f"; {_describe(names, is_regression, multi_label)}"
    )
    # Splits by similarity share no sequences.
    if training_args.process_index == 0 and not data_args.split_by_similarity and (leakage := leakage_summary(data)):
        console.print(f"[yellow]{escape(leakage)}[/yellow]")
    console.print(f"[bold]Model[/bold] {escape(model_args.model)} ({origin}), {model.num_parameters():,} parameters")
    if data_args.recipe:
        console.print(f"[bold]Recipe[/bold] {data_args.recipe}")
    elif published := recipe_of(data_args.dataset):
        console.print(f"There are published settings for {published}; --recipe auto uses them.")
    if fields and not is_hyenadna(model):
        ignored = ", ".join(f"--{name}" for name in fields)
        console.print(f"{ignored}: ignored, because this is a {model.config.model_type} model, not HyenaDNA.")
    tokens = tokenize(data, tokenizer, max_length, model_args.kmer)
    full_length = sum(length == max_length for split in tokens.values() for length in map(len, split["input_ids"]))
    if full_length:
        console.print(
            f"{full_length:,} sequences fill the {max_length:,} tokens of the model; longer ones are truncated."
        )
    if scale is not None:
        tokens = tokens.map(
            lambda batch: {"labels": scale.standardise(np.asarray(batch["labels"]))}, batched=True, keep_in_memory=True
        )
    if multi_label or scale is not None:
        tokens = tokens.cast_column("labels", Sequence(Value("float32")))  # for the loss

    def measure(output: EvalPrediction) -> dict[str, float]:
        outputs, labels = logits_of(output.predictions), output.label_ids
        if scale is not None:
            outputs, labels = scale.restore(outputs), scale.restore(labels)
        return _measure(outputs, labels, names, groups, is_regression)

    compute_loss = _loss(training_args, data["train"], len(names))
    trainer = build_trainer(training_args, model, tokenizer, tokens, measure, collators, compute_loss)
    return Run(model_args, data_args, console, data, names, groups, scale, origin, max_length, tokens, trainer)


def report(run: Run, seconds: float, started: float) -> dict[str, Any]:
    """
    Evaluate a trained model on the test split, write results and model card, and load the checkpoint back.

    Args:
        run: Run after training.
        seconds: Training time.
        started: Start time of the command, from `time.monotonic()`.

    Returns:
        The content of `results.json`.
    """
    trainer, model_args = run.trainer, run.model_args
    args, model, test_split = trainer.args, trainer.model, run.data["test"]
    trainer.compute_metrics = None  # meaningless for the single row below
    outputs, labels = run.predict(run.tokens["test"])
    first = run.predict(run.tokens["test"].select([0]))[0][0]
    results: dict[str, Any] = {
        "dataset": run.data_args.dataset,
        "model": model_args.model,
        "start": run.origin,
        "recipe": run.data_args.recipe,
        "task": run.data_args.task,
        "seed": args.seed,
        "epochs": round(trainer.state.epoch, 2),
        "weights": describe_weights(args),
        "sequences": {name: len(split) for name, split in run.data.items()},
        "test": {"model": _measure(outputs, labels, run.names, run.groups, run.scale is not None)},
        "fit_seconds": {"model": round(seconds, 1)},
    }
    if not trainer.is_world_process_zero():
        return results
    if run.data_args.baselines:
        for name, (metrics, fit_seconds) in _compare(run).items():
            results["test"][name], results["fit_seconds"][name] = metrics, round(fit_seconds, 1)
    results["seconds"] = round(time.monotonic() - started, 1)
    output_dir = Path(args.output_dir)
    write_text(output_dir / RESULTS_FILE, json.dumps(results, indent=2) + "\n")
    if is_hyenadna(model) and not is_baseline(model_args.model):
        names = ", ".join(run.names) if len(run.names) <= 20 else f"{len(run.names):,} labels"
        note = f"Fine-tuned from {model_args.model} ({run.origin}) to {_purpose(run, names)}."
        write_text(output_dir / "README.md", model_card(output_dir, output_dir.name, note=note, results=results))

    # Metrics of single targets are in results.json.
    shown = REGRESSION_METRICS if run.scale is not None else None
    title = f"Held-out test split: {len(test_split):,} sequences"
    run.console.print(results_table(results, model_args.model, title, shown))
    # Mixed precision and accelerators round; on a CPU in float32, the checkpoint reproduces the logits exactly.
    is_exact = trainer.accelerator.mixed_precision == "no" and args.device.type == "cpu"
    _check_checkpoint(run, output_dir, torch.as_tensor(first), tolerance=1e-4 if is_exact else 0.1)
    print_where(run.console, output_dir, "AutoModelForSequenceClassification", started)
    return results


def describe_weights(args: FinetuneArguments) -> str:
    """Describe the weights that are evaluated and saved."""
    return f"best {args.metric_for_best_model} on validation" if args.load_best_model_at_end else "last epoch"


def is_hyenadna(model: PreTrainedModel) -> bool:
    """Return whether a model is HyenaDNA, and not another model of transformers."""
    return model.config.model_type == HyenaDNAConfig.model_type


def _problem(model_args: ClassifierArguments, is_regression: bool, multi_label: bool) -> dict[str, str]:
    """Return the configuration fields of a problem, except those that were set."""
    if is_regression:
        loss = {} if model_args.regression_loss else {"regression_loss": "mse"}
        return {"problem_type": "regression", **loss}
    return {"problem_type": "multi_label_classification" if multi_label else "single_label_classification"}


def _measure(
    outputs: np.ndarray,
    labels: np.ndarray,
    names: list[str],
    groups: Mapping[str, Iterable[int]] | None,
    is_regression: bool,
) -> dict[str, float]:
    if is_regression:
        return regression_metrics(outputs, labels, names)
    return metrics_of_scores(outputs, labels, groups)


def _compare(run: Run) -> dict[str, tuple[dict[str, float], float]]:
    """Train and test the baselines."""
    args = run.trainer.args
    if run.scale is not None:
        loss = run.model_args.regression_loss or "mse"
        return compare_regressors(run.data, run.names, loss, args.device, args.seed)
    return compare(run.data, args.device, args.seed, run.groups)


def _describe(names: list[str], is_regression: bool, multi_label: bool) -> str:
    if is_regression:
        return f"targets {escape(', '.join(names))}" if len(names) <= 20 else f"{len(names):,} targets"
    return f"{len(names):,} labels" if multi_label else f"classes {escape(', '.join(names))}"


def _purpose(run: Run, names: str) -> str:
    if run.scale is None:
        return f"classify {names}"
    outputs = "rates" if run.model_args.regression_loss == "poisson" else "numbers"
    return f"predict {names}; its outputs are {outputs} in the units of the data"


def _longest(data: DatasetDict, model_args: ClassifierArguments) -> int:
    """Return the number of tokens of the longest sequence, at one token per base."""
    special = len(SPECIAL_TOKENS_MODES[model_args.special_tokens_mode][0].split()) - 1
    return special + max(len(sequence) for split in data.values() for sequence in split["sequence"])


def _max_length(data_args: DataArguments, model_args: ClassifierArguments, limit: int | None) -> int | None:
    """Return the longest input, in tokens; `None` for a model without limit."""
    length = data_args.max_length
    if length is not None and not 1 <= length <= (limit or length):
        raise InputError(
            f"--max_length {length}: give 1 to {limit or 'any number of'} tokens, the limit of {model_args.model}."
        )
    return limit if length is None else length


def _collators(
    data_args: DataArguments, model_args: ClassifierArguments, tokenizer: PreTrainedTokenizerBase
) -> tuple[Any, Any]:
    """Build the data collators for evaluation and for training."""
    probability = data_args.reverse_complement
    if tokenizer("ACGTN", add_special_tokens=False)["input_ids"] == list(NUCLEOTIDE_IDS):
        return ClassificationCollator(tokenizer), ClassificationCollator(tokenizer, reverse_complement=probability)
    if probability:
        raise InputError(
            f"--reverse_complement {probability}: {model_args.model} does not use HyenaDNA's tokens, one per "
            "nucleotide; omit it."
        )
    return (DataCollatorWithPadding(tokenizer),) * 2


def _loss(args: FinetuneArguments, train: Dataset, labels: int) -> WeightedLoss | None:
    """Build the loss with class weights and label smoothing; `None` for the model's own loss."""
    if not args.class_weights and not args.label_smoothing_factor:
        return None
    weights = balanced_weights(targets_of(train), labels) if args.class_weights else None
    return WeightedLoss(weights, args.label_smoothing_factor)


def build_trainer(
    args: FinetuneArguments,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    tokens: Mapping[str, Any],
    compute_metrics: Callable[[EvalPrediction], dict[str, float]],
    collators: tuple[Any, Any],
    loss: WeightedLoss | None,
) -> FinetuneTrainer:
    callbacks = averaging_callbacks(args)
    if args.early_stopping_patience is not None:
        callbacks.append(EarlyStoppingCallback(args.early_stopping_patience))
    collator, train_collator = collators
    return FinetuneTrainer(
        model=model,
        args=args,
        train_dataset=tokens["train"],
        eval_dataset=tokens["validation"],
        processing_class=tokenizer,
        data_collator=collator,
        train_collator=train_collator,
        compute_metrics=compute_metrics,
        compute_loss_func=loss,
        callbacks=callbacks,
        optimizer_cls_and_kwargs=optimizer_cls_and_kwargs(
            model, args, args.filter_learning_rate, args.muon_learning_rate
        ),
    )


def logits_of(predictions: Any) -> np.ndarray:
    # Some architectures return further outputs after the logits.
    return predictions[0] if isinstance(predictions, tuple) else predictions


def results_table(results: dict[str, Any], model: str, title: str, metrics: Iterable[str] | None = None) -> Table:
    """
    Build the table of the test metrics of all models.

    Args:
        results: Content of `results.json`.
        model: Name of the fine-tuned model.
        title: Title of the table.
        metrics: Metrics to show; the first one sorts the rows. Defaults to all.
    """
    table = Table(title=title)
    table.add_column("")
    metrics = list(metrics or (name for name, value in results["test"]["model"].items() if isinstance(value, float)))
    for metric in metrics:
        table.add_column(METRIC_TITLES.get(metric, metric), justify="right")
    table.add_column("trained in", justify="right")
    for name, scores in sorted(results["test"].items(), key=lambda item: -item[1][metrics[0]]):
        label = f"{Path(model).name}, {results['start'].partition(';')[0]}" if name == "model" else name
        figures = [f"{scores[metric]:.4f}" for metric in metrics]
        table.add_row(escape(label), *figures, f"{results['fit_seconds'][name]:,.0f} s")
    return table


def _check_checkpoint(run: Run, folder: Path, expected_logits: torch.Tensor, tolerance: float) -> None:
    """Load the checkpoint as a user would, predict one test sequence, and check that the outputs are unchanged."""
    example, remote = run.data["test"][0], {"trust_remote_code": run.model_args.trust_remote_code}
    tokenizer = AutoTokenizer.from_pretrained(folder, **remote)
    model = AutoModelForSequenceClassification.from_pretrained(folder, **remote).eval()
    inputs = tokenizer(
        words(example["sequence"], run.model_args.kmer),
        truncation=run.max_length is not None,
        max_length=run.max_length,
        return_tensors="pt",
    )
    accepted = inspect.signature(model.forward).parameters
    with torch.no_grad():
        logits = model(**{name: value for name, value in inputs.items() if name in accepted}).logits[0]
    difference = float((logits - expected_logits).abs().max())
    if not difference < tolerance * max(1.0, float(expected_logits.abs().max())):
        raise RuntimeError(
            f"The logits of the checkpoint in {folder} differ from those of the trained model by {difference:.3g}."
        )
    run.console.print(
        f"Loaded back by AutoModelForSequenceClassification: {example['sequence'][:24]}... is "
        f"{_describe_prediction(run, logits, example, model.config.id2label)}; its logits differ from the trained "
        f"model's by {difference:.1e}."
    )


def _describe_prediction(run: Run, outputs: torch.Tensor, example: dict[str, Any], names: Mapping[int, str]) -> str:
    if run.scale is not None:
        name, number, truth = names[0], float(outputs[0]), example["labels"][0]
        return f"[bold]{escape(name)} {number:.4g}[/bold] (truth: {truth:.4g})"
    if "labels" in example:
        probability, predicted = outputs.sigmoid().max(-1)
        truth = ", ".join(names[number] for number, label in enumerate(example["labels"]) if label) or "none"
    else:
        probability, predicted = outputs.softmax(-1).max(-1)
        truth = names[example["label"]]
    name = names[int(predicted)]
    return f"[bold]{escape(name)}[/bold] with probability {probability:.3f} (truth: {escape(truth)})"
