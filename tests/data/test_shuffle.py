import random
from collections import Counter
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from hyenadna_hf.data.shuffle import dinucleotide_shuffle


@given(st.text("ACGTN", max_size=60), st.integers(0, 1000))
def test_dinucleotides_and_ends_are_kept(sequence, seed):
    shuffled = dinucleotide_shuffle(sequence, random.Random(seed))
    assert Counter(pairwise(shuffled)) == Counter(pairwise(sequence))
    assert (shuffled[:1], shuffled[-1:]) == (sequence[:1], sequence[-1:])


def test_every_such_sequence_is_equally_likely():
    sequence = "GACACGAGCAT"
    rng = random.Random(1)
    found = Counter(dinucleotide_shuffle(sequence, rng) for _ in range(8_000))
    possible = {walk for walk in _walks(sequence[0], Counter(pairwise(sequence))) if walk[-1] == sequence[-1]}
    assert found.keys() == possible and len(possible) > 10
    expected = 8_000 / len(possible)
    assert sum((found[walk] - expected) ** 2 / expected for walk in possible) < 2 * len(possible)  # chi squared


def _walks(walk, left):
    if not left.total():
        yield walk
    for (letter, following), number in left.items():
        if number and letter == walk[-1]:
            yield from _walks(walk + following, left - Counter({(letter, following): 1}))
