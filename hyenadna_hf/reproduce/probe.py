"""Classifiers on the mean embeddings of frozen models, and pictures of these embeddings."""

import importlib.util
import json
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import f1_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from transformers import set_seed

from ..data.named import load_labelled
from ..errors import InputError
from ..inference.batching import length_bucketed
from ..inference.embed import embed
from ..jobs import replace_file, write_text
from ..model.configuration_hyenadna import HyenaDNAConfig
from ..training.classifier import ModelArguments, load_classifier, longest_input, words
from ..training.metrics import class_auroc, classification_metrics
from . import steps

PROBES = {
    "linear": lambda: make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000)),
    "boosted": lambda: HistGradientBoostingClassifier(random_state=0),
    "forest": lambda: RandomForestClassifier(500, random_state=0, n_jobs=-1),
}
MAX_TOKENS = 16_384  # in a batch


@dataclass
class ProbeArguments:
    output_dir: str = field(metadata={"help": "Where results.json goes, and embeddings.png."})
    dataset: str = field(default="splice_sites_chr20", metadata={"help": "Labelled sequences, as of finetune."})
    shots: list[int] = field(
        default_factory=lambda: [0], metadata={"help": "Training sequences a class; 0 is all that there are."}
    )
    draws: int = field(default=5, metadata={"help": "How often so many are drawn; metrics are the mean."})
    probe: str = field(default="linear", metadata={"help": f"The classifier: {', '.join(PROBES)}."})
    picture: bool = field(default=False, metadata={"help": "Draw the test split by t-SNE (and UMAP if installed)."})
    seed: int = field(default=2222, metadata={"help": "Of draws, new weights and pictures."})


def main(argv):
    """Run `python -m hyenadna_hf.reproduce.probe` with the arguments `argv` (a list of `str`)."""
    probe(*steps.parse("probe", __doc__, (ProbeArguments, ModelArguments), argv))


def probe(args, model_args):
    """
    Fit classifiers on mean embeddings of the train split and score them on the test split.

    Args:
        args ([`ProbeArguments`]), model_args ([`ModelArguments`]): As on the command line.

    Returns:
        `dict`: what `results.json` holds. Its `metrics` are `accuracy`, `mcc`, `f1` (macro), `f1_weighted` and `auroc`
        (of several classes, the mean of each against the others), each followed by `, all` or the number of training
        sequences, as in `accuracy, 16 a class`.

    Raises:
        InputError: if the data, the model or an argument will not do.
    """
    started = time.monotonic()
    if args.probe not in PROBES:
        raise InputError(f"--probe {args.probe}: it is one of {', '.join(PROBES)}.")
    if args.draws < 1 or min(args.shots) < 0:
        raise InputError(f"--draws {args.draws} --shots {args.shots}: give at least 1 draw and shots from 0.")
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
    found = {}
    for shots in args.shots:
        draws = [
            score(args.probe, embedded, labels, rows)
            for rows in drawn(labels["train"], shots, args.draws if shots else 1, args.seed)
        ]
        for name in draws[0]:
            found[f"{name}, {f'{shots} a class' if shots else 'all'}"] = float(np.mean([draw[name] for draw in draws]))
    output_dir = Path(args.output_dir)
    output_dir.mkdir(parents=True, exist_ok=True)
    if args.picture:
        picture(embedded["test"], [names[label] for label in labels["test"]], output_dir / "embeddings.png", args.seed)
    results = {
        "dataset": args.dataset,
        "model": model_args.model,
        "start": origin,
        "seed": args.seed,
        "sequences": {split: len(rows) for split, rows in data.items()},
        "metrics": found,
        "seconds": round(time.monotonic() - started, 1),
    }
    text = json.dumps(results, indent=2) + "\n"
    write_text(output_dir / "results.json", text)
    return results


