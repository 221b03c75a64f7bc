"""Batches of token ids: padding, labels, and reverse complements as augmentation."""

from dataclasses import dataclass

import torch

from ..model.tokenization_hyenadna import VOCABULARY
from .sequence import BASES, IGNORED, NUCLEOTIDE_IDS, reverse_complement_ids

_BASES = torch.tensor([VOCABULARY[letter] for letter in BASES])
_LABEL_NAMES = ("labels", "label")


@dataclass
class PaddingCollator:
    """
    What the collators of this module have in common.

    Args:
        tokenizer: Its padding token and side are used.
        pad_to_multiple_of: Pad to the next multiple of this many tokens.
        reverse_complement: Probability with which a sequence is replaced by its other strand; for training only.
            Special tokens around it stay in their places.
    """

    tokenizer: object
    pad_to_multiple_of: int | None = None
    reverse_complement: float = 0.0

    def _inputs(self, examples):
        """`input_ids` and `attention_mask` of the batch, and which rows are reverse complements."""
        rows = [torch.as_tensor(example["input_ids"], dtype=torch.long) for example in examples]
        flipped = [False] * len(rows)
        if self.reverse_complement:  # no random number without need: resumed runs would miss it
            flipped = (torch.rand(len(rows)) < self.reverse_complement).tolist()
        rows = [reverse_complement_ids(row) if flip else row for row, flip in zip(rows, flipped)]
        masks = [
            torch.as_tensor(example.get("attention_mask", torch.ones_like(row)), dtype=torch.long)
            for example, row in zip(examples, rows)
        ]
        batch = {
            "input_ids": self._padded(rows, self.tokenizer.pad_token_id),
            "attention_mask": self._padded(masks, 0),
        }
        return batch, flipped

    def _padded(self, rows, value):
        length, multiple = max(map(len, rows)), self.pad_to_multiple_of or 1
        padded = rows[0].new_full((len(rows), -(-length // multiple) * multiple), value)
        for target, row in zip(padded, rows):
            first = len(target) - len(row) if self.tokenizer.padding_side == "left" else 0
            target[first : first + len(row)] = row
        return padded


@dataclass
class ClassificationCollator(PaddingCollator):
    """
    Batches for classifiers: one class, several labels, or numbers a sequence.

    Examples have `input_ids` and `label` or `labels`: an `int` (a class), a `float` (regression), or a list of them
    (multi-label; they become `float`, as the loss wants them). Batches have `input_ids`, `attention_mask` of shape
    `(batch, length)`, and `labels` of shape `(batch,)` or `(batch, labels)`.

    Args:
        tokenizer: As those of [`PaddingCollator`].
        pad_to_multiple_of: As those of [`PaddingCollator`].
        reverse_complement: As those of [`PaddingCollator`].
    """

    def __call__(self, examples):
        batch, _ = self._inputs(examples)
        name = next((name for name in _LABEL_NAMES if name in examples[0]), None)
        if name is not None:
            labels = torch.stack([torch.as_tensor(example[name]) for example in examples])
            batch["labels"] = labels.float() if labels.dim() > 1 or labels.is_floating_point() else labels.long()
        return batch


@dataclass
class CausalCollator(PaddingCollator):
    """
    Batches for next-nucleotide training.

    Examples have `input_ids`, and perhaps `labels` of the same length (-100 where there is nothing to predict).
    Batches have `input_ids`, `attention_mask` and `labels`, all of shape `(batch, length)`; labels are the ids that
    stand at the same place (models shift them), and -100 at [PAD], at masked positions, at N, and at the first real
    position of a row: nothing predicts it, and so the Trainer neither counts it nor, when it smooths labels, scores it
    against the padding before it.

    Args:
        tokenizer: As those of [`PaddingCollator`].
        pad_to_multiple_of: As those of [`PaddingCollator`].
        reverse_complement: As those of [`PaddingCollator`].
        ignore_n: Leave N out of the labels; `False`: predict it like a base.
    """

    ignore_n: bool = True

    def __call__(self, examples):
        batch, flipped = self._inputs(examples)
        ids = batch["input_ids"]
        ignored = (batch["attention_mask"] == 0) | (ids == self.tokenizer.pad_token_id)
        if self.ignore_n:
            ignored |= ids == VOCABULARY["N"]
        ignored.scatter_(1, batch["attention_mask"].argmax(1, keepdim=True), True)
        if "labels" in examples[0]:
            given = [
                _with_bases_flipped(example) if flip else torch.as_tensor(example["labels"])
                for example, flip in zip(examples, flipped)
            ]
            ignored |= self._padded(given, IGNORED) == IGNORED
        return {**batch, "labels": ids.masked_fill(ignored, IGNORED)}


@dataclass
class MaskedCollator(PaddingCollator):
    """
    Batches for masked-language training, which the bidirectional variant wants.

    Of the positions with A, C, G or T a share of `probability` is to be predicted: 80 % of these become [MASK], 10 % a
    random base, 10 % stay (Devlin et al. 2019). Special tokens, [PAD] and N are never chosen. Batches have `input_ids`,
    `attention_mask` and `labels` (-100 where nothing is to be predicted), all of shape `(batch, length)`.

    Args:
        tokenizer: As those of [`PaddingCollator`].
        pad_to_multiple_of: As those of [`PaddingCollator`].
        reverse_complement: As those of [`PaddingCollator`].
        probability: Share of the bases to predict.
    """

    probability: float = 0.15

    def __call__(self, examples):
        batch, _ = self._inputs(examples)
        ids = batch["input_ids"]
        chosen = torch.isin(ids, _BASES) & (batch["attention_mask"] == 1) & (torch.rand(ids.shape) < self.probability)
        fate = torch.rand(ids.shape)
        batch["input_ids"] = torch.where(chosen & (fate < 0.8), VOCABULARY["[MASK]"], ids)
        random_bases = _BASES[torch.randint(len(_BASES), ids.shape)]
        batch["input_ids"] = torch.where(chosen & (fate >= 0.9), random_bases, batch["input_ids"])
        return {**batch, "labels": ids.masked_fill(~chosen, IGNORED)}


def _with_bases_flipped(example):
    """The labels of an example with those of its nucleotides in reverse order, as on the other strand."""
    ids, labels = (torch.as_tensor(example[name]) for name in ("input_ids", "labels"))
    is_nucleotide = ids >= min(NUCLEOTIDE_IDS)
    flipped = labels.clone()
    flipped[is_nucleotide] = labels[is_nucleotide].flip(0)
    return flipped
