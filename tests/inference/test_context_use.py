"""Use of context, against direct model calls."""

import random
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from reference import randomise
from torch.nn import functional as F

from hyenadna_hf import HyenaDNAConfig, HyenaDNAForCausalLM, HyenaDNATokenizer
from hyenadna_hf.errors import InputError
from hyenadna_hf.inference.context_use import (
    bits_by_context,
    bits_of_repeats,
    context_bins,
    default_distances,
    random_segments,
    ratio_interval,
    real_segments,
    repeat_segment,
    shuffled_segments,
    window_starts,
)
from hyenadna_hf.inference.likelihood import BaseLikelihood

TOKENIZER = HyenaDNATokenizer(model_max_length=70)


def small_model(seed=0):
    torch.manual_seed(seed)
    config = HyenaDNAConfig(d_model=12, n_layer=2, max_seq_len=70, filter_order=16, embed_dropout=0.0)
    return randomise(HyenaDNAForCausalLM(config)).eval()


def sequence_of(length, seed=0, letters="ACGT"):
    return "".join(random.Random(seed).choices(letters, k=length))


def direct_bits(model, text, bos=False):
    """Bits of each base by a call of the model and a softmax over A, C, G and T; NaN where it is not scored."""
    ids = torch.tensor([TOKENIZER(("[BOS]" if bos else "") + text, add_special_tokens=False)["input_ids"]])
    bases = torch.tensor(TOKENIZER.convert_tokens_to_ids(list("ACGT")))
    with torch.no_grad():
        log_p = F.log_softmax(model(ids).logits[0, :-1][:, bases].double(), dim=-1)
    bits = [
        -log_p[place, "ACGT".index(letter)].item() / np.log(2) if letter in "ACGT" else np.nan
        for place, letter in enumerate(text.upper() if bos else text[1:].upper())
    ]
    return np.array(bits if bos else [np.nan, *bits])


@pytest.mark.parametrize("bos", [False, True])
@pytest.mark.parametrize("max_tokens", [1, 1000])
def test_loss_by_context_is_that_of_direct_calls(bos, max_tokens):
    model = small_model()
    windows = [sequence_of(50, seed, "ACGTacgtN" if seed else "ACGT") for seed in range(4)]
    bins = context_bins(50, bos)
    assert bins.tolist() == [0] * bos + [1, 2, 4, 8, 16, 32, 50]
    likelihood = BaseLikelihood(model, TOKENIZER, bos, max_tokens)
    advanced = []
    found = bits_by_context(likelihood, windows, bins, advanced.append)
    assert found.shape == (4, 2, len(bins) - 1) and advanced == [1] * 4
    for window, (sums, counts) in zip(windows, found):
        bits = direct_bits(model, window, bos)
        for number, (first, last) in enumerate(pairwise(bins)):
            assert sums[number] == pytest.approx(np.nansum(bits[first:last]), abs=1e-4)
            assert counts[number] == np.count_nonzero(~np.isnan(bits[first:last]))


@pytest.mark.parametrize("bos", [False, True])
def test_loss_of_copies_is_that_of_direct_calls(bos):
    model = small_model()
    windows = [sequence_of(60, seed, "ACGTN") for seed in range(3)]
    segments = random_segments(3, 7, seed=5)
    shuffled = shuffled_segments(segments, seed=5)
    found = bits_of_repeats(BaseLikelihood(model, TOKENIZER, bos, 200), windows, segments, shuffled, [7, 20, 53])
    assert found.shape == (3, 7)
    for window, segment, other, row in zip(windows, segments, shuffled, found):
        texts = [window[:53] + segment]
        for copy in (segment, other):
            texts += [window[:first] + copy + window[first + 7 : 53] + segment for first in (46, 33, 0)]
        expected = [direct_bits(model, text, bos)[-7:].mean() for text in texts]
        np.testing.assert_allclose(row, expected, atol=1e-4)


