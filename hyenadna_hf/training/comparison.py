"""Compare a fine-tuned model with baselines that are trained and tested on the same sequences or bases."""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial

import numpy as np
import torch
from datasets import Dataset, DatasetDict
from sklearn.naive_bayes import CategoricalNB
from torch.nn import functional as F
from torch.utils.data import DataLoader
from transformers import PreTrainedModel

from ..baselines.cnn import CNNForSequenceClassification
from ..baselines.dilated_cnn import DilatedCNNForTokenClassification
from ..baselines.kmer import kmer_classifier, kmer_regressor
from ..baselines.named import baseline_config, baseline_tokenizer
from ..baselines.position_weights import PositionWeights
from ..data.base_labels import LabelledWindows
from ..data.collators import ClassificationCollator, TokenCollator
from ..data.labelled import value_lengths
from ..data.sequence import IGNORED, token_ids
from ..data.track_labels import TrackLabels
from .finetune_task import Baselines
from .metrics import metrics_of_scores, regression_metrics
from .optimizer import parameter_groups
from .regression import TargetScale, start_at_rates

K = 6
CNN_EPOCHS, CNN_BATCH_SIZE, CNN_LEARNING_RATE, CNN_WEIGHT_DECAY = 3, 32, 1e-3, 0.1
LONGEST_FOR_CNN = 10_000  # bases; the dense layer grows with the length
LONGEST_FOR_MATRIX = 1_000  # bases; in longer sequences, positions rarely correspond
FLANK = 20  # bases on either side that the position weight matrices of bases read
CNN_BATCH_BASES = 1 << 16  # in a batch of windows, for memory


def compare(
    data: DatasetDict, device: torch.device, seed: int = 0, groups: Mapping[str, Iterable[int]] | None = None
) -> Baselines:
    """
    Train baselines on the train split and score them on the test split.

    The baselines are the majority class; a linear model on 6-mer counts, unless all sequences are shorter; a position
    weight matrix per class, if all sequences have the same length of at most 1,000 bases and one class each; and, up to
    10,000 bases, the convolutional network of GenomicBenchmarks (3 epochs, batches of 32, AdamW with a learning rate
    that falls from 1e-3 to 0).

    Args:
        data: Data set with columns `sequence` and `label` or `labels`.
        device: Device for training the network.
        seed: Random seed of the network's weights and batches.
        groups: Columns of each group of labels.

    Returns:
        The test metrics of each baseline, and its training time in seconds.
    """
    target = targets_of(data["test"])
    lengths = {name: value_lengths(split, "sequence") for name, split in data.items()}
    shortest = min(values.min() for values in lengths.values())
    longest = int(max(values.max() for values in lengths.values()))
    scorers: dict[str, Callable[[], np.ndarray]] = {"majority class": partial(_majority_scores, data)}
    if lengths["train"].max() >= K:
        scorers[f"{K}-mer counts, linear"] = partial(_kmer_scores, data)
    if target.ndim == 1 and shortest == longest <= LONGEST_FOR_MATRIX:
        scorers["position weight matrix"] = partial(_matrix_scores, data)
    if longest <= LONGEST_FOR_CNN:
        scorers[f"CNN, {CNN_EPOCHS} epochs"] = partial(_cnn_scores, data, longest, device, seed)
    return _score_all(scorers, partial(metrics_of_scores, labels=target, groups=groups))


def compare_regressors(
    data: DatasetDict, names: Sequence[str], loss: str, device: torch.device, seed: int = 0
) -> Baselines:
    """
    Train regressors on the train split and score them on the test split.

    The baselines are the mean of the train split; ridge regression on 6-mer counts, unless all sequences are shorter;
    and, up to 10,000 bases, the network of [`compare`] on standardised targets, or with the Poisson loss.

    Args:
        data: Data set with columns `sequence` and `labels`.
        names: Names of the targets.
        loss: Loss of the network: `"mse"` or `"poisson"`.
        device: Device for training the network.
        seed: Random seed of the network's weights and batches.

    Returns:
        The test metrics of each baseline, and its training time in seconds.
    """
    train = targets_of(data["train"])
    longest_of = {name: int(value_lengths(split, "sequence").max(initial=0)) for name, split in data.items()}
    longest = max(longest_of.values())
    scorers: dict[str, Callable[[], np.ndarray]] = {
        "mean of train": lambda: np.tile(train.mean(0), (len(data["test"]), 1))
    }
    if longest_of["train"] >= K:
        scorers[f"{K}-mer counts, ridge"] = partial(_ridge_predictions, data)
    if longest <= LONGEST_FOR_CNN:
        scorers[f"CNN, {CNN_EPOCHS} epochs"] = partial(_cnn_predictions, data, loss, longest, device, seed)
    return _score_all(scorers, partial(regression_metrics, labels=targets_of(data["test"]), names=names))


