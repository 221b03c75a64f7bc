"""
Scores of variants that need more than the likelihood of their haplotypes, all from one pass over each haplotype.

- `llr`: log-likelihood ratio of the alternate haplotype against the reference, in nats; see [`score_variants`].
- `abs_llr`: its absolute value.
- `jsd`: mean Jensen-Shannon divergence, in bits, between the distributions of the next base that the model gives in
  either haplotype, over the bases after the alleles. It compares the same bases of the reference in both: base k after
  the reference allele with base k after the alternate allele, of which only A, C, G and T count.
- `embedding_distance`: Euclidean distance between the means of the last hidden states over either haplotype. The two
  are nearly equal, and a cosine would lose their difference to rounding.

Each is computed on both strands and averaged over those that have it. The haplotypes are those of [`score_variants`].
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import torch
from scipy.special import rel_entr
from transformers import PreTrainedTokenizerBase

from ..data.fasta import Fasta
from ..data.sequence import BASES
from ..errors import InputError
from ..model.padding_hyenadna import pool_positions
from .batching import inference_of
from .embed import base_model_of
from .likelihood import MAX_TOKENS, BaseLikelihood
from .variants import WINDOW, Variant, log_ratio, scored_loci

SCORES = ("llr", "abs_llr", "jsd", "embedding_distance")


@dataclass(frozen=True)
class VariantEffect:
    """
    The scores of a variant, or why there are none.

    Attributes:
        variant ([`Variant`]): What was scored.
        scores (`dict[str, float | None]`): By name; `None` where no strand has it.
        reason (`str`, *optional*): Why there is no score at all: a key of
            [`~hyenadna_hf.inference.variants.REASONS`].
    """

    variant: Variant
    scores: dict[str, float | None] = field(default_factory=dict)
    reason: str | None = None


def score_variant_effects(
    model: torch.nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    variants: Iterable[Variant],
    fasta: Fasta,
    scores: Sequence[str] = SCORES,
    window: int = WINDOW,
    bos: bool = False,
    max_tokens: int = MAX_TOKENS,
) -> Iterator[VariantEffect]:
    """
    Score many variants in several ways, in memory that does not grow with their number.

    Args:
        model ([`HyenaDNAForCausalLM`], also with PEFT adapters): The language model; its device and mode are left as
            they are found.
        tokenizer ([`HyenaDNATokenizer`]): Its tokenizer; no special tokens are added.
        variants (iterable of [`Variant`]): Read lazily.
        fasta ([`~hyenadna_hf.data.fasta.Fasta`]): The reference.
        scores (`list[str]`): Some of `llr`, `abs_llr`, `jsd` and `embedding_distance`; all by default.
        window (`int`, defaults to 1024): Bases of the reference around a variant.
        bos (`bool`, defaults to `False`): Put [BOS] before each haplotype; it is not among what is averaged.
        max_tokens (`int`, defaults to 16384): Tokens in a batch, padding included.

    Returns:
        iterator of [`VariantEffect`], one a variant, in their order.

    Raises:
        InputError: at once, if an argument is invalid.
    """
    wrong = [name for name in scores if name not in SCORES]
    if wrong or not scores:
        raise InputError(f"scores={list(scores)}: give one or more of {', '.join(SCORES)}.")
    loci = scored_loci(HaplotypeReader(model, tokenizer, bos, max_tokens), variants, fasta, window)
    return (effect for locus, strands in loci for effect in _effects(locus, strands, scores))


class Reading(NamedTuple):
    """
    What a language model makes of a haplotype.

    Attributes:
        log_likelihoods (`np.ndarray` of shape `(length,)`): Of each base, in nats; NaN where it is not scored.
        log_probabilities (`np.ndarray` of shape `(length, 4)`): Of A, C, G and T at each base, given those before it;
            NaN for the first, unless [BOS] stands before it.
        embedding (`np.ndarray` of shape `(d_model,)`): Mean of the last hidden states over the bases.
    """

    log_likelihoods: np.ndarray
    log_probabilities: np.ndarray
    embedding: np.ndarray


class HaplotypeReader(BaseLikelihood):
    """A [`BaseLikelihood`] that gives a [`Reading`] of each sequence."""

    def __init__(self, model, tokenizer, bos=False, max_tokens=MAX_TOKENS):
        super().__init__(model, tokenizer, bos, max_tokens)
        self.shares_prefixes = False  # embeddings are means over whole haplotypes
        self._base = base_model_of(model)

    def score_batch(self, sequences):
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


def _effects(locus, strands, names):
    """[`VariantEffect`] of each variant of a locus, from the haplotypes of each strand and their readings."""
    alternates = zip(*(others for _, *others in strands))
    for variant, reason in zip(locus.variants, locus.reasons):
        if reason is not None:
            yield VariantEffect(variant, reason=reason)
            continue
        pairs = [(reference, other) for (reference, *_), other in zip(strands, next(alternates))]
        scores = {name: _score(name, variant, pairs, locus.offsets) for name in names}
        nothing = all(score is None for score in scores.values())
        yield VariantEffect(variant, scores, "nothing_to_compare" if nothing else None)


def _score(name, variant, pairs, offsets):
    """A score of a variant: the mean over the strands that have it."""
    if name == "abs_llr":
        ratio = _score("llr", variant, pairs, offsets)
        return None if ratio is None else abs(ratio)
    of_strands = []
    for (reference, alternate), offset in zip(pairs, offsets):
        if name == "llr":
            haplotypes = ((haplotype, reading.log_likelihoods) for haplotype, reading in (reference, alternate))
            of_strands.append(log_ratio(*haplotypes))
        elif name == "jsd":
            alleles = (variant.reference, variant.alternate)
            downstream = [
                (haplotype[offset + len(allele) :], reading.log_probabilities[offset + len(allele) :])
                for (haplotype, reading), allele in zip((reference, alternate), alleles)
            ]
            of_strands.append(_mean_divergence(*downstream))
        else:
            difference = np.float64(alternate[1].embedding) - reference[1].embedding
            of_strands.append(float(np.linalg.norm(difference)))
    there = [score for score in of_strands if score is not None]
    return sum(there) / len(there) if there else None


def _mean_divergence(reference, alternate):
    """
    Mean Jensen-Shannon divergence over the bases that both have.

    Args:
        reference, alternate (`tuple[str, np.ndarray]`): The same bases, as far as each goes, and the log-probabilities
            of A, C, G and T at each, of shape `(length, 4)`.

    Returns:
        `float` or `None`: in bits; `None` if there is no A, C, G or T.
    """
    common = min(len(reference[0]), len(alternate[0]))
    counted = [base in BASES for base in reference[0][:common]]
    if not any(counted):
        return None
    p, q = (np.exp(np.float64(values[:common][counted])) for _, values in (reference, alternate))
    middle = (p + q) / 2
    divergences = (rel_entr(p, middle) + rel_entr(q, middle)).sum(1) / (2 * np.log(2))
    return float(divergences.mean())
