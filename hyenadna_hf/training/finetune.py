"""`hyenadna finetune`: train a classifier or regressor with the stock Trainer and evaluate it."""

import inspect
import json
import time
import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from torch.utils.data import DataLoader
from transformers import (
    AutoTokenizer,
    EarlyStoppingCallback,
    EvalPrediction,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    Trainer,
    set_seed,
)

from ..hub.card import model_card
from ..jobs import write_text
from .classifier import has_nucleotide_tokens, is_hyenadna, load_classifier
from .finetune_arguments import (
    RESULTS_FILE,
    TASKS,
    ClassifierArguments,
    DataArguments,
    FinetuneArguments,
    check_arguments,
    check_metric,
    parse_arguments,
)
from .finetune_arguments import parser as parser
from .finetune_sequences import ClassificationTask, RegressionTask
from .finetune_task import Task
from .finetune_token import TokenTask, TrackTask
from .loss import WeightedLoss
from .optimizer import MUON_RATIO, optimizer_cls_and_kwargs
from .recipes import RECIPES, print_recipes
from .runs import averaging_callbacks, check_model_arguments, find_muon_obstacle, print_where, train, writing

TASK_CLASSES: dict[str, type[Task]] = dict(
    zip(TASKS, (ClassificationTask, RegressionTask, TokenTask, TrackTask), strict=True)
)
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
        task: Data, metrics and baselines.
        origin: Phrase that describes the origin of the weights.
        examples: Tokens and labels of each split.
        trainer: Trainer with the model.
    """

    task: Task
    origin: str
    examples: Mapping[str, Any]
    trainer: FinetuneTrainer

    def predict(self, examples: Any) -> tuple[np.ndarray, np.ndarray]:
        """Predict examples: the outputs in the units of the data, and the labels in the same order."""
        return _restore_units(self.task, self.trainer.predict(examples))


def finetune(
    model_args: ClassifierArguments, data_args: DataArguments, training_args: FinetuneArguments
) -> dict[str, Any]:
    """
    Train, evaluate on the test split, save, load the checkpoint back and predict the first test example.

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
    started = time.monotonic()
    run = prepare(model_args, data_args, training_args)
    with writing(training_args.output_dir, training_args.process_index == 0):
        seconds = train(run.trainer, run.task.saving(run.trainer.model))
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
    task = TASK_CLASSES[data_args.task](model_args, data_args, training_args, console)
    check_metric(training_args, task.metric_names)
    set_seed(training_args.seed)
    fields = {**model_args.config_fields(), **task.config_fields}
    model, tokenizer, origin = load_classifier(model_args, task.names, task.longest, task.auto_class, **fields)
    check_model_arguments(training_args, model)
    origin = task.prepare_model(model, tokenizer, origin)
    tokenizer.padding_side = data_args.padding_side or tokenizer.padding_side
    collators = task.collators(tokenizer)
    task.print_data()
    console.print(f"[bold]Model[/bold] {escape(model_args.model)} ({origin}), {model.num_parameters():,} parameters")
    examples = task.examples(model, tokenizer)

    def measure(output: EvalPrediction) -> dict[str, float]:
        return task.measure(*_restore_units(task, output))

    trainer = build_trainer(training_args, model, tokenizer, examples, measure, collators, _loss(training_args, task))
    return Run(task, origin, examples, trainer)


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
    trainer, task = run.trainer, run.task
    args, model, model_name = trainer.args, trainer.model, task.model_args.model
    trainer.compute_metrics = None  # meaningless for the single example below
    metrics = task.measure(*run.predict(run.examples["test"]))
    first = run.predict([run.examples["test"][0]])[0][0]
    results: dict[str, Any] = {
        "dataset": task.source,
        "model": model_name,
        "start": run.origin,
        "task": task.data_args.task,
        "seed": args.seed,
        "epochs": round(trainer.state.epoch, 2),
        "weights": describe_weights(args),
        "muon_learning_rate": _muon_learning_rate(args, model) or 0.0,
        **task.sizes(),
        "test": {"model": metrics},
        "fit_seconds": {"model": round(seconds, 1)},
    }
    if not trainer.is_world_process_zero():
        return results
    if task.data_args.baselines:
        for name, (metrics, fit_seconds) in task.compare(args.device, args.seed).items():
            results["test"][name], results["fit_seconds"][name] = metrics, round(fit_seconds, 1)
    results["seconds"] = round(time.monotonic() - started, 1)
    output_dir = Path(args.output_dir)
    write_text(output_dir / RESULTS_FILE, json.dumps(results, indent=2) + "\n")
    if is_hyenadna(model) and has_nucleotide_tokens(trainer.processing_class):  # as the text of the card says
        note = f"Fine-tuned from {model_name} ({run.origin}) to {task.purpose()}."
        write_text(output_dir / "README.md", model_card(output_dir, output_dir.name, note=note, results=results))
    task.console.print(results_table(results, model_name, task.title(), task.shown_metrics))
    # Mixed precision and accelerators round; on a CPU in float32, the checkpoint reproduces the logits exactly.
    is_exact = trainer.accelerator.mixed_precision == "no" and args.device.type == "cpu"
    _check_checkpoint(task, output_dir, torch.as_tensor(first), tolerance=1e-4 if is_exact else 0.1)
    print_where(task.console, output_dir, task.auto_class.__name__, started)
    return results


