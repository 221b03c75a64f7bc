"""
Log-likelihoods of DNA under a HyenaDNA language model.

The probability of a base is that of the model given the bases before it, normalised over A, C, G and T alone, so that a
model without knowledge gives log(1/4) = -1.386 nats a base. Everything else (N and the other ambiguity codes) is read
as context but not scored.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter

import numpy as np
import torch
from transformers import PreTrainedTokenizerBase

from ..data.sequence import BASES, NOT_A_NUCLEOTIDE, normalised, reverse_complement
from ..errors import InputError
from ..loading import check_tokenizer
from .batching import BATCHES_AHEAD, chunks_of, inference_of, length_bucketed
from .tiling import tiles

STRANDS = ("forward", "both")
MAX_TOKENS = 16_384


@dataclass(frozen=True)
class SequenceLikelihood:
    """
    What a language model makes of a sequence.

    Attributes:
        log_likelihood (`float`): Sum of the log-probabilities of the scored bases, in nats; with both strands the mean
            of the two sums.
        scored (`float`): Number of scored bases; with both strands the mean of the two numbers.
        skipped (`int`): Number of bases that are not A, C, G, T or U.
        per_base (`np.ndarray` of shape `(length,)`, *optional*): Log-probability of each base, in nats, float32, NaN
            where it is not scored; with both strands the mean over those that score it, on forward coordinates.
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
    Log-likelihood of each of many sequences, in memory that does not grow with their number.

    The first base of a sequence has nothing before it and is not scored, unless `bos` is set. Sequences longer than
    `window` are read as overlapping tiles that are stitched at the middle of the overlap: each base is scored once, and
    every base but those of the first tile has at least half an overlap, `(window - stride) // 2` bases, before it.

    Args:
        model ([`HyenaDNAForCausalLM`], also with PEFT adapters): The language model; its device and mode are left as
            they are found.
        tokenizer ([`HyenaDNATokenizer`]): Its tokenizer; no special tokens are added.
        sequences (iterable of `str`): IUPAC nucleotide codes in either case. Read lazily.
        strands (`str`, defaults to `"forward"`): `"both"`: the mean over the sequence and its reverse complement.
        bos (`bool`, defaults to `False`): Put [BOS] before each sequence, and score the first base after it.
        per_base (`bool`, defaults to `False`): Give the value of each base too.
        window (`int`, *optional*): Bases in a tile. Defaults to as many as the model takes.
        stride (`int`, *optional*): From a tile to the next, in bases; less than `window` by at least 2, so that every
            base has one before it (with `bos`, at most `window`). Defaults to half of `window`.
        max_tokens (`int`, defaults to 16384): Tokens in a batch, padding included. A longer tile is a batch by itself.

    Returns:
        iterator of [`SequenceLikelihood`], in the order of the sequences.

    Raises:
        InputError: at once if an argument will not do; on the way if a sequence has other characters than IUPAC
            nucleotide codes.
    """
    likelihood = BaseLikelihood(model, tokenizer, bos, max_tokens)
    window, stride = likelihood.tile_size(window, stride)
    check_strands(strands)
    if isinstance(sequences, str):
        raise InputError("sequences is a single string; give a list of strings.")
    pieces = (
        (index, sequence[tile.start : tile.end], tile.kept)
        for index, sequence in enumerate(map(_checked, sequences))
        for tile in tiles(len(sequence), window, stride)
    )
    return _sequence_likelihoods(tile_log_likelihoods(likelihood, pieces, strands), per_base)


def check_strands(strands):
    """Refuse, by an `InputError`, another value of `strands` than `"forward"` and `"both"`."""
    if strands not in STRANDS:
        raise InputError(f"strands={strands!r}: it must be one of {', '.join(STRANDS)}.")


def _checked(sequence):
    wrong = NOT_A_NUCLEOTIDE.search(sequence)
    if wrong:
        raise InputError(
            f"sequences: there is {wrong[0]!r} at base {wrong.start() + 1:,} of {sequence[:20]!r}...; allowed are "
            "IUPAC nucleotide codes."
        )
    return sequence


def _sequence_likelihoods(scored_tiles, per_base):
    for _, parts in groupby(scored_tiles, key=itemgetter(0)):
        log_likelihood = scored = skipped = 0
        values_of_bases = []
        for _, text, values in parts:
            log_likelihood += np.nansum(values, dtype=np.float64) / len(values)
            scored += np.count_nonzero(~np.isnan(values)) / len(values)
            skipped += skipped_bases(text)
            if per_base:
                values_of_bases.append(mean_of_strands(values))
        yield SequenceLikelihood(
            float(log_likelihood), scored, skipped, np.concatenate(values_of_bases) if per_base else None
        )


def tile_log_likelihoods(likelihood, pieces, strands):
    """
    Log-probabilities of the kept bases of many tiles, on each strand.

    Args:
        likelihood ([`BaseLikelihood`]): What scores.
        pieces (iterable of `tuple`): A name of any kind, what the model reads, and the slice of it that is kept.
        strands (`str`): `"forward"` or `"both"`.

    Yields:
        `tuple`: the name, the kept bases, and their values, on forward coordinates, of shape `(strands, kept)`.
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


