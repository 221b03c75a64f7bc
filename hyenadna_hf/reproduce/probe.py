"""Classifiers on mean embeddings of frozen models, and plots of these embeddings."""

import importlib.util
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from transformers import set_seed

from ..data.named import load_labelled
from ..errors import InputError
from ..jobs import replace_file, write_text
from ..probing.classifiers import draw_rows, evaluate
from ..probing.embeddings import pooled_states
from ..training.classifier import ModelArguments, load_classifier
from . import steps

PROBES = {
    "linear": lambda: make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000)),
    "boosted": lambda: HistGradientBoostingClassifier(random_state=0),
    "forest": lambda: RandomForestClassifier(500, random_state=0, n_jobs=-1),
}


@dataclass
class ProbeArguments:
    """Options of the command."""

    output_dir: str = field(metadata={"help": "Folder for results.json and embeddings.png."})
    dataset: str = field(default="splice_sites_chr20", metadata={"help": "Labelled sequences, as in finetune."})
    shots: list[int] = field(
        default_factory=lambda: [0], metadata={"help": "Numbers of training sequences per class; 0 for all."}
    )
    draws: int = field(default=5, metadata={"help": "Number of random draws of these sequences to average over."})
    probe: str = field(default="linear", metadata={"help": f"Classifier: {', '.join(PROBES)}."})
    picture: bool = field(default=False, metadata={"help": "Plot the test split by t-SNE (and UMAP if installed)."})
    seed: int = field(default=2222, metadata={"help": "Seed of draws, new weights and plots."})


def main(argv: list[str]) -> None:
    """Run `python -m hyenadna_hf.reproduce.probe` with the arguments `argv`."""
    probe(*steps.parse("probe", __doc__, (ProbeArguments, ModelArguments), argv))


def probe(args: ProbeArguments, model_args: ModelArguments) -> dict[str, Any]:
    """
    Fit classifiers on mean embeddings of the training split and score them on the test split.

    Args:
        args: Options of the command.
        model_args: Options of the model.

    Returns:
        The contents of `results.json`. Its `metrics` are `accuracy`, `mcc`, `f1` (macro), `f1_weighted` and `auroc` (of
        several classes, the mean of each against the others), each followed by `, all` or the number of training
        sequences, as in `accuracy, 16 a class`.

    Raises:
        InputError: If the data, the model or an argument is invalid.
    """
    started = time.monotonic()
    if args.probe not in PROBES:
        raise InputError(f"--probe {args.probe}: it must be one of {', '.join(PROBES)}.")
    if args.draws < 1 or min(args.shots) < 0:
        raise InputError(f"--draws {args.draws} --shots {args.shots}: use at least 1 draw, and 0 or more shots.")
    data = load_labelled(args.dataset, seed=args.seed)
    names = data["train"].features["label"].names
    labels = {split: np.array(data[split]["label"]) for split in ("train", "test")}
    fewest = np.bincount(labels["train"], minlength=len(names)).min()
    if max(args.shots) > fewest:
        raise InputError(f"--shots {max(args.shots)}: the smallest class has {fewest:,} training sequences.")
    set_seed(args.seed)
    model, tokenizer, origin = load_classifier(model_args, names)
    embedded = {
        split: mean_embeddings(model, tokenizer, data[split]["sequence"], model_args.kmer)
        for split in ("train", "test")
    }
    metrics = {}
    for shots in args.shots:
        draws = [
            score(args.probe, embedded, labels, rows)
            for rows in draw_rows(labels["train"], shots, args.draws if shots else 1, args.seed)
        ]
        for name in draws[0]:
            setting = f"{shots} a class" if shots else "all"
            metrics[f"{name}, {setting}"] = float(np.mean([draw[name] for draw in draws]))
    output_dir = Path(args.output_dir)
    output_dir.mkdir(parents=True, exist_ok=True)
    if args.picture:
        classes = [names[label] for label in labels["test"]]
        plot_embeddings(embedded["test"], classes, output_dir / "embeddings.png", args.seed)
    results = {
        "dataset": args.dataset,
        "model": model_args.model,
        "start": origin,
        "seed": args.seed,
        "sequences": {split: len(rows) for split, rows in data.items()},
        "metrics": metrics,
        "seconds": round(time.monotonic() - started, 1),
    }
    text = json.dumps(results, indent=2) + "\n"
    write_text(output_dir / "results.json", text)
    return results


def score(
    kind: str, embedded: Mapping[str, np.ndarray], labels: Mapping[str, np.ndarray], rows: Any = slice(None)
) -> dict[str, float]:
    """
    Fit a classifier on some training rows and compute its metrics on the test split.

    Args:
        kind: A key of `PROBES`.
        embedded: Embeddings of the splits `train` and `test`, of shape `(sequences, width)`.
        labels: Class numbers or names of the same splits.
        rows: Indices of the training rows. Defaults to all.

    Returns:
        Metrics by name.
    """
    classifier = PROBES[kind]().fit(embedded["train"][rows], labels["train"][rows])
    return evaluate(classifier, embedded["test"], labels["test"])


def mean_embeddings(model: Any, tokenizer: Any, sequences: Sequence[str], kmer: int | None = None) -> np.ndarray:
    """
    Average the last hidden states of any model over all positions but padding; longer inputs are truncated.

    Args:
        model: Model with hidden states. It is moved to the GPU if there is one.
        tokenizer: Its tokenizer; HyenaDNA gets no special tokens, other models do.
        sequences: DNA sequences.
        kmer: Length in bases of the overlapping words to split them into. Defaults to no splitting.

    Returns:
        A float32 array of shape `(sequences, width)`.
    """
    model.to("cuda" if torch.cuda.is_available() else "cpu").eval()
    return pooled_states(model, tokenizer, sequences, [-1], ["mean"], kmer)[:, 0, 0]


def plot_embeddings(
    embedded: np.ndarray,
    labels: Sequence[str],
    path: str | Path,
    seed: int = 0,
    title: str = "mean embeddings of the test split",
) -> None:
    """
    Plot embeddings in two dimensions by t-SNE, and by UMAP if the package umap-learn is installed.

    Args:
        embedded: Embeddings of shape `(sequences, width)`.
        labels: Class of each sequence, shown by colour.
        path: File to write.
        seed: Seed of the layout.
        title: Title, shown after the name of the method.
    """
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt
    from sklearn.manifold import TSNE

    scaled = StandardScaler().fit_transform(embedded)
    perplexity = min(30.0, (len(scaled) - 1) / 3)
    layouts = {"t-SNE": TSNE(random_state=seed, perplexity=perplexity).fit_transform(scaled)}
    if importlib.util.find_spec("umap"):
        from umap import UMAP

        layouts["UMAP"] = UMAP(random_state=seed).fit_transform(scaled)
    figure, panels = plt.subplots(1, len(layouts), figsize=(6 * len(layouts), 5), layout="constrained", squeeze=False)
    classes = np.array(labels)
    for axes, (method, flat) in zip(panels[0], layouts.items()):
        for name in sorted(set(classes)):
            axes.scatter(*flat[classes == name].T, s=12, label=name)
        axes.set(title=f"{method} of {title}", xticks=[], yticks=[])
        axes.legend()
    replace_file(Path(path), lambda file: figure.savefig(file, dpi=150))
    plt.close(figure)


if __name__ == "__main__":
    steps.run("probe", main)
