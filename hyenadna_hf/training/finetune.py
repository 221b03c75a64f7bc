"""`hyenadna finetune`: train a sequence classifier with the stock Trainer and say what it is worth."""

import inspect
import json
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import torch
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    DataCollatorWithPadding,
    HfArgumentParser,
    Trainer,
    TrainingArguments,
    set_seed,
)
from transformers.trainer_utils import get_last_checkpoint

from ..baselines.kmer import kmer_classifier
from ..data.files import HUB_ID
from ..data.labelled import BUNDLED
from ..data.named import load_labelled
from ..errors import InputError
from ..hub.card import model_card
from ..model.configuration_hyenadna import HyenaDNAConfig
from ..model.tokenization_hyenadna import SPECIAL_TOKENS_MODES
from .classifier import ModelArguments, is_baseline, load_classifier, longest_input, tokenize, words
from .metrics import classification_metrics

RESULTS_FILE = "results.json"


@dataclass
class DataArguments:
    dataset: str = field(
        default="splice_sites_chr20",
        metadata={
            "help": "Labelled sequences: a folder with files train, validation, test; the common beginning of files "
            "named so (x for x_train.csv.gz and x_test.csv.gz); one file; a set that ships with the package "
            f"({', '.join(BUNDLED)}); a set of GenomicBenchmarks or a task of the Nucleotide Transformer paper or of "
            "GUE, by its name (hyenadna data info lists them); or a Hub data set. CSV, TSV, Parquet, or FASTA with "
            "headers >name|label."
        },
    )
    sequence_column: str | None = field(default=None, metadata={"help": "Default: sequence, seq or dna."})
    label_column: str | None = field(default=None, metadata={"help": "Default: label, class or target."})
    max_length: int | None = field(
        default=None,
        metadata={"help": "Longest input, in tokens; the rest is cut off (default: the model's longest)."},
    )
    validation_fraction: float = field(default=0.1, metadata={"help": "Held out of train if there is no validation."})
    test_fraction: float = field(default=0.2, metadata={"help": "Held out of train if there is no test split."})
    baselines: bool = field(
        default=True, metadata={"help": "Also score the majority class and a linear model on 6-mer counts."}
    )


@dataclass
class FinetuneArguments(TrainingArguments):
    """Those of transformers, with defaults for HyenaDNA. (DNABERT and its kin want a learning rate of about 3e-5.)"""

    output_dir: str = field(default="hyenadna-finetuned", metadata={"help": "Where the checkpoint goes."})
    num_train_epochs: float = field(default=1.0, metadata={"help": "Passes over the training split."})
    per_device_train_batch_size: int = field(default=32, metadata={"help": "Sequences a step and device."})
    per_device_eval_batch_size: int = field(default=128, metadata={"help": "Sequences a step and device, evaluating."})
    learning_rate: float = field(default=1e-3, metadata={"help": "Peak learning rate of AdamW."})
    lr_scheduler_type: str = field(default="cosine", metadata={"help": "Learning rate schedule."})
    warmup_steps: float = field(default=0.1, metadata={"help": "Steps of warm-up; below 1, a share of all steps."})
    eval_strategy: str = field(default="epoch", metadata={"help": "When to evaluate on validation."})
    save_strategy: str = field(default="epoch", metadata={"help": "When to save a checkpoint to resume from."})
    save_total_limit: int | None = field(default=1, metadata={"help": "How many of them to keep."})
    logging_steps: float = field(default=50, metadata={"help": "Steps between two lines of the log."})
    report_to: str | None = field(default="none", metadata={"help": "Trackers to report to."})
    dataloader_pin_memory: bool = field(default=torch.cuda.is_available(), metadata={"help": "Pin memory for the GPU."})

    def __post_init__(self):
        if 0 < self.warmup_steps < 1 and hasattr(self, "warmup_ratio"):  # transformers 4
            self.warmup_ratio, self.warmup_steps = self.warmup_steps, 0
        super().__post_init__()


def main(argv):
    """Run `hyenadna finetune` with the arguments `argv` (a list of `str`)."""
    parser = HfArgumentParser(
        (ModelArguments, DataArguments, FinetuneArguments),
        prog="hyenadna finetune",
        usage="hyenadna finetune [--dataset DATA] [--model MODEL] [--output_dir FOLDER] [ARGUMENT ...]",
        description="Fine-tune a sequence classifier and compare it with simple baselines on held-out sequences.",
    )
    *arguments, unknown = parser.parse_args_into_dataclasses(argv, return_remaining_strings=True)
    if unknown:
        raise InputError(f"unknown argument {unknown[0]}; hyenadna finetune --help lists them all.")
    finetune(*arguments)