def compare_bases(
    windows: Mapping[str, LabelledWindows],
    counts: np.ndarray,
    bases: int,
    measure: Callable[[np.ndarray, np.ndarray], dict[str, float]],
    device: torch.device,
    seed: int = 0,
) -> Baselines:
    """
    Train baselines for labels of every base on the train windows and score them on the test windows.

    The baselines are the frequencies of the classes in train, or the mean of each track; for classes, position weight
    matrices over the 41 bases around each base; and the dilated network of SpliceAI whose receptive field is at least a
    window, or otherwise the largest (trained like the network of [`compare`], for tracks with the Poisson loss).

    Args:
        windows: Windows of `train` and `test`.
        counts: Bases of train with each label, or the sums of its tracks, from [`count_labels`].
        bases: Number of labelled bases of train.
        measure: Function that computes the metrics of outputs of shape `(bases, labels)` for the labels of all bases.
        device: Device for training the network.
        seed: Random seed of the network's weights and batches.

    Returns:
        The test metrics of each baseline, and its training time in seconds.
    """
    labels, test, rates = windows["train"].labels, windows["test"], None
    scorers: dict[str, Callable[[], np.ndarray]] = {}
    if isinstance(labels, TrackLabels):
        rates = counts[None] / bases
        scorers["mean of train"] = partial(_constant_outputs, rates[0], test)
    else:
        others = bases - counts if labels.multi_label else np.full(len(counts), bases)
        log_odds = np.log(np.maximum(counts, 1e-9) / np.maximum(others, 1e-9))
        scorers["frequencies of train"] = partial(_constant_outputs, log_odds, test)
        matrices = PositionWeights(len(labels.names), FLANK, labels.multi_label)
        scorers[f"position weights, {2 * FLANK + 1} bases"] = partial(_position_scores, matrices, windows)
    scorers[f"CNN, {CNN_EPOCHS} epochs"] = partial(_dilated_cnn_outputs, windows, rates, device, seed)
    truth = np.concatenate([base_labels for _, base_labels in _examples(test)])
    return _score_all(scorers, lambda outputs: measure(outputs, truth))


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


def _examples(windows: LabelledWindows) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    for number in range(len(windows)):
        example = windows[number]
        yield example["input_ids"], example["labels"]


def _score_all(
    scorers: Mapping[str, Callable[[], np.ndarray]], measure: Callable[[np.ndarray], dict[str, float]]
) -> Baselines:
    """Return the metrics of the test split, and the training time, of each baseline."""
    results = {}
    for name, score_test_split in scorers.items():
        started = time.monotonic()
        metrics = measure(score_test_split())
        results[name] = metrics, time.monotonic() - started
    return results


def targets_of(split: Dataset) -> np.ndarray:
    """Return the labels of a split, shape `(rows,)` or `(rows, labels)`."""
    return np.asarray(split["labels" if "labels" in split.column_names else "label"])


def _majority_scores(data: DatasetDict) -> np.ndarray:
    train = targets_of(data["train"])
    scores = train.mean(0) - 0.5 if train.ndim > 1 else np.bincount(train)
    return np.tile(scores, (len(data["test"]), 1))


def _kmer_scores(data: DatasetDict) -> np.ndarray:
    train = targets_of(data["train"])
    kmers = kmer_classifier(K, multi_label=train.ndim > 1).fit(list(data["train"]["sequence"]), train)
    scores = kmers.decision_function(list(data["test"]["sequence"]))
    if scores.ndim == 1:  # scikit-learn returns one score for two classes
        scores = scores[:, None] if train.ndim > 1 else np.stack([-scores, scores], axis=1)
    return scores


def _matrix_scores(data: DatasetDict) -> np.ndarray:
    train = targets_of(data["train"])
    letters = {split: np.stack([token_ids(text) for text in data[split]["sequence"]]) for split in ("train", "test")}
    categories = 1 + max(int(ids.max()) for ids in letters.values())
    matrices = CategoricalNB(min_categories=categories).fit(letters["train"], train)
    scores = np.full((len(letters["test"]), 1 + int(train.max())), -np.inf)
    scores[:, matrices.classes_] = matrices.predict_joint_log_proba(letters["test"])
    return scores


def _ridge_predictions(data: DatasetDict) -> np.ndarray:
    train = targets_of(data["train"])
    ridge = kmer_regressor(K).fit(list(data["train"]["sequence"]), train)
    return ridge.predict(list(data["test"]["sequence"])).reshape(-1, train.shape[1])


def _constant_outputs(outputs: np.ndarray, windows: LabelledWindows) -> np.ndarray:
    """Return the same outputs for all bases of the windows."""
    return np.tile(outputs, (sum(tile.end - tile.start for tile in windows.windows), 1))