def describe_weights(args: FinetuneArguments) -> str:
    """Describe the weights that are evaluated and saved."""
    return f"best {args.metric_for_best_model} on validation" if args.load_best_model_at_end else "last epoch"


def _restore_units(task: Task, output: Any) -> tuple[np.ndarray, np.ndarray]:
    """Return outputs and labels of a prediction of the Trainer, in the units of the data."""
    # Some architectures return further outputs after the logits.
    outputs = output.predictions[0] if isinstance(output.predictions, tuple) else output.predictions
    return task.restore(outputs), task.restore(output.label_ids)


def _loss(args: FinetuneArguments, task: Task) -> WeightedLoss | None:
    """Build the loss with class weights and label smoothing; `None` for the model's own loss."""
    if not args.class_weights and not args.label_smoothing_factor:
        return None
    return WeightedLoss(task.class_weights() if args.class_weights else None, args.label_smoothing_factor)


def _muon_learning_rate(args: FinetuneArguments, model: PreTrainedModel) -> float | None:
    """Return the learning rate of Muon, by default that for HyenaDNA with AdamW and whole matrices; `None` for none."""
    is_suitable = is_hyenadna(model) and args.optim.startswith("adamw") and find_muon_obstacle(args) is None
    if args.muon_learning_rate is None and is_suitable:
        return MUON_RATIO * args.learning_rate
    return args.muon_learning_rate


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
            model, args, args.filter_learning_rate, _muon_learning_rate(args, model)
        ),
    )


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


def _check_checkpoint(task: Task, folder: Path, expected: torch.Tensor, tolerance: float) -> None:
    """Load the checkpoint as a user would, predict the first test example, and check that the outputs are unchanged."""
    remote = {"trust_remote_code": task.model_args.trust_remote_code}
    inputs = task.first_inputs(AutoTokenizer.from_pretrained(folder, **remote))
    model = task.auto_class.from_pretrained(folder, **remote).eval()
    accepted = inspect.signature(model.forward).parameters
    with torch.no_grad():
        outputs = model(**{name: value for name, value in inputs.items() if name in accepted}).logits[0]
    difference = float((outputs - expected).abs().max())
    if not difference < tolerance * max(1.0, float(expected.abs().max())):
        raise RuntimeError(
            f"The logits of the checkpoint in {folder} differ from those of the trained model by {difference:.3g}."
        )
    task.console.print(
        f"Loaded back by {task.auto_class.__name__}: {task.describe_first(outputs)} differ from the trained model's by "
        f"{difference:.1e}."
    )
