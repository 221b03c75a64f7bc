import copy
import os

import numpy as np
import pytest
from genomes import VARIANT_CONTIG as CONTIG
from hypothesis import given, settings
from hypothesis import strategies as st
from peft import PromptTuningConfig, get_peft_model

from hyenadna_hf import HyenaDNATokenizer
from hyenadna_hf.data.fasta import Fasta
from hyenadna_hf.data.sequence import reverse_complement
from hyenadna_hf.errors import InputError
from hyenadna_hf.inference.likelihood import sequence_log_likelihood
from hyenadna_hf.inference.variants import REASONS, Variant, score_variants

TOKENIZER = HyenaDNATokenizer()
ALLELE = st.text("ACGTt", min_size=1, max_size=9)


@pytest.fixture(scope="module")
def fasta(tmp_path_factory):
    path = tmp_path_factory.mktemp("fasta") / "reference.fa"
    path.write_text(f">chr20 a piece\n{CONTIG}\n>other_strand\n{reverse_complement(CONTIG)}\n>short\nACGTAAC\n")
    return Fasta(path)


def haplotypes_on_a_strand(contig, start, reference, alternate, window):
    """Both haplotypes from the window's first base on, `window` bases where there are so many."""
    centre = start + len(reference) / 2
    left = min(range(max(1, len(contig) - window + 1)), key=lambda s: (abs(s + window // 2 - int(centre)), s))
    return [
        (contig[left:start] + allele + contig[start + len(reference) :])[:window] for allele in (reference, alternate)
    ]


def haplotypes_on_both_strands(contig, start, reference, alternate, window):
    """Those on the reverse strand are those of the reverse complement, for windows that can be centred on both."""
    forward = haplotypes_on_a_strand(contig, start, reference, alternate, window)
    mirrored = len(contig) - start - len(reference)
    other = [reverse_complement(piece) for piece in (contig, reference, alternate)]
    return forward, haplotypes_on_a_strand(other[0], mirrored, other[1], other[2], window)


def ratio_by_whole_haplotypes(model, reference, alternate):
    """Of as many A, C, G, T as both have, but for the first base; `None` if the haplotypes differ in none of them."""
    reference, alternate = reference.upper(), alternate.upper()
    pair = sequence_log_likelihood(model, TOKENIZER, [reference, alternate], per_base=True)
    ratios = [[value for value in found.per_base if np.isfinite(value)] for found in pair]
    common = min(map(len, ratios))
    shared = len(os.path.commonprefix([reference, alternate]))  # noqa: RUF071
    if reference != alternate and common <= sum(base in "ACGT" for base in reference[1:shared]):
        return None
    return sum(ratios[1][:common]) - sum(ratios[0][:common])


def mean(*ratios):
    there = [ratio for ratio in ratios if ratio is not None]
    return sum(there) / len(there) if there else None


@settings(max_examples=30)
@given(st.integers(0, len(CONTIG) - 1), st.integers(1, 9), st.lists(ALLELE, min_size=1, max_size=3), st.data())
def test_the_ratio_of_whole_haplotypes(model, fasta, start, length, alternates, data):
    """SNVs, deletions, insertions and MNVs, at either end of a contig and beside N, on both strands."""
    window = data.draw(st.sampled_from([9, 24, 25, 40]))
    reference = CONTIG[start : start + length]
    variants = [Variant("20", start, reference, alternate) for alternate in alternates]
    for variant, score in zip(variants, score_variants(model, TOKENIZER, variants, fasta, window=window), strict=True):
        assert score.variant == variant
        if set(reference.upper()) - set("ACGT"):
            assert score.reason == "ambiguous_allele" and score.llr is None
            continue
        forward = ratio_by_whole_haplotypes(
            model, *haplotypes_on_a_strand(CONTIG, start, reference, variant.alternate, window)
        )
        assert score.llr_forward == (forward if forward is None else pytest.approx(forward, abs=2e-3))
        assert score.llr == mean(score.llr_forward, score.llr_reverse)
        assert score.reason == ("nothing_to_compare" if score.llr is None else None)


EDGES = "GATTACAGATTACCAGT"


@pytest.mark.parametrize(
    "contig, start, reference, alternate, strands",
    [
        (EDGES, 13, "CAGT", "C", (False, True)),  # a deletion of the end
        (EDGES, 0, "GATT", "T", (True, False)),  # and of the beginning
        (EDGES, 16, "T", "TACG", (False, True)),  # an insertion at the end: there is one base to compare, and it is T
        (EDGES, 15, "GT", "AC", (True, True)),
        (EDGES, 0, "G", "T", (True, True)),
        (EDGES + "N" * 30, 13, "CAGT", "C", (False, True)),  # before a run of N
        ("N" * 30 + EDGES, 30, "GATT", "T", (True, False)),
        (EDGES + "N" * 30, 13, "CAGT", "CCC", (True, True)),
        ("N" * 30 + "CAGT" + "N" * 30, 30, "CAGT", "C", (False, True)),  # C is all that follows on the other strand
        ("N" * 30 + "CAGT" + "N" * 30, 30, "CAGT", "T", (True, False)),
        ("N" * 30 + "A" + "N" * 30, 30, "A", "G", (True, True)),
        (EDGES, 0, EDGES, EDGES[0], (False, False)),  # all but one base, which is the first on either strand
    ],
)
def test_a_strand_without_a_compared_base_does_not_count(model, tmp_path, contig, start, reference, alternate, strands):
    window = 38 + len(reference) % 2  # which can be centred
    (tmp_path / "x.fa").write_text(f">chr1\n{contig}\n")
    with Fasta(tmp_path / "x.fa") as fasta:
        (score,) = score_variants(model, TOKENIZER, [Variant("1", start, reference, alternate)], fasta, window)
    pairs = haplotypes_on_both_strands(contig, start, reference, alternate, window)
    expected = [ratio_by_whole_haplotypes(model, *pair) for pair in pairs]
    assert tuple(ratio is not None for ratio in expected) == strands
    for found, ratio in zip((score.llr_forward, score.llr_reverse, score.llr), (*expected, mean(*expected))):
        assert found == (ratio if ratio is None else pytest.approx(ratio, abs=2e-3))
    assert score.reason == (None if any(strands) else "nothing_to_compare")


@pytest.mark.parametrize("reference, alternate", [("U", "G"), ("u", "A"), ("T", "u"), ("UU", "U")])
def test_u_is_t(model, tmp_path, reference, alternate):
    """In the reference, and in either allele."""
    contig = "GATTACAGATTACCAGTTGCA"
    scores = []
    for text in (contig, contig.replace("T", "U")):
        (tmp_path / f"{len(scores)}.fa").write_text(f">chr1\n{text}\n")
        with Fasta(tmp_path / f"{len(scores)}.fa") as fasta:
            for alleles in ((reference, alternate), tuple(a.upper().replace("U", "T") for a in (reference, alternate))):
                (score,) = score_variants(model, TOKENIZER, [Variant("1", 9, *alleles)], fasta, window=20)
                scores.append((score.reason, score.llr, score.llr_forward, score.llr_reverse))
    assert scores[0][0] is None and scores == [scores[0]] * 4
    assert (scores[0][1] == 0) == (alternate == "u")


@settings(max_examples=30)
@given(st.integers(0, len(CONTIG) - 1), st.integers(1, 9), ALLELE)
def test_the_other_strand_gives_the_same(model, fasta, start, length, alternate):
    reference = CONTIG[start : start + length]
    mirrored = len(CONTIG) - start - len(reference)
    variants = [
        Variant("chr20", start, reference, alternate),
        Variant("other_strand", mirrored, reverse_complement(reference), reverse_complement(alternate)),
    ]
    window = 24 + len(reference) % 2  # a window that can be centred
    one, other = score_variants(model, TOKENIZER, variants, fasta, window=window)
    assert one.reason == other.reason and one.skipped == other.skipped
    if one.reason is None:
        assert (one.llr_forward, one.llr_reverse) == pytest.approx((other.llr_reverse, other.llr_forward), abs=2e-3)


def test_no_difference_is_no_effect(model, fasta):
    same = Variant("chr20", 30, CONTIG[30:33], CONTIG[30:33].lower())
    (score,) = score_variants(model, TOKENIZER, [same], fasta, window=40)
    assert score.llr == score.llr_forward == score.llr_reverse == 0.0


def test_why_there_is_no_score(model, fasta):
    base = CONTIG[20].upper()
    other = "A" if base != "A" else "C"
    expected = {
        Variant("chrUn", 20, base, other): "contig_not_in_fasta",
        Variant("chr20", 20, base, None): "no_alternate",
        Variant("chr20", 20, base, "<DEL>"): "symbolic_allele",
        Variant("chr20", 20, base, "*"): "spanning_deletion",
        Variant("chr20", 20, base, f"{base}[chr20:80["): "breakend",
        Variant("chr20", 20, base, f".{base}"): "breakend",
        Variant("chr20", 20, base, "R"): "ambiguous_allele",
        Variant("chr20", 90, "N", "A"): "ambiguous_allele",
        Variant("short", 7, "A", "C"): "outside_contig",
        Variant("short", -1, "A", "C"): "outside_contig",
        Variant("short", 5, "ACG", "C"): "outside_contig",
        Variant("chr20", 20, other, base): "reference_mismatch",
        Variant("chr20", 20, base, "A" * 21): "longer_than_window",
        Variant("short", 5, "A", "C"): None,
        Variant("chr20", 20, base, other): None,
    }
    scores = list(score_variants(model, TOKENIZER, expected, fasta, window=20))
    assert {score.variant: score.reason for score in scores} == expected
    assert set(REASONS) == {*expected.values(), "nothing_to_compare"} - {None}
    for score in scores:
        assert (score.llr is None) == (score.reason is not None)
    with pytest.raises(InputError, match="window=41: give 2 to 40 bases"):
        score_variants(model, TOKENIZER, [], fasta, window=41)


def test_behind_a_soft_prompt(model, fasta):
    prompted = get_peft_model(copy.deepcopy(model), PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=3))
    variant = Variant("chr20", 40, CONTIG[40], "A" if CONTIG[40].upper() != "A" else "C")
    (score,) = score_variants(prompted, TOKENIZER, [variant], fasta, window=30)
    pair = haplotypes_on_a_strand(CONTIG, 40, variant.reference, variant.alternate, 30)
    assert score.llr_forward == pytest.approx(ratio_by_whole_haplotypes(prompted, *pair), abs=1e-3)
    (plain,) = score_variants(model, TOKENIZER, [variant], fasta, window=30)
    assert abs(score.llr_forward - plain.llr_forward) > 1e-3