def mean_of_strands(values):
    """`(strands, length)` to `(length,)`: the mean over the strands that score a base, NaN where none does."""
    with np.errstate(invalid="ignore"):
        return np.nansum(values, axis=0) / np.float32(np.count_nonzero(~np.isnan(values), axis=0))


def skipped_bases(sequence):
    """How many of a sequence's characters are not A, C, G, T or U."""
    return len(sequence) - sum(map(normalised(sequence).count, BASES))


class BaseLikelihood:
    """
    A language model as a function: from sequences to the log-probabilities of their bases.

    Args:
        model ([`HyenaDNAForCausalLM`], also with PEFT adapters): The language model.
        tokenizer ([`HyenaDNATokenizer`]): Its tokenizer.
        bos (`bool`, defaults to `False`): Put [BOS] before each sequence, and score the first base after it.
        max_tokens (`int`, defaults to 16384): Tokens in a batch, padding included.

    Attributes:
        longest (`int`): The most bases that go into the model at once.
        base_ids (`torch.LongTensor` of shape `(4,)`): The tokens of A, C, G and T.

    Raises:
        InputError: if the model has no language-modelling head, or the tokenizer not one token a base.
    """

    def __init__(self, model, tokenizer, bos=False, max_tokens=MAX_TOKENS):
        if getattr(model.config, "model_type", None) != "hyenadna" or model.get_output_embeddings() is None:
            raise InputError(f"model: {type(model).__name__} is no HyenaDNA language model; give HyenaDNAForCausalLM.")
        check_tokenizer(tokenizer)
        if max_tokens < 1:
            raise InputError(f"max_tokens={max_tokens}: give 1 or more.")
        self.model = model
        self.tokenizer = tokenizer
        self.bos = bos
        self.max_tokens = max_tokens
        self.longest = model.config.max_seq_len - bos
        self.base_ids = torch.tensor(tokenizer.convert_tokens_to_ids(list(BASES)))

    def tile_size(self, window=None, stride=None):
        """`window` and `stride` in bases, with their defaults; an `InputError` if they will not do."""
        # Without [BOS], a tile's first base is not scored: the middle of the overlap must be a later one.
        overlap = 0 if self.bos else 2
        window = self.longest if window is None else window
        if not overlap < window <= self.longest:
            raise InputError(
                f"window={window}: give {overlap + 1} to {self.longest:,} bases; no more go into the model at once."
            )
        stride = max(1, window // 2) if stride is None else stride
        if not 1 <= stride <= window - overlap:
            raise InputError(
                f"stride={stride}: give 1 to {window - overlap:,} bases, so that every base falls into a window of "
                f"{window:,} and has one before it."
            )
        return window, stride

    def stream(self, items, text):
        """
        Score many sequences, in batches of like length.

        Args:
            items (iterable): Read lazily; at a time, about `BATCHES_AHEAD * max_tokens` bases of them are held.
            text (`Callable`): Gives the sequence of an item: a `str` of at most `longest` bases.

        Yields:
            `tuple`: an item and the log-probability of each of its bases, in nats, float32, NaN where it is not
            scored; in the order of the items.
        """

        def length(item):
            return len(text(item)) + self.bos

        for chunk in chunks_of(items, length, BATCHES_AHEAD * self.max_tokens):
            values = [None] * len(chunk)
            for batch in length_bucketed(chunk, length, self.max_tokens):
                indices, members = zip(*batch)
                for index, scored in zip(indices, self.score_batch([*map(text, members)])):
                    values[index] = scored
            yield from zip(chunk, values)

    def score_batch(self, sequences):
        """Score a batch, a `list[str]`: the list of what `stream` yields of each sequence."""
        if not any(sequences):
            return [np.empty(0, np.float32) for _ in sequences]
        ids = self.tokens(sequences)
        with inference_of(self.model):
            logits = self.model(input_ids=ids).logits[:, -ids.shape[1] :]  # behind a soft prompt, if there is one
            values = self._log_probabilities(logits[:, :-1], ids[:, 1:])
        if not self.bos:
            values = np.pad(values, ((0, 0), (1, 0)), constant_values=np.nan)
        return [row[: len(sequence)] for row, sequence in zip(values, sequences)]

    def tokens(self, sequences):
        """Token ids, `(batch, length)`. The model is causal: padding on the right is never seen and needs no mask."""
        tokens = self.tokenizer(
            [self.tokenizer.bos_token * self.bos + sequence for sequence in sequences],
            add_special_tokens=False,
            padding=True,
            padding_side="right",
            return_tensors="pt",
        )
        return tokens["input_ids"].to(self.model.device)

    def _log_probabilities(self, logits, ids):
        """Of the tokens `ids`, `(batch, length)`, given logits for each; NaN for those that are no base."""
        bases = self.base_ids.to(ids.device)
        logits = logits[..., bases]
        log_p = logits.to(torch.promote_types(logits.dtype, torch.float32)).log_softmax(-1)
        is_base = ids[..., None] == bases  # [B, L, 4]
        values = log_p.where(is_base, 0).sum(-1).masked_fill(~is_base.any(-1), torch.nan)
        return values.float().cpu().numpy()