def _position_scores(matrices: PositionWeights, windows: Mapping[str, LabelledWindows]) -> np.ndarray:
    matrices.fit(_examples(windows["train"]))
    return np.concatenate([matrices.predict(ids) for ids, _ in _examples(windows["test"])])


def _dilated_cnn_outputs(
    windows: Mapping[str, LabelledWindows], rates: np.ndarray | None, device: torch.device, seed: int
) -> np.ndarray:
    """Train a network on the bases of train, and return its outputs for the bases of test; `rates` are of tracks."""
    labels = windows["train"].labels
    longest = max(tile.end - tile.start for tile in windows["train"].windows)
    rows = min(CNN_BATCH_SIZE, max(1, CNN_BATCH_BASES // longest))
    loader = partial(DataLoader, batch_size=rows, collate_fn=TokenCollator(baseline_tokenizer("cnn")))
    fields = {"num_labels": len(labels.names), "problem_type": labels.problem_type}
    with _seeded(device, seed):
        config = baseline_config("cnn", longest, per_base=True, regression_loss="poisson", **fields)
        model = DilatedCNNForTokenClassification(config).to(device)
        if rates is not None:
            start_at_rates(model.score, rates)
        _train_cnn(model, loader(windows["train"], shuffle=True), device)
        return _cnn_outputs(model, loader(windows["test"]), device)


def _cnn_scores(data: DatasetDict, length: int, device: torch.device, seed: int) -> np.ndarray:
    targets = targets_of(data["train"])
    problem = "single_label_classification" if targets.ndim == 1 else "multi_label_classification"
    classes = data["train"].features["label"].num_classes if targets.ndim == 1 else targets.shape[1]
    with _seeded(device, seed):
        model = _build_cnn(length, classes, problem, device)
        _train_cnn(model, _loader(data["train"], targets, shuffle=True), device)
        return _cnn_outputs(model, _loader(data["test"], targets_of(data["test"])), device)


def _cnn_predictions(data: DatasetDict, loss: str, length: int, device: torch.device, seed: int) -> np.ndarray:
    targets = targets_of(data["train"])
    test = _loader(data["test"], targets_of(data["test"]))
    with _seeded(device, seed):
        model = _build_cnn(length, targets.shape[1], "regression", device)
        if loss == "poisson":
            start_at_rates(model.score, targets)
            _train_cnn(model, _loader(data["train"], targets, shuffle=True), device, F.poisson_nll_loss)
            return np.exp(_cnn_outputs(model, test, device))
        scale = TargetScale.of(targets)
        _train_cnn(model, _loader(data["train"], scale.standardise(targets), shuffle=True), device)
        scale.restore_outputs(model.score)
        return _cnn_outputs(model, test, device)


@contextmanager
def _seeded(device: torch.device, seed: int) -> Iterator[None]:
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        yield


def _build_cnn(length: int, labels: int, problem: str, device: torch.device) -> CNNForSequenceClassification:
    config = baseline_config("cnn", length, num_labels=labels, problem_type=problem)
    return CNNForSequenceClassification(config).to(device)


def _train_cnn(
    model: PreTrainedModel,
    loader: DataLoader,
    device: torch.device,
    compute_loss: Callable[[torch.Tensor, torch.Tensor], torch.Tensor] | None = None,
) -> None:
    """Train a network with its own loss, or with that of `compute_loss(logits, labels)`."""
    model.train()
    optimizer = torch.optim.AdamW(parameter_groups(model, CNN_WEIGHT_DECAY), lr=CNN_LEARNING_RATE)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, total_iters=CNN_EPOCHS * len(loader))
    for _ in range(CNN_EPOCHS):
        for batch in loader:
            batch = _to_device(device, batch)
            outputs = model(**batch)
            loss = outputs.loss if compute_loss is None else compute_loss(outputs.logits, batch["labels"])
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            schedule.step()
    model.eval()


@torch.no_grad()
def _cnn_outputs(model: PreTrainedModel, loader: DataLoader, device: torch.device) -> np.ndarray:
    """Return the outputs of all sequences, or of all of their bases in order."""
    outputs = []
    for batch in loader:
        logits = model(**_to_device(device, batch)).logits.cpu()
        outputs.append(logits[batch["attention_mask"] != 0] if logits.dim() == 3 else logits)
    return torch.cat(outputs).numpy()


def _loader(split: Dataset, targets: np.ndarray, shuffle: bool = False) -> DataLoader:
    """Build a loader of batches of token ids, masks and labels."""
    rows = [
        {"input_ids": token_ids(sequence), "labels": target} for sequence, target in zip(split["sequence"], targets)
    ]
    collator = ClassificationCollator(baseline_tokenizer("cnn"))
    return DataLoader(rows, CNN_BATCH_SIZE, shuffle=shuffle, collate_fn=collator)


def _to_device(device: torch.device, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: values.to(device) for name, values in batch.items()}
