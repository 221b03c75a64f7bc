from hypothesis import given
from hypothesis import strategies as st

from hyenadna_hf.data.sequence import NUCLEOTIDES, reverse_complement


def test_complements_of_every_code():
    assert reverse_complement("AAccGTN") == "NACggTT"
    assert reverse_complement("RYSWKMBDHVU") == "ABDHVKMWSRY"
    assert reverse_complement("") == ""


@given(st.text(NUCLEOTIDES.replace("U", "") + NUCLEOTIDES.replace("U", "").lower()))
def test_twice_is_the_sequence_again(sequence):
    other = reverse_complement(sequence)
    assert reverse_complement(other) == sequence
    assert [a.islower() for a in other[::-1]] == [a.islower() for a in sequence]
