"""Collate token ids into batches, with padding, labels and reverse-complement augmentation."""

from dataclasses import dataclass
from typing import Any

import torch

from ..model.tokenization_hyenadna import VOCABULARY
from .sequence import BASES, IGNORED, NUCLEOTIDE_IDS, reverse_complement_ids

_BASES = torch.tensor([VOCABULARY[letter] for letter in BASES])
_LABEL_NAMES = ("labels", "label")


@dataclass
class PaddingCollator:
    """
    Base class of the collators of this module.

    Args:
        tokenizer: Tokenizer that defines the padding token and side.
        pad_to_multiple_of: Pad to the next multiple of this many tokens.
        reverse_complement: Probability of replacing a sequence by its reverse complement, for training only. Special
            tokens around it keep their positions.
    """

    tokenizer: Any
    pad_to_multiple_of: int | None = None
    reverse_complement: float = 0.0

    def _inputs(self, examples: list[dict[str, Any]]) -> tuple[dict[str, torch.Tensor], list[bool]]:
        """Return `input_ids` and `attention_mask` of the batch, and which rows are reverse complements."""
        rows = [torch.as_tensor(example["input_ids"], dtype=torch.long) for example in examples]
        flipped = [False] * len(rows)
        if self.reverse_complement:  # otherwise no random number is drawn, so resumed runs stay in step
            flipped = (torch.rand(len(rows)) < self.reverse_complement).tolist()
        rows = [reverse_complement_ids(row) if flip else row for row, flip in zip(rows, flipped)]
        masks = [
            torch.as_tensor(example.get("attention_mask", torch.ones_like(row)), dtype=torch.long)
            for example, row in zip(examples, rows)
        ]
        batch = {
            "input_ids": self._pad(rows, self.tokenizer.pad_token_id),
            "attention_mask": self._pad(masks, 0),
        }
        return batch, flipped

    def _pad(self, rows: list[torch.Tensor], value: int) -> torch.Tensor:
        length, multiple = max(map(len, rows)), self.pad_to_multiple_of or 1
        padded = rows[0].new_full((len(rows), -(-length // multiple) * multiple, *rows[0].shape[1:]), value)
        for target, row in zip(padded, rows):
            first = len(target) - len(row) if self.tokenizer.padding_side == "left" else 0
            target[first : first + len(row)] = row
        return padded


@dataclass
class ClassificationCollator(PaddingCollator):
    """
    Collate examples for classifiers: one class, several labels, or numbers per sequence.

    Examples have `input_ids` and `label` or `labels`: an `int` (class), a `float` (regression), or a list of them
    (multi-label, converted to `float` for the loss). Batches have `input_ids` and `attention_mask` of shape `(batch,
    length)`, and `labels` of shape `(batch,)` or `(batch, labels)`.

    Args:
        tokenizer: See [`PaddingCollator`].
        pad_to_multiple_of: See [`PaddingCollator`].
        reverse_complement: See [`PaddingCollator`].
    """

    def __call__(self, examples: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        batch, _ = self._inputs(examples)
        name = next((name for name in _LABEL_NAMES if name in examples[0]), None)
        if name is not None:
            labels = torch.stack([torch.as_tensor(example[name]) for example in examples])
            batch["labels"] = labels.float() if labels.dim() > 1 or labels.is_floating_point() else labels.long()
        return batch


@dataclass
class TokenCollator(PaddingCollator):
    """
    Collate examples with labels of every position.

    Examples have `input_ids`, and `labels` of shape `(length,)` or `(length, labels)`. Batches have `input_ids`,
    `attention_mask` and `labels`, padded with -100, of shape `(batch, length)` or `(batch, length, labels)`. On the
    other strand, labels are in reverse order.

    Args:
        tokenizer: See [`PaddingCollator`].
        pad_to_multiple_of: See [`PaddingCollator`].
        reverse_complement: See [`PaddingCollator`].
    """

    def __call__(self, examples: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        batch, flipped = self._inputs(examples)
        labels = [
            _flip_labels(example) if flip else torch.as_tensor(example["labels"])
            for example, flip in zip(examples, flipped)
        ]
        return {**batch, "labels": self._pad(labels, IGNORED)}


@dataclass
class CausalCollator(PaddingCollator):
    """
    Collate examples for next-nucleotide training.

    Examples have `input_ids`, and optionally `labels` of the same length (-100 for positions without prediction).
    Batches have `input_ids`, `attention_mask` and `labels`, all of shape `(batch, length)`. Labels are the ids at the
    same positions (models shift them), and -100 at [PAD], at masked positions, at N, and at the first valid position of
    a row. Nothing predicts that position, so the Trainer must neither count it nor, with label smoothing, score it
    against the padding before it.

    Args:
        tokenizer: See [`PaddingCollator`].
        pad_to_multiple_of: See [`PaddingCollator`].
        reverse_complement: See [`PaddingCollator`].
        ignore_n: Exclude N from the labels instead of predicting it like a base.
    """

    ignore_n: bool = True

    def __call__(self, examples: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        batch, flipped = self._inputs(examples)
        ids = batch["input_ids"]
        ignored = (batch["attention_mask"] == 0) | (ids == self.tokenizer.pad_token_id)
        if self.ignore_n:
            ignored |= ids == VOCABULARY["N"]
        ignored.scatter_(1, batch["attention_mask"].argmax(1, keepdim=True), True)
        if "labels" in examples[0]:
            given_labels = [
                _flip_labels(example) if flip else torch.as_tensor(example["labels"])
                for example, flip in zip(examples, flipped)
            ]
            ignored |= self._pad(given_labels, IGNORED) == IGNORED
        return {**batch, "labels": ids.masked_fill(ignored, IGNORED)}


@dataclass
class MaskedCollator(PaddingCollator):
    """
    Collate examples for masked-language training of the bidirectional variant.

    Of the positions with A, C, G or T, a fraction `probability` is predicted: 80 % of these become [MASK], 10 % a
    random base, and 10 % stay unchanged (Devlin et al. 2019). Special tokens, [PAD] and N are never predicted. Batches
    have `input_ids`, `attention_mask` and `labels` (-100 for positions without prediction), all of shape
    `(batch, length)`.

    Args:
        tokenizer: See [`PaddingCollator`].
        pad_to_multiple_of: See [`PaddingCollator`].
        reverse_complement: See [`PaddingCollator`].
        probability: Fraction of the bases to predict.
    """

    probability: float = 0.15

    def __call__(self, examples: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        batch, _ = self._inputs(examples)
        ids = batch["input_ids"]
        is_base = torch.isin(ids, _BASES) & (batch["attention_mask"] == 1)
        is_predicted = is_base & (torch.rand(ids.shape) < self.probability)
        return {**batch, "input_ids": corrupt(ids, is_predicted), "labels": ids.masked_fill(~is_predicted, IGNORED)}


def mask_bases(
    input_ids: torch.Tensor, probability: float, seed: int, training: bool = True
) -> dict[str, torch.Tensor]:
    """
    Mask bases of one sequence, as a function of a seed.

    Each A, C, G and T is predicted with `probability`, and at least one of them is. In training, predicted bases are
    replaced as in [`MaskedCollator`]. Otherwise all become [MASK], so that the loss is that of bases the model cannot
    see.

    Args:
        input_ids: Token ids, shape `(length,)`.
        probability: Fraction of the bases to predict.
        seed: Random seed of the sequence, 0 to 2**64 - 1.
        training: Whether to leave some predicted bases unchanged or replace them by others.

    Returns:
        `input_ids`, and `labels` with -100 for positions without prediction, both of shape `(length,)`.
    """
    generator = torch.Generator().manual_seed(seed)
    is_base = torch.isin(input_ids, _BASES)
    draw = torch.rand(input_ids.shape, generator=generator).masked_fill(~is_base, 1.0)
    is_predicted = is_base & ((draw < probability) | (draw == draw.min()))  # without labels, the loss would be NaN
    labels = input_ids.masked_fill(~is_predicted, IGNORED)
    if training:
        return {"input_ids": corrupt(input_ids, is_predicted, generator), "labels": labels}
    return {"input_ids": input_ids.masked_fill(is_predicted, VOCABULARY["[MASK]"]), "labels": labels}


def corrupt(ids: torch.Tensor, is_predicted: torch.Tensor, generator: torch.Generator | None = None) -> torch.Tensor:
    """
    Replace predicted bases: 80 % by [MASK], 10 % by a random base; 10 % stay unchanged (Devlin et al. 2019).

    Args:
        ids: Token ids of any shape.
        is_predicted: Whether each position is predicted, of the same shape.
        generator: Source of random numbers. Defaults to that of torch.
    """
    draw = torch.rand(ids.shape, generator=generator)
    random_bases = _BASES[torch.randint(len(_BASES), ids.shape, generator=generator)]
    masked = torch.where(is_predicted & (draw < 0.8), VOCABULARY["[MASK]"], ids)
    return torch.where(is_predicted & (draw >= 0.9), random_bases, masked)


def _flip_labels(example: dict[str, Any]) -> torch.Tensor:
    """Return the labels of an example with those of its nucleotides in reverse order, as on the other strand."""
    ids, labels = (torch.as_tensor(example[name]) for name in ("input_ids", "labels"))
    is_nucleotide = ids >= min(NUCLEOTIDE_IDS)
    flipped = labels.clone()
    flipped[is_nucleotide] = labels[is_nucleotide].flip(0)
    return flipped