def test_a_model_without_knowledge_takes_two_bits_and_gains_nothing():
    """An exact answer that is known beforehand: with equal logits, every probability is 1/4."""
    model = small_model()
    with torch.no_grad():
        model.get_output_embeddings().weight.zero_()
    likelihood = BaseLikelihood(model, TOKENIZER)
    sums, counts = bits_by_context(likelihood, [sequence_of(60)], context_bins(60))[0]
    np.testing.assert_allclose(sums / counts, 2, atol=1e-6)
    bits = bits_of_repeats(likelihood, [sequence_of(60)], ["ACGTA"], ["AACGT"], [5, 55])
    np.testing.assert_allclose(bits, 2, atol=1e-6)


def test_a_copy_that_is_there_already_changes_nothing():
    """The real sequence has the segment at this distance, so that the control has it too."""
    window = sequence_of(60)
    segment = window[30:36]
    bits = bits_of_repeats(BaseLikelihood(small_model(), TOKENIZER), [window], [segment], [segment], [24, 25])
    assert bits[0, 0] == pytest.approx(bits[0, 1], abs=1e-6) and bits[0, 0] != pytest.approx(bits[0, 2], abs=1e-4)


def copying_model(distance):
    """A model whose weights make it predict, with a probability of about 0.95, the base `distance` bases back."""
    config = HyenaDNAConfig(
        d_model=16, n_layer=1, max_seq_len=70, filter_order=8, embed_dropout=0.0, short_filter_order=distance
    )
    model = HyenaDNAForCausalLM(config).eval()
    identity, block = torch.eye(16), model.hyena.backbone.layers[0]
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
        model.hyena.backbone.embeddings.word_embeddings.weight.copy_(identity)
        for norm in (block.norm1, model.hyena.backbone.ln_f):
            norm.weight.fill_(1)
        mixer = block.mixer
        mixer.short_filter.bias[:32] = 1  # both gates are open
        mixer.in_proj.weight[32:] = identity  # the value is the token
        mixer.short_filter.weight[32:, 0, 0] = 1  # the oldest tap, distance - 1 bases back
        mixer.filter_fn.bias.fill_(1)  # the long filter passes it on
        mixer.out_proj.weight.copy_(1000 * identity)
        model.lm_head.weight.copy_(identity)
    return model


def test_a_model_that_copies_from_one_distance_gains_there_alone():
    """Known answers: a copy at its distance takes -log2(p) bits a base, and one beyond changes nothing."""
    likelihood = BaseLikelihood(copying_model(8), TOKENIZER)
    windows, segments = [sequence_of(60, seed) for seed in range(10)], random_segments(10, 4, seed=1)
    reverse = [segment[::-1] for segment in segments]
    control, *copies = bits_of_repeats(likelihood, windows, segments, reverse, [4, 8, 16, 50]).T
    logits = F.layer_norm(torch.eye(16)[:1], (16,))[0]  # of the base that is predicted, and of the others
    predicted, other = -F.log_softmax(logits[:4].double(), 0)[:2].numpy() / np.log(2)

    def bits_after(before, segment):
        share = np.mean([letter == guess for letter, guess in zip(segment, before)])
        return predicted * share + other * (1 - share)

    expected = [bits_after(window[48:52], segment) for window, segment in zip(windows, segments)]
    np.testing.assert_allclose(control, expected, atol=0.02)
    np.testing.assert_allclose(copies[1], predicted, atol=0.02)
    np.testing.assert_allclose(copies[2:4], [control, control], atol=1e-5)
    np.testing.assert_allclose(copies[5], [*map(bits_after, reverse, segments)], atol=0.02)
    np.testing.assert_allclose(copies[6:], [control, control], atol=1e-5)
    gains = control - copies[1]
    assert predicted < 0.1 and other > 5 and gains.mean() > 3 > abs((control - copies[0]).mean())


@given(st.integers(1, 40), st.integers(0, 200), st.data())
def test_both_copies_are_where_they_should_be(length, more, data):
    window = "N" * (2 * length + more)
    segment = data.draw(st.text("ACGT", min_size=length, max_size=length))
    distance = data.draw(st.integers(length, len(window) - length))
    text = repeat_segment(window, segment, distance)
    last = len(window) - length
    assert len(text) == len(window) and text.count("N") == len(window) - 2 * length
    assert text[last:] == segment == text[last - distance : last - distance + length]
    assert repeat_segment(window, segment) == "N" * last + segment
    other = repeat_segment(window, segment, distance, "-" * length)
    assert other[last - distance : last - distance + length] == "-" * length
    assert other.replace("-", "") == text[: last - distance] + text[last - distance + length :]
    for wrong in (length - 1, last + 1):
        with pytest.raises(InputError, match=f"distance={wrong}: give {length} to "):
            repeat_segment(window, segment, wrong)