def finetune(model_args, data_args, training_args):
    """
    Train, evaluate on the test split, save, load back and classify one sequence.

    Everything that can be wrong with the arguments is checked before anything is written. `output_dir` receives the
    model, the tokenizer, the code to load them anywhere, and `results.json`.

    Returns:
        `dict`: what `results.json` holds: test metrics by model name, sizes, seed and seconds.

    Raises:
        InputError: if the data, the model or an argument will not do.
    """
    started = time.monotonic()
    console = Console(quiet=training_args.process_index > 0)
    _check_arguments(model_args, training_args)
    data = load_labelled(
        data_args.dataset,
        data_args.sequence_column,
        data_args.label_column,
        data_args.validation_fraction,
        data_args.test_fraction,
        training_args.seed,
    )
    names = data["train"].features["label"].names
    set_seed(training_args.seed)
    model, tokenizer, origin = load_classifier(model_args, names, data_args.max_length or _longest(data, model_args))
    limit = longest_input(model.config, tokenizer)
    max_length = limit if data_args.max_length is None else data_args.max_length
    if max_length is not None and not 1 <= max_length <= (limit or max_length):
        raise InputError(
            f"--max_length {max_length}: give 1 to {limit or 'any number of'} tokens; more does not go into "
            f"{model_args.model}."
        )

    console.print(
        f"[bold]Data[/bold] {escape(data_args.dataset)}: "
        + ", ".join(f"{len(split):,} {name}" for name, split in data.items())
        + f"; classes {escape(', '.join(names))}"
    )
    console.print(f"[bold]Model[/bold] {escape(model_args.model)} ({origin}), {model.num_parameters():,} parameters")
    tokens = tokenize(data, tokenizer, max_length, model_args.kmer)
    full = sum(length == max_length for split in tokens.values() for length in map(len, split["input_ids"]))
    if full:
        console.print(
            f"{full:,} sequences fill the {max_length:,} tokens of the model; what is longer is cut at the end."
        )

    trainer = Trainer(
        model=model,
        args=training_args,
        train_dataset=tokens["train"],
        eval_dataset=tokens["validation"],
        processing_class=tokenizer,
        data_collator=DataCollatorWithPadding(tokenizer),
        compute_metrics=lambda output: classification_metrics(_classes(output.predictions), output.label_ids),
    )
    trainer.train(resume_from_checkpoint=_checkpoint_to_resume(training_args))
    trainer.save_model()
    test = trainer.predict(tokens["test"], metric_key_prefix="test")
    trainer.compute_metrics = None  # one row has no metrics worth the name
    first = _first(trainer.predict(tokens["test"].select([0])).predictions)[0]
    results = {
        "dataset": data_args.dataset,
        "model": model_args.model,
        "start": origin,
        "seed": training_args.seed,
        "epochs": training_args.num_train_epochs,
        "sequences": {name: len(split) for name, split in data.items()},
        "test": {"model": {name: test.metrics[f"test_{name}"] for name in ("accuracy", "mcc", "f1")}},
    }
    if not trainer.is_world_process_zero():
        return results
    if data_args.baselines:
        results["test"].update(baseline_metrics(data))
    results["seconds"] = round(time.monotonic() - started, 1)
    output_dir = Path(training_args.output_dir)
    (output_dir / RESULTS_FILE).write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")

    if trainer.model.config.model_type == HyenaDNAConfig.model_type and not is_baseline(model_args.model):
        note = f"Fine-tuned from {model_args.model} ({origin}) to tell {', '.join(names)} apart."
        card = model_card(output_dir, output_dir.name, note=note, results=results)
        (output_dir / "README.md").write_text(card, encoding="utf-8")

    console.print(_results_table(results, model_args.model, len(data["test"])))
    # Mixed precision and accelerators round; on a CPU in float32 the checkpoint gives the very same numbers.
    exact = trainer.accelerator.mixed_precision == "no" and training_args.device.type == "cpu"
    tolerance = 1e-4 if exact else 0.1
    _classify_one(console, output_dir, data["test"][0], model_args, max_length, torch.as_tensor(first), tolerance)
    console.print(f"Took {time.monotonic() - started:.0f} s. The checkpoint is in {output_dir}/; to use it anywhere:")
    console.print(
        f'  AutoModelForSequenceClassification.from_pretrained("{output_dir}", trust_remote_code=True)', soft_wrap=True
    )
    return results


def baseline_metrics(data, k=6):
    """Test metrics of the majority class and of a linear model on k-mer counts, as `dict[str, dict[str, float]]`."""
    train, test = data["train"], data["test"]
    (majority, _), *_ = Counter(train["label"]).most_common()
    kmers = kmer_classifier(k).fit(list(train["sequence"]), list(train["label"]))
    return {
        "majority class": classification_metrics([majority] * len(test), list(test["label"])),
        f"{k}-mer counts, linear": classification_metrics(
            kmers.predict(list(test["sequence"])).tolist(), list(test["label"])
        ),
    }


