"""`hyenadna probe`: what the layers of frozen models know, by classifiers on their embeddings."""

import hashlib
import json
import shlex
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from importlib import import_module
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from ..arguments import CommandParser
from ..controls import with_controls
from ..data.files import find_published
from ..data.labelled import limit_split
from ..data.named import BENCHMARKS, load_labelled
from ..errors import InputError, WorkError
from ..jobs import Job, folder_job, output_folder, save_array, write_text
from ..loading import CHECKPOINTS, InferenceArguments, fingerprint, load_base_model
from ..processes import processes
from .classifiers import GRIDS, METRICS, draw_rows, fit_and_evaluate
from .embeddings import MAX_TOKENS, POOLINGS, check_layers, count_layers, pooled_states_of_tokens, tokenize
from .report import draw, figure_of, markdown

SPLITS = ("train", "validation", "test")
ALL = "all"  # training sequences
PART_BASES = 1 << 20  # the most that a killed run loses of the embeddings


@dataclass(kw_only=True)
class ProbeArguments(InferenceArguments):
    model: list[str] = field(  # type: ignore[assignment]
        metadata={"help": f"One or more models of any architecture: {CHECKPOINTS}."}
    )
    dataset: str = field(
        metadata={
            "help": "Labelled sequences: files, a published name (hyenadna data info lists them) or a Hub data set."
        }
    )
    out: str = field(metadata={"help": "Folder for scores.csv, table.md and heatmap.png."})
    sequence_column: str | None = field(default=None, metadata={"help": "Default: sequence, seq or dna."})
    label_column: str | None = field(default=None, metadata={"help": "Default: label, class or target."})
    layers: list[int] = field(
        default_factory=list,
        metadata={
            "help": "Hidden states: 0 for the embeddings, i for the output of block i, negative ones from the end "
            "(default: all)."
        },
    )
    poolings: list[str] = field(
        default_factory=lambda: ["mean", "max", "last"],
        metadata={"help": f"Poolings over positions: {', '.join(POOLINGS)} (default: mean, max, last)."},
    )
    classifiers: list[str] = field(
        default_factory=lambda: list(GRIDS), metadata={"help": f"Classifiers: {', '.join(GRIDS)} (default: all)."}
    )
    train_sizes: list[str] = field(
        default_factory=lambda: [ALL],
        metadata={"help": "Training sequences per class, such as 2 8 32 all (default: all)."},
    )
    seeds: int = field(
        default=5, metadata={"help": "Number of seeds, starting from --seed: draws of few training sequences."}
    )
    seed: int = field(
        default=42, metadata={"help": "Random seed of held-out splits, draws, forests, and weights of the control."}
    )
    metric: str | None = field(
        default=None,
        metadata={
            "help": "Metric that chooses hyper-parameters, layer and pooling on validation: "
            f"{', '.join(METRICS)} (default: that of the published data set, otherwise accuracy)."
        },
    )
    control: bool = field(default=True, metadata={"help": "Also probe random weights of the same configuration."})
    limit: int | None = field(default=None, metadata={"help": "Maximum number of sequences per split (default: all)."})
    kmer: int | None = field(
        default=None,
        metadata={
            "help": "Split each sequence into overlapping words of this many bases, as the first DNABERT expects."
        },
    )
    max_tokens: int = field(default=MAX_TOKENS, metadata={"help": "Tokens in a batch, padding included."})


class Cell(NamedTuple):
    """One fit: a classifier on a pooled layer of a model, with some training sequences."""

    model: str
    layer: int
    pooling: str
    classifier: str
    train_size: str
    seed: int


