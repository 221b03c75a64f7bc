"""
Variant effects: how much likelier a language model finds the alternate allele than the reference allele.

The score is `log p(alternate haplotype) - log p(reference haplotype)` in nats, over a window of the reference around
the variant, as the mean of the two strands. Negative: the model finds the alternate less likely.

Evo 2 (Brixi et al. 2025) scores variants so, by the ratio of the likelihoods of a window with and without the variant.

Both haplotypes of a strand begin at the same base, the window's first on that strand, and are scored over the same
number of bases, as in tangermeme, which trims to equal lengths. Otherwise they could not be compared: each further base
costs about 1.3 nats whatever it is, which would drown the effect of a deletion or an insertion. So an alternate with a
deletion reads on into the reference behind the window, and one with an insertion ends before the window does. Nothing
is scored before the first base that differs: a causal model gives what stands before it the same probability in both.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby, islice, tee
from typing import NamedTuple

import numpy as np
import torch
from transformers import PreTrainedTokenizerBase

from ..data.fasta import Fasta
from ..data.intervals import centred
from ..data.sequence import BASES, normalised, reverse_complement
from ..errors import InputError
from .likelihood import MAX_TOKENS, BaseLikelihood, skipped_bases

WINDOW = 1024

# Why a variant has no score.
REASONS = {
    "contig_not_in_fasta": "the reference has no sequence of this name, or several",
    "no_alternate": "there is no alternate allele",
    "symbolic_allele": "an alternate like <DEL> has no sequence",
    "spanning_deletion": "the alternate is *, a deletion that belongs to another row",
    "breakend": "the alternate joins another place of the genome",
    "ambiguous_allele": "an allele has other letters than A, C, G and T",
    "outside_contig": "the position is not within the reference's sequence",
    "reference_mismatch": "the reference allele is not what the reference has at this place",
    "longer_than_window": "an allele has more bases than the window",
    "nothing_to_compare": "on neither strand do both haplotypes have a base to score after the first difference",
}


class Variant(NamedTuple):
    """
    One alternate allele.

    Attributes:
        contig (`str`): Sequence of the reference; `20` and `chr20` mean the same.
        start (`int`): First base of the reference allele, from 0 (the POS of VCF, less 1).
        reference (`str`): The bases that are replaced.
        alternate (`str`, *optional*): What replaces them.
        name (`str`, *optional*): As in VCF's ID.
    """

    contig: str
    start: int
    reference: str
    alternate: str | None
    name: str | None = None


@dataclass(frozen=True)
class VariantScore:
    """
    The score of a variant, or why there is none.

    Attributes:
        variant ([`Variant`]): What was scored.
        llr (`float`, *optional*): Log-likelihood ratio, alternate against reference, in nats: the mean of the strands.
        llr_forward, llr_reverse (`float`, *optional*): That of each strand; `None` where no base can be compared, as
            after a deletion before a contig's end or a run of N.
        skipped (`int`, *optional*): Bases of the reference window that are not A, C, G or T.
        reason (`str`, *optional*): Why there is no score: a key of `REASONS`.
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

    The window is `window` bases of the reference, centred on the reference allele; at an end of the contig it is moved
    inwards. Variants in a row that differ in the alternate allele alone share the reference's side.

    Args:
        model ([`HyenaDNAForCausalLM`], also with PEFT adapters): The language model; its device and mode are left as
            they are found.
        tokenizer ([`HyenaDNATokenizer`]): Its tokenizer; no special tokens are added.
        variants (iterable of [`Variant`]): Read lazily.
        fasta ([`~hyenadna_hf.data.fasta.Fasta`]): The reference.
        window (`int`, defaults to 1024): Bases of the window.
        bos (`bool`, defaults to `False`): Put [BOS] before each haplotype.
        max_tokens (`int`, defaults to 16384): Tokens in a batch, padding included.

    Returns:
        iterator of [`VariantScore`], one a variant, in their order.

    Raises:
        InputError: at once, if an argument will not do.
    """
    loci = scored_loci(BaseLikelihood(model, tokenizer, bos, max_tokens), variants, fasta, window)
    return (score for locus, strands in loci for score in _scores(locus, strands))


def scored_loci(likelihood, variants, fasta, window):
    """
    Score the haplotypes of variants, the reference's once for those that differ in the alternate allele alone.

    Args:
        likelihood ([`BaseLikelihood`]): Scores haplotypes.
        variants (iterable of [`Variant`]), fasta, window: See [`score_variants`].

    Returns:
        iterator of `tuple`: a [`Locus`], and for each of its strands the haplotypes with what `likelihood` makes of
        each.

    Raises:
        InputError: at once, if the window is invalid.
    """
    if not 2 <= window <= likelihood.longest:
        raise InputError(f"window={window}: give 2 to {likelihood.longest:,} bases; no more go into the model at once.")
    return _scored_loci(likelihood, variants, fasta, window)


def _scored_loci(likelihood, variants, fasta, window):
    by_locus = groupby(variants, key=lambda variant: (variant.contig, variant.start, variant.reference))
    loci = (_locus(list(alternates), fasta, window) for _, alternates in by_locus)
    read, write = tee(loci)  # the first as far ahead of the second as `stream` reads
    haplotypes = (haplotype for locus in read for strand in locus.strands for haplotype in strand)
    scored = likelihood.stream(haplotypes, str)
    for locus in write:
        yield locus, [list(islice(scored, len(strand))) for strand in locus.strands]


class Locus(NamedTuple):
    """
    Variants of one reference allele.

    Attributes:
        variants (`list[Variant]`): They differ in the alternate.
        reasons (`list`): For each, why it has no score, or `None`.
        strands (`list[list[str]]`): The haplotypes on each strand: the reference's, then those of the variants with a
            score. Empty if there are none.
        offsets (`tuple[int, int]`): Bases before the alleles on each strand.
        skipped (`int`): Bases of the window that are not A, C, G or T.
    """

    variants: list
    reasons: list
    strands: list
    offsets: tuple = ()
    skipped: int = 0


def _locus(variants, fasta, window):
    reasons = [_why_not(variant, fasta, window) for variant in variants]
    alternates = [normalised(variant.alternate) for variant, reason in zip(variants, reasons) if reason is None]
    if not alternates:
        return Locus(variants, reasons, [])
    contig, start, reference, *_ = variants[0]
    alleles = [normalised(reference), *alternates]
    end, length = start + len(reference), fasta.lengths[fasta.resolve(contig)]
    left, right = centred(start, end, window, length)
    # Up to a window on either side: a haplotype with a deletion reads on after the window.
    first = max(0, start - window)
    before = normalised(fasta.fetch(contig, first, start))
    after = normalised(fasta.fetch(contig, end, min(length, end + window)))
    within_before, within_after = before[left - first :], after[: right - end]
    forward = [(within_before + allele + after)[:window] for allele in alleles]
    reverse = [reverse_complement((before + allele + within_after)[-window:]) for allele in alleles]
    skipped = skipped_bases(within_before + reference + within_after)
    return Locus(variants, reasons, [forward, reverse], (start - left, right - end), skipped)


def _why_not(variant, fasta, window):
    """The reason why a variant cannot be scored, or `None`."""
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
    if not reference or not set(normalised(reference + alternate)) <= set(BASES):
        return "ambiguous_allele"
    end = start + len(reference)
    if not 0 <= start < end <= length:
        return "outside_contig"
    if normalised(fasta.fetch(contig, start, end)) != normalised(reference):
        return "reference_mismatch"
    if max(len(reference), len(alternate)) > window:
        return "longer_than_window"
    return None


def _scores(locus, strands):
    """[`VariantScore`] of each variant of a locus, from the haplotypes of each strand and their log-probabilities."""
    ratios = iter(zip(*([log_ratio(reference, other) for other in others] for reference, *others in strands)))
    for variant, reason in zip(locus.variants, locus.reasons):
        if reason is not None:
            yield VariantScore(variant, reason=reason)
            continue
        both = next(ratios)
        there = [ratio for ratio in both if ratio is not None]
        if there:
            yield VariantScore(variant, sum(there) / len(there), *both, locus.skipped)
        else:
            yield VariantScore(variant, skipped=locus.skipped, reason="nothing_to_compare")


def log_ratio(reference, alternate):
    """
    Log-likelihood ratio of two haplotypes, over as many bases as are scored in both from the first difference on.

    Args:
        reference, alternate (`tuple[str, np.ndarray]`): A haplotype and the log-probability of each of its bases.

    Returns:
        `float` or `None`: in nats; `None` if there is no such base. 0 for equal haplotypes.
    """
    if reference[0] == alternate[0]:
        return 0.0
    pairs = zip(reference[0], alternate[0])
    shared = next((i for i, (one, other) in enumerate(pairs) if one != other), len(reference[0]))
    reference, alternate = (values[shared:] for _, values in (reference, alternate))
    reference, alternate = (values[~np.isnan(values)] for values in (reference, alternate))
    common = min(len(reference), len(alternate))
    if not common:
        return None
    return float(alternate[:common].sum(dtype=np.float64) - reference[:common].sum(dtype=np.float64))
