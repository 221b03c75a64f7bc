import math
import random
from collections import Counter

import numpy as np
import pytest

from hyenadna_hf.baselines.markov import MarkovModel


@pytest.mark.parametrize("order", [0, 1, 3])
def test_probabilities_and_bits_are_those_of_the_definition(order):
    rng = random.Random(order)
    train = ["".join(rng.choices("ACGT", [3, 1, 1, 2], k=200)), "acgtacgatt"]
    model = MarkovModel(order, pseudo_count=3).fit(train)
    # Every suffix of a window is counted by lower orders only where the whole window is: leave out the first ones.
    trimmed = {k: [seq[order - k :] for seq in train] for k in range(order + 1)}

    def expected(k, context, base):
        if k < 0:
            return 0.25
        words = Counter(seq[i : i + k + 1].upper() for seq in trimmed[k] for i in range(len(seq) - k))
        context = context[len(context) - k :]
        seen = sum(words[context + letter] for letter in "ACGT")
        return (words[context + base] + 3 * expected(k - 1, context, base)) / (seen + 3)

    probabilities = model.probabilities()
    np.testing.assert_allclose(probabilities.sum(1), 1)
    test = "ACGTNNACGGTTACA"
    surprises = []
    for i in range(order, len(test)):
        context, base = test[i - order : i], test[i]
        if "N" in context + base:
            continue
        row = sum("ACGT".index(letter) * 4 ** (order - 1 - place) for place, letter in enumerate(context))
        assert probabilities[row, "ACGT".index(base)] == pytest.approx(expected(order, context, base))
        surprises.append(-math.log2(expected(order, context, base)))
    bits, scored = model.bits_per_base([test])
    assert scored == len(surprises)
    assert bits == pytest.approx(sum(surprises) / len(surprises))


def test_it_learns_what_a_lower_order_cannot():
    text = "ACCAGT" * 50
    low, high = (MarkovModel(order, 1).fit([text]).bits_per_base([text])[0] for order in (0, 2))
    assert low > 1.5
    assert high < 0.2
