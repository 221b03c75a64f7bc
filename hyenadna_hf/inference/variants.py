"""
Variant effects: how much more likely a language model finds the alternate allele than the reference allele.

The score is `log p(alternate haplotype) - log p(reference haplotype)` in nats, over a window of the reference around
the variant, averaged over both strands. It is negative if the model finds the alternate less likely. Evo 2 (Brixi et
al. 2025) scores variants in the same way.

On each strand, both haplotypes start at the same base, the first one of the window, and are scored over the same number
of bases, as in tangermeme, which trims to equal lengths. Without this they would not be comparable: each additional
base costs about 1.3 nats, which would hide the effect of a deletion or insertion. Therefore an alternate with a
deletion continues into the reference after the window, and one with an insertion ends before the window does. Bases
before the first difference are not scored, since a causal model gives them the same probability in both haplotypes.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby, tee
from typing import Any, NamedTuple

import numpy as np
import torch
from transformers import PreTrainedTokenizerBase

from ..data.fasta import Fasta
from ..data.intervals import centre_window
from ..data.sequence import BASES, normalise, reverse_complement, shared_prefix_length
from ..errors import InputError
from .likelihood import MAX_TOKENS, BaseLikelihood, skipped_bases

WINDOW = 1024

# Reasons why a variant has no score.
REASONS = {
    "contig_not_in_fasta": "the reference has no sequence of this name, or more than one",
    "no_alternate": "there is no alternate allele",
    "symbolic_allele": "a symbolic alternate such as <DEL> has no sequence",
    "spanning_deletion": "the alternate is *, a deletion from another row",
    "breakend": "the alternate joins another position of the genome",
    "ambiguous_allele": "an allele has letters other than A, C, G and T",
    "outside_contig": "the position is outside the reference sequence",
    "reference_mismatch": "the reference allele differs from the reference sequence",
    "longer_than_window": "an allele is longer than the window",
    "nothing_to_compare": "no base after the first difference is scored in both haplotypes, on either strand",
}


class Variant(NamedTuple):
    """
    An alternate allele.

    Attributes:
        contig: Name of the reference sequence; `20` and `chr20` are equivalent.
        start: First base of the reference allele, 0-based (POS of VCF minus 1).
        reference: Reference allele.
        alternate: Alternate allele.
        name: Name, as in VCF's ID.
    """

    contig: str
    start: int
    reference: str
    alternate: str | None
    name: str | None = None


@dataclass(frozen=True)
class VariantScore:
    """
    The score of a variant, or the reason why it has none.

    Attributes:
        variant: The variant.
        llr: Log-likelihood ratio of the alternate to the reference, in nats, averaged over the strands.
        llr_forward: Ratio on the forward strand. `None` if no base can be compared, for example after a deletion before
            the end of a contig or before a run of N.
        llr_reverse: Ratio on the reverse strand, or `None` as above.
        skipped: Number of bases in the reference window that are not A, C, G or T.
        reason: Reason why there is no score, a key of `REASONS`.
    """

    variant: Variant
    llr: float | None = None
    llr_forward: float | None = None
    llr_reverse: float | None = None
    skipped: int | None = None
    reason: str | None = None


def score_variants(
    model: torch.nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    variants: Iterable[Variant],
    fasta: Fasta,
    window: int = WINDOW,
    bos: bool = False,
    max_tokens: int = MAX_TOKENS,
) -> Iterator[VariantScore]:
    """
    Score many variants, in memory that does not grow with their number.

    The window has `window` bases of the reference, centred on the reference allele and shifted to stay within the
    contig. Consecutive variants that differ only in the alternate allele share the reference haplotypes.

    Args:
        model: A HyenaDNA language model, with or without PEFT adapters. Its device and mode do not change.
        tokenizer: Tokenizer of the model. No special tokens are added.
        variants: Variants to score, read lazily.
        fasta: Reference genome.
        window: Length of the window, in bases.
        bos: Prepend [BOS] to each haplotype.
        max_tokens: Tokens in a batch, padding included.

    Returns:
        An iterator of [`VariantScore`], one per variant, in order.

    Raises:
        InputError: Immediately if an argument is invalid.
    """
    loci = scored_loci(BaseLikelihood(model, tokenizer, bos, max_tokens), variants, fasta, window)
    return (score for locus, strands in loci for score in _scores(locus, strands))


def scored_loci(
    likelihood: BaseLikelihood, variants: Iterable[Variant], fasta: Fasta, window: int
) -> Iterator[tuple["Locus", list[list[tuple[str, Any]]]]]:
    """
    Score the haplotypes of variants; those that differ only in the alternate allele share the reference haplotypes.

    Args:
        likelihood: Scores haplotypes.
        variants: Variants to score, read lazily.
        fasta: Reference genome.
        window: Length of the window, in bases.

    Returns:
        An iterator of each [`Locus`] and, for each of its strands, the haplotypes with the result of `likelihood`.

    Raises:
        InputError: Immediately if the window is invalid.
    """
    if not 2 <= window <= likelihood.longest:
        raise InputError(
            f"window={window}: give 2 to {likelihood.longest:,} bases, the most that the model reads at once."
        )
    return _scored_loci(likelihood, variants, fasta, window)


def _scored_loci(
    likelihood: BaseLikelihood, variants: Iterable[Variant], fasta: Fasta, window: int
) -> Iterator[tuple["Locus", list]]:
    by_locus = groupby(variants, key=lambda variant: (variant.contig, variant.start, variant.reference))
    loci = (_locus(list(alternates), fasta, window) for _, alternates in by_locus)
    read, write = tee(loci)  # `read` is ahead of `write` by the batches of `stream_groups`
    scored = likelihood.stream_groups(strand for locus in read for strand in locus.strands)
    for locus in write:
        yield locus, [list(zip(strand, next(scored))) for strand in locus.strands]


class Locus(NamedTuple):
    """
    Variants of one reference allele.

    Attributes:
        variants: Variants that differ in the alternate.
        reasons: For each variant, the reason why it has no score, or `None`.
        strands: Haplotypes on each strand: that of the reference, then those of the variants with a score. Empty if no
            variant has a score.
        offsets: Number of bases before the alleles on each strand.
        skipped: Number of bases in the window that are not A, C, G or T.
    """

    variants: list[Variant]
    reasons: list[str | None]
    strands: list[list[str]]
    offsets: tuple[int, ...] = ()
    skipped: int = 0


def _locus(variants: list[Variant], fasta: Fasta, window: int) -> Locus:
    reasons = [_missing_reason(variant, fasta, window) for variant in variants]
    alternates = [normalise(variant.alternate or "") for variant, reason in zip(variants, reasons) if reason is None]
    if not alternates:
        return Locus(variants, reasons, [])
    contig, start, reference, *_ = variants[0]
    alleles = [normalise(reference), *alternates]
    end, length = start + len(reference), fasta.lengths[fasta.resolve(contig)]
    left, right = centre_window(start, end, window, length)
    # Up to a window on either side, since a haplotype with a deletion continues after the window.
    first = max(0, start - window)
    before = normalise(fasta.fetch(contig, first, start))
    after = normalise(fasta.fetch(contig, end, min(length, end + window)))
    within_before, within_after = before[left - first :], after[: right - end]
    forward = [(within_before + allele + after)[:window] for allele in alleles]
    reverse = [reverse_complement((before + allele + within_after)[-window:]) for allele in alleles]
    skipped = skipped_bases(within_before + reference + within_after)
    return Locus(variants, reasons, [forward, reverse], (start - left, right - end), skipped)


def _missing_reason(variant: Variant, fasta: Fasta, window: int) -> str | None:
    """Return the reason why a variant cannot be scored, or `None`."""
    contig, start, reference, alternate, _ = variant
    try:
        length = fasta.lengths[fasta.resolve(contig)]
    except InputError:
        return "contig_not_in_fasta"
    if alternate in (None, "", "."):
        return "no_alternate"
    if alternate.startswith("<"):
        return "symbolic_allele"
    if alternate == "*":
        return "spanning_deletion"
    if re.search(r"[][]|^\.|\.$", alternate):
        return "breakend"
    if not reference or not set(normalise(reference + alternate)) <= set(BASES):
        return "ambiguous_allele"
    end = start + len(reference)
    if not 0 <= start < end <= length:
        return "outside_contig"
    if normalise(fasta.fetch(contig, start, end)) != normalise(reference):
        return "reference_mismatch"
    if max(len(reference), len(alternate)) > window:
        return "longer_than_window"
    return None


def _scores(locus: Locus, strands: list[list[tuple[str, np.ndarray]]]) -> Iterator[VariantScore]:
    """Yield the score of each variant of a locus, from the haplotypes on each strand and their log-probabilities."""
    ratios = iter(zip(*([log_ratio(reference, other) for other in others] for reference, *others in strands)))
    for variant, reason in zip(locus.variants, locus.reasons):
        if reason is not None:
            yield VariantScore(variant, reason=reason)
            continue
        forward, reverse = next(ratios)
        valid = [ratio for ratio in (forward, reverse) if ratio is not None]
        if valid:
            yield VariantScore(variant, sum(valid) / len(valid), forward, reverse, locus.skipped)
        else:
            yield VariantScore(variant, skipped=locus.skipped, reason="nothing_to_compare")


def log_ratio(reference: tuple[str, np.ndarray], alternate: tuple[str, np.ndarray]) -> float | None:
    """
    Compute the log-likelihood ratio of two haplotypes over the bases scored in both, from the first difference on.

    Args:
        reference: A haplotype and the log-probability of each of its bases.
        alternate: A haplotype and the log-probability of each of its bases.

    Returns:
        The ratio in nats, 0 for equal haplotypes, or `None` if there is no such base.
    """
    if reference[0] == alternate[0]:
        return 0.0
    shared = shared_prefix_length([reference[0], alternate[0]])
    changed = (values[shared:] for _, values in (reference, alternate))
    before, after = (values[~np.isnan(values)] for values in changed)
    common = min(len(before), len(after))
    if not common:
        return None
    return float(after[:common].sum(dtype=np.float64) - before[:common].sum(dtype=np.float64))