def parser() -> CommandParser:
    """Return the argument parser of `hyenadna probe`."""
    return CommandParser(
        "probe",
        ProbeArguments,
        "Fit classifiers on frozen embeddings: layers by poolings by classifiers by numbers of training sequences, "
        "beside random weights of the same configuration. Hyper-parameters, layer and pooling are chosen on validation "
        "and evaluated on test. The same command resumes a run that was stopped. Several devices: accelerate launch -m "
        "hyenadna_hf probe ...",
        "--dataset DATA --model MODEL [MODEL ...] --out FOLDER [ARGUMENT ...]",
        [
            "--dataset my_data/ --model my-lm --out probes",
            "--dataset H3K4me3_revised --model my-lm OWNER/NAME --train_sizes 2 8 32 all --limit 5000 --out probes",
            "--dataset prom_core_all --model my-lm --layers -1 --poolings mean --classifiers ridge --out probes --json",
        ],
    )


def main(argv: list[str]) -> dict[str, Any] | None:
    """Run `hyenadna probe` with command-line arguments."""
    args, _ = parser().parse(argv)
    return probe(args, shlex.join(["hyenadna", "probe", *argv]))


def probe(args: ProbeArguments, command: str = "hyenadna probe") -> dict[str, Any] | None:
    """
    Embed a data set with models and controls, and fit classifiers, in a resumable [`~hyenadna_hf.jobs.Job`].

    Args:
        args: Arguments of the command.
        command: Command line to show in `table.md`.

    Returns:
        `dataset`, `metric`, `sequences` of each split, `truncated` sequences of each model, and `selected`: for each
        model, classifier and number of training sequences, the layer and pooling with the best mean of the metric on
        validation, that mean, and mean and standard deviation of all metrics on test. `None` in all processes but the
        main one.

    Raises:
        InputError: If an argument, the data or a model is invalid, before anything is written.
    """
    state = processes(args.use_cpu)
    out = output_folder("--out", args.out)
    _check_choices(args)
    import_module("matplotlib")  # fail early if it is missing
    data = load_labelled(args.dataset, args.sequence_column, args.label_column, seed=args.seed)
    if args.limit is not None:
        data = {name: limit_split(args.dataset, name, rows, args.limit, args.seed) for name, rows in data.items()}
    labels = {split: np.array(data[split]["label"]) for split in SPLITS}
    _check_train_sizes(args, labels["train"])
    benchmark = find_published(args.dataset, BENCHMARKS)
    metric = args.metric or (benchmark.metric if benchmark else "accuracy")
    models = {name: load_base_model(name, args.dtype, args.tokenizer, args.trust_remote_code) for name in args.model}
    models = with_controls(models, args.seed) if args.control else models
    layers = {name: _layers_of(name, *pair, args.layers) for name, pair in models.items()}
    sequences = [sequence for split in SPLITS for sequence in data[split]["sequence"]]
    digest = hashlib.sha256(json.dumps([[sequences], *(rows.tolist() for rows in labels.values())]).encode())
    identity = {
        "models": [[name, fingerprint(*pair)] for name, pair in models.items()],
        "dataset": digest.hexdigest(),
        "layers": layers,
        **{name: getattr(args, name) for name in ("poolings", "classifiers", "train_sizes", "seeds", "seed", "kmer")},
        "metric": metric,
    }
    starts = _starts(sequences)
    ends = dict(zip(starts, [*starts[1:], len(sequences)]))
    parts = [(name, start) for name in models for start in starts]
    cells = _cells(args, layers)

    def embed(part: tuple[str, int], path: Path, advance: Callable[[int], None]) -> None:
        name, start = part
        for other, (model, _) in models.items():  # one model at a time on the device
            model.to(state.device if other == name else "cpu")
        model, tokenizer = models[name]
        token_ids, truncated = tokenize(model, tokenizer, sequences[start : ends[start]], args.kmer)
        states = pooled_states_of_tokens(
            model, tokenizer, token_ids, layers[name], args.poolings, max_tokens=args.max_tokens
        )
        write_text(_truncated_file(path), str(truncated))  # first, so that a part is never without it
        save_array(path, states)
        advance(len(token_ids))

    @lru_cache(maxsize=1)
    def embeddings(name: str, layer: int, pooling: int) -> dict[str, np.ndarray]:
        chosen = [np.load(job.part(n), mmap_mode="r") for n, part in enumerate(parts) if part[0] == name]
        rows = np.concatenate([array[:, layer, pooling] for array in chosen])
        if len(rows) != len(sequences):
            raise WorkError(f"{job.folder}: it has embeddings of other sequences; delete it.")
        return dict(zip(SPLITS, np.split(rows, np.cumsum([len(labels[split]) for split in SPLITS])[:-1])))

    def fit(cell: Cell, path: Path, advance: Callable[[int], None]) -> None:
        embedded = embeddings(cell.model, layers[cell.model].index(cell.layer), args.poolings.index(cell.pooling))
        shots = 0 if cell.train_size == ALL else int(cell.train_size)
        rows = next(draw_rows(labels["train"], shots, 1, cell.seed))
        result = fit_and_evaluate(cell.classifier, embedded, labels, metric, rows, cell.seed)
        write_text(path, json.dumps({"parameter": result.parameter, "metrics": result.metrics}))
        advance(1)

    def finish(path: Path) -> dict[str, Any]:
        rows = _rows(job, len(parts), cells, args.dataset)
        truncated = dict.fromkeys(args.model, 0)
        for number, (name, _) in enumerate(parts):
            if name in truncated:  # not a control
                truncated[name] += int(_truncated_file(job.part(number)).read_text(encoding="utf-8"))
        result = {
            "dataset": args.dataset,
            "metric": metric,
            "sequences": {split: len(rows) for split, rows in labels.items()},
            "truncated": truncated,
            "selected": select(rows, metric),
        }
        rows.to_csv(path, index=False)
        (path.parent / "table.md").write_text(markdown(result, command), encoding="utf-8")
        draw(path.parent / "heatmap.png", rows, result)
        if len(pd.read_csv(path, usecols=["seed"])) != len(rows):
            raise WorkError(f"{path.name}: it has other rows when it is read back; check the free disk space.")
        return result

    with folder_job(out, "scores.csv", identity, state) as job:
        total = len(sequences) * len(models)
        job.run(parts, lambda part: ends[part[1]] - part[1], embed, "sequences", total)
        state.wait_for_everyone()  # each process has embedded a part of the sequences
        job.run(cells, lambda cell: 1, fit, "fits", len(cells), first=len(parts))
        result = job.finish(finish)
    if result is not None:
        _print(out, result)
    return result


