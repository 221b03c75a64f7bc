"""Compare a fine-tuned classifier with baselines trained and tested on the same sequences."""

import time
from collections.abc import Callable, Iterable, Mapping
from functools import partial

import numpy as np
import torch
from datasets import Dataset, DatasetDict
from sklearn.naive_bayes import CategoricalNB
from torch.utils.data import DataLoader

from ..baselines.cnn import CNNForSequenceClassification
from ..baselines.kmer import kmer_classifier
from ..baselines.named import baseline_config, baseline_tokenizer
from ..data.collators import ClassificationCollator
from ..data.sequence import token_ids
from .metrics import metrics_of_scores
from .optimizer import parameter_groups

K = 6
CNN_EPOCHS, CNN_BATCH_SIZE, CNN_LEARNING_RATE, CNN_WEIGHT_DECAY = 3, 32, 1e-3, 0.1
LONGEST_FOR_CNN = 10_000  # bases; the dense layer grows with the length
LONGEST_FOR_MATRIX = 1_000  # bases; in longer sequences, positions rarely correspond


def compare(
    data: DatasetDict, device: torch.device, seed: int = 0, groups: Mapping[str, Iterable[int]] | None = None
) -> dict[str, tuple[dict[str, float], float]]:
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
    lengths = {len(sequence) for split in data.values() for sequence in split["sequence"]}
    scorers: dict[str, Callable[[], np.ndarray]] = {"majority class": partial(_majority_scores, data)}
    if max(map(len, data["train"]["sequence"])) >= K:
        scorers[f"{K}-mer counts, linear"] = partial(_kmer_scores, data)
    if target.ndim == 1 and len(lengths) == 1 and max(lengths) <= LONGEST_FOR_MATRIX:
        scorers["position weight matrix"] = partial(_matrix_scores, data)
    if max(lengths) <= LONGEST_FOR_CNN:
        scorers[f"CNN, {CNN_EPOCHS} epochs"] = partial(_cnn_scores, data, max(lengths), device, seed)
    results = {}
    for name, score_test_split in scorers.items():
        started = time.monotonic()
        metrics = metrics_of_scores(score_test_split(), target, groups)
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


def _cnn_scores(data: DatasetDict, length: int, device: torch.device, seed: int) -> np.ndarray:
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        model = _train_cnn(data["train"], length, device)
        with torch.no_grad():
            return np.concatenate(
                [model(**_to_device(device, batch)).logits.cpu().numpy() for batch in _loader(data["test"])]
            )


def _train_cnn(split: Dataset, length: int, device: torch.device) -> CNNForSequenceClassification:
    targets = targets_of(split)
    problem = "single_label_classification" if targets.ndim == 1 else "multi_label_classification"
    classes = split.features["label"].num_classes if targets.ndim == 1 else targets.shape[1]
    config = baseline_config("cnn", length, num_labels=classes, problem_type=problem)
    model = CNNForSequenceClassification(config).to(device).train()
    optimizer = torch.optim.AdamW(parameter_groups(model, CNN_WEIGHT_DECAY), lr=CNN_LEARNING_RATE)
    steps = CNN_EPOCHS * -(-len(split) // CNN_BATCH_SIZE)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, total_iters=steps)
    loader = _loader(split, shuffle=True)
    for _ in range(CNN_EPOCHS):
        for batch in loader:
            model(**_to_device(device, batch)).loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            schedule.step()
    return model.eval()


def _loader(split: Dataset, shuffle: bool = False) -> DataLoader:
    """Build a loader of batches of token ids, masks and labels."""
    rows = [
        {"input_ids": token_ids(sequence), "labels": target}
        for sequence, target in zip(split["sequence"], targets_of(split))
    ]
    collator = ClassificationCollator(baseline_tokenizer("cnn"))
    return DataLoader(rows, CNN_BATCH_SIZE, shuffle=shuffle, collate_fn=collator)


def _to_device(device: torch.device, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: values.to(device) for name, values in batch.items()}
