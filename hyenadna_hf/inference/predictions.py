"""Predict with fine-tuned models: classes, labels or numbers, per sequence or per base."""

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ..data.sequence import reverse_complement
from ..errors import InputError
from ..loading import CLASSIFIERS, check_tokenizer
from .batching import BATCHES_AHEAD, chunks_of, inference_of, length_bucketed
from .likelihood import MAX_TOKENS, check_strands

PROBLEM_TYPES = ("single_label_classification", "multi_label_classification", "regression")


class Predictor:
    """
    Predict with a model that has a head for sequences or for bases.

    Predictions are probabilities of classes or labels, or numbers in the units of the training data.

    Args:
        model: `HyenaDNAForSequenceClassification`, `HyenaDNAForTokenClassification`, or such a model of another
            architecture with one token per base. Its device and mode do not change.
        tokenizer: Tokenizer of the model.
        problem_type: `single_label_classification`, `multi_label_classification` or `regression`. Defaults to that of
            the model, which models that were trained without one, such as PEFT adapters, do not record.
        strands: `"forward"`, or `"both"` for the mean over the sequence and its reverse complement.
        max_tokens: Tokens in a batch, padding included. A longer sequence is a batch by itself.

    Attributes:
        names: Names of the labels.
        is_per_base: Whether the model predicts every base.
        longest: Longest sequence that the model reads, in bases; `None` without a limit.

    Raises:
        InputError: If an argument is invalid.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        problem_type: str | None = None,
        strands: str = "forward",
        max_tokens: int = MAX_TOKENS,
    ) -> None:
        head = type(model).__name__
        if not isinstance(model, PreTrainedModel) or not head.endswith(CLASSIFIERS):
            raise InputError(f"model: {head} has no head for predictions; give a model {' or '.join(CLASSIFIERS)}.")
        self.problem_type = problem_type or model.config.problem_type
        if self.problem_type not in PROBLEM_TYPES:
            problem = "is not recorded by the model" if self.problem_type is None else f"is {self.problem_type!r}"
            raise InputError(f"problem_type {problem}; give one of {', '.join(PROBLEM_TYPES)}.")
        check_strands(strands)
        check_tokenizer(tokenizer)
        if max_tokens < 1:
            raise InputError(f"max_tokens={max_tokens}: give at least 1.")
        self.model, self.tokenizer, self.strands, self.max_tokens = model, tokenizer, strands, max_tokens
        self.is_per_base = head.endswith("ForTokenClassification")
        self.names = [str(model.config.id2label[number]) for number in range(model.config.num_labels)]
        limit = getattr(model.config, "max_position_embeddings", None)
        self.longest = limit and limit - (0 if self.is_per_base else len(tokenizer("")["input_ids"]))

    def predict(self, sequences: Iterable[str]) -> Iterator[np.ndarray]:
        """
        Predict many sequences, in memory that does not grow with their number.

        Args:
            sequences: IUPAC nucleotide codes in either case, at most `longest` bases each. Read lazily.

        Yields:
            Predictions for each sequence in order, float32: shape `(labels,)`, or `(length, labels)` if the model
            predicts every base.
        """
        for chunk in chunks_of(sequences, len, BATCHES_AHEAD * self.max_tokens):
            outputs: list[Any] = [None] * len(chunk)
            for batch in length_bucketed(chunk, len, self.max_tokens):
                indices, texts = zip(*batch)
                for index, output in zip(indices, self.predict_batch(list(texts))):
                    outputs[index] = output
            yield from outputs

    def predict_batch(self, sequences: list[str]) -> list[np.ndarray]:
        """Predict a batch of sequences, as in [`Predictor.predict`]."""
        forward = self._predict_strand(sequences)
        if self.strands == "forward":
            return forward
        reverse = self._predict_strand([reverse_complement(text) for text in sequences])
        return [(one + (other[::-1] if self.is_per_base else other)) / 2 for one, other in zip(forward, reverse)]

    def _predict_strand(self, sequences: list[str]) -> list[np.ndarray]:
        if not any(sequences):
            shape = (0, len(self.names)) if self.is_per_base else (len(self.names),)
            return [np.full(shape, np.nan, np.float32) for _ in sequences]
        inputs = self.tokenizer(
            sequences, add_special_tokens=not self.is_per_base, padding=True, return_tensors="pt"
        ).to(self.model.device)
        with inference_of(self.model):
            logits = self.model(input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"]).logits
            outputs = self._link(logits.float()).cpu().numpy()
        if not self.is_per_base:
            return list(outputs)
        return [row[mask] for row, mask in zip(outputs, inputs["attention_mask"].bool().cpu().numpy())]

    def _link(self, logits: torch.Tensor) -> torch.Tensor:
        """Convert the outputs of the model to probabilities or numbers."""
        if self.problem_type == "single_label_classification":
            return logits.softmax(-1)
        return logits.sigmoid() if self.problem_type == "multi_label_classification" else logits


class IntervalCaller:
    """
    Join neighbouring bases of the same class to intervals.

    With one class a base, that is the most probable one; with several, each whose probability is at least one half.

    Args:
        names: Names of the classes.
        multi_label: Whether a base may have several classes.
        background: Class that makes no intervals.
    """

    def __init__(self, names: list[str], multi_label: bool, background: str) -> None:
        self.names, self.multi_label, self.background = names, multi_label, background
        self.intervals: list[tuple[str, int, int, str, float]] = []
        self._open: dict[int, tuple[str, int, int, float]] = {}  # contig, start, end and sum of the probabilities

    def add(self, contig: str, start: int, probabilities: np.ndarray) -> None:
        """Add probabilities of shape `(length, labels)` of the bases from `start` on, 0-based; NaN for none."""
        is_known = ~np.isnan(probabilities[:, 0])
        best = np.where(is_known, np.nan_to_num(probabilities).argmax(1), -1)
        for number, name in enumerate(self.names):
            if name == self.background:
                continue
            with np.errstate(invalid="ignore"):
                is_called = probabilities[:, number] >= 0.5 if self.multi_label else best == number
            edges = np.flatnonzero(np.diff(np.concatenate([[False], is_called, [False]]).astype(np.int8)))
            for first, last in edges.reshape(-1, 2).tolist():
                self._extend(
                    number, contig, start + first, start + last, float(probabilities[first:last, number].sum())
                )

    def _extend(self, number: int, contig: str, start: int, end: int, total: float) -> None:
        previous = self._open.get(number)
        if previous is not None and previous[0] == contig and previous[2] == start:
            start, total = previous[1], previous[3] + total
        elif previous is not None:
            self._close(number)
        self._open[number] = (contig, start, end, total)

    def _close(self, number: int) -> None:
        contig, start, end, total = self._open.pop(number)
        self.intervals.append((contig, start, end, self.names[number], total / (end - start)))

    def finish(self) -> list[tuple[str, int, int, str, float]]:
        """Return contig, start, end, class and mean probability of the intervals, in the order of their ends."""
        for number in list(self._open):
            self._close(number)
        return self.intervals