def _check_arguments(model_args, args):
    """Refuse what can be seen to be wrong before any work."""
    if model_args.kmer is not None and model_args.kmer < 1:
        raise InputError(f"--kmer {model_args.kmer}: a word has at least one base.")
    if model_args.special_tokens_mode not in SPECIAL_TOKENS_MODES:
        raise InputError(
            f"--special_tokens_mode {model_args.special_tokens_mode}: it is one of {', '.join(SPECIAL_TOKENS_MODES)}."
        )
    for name in ("model", "tokenizer"):
        source = getattr(model_args, name)
        if source is not None and not Path(source).is_dir() and not HUB_ID.fullmatch(source):
            raise InputError(f"--{name} {source}: there is no such folder, and it is no Hub id; check the path.")
    at_least_one = ("per_device_train_batch_size", "per_device_eval_batch_size", "gradient_accumulation_steps")
    for name, least in {**dict.fromkeys(at_least_one, 1), "learning_rate": 0, "weight_decay": 0}.items():
        if not getattr(args, name) >= least:
            raise InputError(f"--{name} {getattr(args, name)}: give {least} or more.")
    if not (args.num_train_epochs > 0 or args.max_steps > 0):
        raise InputError(f"--num_train_epochs {args.num_train_epochs}: give more than 0, or --max_steps.")
    path = Path(args.output_dir)
    if path.is_file():
        raise InputError(f"--output_dir {path}: this is a file; name a folder.")
    if path.is_dir() and any(path.iterdir()) and not _is_run(path):
        raise InputError(f"--output_dir {path}: the folder holds something else; name an empty or a new one.")
    if args.resume_from_checkpoint and not _checkpoint_to_resume(args):
        raise InputError(f"--resume_from_checkpoint {args.resume_from_checkpoint}: there is no such checkpoint.")


def _is_run(path):
    return (path / RESULTS_FILE).is_file() or get_last_checkpoint(path) is not None


def _checkpoint_to_resume(args):
    """The folder to resume from, or `None`; `--resume_from_checkpoint true` means the last one in `output_dir`."""
    asked = args.resume_from_checkpoint
    if not asked:
        return None
    if str(asked).lower() == "true":
        return get_last_checkpoint(args.output_dir) if Path(args.output_dir).is_dir() else None
    return asked if Path(asked).is_dir() else None


def _longest(data, model_args):
    """The most tokens that a sequence becomes, at one token a base."""
    special = len(SPECIAL_TOKENS_MODES[model_args.special_tokens_mode][0].split()) - 1
    return special + max(len(sequence) for split in data.values() for sequence in split["sequence"])


def _classes(predictions):
    return _first(predictions).argmax(-1)


def _first(predictions):
    # Models of some architectures return further outputs behind the logits.
    return predictions[0] if isinstance(predictions, tuple) else predictions


def _results_table(results, model, size):
    table = Table(title=f"Held-out test split: {size:,} sequences")
    table.add_column("")
    for metric in ("accuracy", "MCC", "macro F1"):
        table.add_column(metric, justify="right")
    for name, metrics in sorted(results["test"].items(), key=lambda item: -item[1]["accuracy"]):
        label = f"{Path(model).name}, {results['start'].partition(';')[0]}" if name == "model" else name
        table.add_row(escape(label), *(f"{metrics[key]:.4f}" for key in ("accuracy", "mcc", "f1")))
    return table


def _classify_one(console, folder, example, model_args, max_length, expected_logits, tolerance):
    """Load the checkpoint back as a user would, classify one held-out sequence, and check that nothing got lost."""
    remote = {"trust_remote_code": model_args.trust_remote_code}
    tokenizer = AutoTokenizer.from_pretrained(folder, **remote)
    model = AutoModelForSequenceClassification.from_pretrained(folder, **remote).eval()
    inputs = tokenizer(
        words(example["sequence"], model_args.kmer),
        truncation=max_length is not None,
        max_length=max_length,
        return_tensors="pt",
    )
    accepted = inspect.signature(model.forward).parameters
    with torch.no_grad():
        logits = model(**{name: value for name, value in inputs.items() if name in accepted}).logits[0]
    difference = float((logits - expected_logits).abs().max())
    if not difference < tolerance * max(1.0, float(expected_logits.abs().max())):
        raise RuntimeError(
            f"The checkpoint in {folder} gives other logits than the trained model, by {difference:.3g}."
        )
    probability, predicted = logits.softmax(-1).max(-1)
    names = model.config.id2label
    console.print(
        f"Loaded back by AutoModelForSequenceClassification: {example['sequence'][:24]}... is [bold]"
        f"{escape(names[int(predicted)])}[/bold] with probability {probability:.3f} (truth: "
        f"{escape(names[example['label']])}); "
        f"its logits differ from the trained model's by {difference:.1e}."
    )
