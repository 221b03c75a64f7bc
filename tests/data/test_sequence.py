import torch
from hypothesis import given
from hypothesis import strategies as st

from hyenadna_hf import HyenaDNATokenizer
from hyenadna_hf.data.sequence import (
    COMPLEMENT_IDS,
    NUCLEOTIDE_IDS,
    NUCLEOTIDES,
    normalise,
    reverse_complement,
    reverse_complement_ids,
    token_ids,
)

TOKENIZER = HyenaDNATokenizer()


def test_complements_of_every_code():
    assert reverse_complement("AAccGTN") == "NACggTT"
    assert reverse_complement("RYSWKMBDHVU") == "ABDHVKMWSRY"
    assert reverse_complement("") == ""


def test_spelling():
    assert normalise("acguACGUnrY-") == "ACGTACGTNRY-"
    assert NUCLEOTIDE_IDS == (7, 8, 9, 10, 11)
    assert COMPLEMENT_IDS.tolist() == [0, 1, 2, 3, 4, 5, 6, 10, 9, 8, 7, 11]


@given(st.text(NUCLEOTIDES + NUCLEOTIDES.lower(), max_size=50))
def test_one_spelling_is_read_as_the_same_tokens_on_both_strands(sequence):
    spelling = normalise(sequence)
    assert normalise(spelling) == spelling and len(spelling) == len(sequence)
    assert set(spelling) <= set(NUCLEOTIDES) - {"U"}
    rna = spelling.replace("T", "U").lower()
    assert normalise(rna) == spelling
    assert normalise(reverse_complement(rna)) == reverse_complement(spelling) == normalise(reverse_complement(sequence))
    assert token_ids(rna).tolist() == token_ids(spelling).tolist() == token_ids(sequence).tolist()


@given(st.text(NUCLEOTIDES.replace("U", "") + NUCLEOTIDES.replace("U", "").lower()))
def test_twice_is_the_sequence_again(sequence):
    other = reverse_complement(sequence)
    assert reverse_complement(other) == sequence
    assert [a.islower() for a in other[::-1]] == [a.islower() for a in sequence]


@given(st.text(NUCLEOTIDES + NUCLEOTIDES.lower() + "-* .Z", max_size=50))
def test_tokens_are_those_of_the_tokenizer(sequence):
    assert token_ids(sequence).tolist() == TOKENIZER(sequence)["input_ids"]


@given(st.text(NUCLEOTIDES + NUCLEOTIDES.lower(), max_size=50))
def test_tokens_of_the_other_strand(sequence):
    expected = TOKENIZER(reverse_complement(sequence))["input_ids"]
    assert token_ids(sequence, reverse_complemented=True).tolist() == expected
    ids = torch.tensor([0, *token_ids(sequence), 1])
    assert reverse_complement_ids(ids).tolist() == [0, *expected, 1]