def _check_choices(args: ProbeArguments) -> None:
    for name in ("model", "layers", "poolings", "classifiers", "train_sizes"):
        twice = [value for value, number in Counter(getattr(args, name)).items() if number > 1]
        if twice:
            raise InputError(f"--{name} {twice[0]}: it is given twice; name it once.")
    metrics = [] if args.metric is None else [args.metric]
    choices = (
        ("poolings", args.poolings, POOLINGS),
        ("classifiers", args.classifiers, GRIDS),
        ("metric", metrics, METRICS),
    )
    for name, values, allowed in choices:
        wrong = [value for value in values if value not in allowed]
        if wrong:
            raise InputError(f"--{name} {wrong[0]}: choose one of {', '.join(allowed)}.")
    for name in ("seeds", "limit", "kmer", "max_tokens"):
        value = getattr(args, name)
        if value is not None and value < 1:
            raise InputError(f"--{name} {value}: give at least 1.")


def _check_train_sizes(args: ProbeArguments, labels: np.ndarray) -> None:
    fewest = np.bincount(labels).min()
    for size in args.train_sizes:
        if size != ALL and not (size.isdecimal() and int(size) > 0):
            raise InputError(f"--train_sizes {size}: give numbers of sequences per class, or {ALL}.")
        if size != ALL and int(size) > fewest:
            raise InputError(f"--train_sizes {size}: the smallest class has {fewest:,} training sequences.")


