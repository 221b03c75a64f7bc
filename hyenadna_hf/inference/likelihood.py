"""
Log-likelihoods of DNA under a HyenaDNA language model.

The probability of a base is conditional on the bases before it and normalised over A, C, G and T, so that a model
without knowledge gives log(1/4) = -1.386 nats per base. Other letters (N and the other ambiguity codes) are read as
context but not scored.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby, islice
from operator import itemgetter
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ..data.sequence import BASES, NOT_A_NUCLEOTIDE, normalise, reverse_complement, shared_prefix_length
from ..errors import InputError
from ..loading import check_tokenizer
from ..model.cache_hyenadna import HyenaDNACache
from .batching import BATCHES_AHEAD, chunks_of, inference_of, length_bucketed
from .tiling import tiles

STRANDS = ("forward", "both")
MAX_TOKENS = 16_384
LEAST_SHARED = 64  # bases of a prefix that is worth a call of its own


@dataclass(frozen=True)
class SequenceLikelihood:
    """
    Likelihood of a sequence under a language model.

    Attributes:
        log_likelihood: Sum of the log-probabilities of the scored bases, in nats; with both strands, the mean of the
            two sums.
        scored: Number of scored bases; with both strands, the mean of the two numbers.
        skipped: Number of bases that are not A, C, G, T or U.
        per_base: Log-probability of each base, in nats, float32, NaN where it is not scored, shape `(length,)`; with
            both strands, the mean over those that score it, in forward coordinates.
    """

    log_likelihood: float
    scored: float
    skipped: int
    per_base: np.ndarray | None = None


def sequence_log_likelihood(
    model: torch.nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    sequences: Iterable[str],
    strands: str = "forward",
    bos: bool = False,
    per_base: bool = False,
    window: int | None = None,
    stride: int | None = None,
    max_tokens: int = MAX_TOKENS,
) -> Iterator[SequenceLikelihood]:
    """
    Compute the log-likelihood of many sequences, in memory that does not grow with their number.

    The first base of a sequence has no context and is not scored unless `bos` is set. Sequences longer than `window`
    are read as overlapping tiles, stitched in the middle of the overlap: each base is scored once, and every base
    outside the first tile has at least half an overlap, `(window - stride) // 2` bases, of context.

    Args:
        model: A HyenaDNA language model, with or without PEFT adapters. Its device and mode do not change.
        tokenizer: Tokenizer of the model. No special tokens are added.
        sequences: IUPAC nucleotide codes in either case. Read lazily.
        strands: `"forward"`, or `"both"` for the mean over the sequence and its reverse complement.
        bos: Prepend [BOS] to each sequence, and also score the first base.
        per_base: Return the value of each base, too.
        window: Bases in a tile. Defaults to the longest that the model supports.
        stride: Bases from one tile to the next; at most `window` - 2, so that every base has context (with `bos`, at
            most `window`). Defaults to half of `window`.
        max_tokens: Tokens in a batch, padding included. A longer tile is a batch by itself.

    Returns:
        An iterator of [`SequenceLikelihood`], in the order of the sequences.

    Raises:
        InputError: Immediately if an argument is invalid; while iterating if a sequence contains characters other than
            IUPAC nucleotide codes.
    """
    likelihood = BaseLikelihood(model, tokenizer, bos, max_tokens)
    window, stride = likelihood.tile_size(window, stride)
    check_strands(strands)
    if isinstance(sequences, str):
        raise InputError("sequences is a single string; give a list of strings.")
    pieces = (
        (index, sequence[tile.start : tile.end], tile.kept)
        for index, sequence in enumerate(map(_check_sequence, sequences))
        for tile in tiles(len(sequence), window, stride)
    )
    return _sequence_likelihoods(tile_log_likelihoods(likelihood, pieces, strands), per_base)


def check_strands(strands: str) -> None:
    """Raise an `InputError` if `strands` is neither `"forward"` nor `"both"`."""
    if strands not in STRANDS:
        raise InputError(f"strands={strands!r}: choose one of {', '.join(STRANDS)}.")


def _check_sequence(sequence: str) -> str:
    wrong = NOT_A_NUCLEOTIDE.search(sequence)
    if wrong:
        raise InputError(
            f"sequences: {sequence[:20]!r}... contains {wrong[0]!r} at base {wrong.start() + 1:,}; allowed are "
            "IUPAC nucleotide codes."
        )
    return sequence


def _sequence_likelihoods(
    scored_tiles: Iterator[tuple[Any, str, np.ndarray]], per_base: bool
) -> Iterator[SequenceLikelihood]:
    for _, parts in groupby(scored_tiles, key=itemgetter(0)):
        log_likelihood, scored, skipped = 0.0, 0.0, 0
        values_per_base = []
        for _, text, values in parts:
            log_likelihood += np.nansum(values, dtype=np.float64) / len(values)
            scored += np.count_nonzero(~np.isnan(values)) / len(values)
            skipped += skipped_bases(text)
            if per_base:
                values_per_base.append(mean_of_strands(values))
        yield SequenceLikelihood(
            float(log_likelihood), scored, skipped, np.concatenate(values_per_base) if per_base else None
        )


def tile_log_likelihoods(
    likelihood: "BaseLikelihood", pieces: Iterable[tuple[Any, str, slice]], strands: str
) -> Iterator[tuple[Any, str, np.ndarray]]:
    """
    Compute the log-probabilities of the kept bases of many tiles, on each strand.

    Args:
        likelihood: Scoring function.
        pieces: Tuples of a name of any type, the sequence that the model reads, and the slice of it that is kept.
        strands: `"forward"` or `"both"`.

    Yields:
        The name, the kept bases, and their values in forward coordinates, shape `(strands, kept)`.
    """
    readings = (
        (text if forward else reverse_complement(text), name, text[kept], kept)
        for name, text, kept in pieces
        for forward in ((True,) if strands == "forward" else (True, False))
    )
    scored = likelihood.stream(readings, itemgetter(0))
    if strands == "forward":
        for (_, name, text, kept), values in scored:
            yield name, text, values[None, kept]
    else:
        for ((_, name, text, kept), forward), (_, reverse) in zip(scored, scored):
            yield name, text, np.stack([forward[kept], reverse[::-1][kept]])


def mean_of_strands(values: np.ndarray) -> np.ndarray:
    """Average values of shape `(strands, length)` over the strands that score each base; NaN where none does."""
    with np.errstate(invalid="ignore"):
        return np.nansum(values, axis=0) / np.float32(np.count_nonzero(~np.isnan(values), axis=0))


def skipped_bases(sequence: str) -> int:
    """Count the characters of a sequence that are not A, C, G, T or U."""
    return len(sequence) - sum(map(normalise(sequence).count, BASES))


class BaseLikelihood:
    """
    Map sequences to the log-probabilities of their bases under a language model.

    Args:
        model: Language model.
        tokenizer: Tokenizer of the model.
        bos: Prepend [BOS] to each sequence, and also score the first base.
        max_tokens: Tokens in a batch, padding included.

    Attributes:
        longest: Largest number of bases that the model reads at once.
        base_ids: Token ids of A, C, G and T, shape `(4,)`.
        shares_prefixes: Whether `stream_groups` may compute a shared prefix once.

    Raises:
        InputError: If the model has no language-modelling head, or the tokenizer does not produce one token per base.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        bos: bool = False,
        max_tokens: int = MAX_TOKENS,
    ) -> None:
        if getattr(model.config, "model_type", None) != "hyenadna" or model.get_output_embeddings() is None:
            raise InputError(
                f"model: {type(model).__name__} is not a HyenaDNA language model; give HyenaDNAForCausalLM."
            )
        check_tokenizer(tokenizer)
        peft_config = getattr(model, "active_peft_config", None)
        position = getattr(peft_config, "prompt_position", "before")
        if position != "before":
            raise InputError(
                f"model: its soft prompt has the position {position!r}, which changes the context of the bases; give a "
                "model with the prompt before the input, or without one."
            )
        if max_tokens < 1:
            raise InputError(f"max_tokens={max_tokens}: give at least 1.")
        self.model = model
        self.tokenizer = tokenizer
        self.bos = bos
        self.max_tokens = max_tokens
        self.longest = model.config.max_seq_len - bos
        # A learned prompt would precede each call; on devices other than a CPU, sharing has not been timed.
        self.shares_prefixes = model.device.type == "cpu" and not getattr(peft_config, "is_prompt_learning", False)
        self.base_ids = torch.tensor(tokenizer.convert_tokens_to_ids(list(BASES)))

    def tile_size(self, window: int | None = None, stride: int | None = None) -> tuple[int, int]:
        """Check `window` and `stride`, in bases, and set their defaults; raise an `InputError` if they are invalid."""
        # Without [BOS], the first base of a tile is not scored, so the middle of the overlap must come later.
        overlap = 0 if self.bos else 2
        window = self.longest if window is None else window
        if not overlap < window <= self.longest:
            raise InputError(
                f"window={window}: give {overlap + 1} to {self.longest:,} bases, the most that the model reads at once."
            )
        stride = max(1, window // 2) if stride is None else stride
        if not 1 <= stride <= window - overlap:
            raise InputError(
                f"stride={stride}: give 1 to {window - overlap:,} bases, so that every base is in a window of "
                f"{window:,} bases and has context."
            )
        return window, stride

    def stream(self, items: Iterable[Any], text: Callable[[Any], str]) -> Iterator[tuple[Any, np.ndarray]]:
        """
        Score many sequences in batches of similar length.

        Args:
            items: Items to score, read lazily; about `BATCHES_AHEAD * max_tokens` bases are held at a time.
            text: Returns the sequence of an item, at most `longest` bases.

        Yields:
            Each item in order, with the log-probability of each of its bases, in nats, float32, NaN where it is not
            scored.
        """
        for item, (values,) in self._stream(items, lambda item: [text(item)], self._score_groups):
            yield item, values

    def stream_groups(self, groups: Iterable[list[str]]) -> Iterator[list[np.ndarray]]:
        """
        Score groups of sequences that share a prefix, such as the haplotypes of a locus.

        On a CPU, the prefix of a group is computed once.

        Args:
            groups: Sequences of each group, read lazily as in [`BaseLikelihood.stream`].

        Yields:
            For each sequence of a group, the log-probability of each of its bases, in nats, float32, NaN where it is
            not scored. Bases of the shared prefix may be NaN.
        """
        for _, values in self._stream(groups, list, self._score_suffixes):
            yield values

    def _stream(self, items: Iterable[Any], texts: Callable, score: Callable) -> Iterator[tuple[Any, list]]:
        """Score the list of sequences that `texts` returns for each item; `score` takes a batch of such lists."""

        def length(item: Any) -> int:
            return sum(len(text) + self.bos for text in texts(item))

        for chunk in chunks_of(items, length, BATCHES_AHEAD * self.max_tokens):
            values: list[Any] = [None] * len(chunk)
            for batch in length_bucketed(chunk, length, self.max_tokens):
                indices, members = zip(*batch)
                for index, scored in zip(indices, score(list(map(texts, members)))):
                    values[index] = scored
            yield from zip(chunk, values)

    def _score_groups(self, groups: list[list[str]]) -> list[list[np.ndarray]]:
        scored = iter(self.score_batch([text for group in groups for text in group]))
        return [list(islice(scored, len(group))) for group in groups]

    def _score_suffixes(self, groups: list[list[str]]) -> list[list[np.ndarray]]:
        # At least one base of each sequence is left to score.
        shared = min(min(shared_prefix_length(group), min(map(len, group)) - 1) for group in groups)
        if shared < LEAST_SHARED or not self.shares_prefixes:
            return self._score_groups(groups)
        prefixes = [group[0][:shared] for group in groups]
        suffixes = [text[shared:] for group in groups for text in group]
        rows = torch.arange(len(groups)).repeat_interleave(torch.tensor([len(group) for group in groups]))
        ids = self.tokens(suffixes, continued=True)
        with inference_of(self.model):
            cache = HyenaDNACache(self.model.config, expected_length=self.bos + shared + ids.shape[1])
            last = self.model(input_ids=self.tokens(prefixes), past_key_values=cache, logits_to_keep=1).logits
            cache.batch_select_indices(rows)
            logits = self.model(input_ids=ids, past_key_values=cache).logits
            logits = torch.cat([last[rows.to(last.device)], logits[:, :-1]], dim=1)
            values = self._log_probabilities(logits, ids)
        values = np.pad(values, ((0, 0), (shared, 0)), constant_values=np.nan)
        scored = (row[: shared + len(suffix)] for row, suffix in zip(values, suffixes))
        return [list(islice(scored, len(group))) for group in groups]

    def score_batch(self, sequences: list[str]) -> list[np.ndarray]:
        """Score a batch of sequences: an array of log-probabilities for each, as in `stream`."""
        if not any(sequences):
            return [np.empty(0, np.float32) for _ in sequences]
        ids = self.tokens(sequences)
        with inference_of(self.model):
            logits = self.model(input_ids=ids).logits[:, -ids.shape[1] :]  # after a soft prompt, if there is one
            values = self._log_probabilities(logits[:, :-1], ids[:, 1:])
        if not self.bos:
            values = np.pad(values, ((0, 0), (1, 0)), constant_values=np.nan)
        return [row[: len(sequence)] for row, sequence in zip(values, sequences)]

    def tokens(self, sequences: list[str], continued: bool = False) -> torch.Tensor:
        """
        Tokenize a batch, shape `(batch, length)`. The model is causal, so padding on the right needs no mask.

        Args:
            sequences: One string per row.
            continued: Whether other tokens precede them, so that there is no [BOS].
        """
        bos = self.tokenizer.bos_token if self.bos and not continued else ""
        tokens = self.tokenizer(
            [bos + sequence for sequence in sequences],
            add_special_tokens=False,
            padding=True,
            padding_side="right",
            return_tensors="pt",
        )
        return tokens["input_ids"].to(self.model.device)

    def _log_probabilities(self, logits: torch.Tensor, ids: torch.Tensor) -> np.ndarray:
        """
        Compute the log-probabilities of the tokens `ids`, shape `(batch, length)`; NaN for tokens that are not bases.
        """
        bases = self.base_ids.to(ids.device)
        logits = logits[..., bases]
        log_p = logits.to(torch.promote_types(logits.dtype, torch.float32)).log_softmax(-1)
        is_base = ids[..., None] == bases  # [B, L, 4]
        values = log_p.where(is_base, 0).sum(-1).masked_fill(~is_base.any(-1), torch.nan)
        return values.float().cpu().numpy()
