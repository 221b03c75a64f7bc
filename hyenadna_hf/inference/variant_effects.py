"""
Several scores of variants from one pass over each haplotype.

- `llr`: log-likelihood ratio of the alternate against the reference haplotype, in nats; see [`score_variants`].
- `abs_llr`: its absolute value.
- `jsd`: mean Jensen-Shannon divergence, in bits, between the next-base distributions of the two haplotypes, over the
  bases after the alleles. Base k after the reference allele is compared with base k after the alternate allele; only A,
  C, G and T count.
- `embedding_distance`: Euclidean distance between the mean last hidden states of the two haplotypes. The two are nearly
  equal, so that rounding would dominate a cosine distance.

Each score is the mean over the strands that have it. The haplotypes are those of [`score_variants`].
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import torch
from scipy.special import rel_entr
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ..data.fasta import Fasta
from ..data.sequence import BASES
from ..errors import InputError
from ..model.padding_hyenadna import pool_positions
from .batching import inference_of
from .embed import base_model_of
from .likelihood import MAX_TOKENS, BaseLikelihood
from .variants import WINDOW, Locus, Variant, log_ratio, scored_loci

SCORES = ("llr", "abs_llr", "jsd", "embedding_distance")


@dataclass(frozen=True)
class VariantEffect:
    """
    Scores of a variant, or the reason why it has none.

    Attributes:
        variant: The variant.
        scores: Scores by name, `None` if no strand has a score.
        reason: Reason why the variant has no score at all, a key of [`~hyenadna_hf.inference.variants.REASONS`].
    """

    variant: Variant
    scores: dict[str, float | None] = field(default_factory=dict)
    reason: str | None = None


def score_variant_effects(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    variants: Iterable[Variant],
    fasta: Fasta,
    scores: Sequence[str] = SCORES,
    window: int = WINDOW,
    bos: bool = False,
    max_tokens: int = MAX_TOKENS,
) -> Iterator[VariantEffect]:
    """
    Compute several scores of many variants, in memory that does not grow with their number.

    Args:
        model: A HyenaDNA language model, with or without PEFT adapters. Its device and mode do not change.
        tokenizer: Tokenizer of the model. No special tokens are added.
        variants: Variants to score, read lazily.
        fasta: Reference genome.
        scores: Names of scores, among `llr`, `abs_llr`, `jsd` and `embedding_distance`.
        window: Length of the window around a variant, in bases.
        bos: Prepend [BOS] to each haplotype. Means exclude it.
        max_tokens: Tokens in a batch, padding included.

    Returns:
        An iterator of [`VariantEffect`], one per variant, in order.

    Raises:
        InputError: Immediately if an argument is invalid.
    """
    wrong = [name for name in scores if name not in SCORES]
    if wrong or not scores:
        raise InputError(f"scores={list(scores)}: give one or more of {', '.join(SCORES)}.")
    loci = scored_loci(HaplotypeReader(model, tokenizer, bos, max_tokens), variants, fasta, window)
    return (effect for locus, strands in loci for effect in _effects(locus, strands, scores))


class Reading(NamedTuple):
    """
    Results of a language model for a haplotype.

    Attributes:
        log_likelihoods: Log-probability of each base, in nats, of shape `(length,)`; NaN where it is not scored.
        log_probabilities: Log-probabilities of A, C, G and T at each base given the bases before it, of shape
            `(length, 4)`; NaN for the first base without [BOS].
        embedding: Mean of the last hidden states over the bases, of shape `(d_model,)`.
    """

    log_likelihoods: np.ndarray
    log_probabilities: np.ndarray
    embedding: np.ndarray


class HaplotypeReader(BaseLikelihood):
    """A [`BaseLikelihood`] that returns a [`Reading`] for each sequence."""

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        bos: bool = False,
        max_tokens: int = MAX_TOKENS,
    ) -> None:
        super().__init__(model, tokenizer, bos, max_tokens)
        self.shares_prefixes = False  # embeddings are means over whole haplotypes
        self._base = base_model_of(model)

    def score_batch(self, sequences: list[str]) -> list[Any]:
        ids = self.tokens(sequences)
        lengths = torch.tensor([len(sequence) for sequence in sequences], device=ids.device)
        with inference_of(self.model):
            hidden = self._base(input_ids=ids).last_hidden_state
            logits = self.model.get_output_embeddings()(hidden[:, :-1])
            log_likelihoods = self._log_probabilities(logits, ids[:, 1:])
            log_probabilities = logits[..., self.base_ids.to(ids.device)].float().log_softmax(-1).cpu().numpy()
            bases = hidden[:, int(self.bos) :].float()
            is_base = torch.arange(bases.shape[1], device=ids.device) < lengths[:, None]
            embeddings = pool_positions(bases, is_base, "mean").cpu().numpy()
        if not self.bos:
            log_likelihoods = np.pad(log_likelihoods, ((0, 0), (1, 0)), constant_values=np.nan)
            log_probabilities = np.pad(log_probabilities, ((0, 0), (1, 0), (0, 0)), constant_values=np.nan)
        return [
            Reading(log_likelihoods[row, : len(sequence)], log_probabilities[row, : len(sequence)], embeddings[row])
            for row, sequence in enumerate(sequences)
        ]


def _effects(locus: Locus, strands: list[list[tuple[str, Reading]]], names: Sequence[str]) -> Iterator[VariantEffect]:
    """Yield the scores of each variant of a locus, from the readings of the haplotypes on each strand."""
    alternates = zip(*(readings for _, *readings in strands))
    for variant, reason in zip(locus.variants, locus.reasons):
        if reason is not None:
            yield VariantEffect(variant, reason=reason)
            continue
        pairs = [(reference, alternate) for (reference, *_), alternate in zip(strands, next(alternates))]
        scores = {name: _score(name, variant, pairs, locus.offsets) for name in names}
        has_no_score = all(score is None for score in scores.values())
        yield VariantEffect(variant, scores, "nothing_to_compare" if has_no_score else None)


def _score(name: str, variant: Variant, pairs: list[Any], offsets: Sequence[int]) -> float | None:
    """Compute a score of a variant as the mean over the strands that have it."""
    if name == "abs_llr":
        ratio = _score("llr", variant, pairs, offsets)
        return None if ratio is None else abs(ratio)
    strand_scores = []
    for (reference, alternate), offset in zip(pairs, offsets):
        if name == "llr":
            haplotypes = ((haplotype, reading.log_likelihoods) for haplotype, reading in (reference, alternate))
            strand_scores.append(log_ratio(*haplotypes))
        elif name == "jsd":
            alleles: tuple[Any, ...] = (variant.reference, variant.alternate)
            downstream = [
                (haplotype[offset + len(allele) :], reading.log_probabilities[offset + len(allele) :])
                for (haplotype, reading), allele in zip((reference, alternate), alleles)
            ]
            strand_scores.append(_mean_divergence(*downstream))
        else:
            difference = np.float64(alternate[1].embedding) - reference[1].embedding
            strand_scores.append(float(np.linalg.norm(difference)))
    scores = [score for score in strand_scores if score is not None]
    return sum(scores) / len(scores) if scores else None


def _mean_divergence(reference: tuple[str, np.ndarray], alternate: tuple[str, np.ndarray]) -> float | None:
    """
    Compute the mean Jensen-Shannon divergence, in bits, over the bases that both haplotypes contain.

    Args:
        reference: Bases, and log-probabilities of A, C, G and T at each base, of shape `(length, 4)`.
        alternate: The same for the alternate haplotype, whose bases are equal but may end earlier or later.

    Returns:
        The divergence, or `None` if no base is A, C, G or T.
    """
    common = min(len(reference[0]), len(alternate[0]))
    counted = [base in BASES for base in reference[0][:common]]
    if not any(counted):
        return None
    p, q = (np.exp(np.float64(values[:common][counted])) for _, values in (reference, alternate))
    middle = (p + q) / 2
    divergences = (rel_entr(p, middle) + rel_entr(q, middle)).sum(1) / (2 * np.log(2))
    return float(divergences.mean())