def score(kind, embedded, labels, rows=slice(None)):
    """
    Test metrics of a classifier that is fitted on some training rows.

    Args:
        kind (`str`): A key of `PROBES`.
        embedded (`dict[str, np.ndarray]`): `train` and `test`, of shape `(sequences, width)`.
        labels (`dict[str, np.ndarray]`): Of the same splits, numbers or names.
        rows (`np.ndarray`, *optional*): Which of the training rows; all by default.

    Returns:
        `dict[str, float]`
    """
    classifier = PROBES[kind]().fit(embedded["train"][rows], labels["train"][rows])
    probabilities = classifier.predict_proba(embedded["test"])
    predicted = classifier.classes_[probabilities.argmax(1)]
    return {
        **classification_metrics(predicted, labels["test"]),
        "f1_weighted": float(f1_score(labels["test"], predicted, average="weighted", zero_division=0)),
        "auroc": class_auroc(probabilities, labels["test"], classifier.classes_),
    }


def drawn(labels, shots, draws, seed):
    """Rows of as many sequences of each class, anew in each draw; all rows for 0 shots."""
    random = np.random.default_rng(seed)
    classes = [np.flatnonzero(labels == label) for label in np.unique(labels)]
    for _ in range(draws):
        yield np.concatenate([random.choice(rows, shots or len(rows), replace=False) for rows in classes])


def mean_embeddings(model, tokenizer, sequences, kmer=None):
    """
    The last hidden states of any model, as the mean over all that is not padding; longer inputs are cut.

    Args:
        model (`PreTrainedModel`), tokenizer: Any with hidden states; HyenaDNA gets no special tokens, others do.
        sequences (`list[str]`): DNA.
        kmer (`int`, *optional*): Write them as overlapping words of this many bases.

    Returns:
        `np.ndarray` of shape `(sequences, width)`, float32.
    """
    model.to("cuda" if torch.cuda.is_available() else "cpu").eval()
    limit = longest_input(model.config, tokenizer)
    if model.config.model_type == HyenaDNAConfig.model_type:
        return np.stack(list(embed(model, tokenizer, [sequence[:limit] for sequence in sequences])))
    found = [None] * len(sequences)
    with torch.inference_mode():
        for numbered in length_bucketed(sequences, lambda text: min(len(text), limit or len(text)), MAX_TOKENS):
            numbers, texts = zip(*numbered)
            inputs = tokenizer(
                [words(text, kmer) for text in texts],
                padding=True,
                truncation=limit is not None,
                max_length=limit,
                return_tensors="pt",
            ).to(model.device)
            output = model.base_model(**inputs)
            if getattr(output, "last_hidden_state", None) is None:
                raise InputError(f"--model: {type(model).__name__} has no hidden states to embed with.")
            mask = inputs["attention_mask"].unsqueeze(-1)
            means = (output.last_hidden_state.float() * mask).sum(1) / mask.sum(1)
            for number, vector in zip(numbers, means.cpu().numpy()):
                found[number] = vector
    return np.stack(found)


def picture(embedded, labels, path, seed=0, title="mean embeddings of the test split"):
    """
    Draw embeddings in the plane by t-SNE, and by UMAP if the package umap-learn is installed.

    Args:
        embedded (`np.ndarray` of shape `(sequences, width)`): What to draw.
        labels (`list[str]`): Its colours.
        path (`Path`): The file to write.
        seed (`int`, defaults to 0): Of the layout.
        title (`str`): What stands above it, behind the name of the method.
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
    labels = np.array(labels)
    for axes, (method, flat) in zip(panels[0], layouts.items()):
        for name in sorted(set(labels)):
            axes.scatter(*flat[labels == name].T, s=12, label=name)
        axes.set(title=f"{method} of {title}", xticks=[], yticks=[])
        axes.legend()
    replace_file(Path(path), lambda file: figure.savefig(file, dpi=150))
    plt.close(figure)


if __name__ == "__main__":
    steps.run("probe", main)