def _layers_of(name: str, model: Any, tokenizer: Any, layers: list[int]) -> list[int]:
    """List the layers of a model to probe, counted from 0, each once."""
    count = count_layers(model, tokenizer)
    try:
        return list(dict.fromkeys(check_layers(layers or None, count)))
    except InputError as error:
        raise InputError(f"--model {name}: --{error}") from error


def _starts(sequences: list[str]) -> list[int]:
    """Return the first sequence of each part of the embeddings."""
    starts, bases = [0], 0
    for number, sequence in enumerate(sequences):
        if bases >= PART_BASES:
            starts.append(number)
            bases = 0
        bases += len(sequence)
    return starts


def _cells(args: ProbeArguments, layers: Mapping[str, list[int]]) -> list[Cell]:
    """List all fits, those of the same embeddings in a row. All training sequences are drawn in one way only."""
    seeds = range(args.seed, args.seed + args.seeds)
    return [
        Cell(name, layer, pooling, classifier, size, seed)
        for name in layers
        for layer, pooling, classifier, size in product(layers[name], args.poolings, args.classifiers, args.train_sizes)
        for seed in (seeds[:1] if size == ALL else seeds)
    ]


def _truncated_file(part: Path) -> Path:
    """Return the file, beside the embeddings of a part, with the number of its truncated sequences."""
    return part.with_suffix(".truncated")


def _rows(job: Job, first: int, cells: list[Cell], dataset: str) -> pd.DataFrame:
    """Read the results of the fits into the rows of `scores.csv`."""
    rows = []
    for number, cell in enumerate(cells, start=first):
        result = json.loads(job.part(number).read_text(encoding="utf-8"))
        for split, metrics in result["metrics"].items():
            for metric, value in metrics.items():
                rows.append(
                    {
                        "dataset": dataset,
                        **cell._asdict(),
                        "parameter": result["parameter"],
                        "split": split,
                        "metric": metric,
                        "value": value,
                    }
                )
    return pd.DataFrame(rows)


def select(rows: pd.DataFrame, metric: str) -> list[dict[str, Any]]:
    """
    Choose layer and pooling of each model, classifier and number of training sequences on validation.

    Args:
        rows: Rows of `scores.csv`.
        metric: Metric to choose by, averaged over the seeds. Of equal values, the first is chosen.

    Returns:
        Rows with `model`, `classifier`, `train_size`, `layer`, `pooling`, `validation` (the mean metric there), `seeds`
        (their number), and for each metric on test its mean and, as `METRIC_sd`, its standard deviation over the seeds
        (NaN for one).
    """
    selected = []
    setting, place = ["model", "classifier", "train_size"], ["layer", "pooling"]
    for key, group in rows.groupby(setting, sort=False):
        validation = group[(group["split"] == "validation") & (group["metric"] == metric)]
        means = validation.groupby(place, sort=False)["value"].mean()
        layer, pooling = means.idxmax()
        test = group[(group["split"] == "test") & (group["layer"] == layer) & (group["pooling"] == pooling)]
        values = test.groupby("metric", sort=False)["value"]
        found = {"validation": float(means.max()), "seeds": test["seed"].nunique()}
        for name, mean, deviation in zip(values.mean().index, values.mean(), values.std()):
            found |= {name: float(mean), f"{name}_sd": float(deviation)}
        selected.append({**dict(zip(setting, key)), "layer": int(layer), "pooling": pooling, **found})
    return selected


def _print(out: Path, result: dict[str, Any]) -> None:
    metric = result["metric"]
    print(f"{out}: layer and pooling by {metric} on validation, {metric} on test")
    for row in result["selected"]:
        size = "all" if row["train_size"] == ALL else f"{row['train_size']} per class"
        place = f"layer {row['layer']}, {row['pooling']}"
        print(f"{row['model']}, {row['classifier']}, {size}: {figure_of(row, metric)} ({place})")