@given(st.integers(1, 60), st.integers(0, 300), st.integers(1, 20), st.booleans())
def test_windows_lie_in_the_sequence(window, more, count, overlap):
    sequence = "A" * (window + more)
    starts = window_starts(sequence, window, count, overlap)
    assert starts == sorted(set(starts)) and 1 <= len(starts) <= count
    assert starts[0] >= 0 and starts[-1] + window <= len(sequence)
    assert len(starts) == min(count, more + 1 if overlap else len(sequence) // window)
    if not overlap:
        assert all(b - a >= window for a, b in pairwise(starts))


def test_windows_of_ambiguous_letters_are_left_out():
    sequence = "A" * 100 + "N" * 11 + "A" * 89 + "R" * 10 + "A" * 90
    assert window_starts(sequence, 100, 3, overlap=False) == [0, 200]
    assert window_starts("N" * 100, 50, 4, overlap=True) == []


@given(st.integers(2, 5000), st.data())
def test_bins_and_distances(window, data):
    for bos in (False, True):
        bins = context_bins(window, bos)
        assert bins[0] == (0 if bos else 1) and bins[-1] == window and (np.diff(bins) > 0).all()
    segment = data.draw(st.integers(1, window // 2))
    distances = default_distances(window, segment)
    assert distances == sorted(set(distances)) and distances[-1] == window - segment and distances[0] >= segment
    assert all(distance in (100 << power for power in range(9)) for distance in distances[:-1])


def test_the_default_distances_of_published_sizes():
    assert default_distances(1024, 32) == [100, 200, 400, 800, 992]
    assert len(default_distances(1_000_000, 32)) == 15 and default_distances(60, 10) == [50]


def test_segments():
    assert random_segments(3, 9, 1) == random_segments(3, 9, 1) != random_segments(3, 9, 2)
    assert set("".join(random_segments(50, 9, 1))) == set("ACGT")
    shuffled = shuffled_segments(random_segments(9, 40, 1), 2)
    assert shuffled != random_segments(9, 40, 1) and shuffled == shuffled_segments(random_segments(9, 40, 1), 2)
    assert [sorted(segment) for segment in shuffled] == [sorted(segment) for segment in random_segments(9, 40, 1)]
    sequence = sequence_of(300).lower() + "N" * 20 + sequence_of(80, 1)
    starts = [0, 100, 300]
    segments = real_segments(sequence, starts, 100, 12, seed=3)
    assert segments == real_segments(sequence, starts, 100, 12, seed=3)
    for start, segment in zip(starts, segments, strict=True):
        outside = sequence[:start].upper(), sequence[start + 100 :].upper()
        assert len(segment) == 12 and "N" not in segment and any(segment in part for part in outside)
    with pytest.raises(InputError, match="--needles real: no 12 bases outside a window of 390 are all A, C, G or T;"):
        real_segments(sequence, [0], 390, 12, seed=3)


def test_intervals():
    """Against resampling one by one, and their coverage of a known mean."""
    rng = np.random.default_rng(0)
    sums, counts = rng.normal(10, 2, 30), rng.integers(5, 9, 30).astype(float)
    means = [sums[rows].sum() / counts[rows].sum() for rows in rng.integers(30, size=(20_000, 30))]
    found = ratio_interval(sums, counts, 20_000, seed=1)
    np.testing.assert_allclose(found, np.percentile(means, [2.5, 97.5]), atol=0.01)
    assert np.isnan(ratio_interval(sums[:1], counts[:1], 100, 0)).all()
    assert np.isnan(ratio_interval(sums, counts, 0, 0)).all()
    hits = 0
    for seed in range(200):
        values = np.random.default_rng(seed).normal(1, 1, 50)
        low, high = ratio_interval(values, np.ones(50), 400, seed)
        hits += low <= 1 <= high
    assert 180 <= hits <= 199
