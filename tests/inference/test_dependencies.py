import copy
import random

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from peft import PromptTuningConfig, get_peft_model
from reference import randomise

from hyenadna_hf import HyenaDNAConfig, HyenaDNAForCausalLM, HyenaDNATokenizer
from hyenadna_hf.data.sequence import reverse_complement
from hyenadna_hf.errors import InputError
from hyenadna_hf.inference import dependencies
from hyenadna_hf.inference.dependencies import dependency_map

TOKENIZER = HyenaDNATokenizer()
BASE_IDS = TOKENIZER.convert_tokens_to_ids(list("ACGT"))
TOLERANCE = {"rtol": 1e-3, "atol": 1e-3}  # float32: log2 odds of up to about 20, from caches and from whole inputs


def language_model(length=40, **fields):
    torch.manual_seed(0)
    config = HyenaDNAConfig(d_model=12, n_layer=2, max_seq_len=length, filter_order=16, embed_dropout=0.0, **fields)
    return randomise(HyenaDNAForCausalLM(config)).eval()


@pytest.fixture(scope="module")
def model():
    return language_model()


@torch.inference_mode()
def log2_odds(model, sequence, bos):
    """Of each base in a sequence, given those before it, of shape `(length, 4)`; the first row is NaN without [BOS]."""
    ids = TOKENIZER(TOKENIZER.bos_token * bos + sequence, add_special_tokens=False, return_tensors="pt").input_ids
    p = model(ids).logits[0, :-1, BASE_IDS].double().softmax(-1)
    return torch.cat([torch.full((1 - bos, 4), torch.nan), (p / (1 - p)).log2()]).numpy()


def by_brute_force(model, sequence, start, end, bos=False):
    """Substitutes each base by each other one, in whole sequences of both strands."""
    found = np.full((end - start, end - start), np.nan)
    for strand in (1, -1):
        text, before = (sequence, start) if strand == 1 else (reverse_complement(sequence), len(sequence) - end)
        original = log2_odds(model, text, bos)
        for i in range(before, before + end - start):
            if text[i].upper() not in "ACGT":
                continue
            others = [text[:i] + base + text[i + 1 :] for base in "ACGT".replace(text[i].upper(), "")]
            moved = np.max([np.abs(log2_odds(model, other, bos) - original).max(1) for other in others], axis=0)
            for j in range(i + 1, before + end - start):
                at = (
                    (i - before, j - before)
                    if strand == 1
                    else (before + end - start - 1 - i, before + end - start - 1 - j)
                )
                found[at] = moved[j]
    return found


@settings(max_examples=25)
@given(st.data(), st.text("ACGTacgtNR", min_size=1, max_size=22), st.booleans(), st.sampled_from([1, 40, 90, 16_384]))
def test_the_map_is_that_of_brute_force(model, data, sequence, bos, max_tokens):
    """With context on either side or none, beside N, in batches of every size."""
    start = data.draw(st.integers(0, len(sequence) - 1))
    end = data.draw(st.integers(start + 1, len(sequence)))
    found = dependency_map(model, TOKENIZER, sequence, start, end, bos, max_tokens)
    assert found.shape == (end - start,) * 2 and found.dtype == np.float32
    np.testing.assert_allclose(found, by_brute_force(model, sequence, start, end, bos), **TOLERANCE)


@pytest.mark.parametrize("order", [2, 3])
def test_caches_of_every_size(order):
    """Parts of one to several blocks of the cache after prefixes of as many, which must look ahead or not."""
    model = language_model(length=700, hyena_order=order)
    sequence = "".join(random.Random(1).choices("ACGT", k=600))
    for start, end in ((0, 12), (100, 140), (280, 300), (290, 295), (500, 600)):
        found = dependency_map(model, TOKENIZER, sequence, start, end)
        some = random.Random(2).sample([(i, j) for i in range(end - start) for j in range(end - start) if i != j], 12)
        for i, j in some:
            text, at, before = (
                (sequence, i, j) if i < j else (reverse_complement(sequence), end - start - 1 - i, end - start - 1 - j)
            )
            first = start if i < j else len(sequence) - end
            original = log2_odds(model, text, 0)[first + before]
            others = ["ACGT".replace(text[first + at], "")[k] for k in range(3)]
            changed = [
                log2_odds(model, text[: first + at] + base + text[first + at + 1 :], 0)[first + before]
                for base in others
            ]
            assert found[i, j] == pytest.approx(np.abs(np.array(changed) - original).max(), rel=2e-3, abs=2e-3)


def test_the_other_strand_has_the_same_map(model):
    sequence = "".join(random.Random(3).choices("ACGTN", k=30))
    found = dependency_map(model, TOKENIZER, sequence, 4, 25)
    other = dependency_map(model, TOKENIZER, reverse_complement(sequence), 5, 26)
    np.testing.assert_allclose(found, other[::-1, ::-1], **TOLERANCE)


def test_a_strand_in_parts(model):
    sequence = "".join(random.Random(3).choices("ACGT", k=30))
    likelihood = dependencies.BaseLikelihood(model, TOKENIZER)
    whole = dependencies.dependencies_on_a_strand(likelihood, sequence, 5, 5, 30)
    parts = [
        dependencies.dependencies_on_a_strand(likelihood, sequence, 5, first, first + 5) for first in range(5, 30, 5)
    ]
    np.testing.assert_allclose(np.concatenate(parts), whole, **TOLERANCE)


def test_the_model_is_left_as_it_was(model):
    trained = copy.deepcopy(model).train()
    dependency_map(trained, TOKENIZER, "ACGTACGT")
    assert trained.training


def test_bad_arguments(model):
    with pytest.raises(InputError, match="start=3, end=3: this is not a region of a sequence of 8 bases"):
        dependency_map(model, TOKENIZER, "ACGTACGT", 3, 3)
    with pytest.raises(InputError, match="it has 41 bases, but the model reads 40 at once"):
        dependency_map(model, TOKENIZER, "A" * 41)
    prompt = get_peft_model(copy.deepcopy(model), PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=3))
    with pytest.raises(InputError, match="the model has a soft prompt"):
        dependency_map(prompt, TOKENIZER, "ACGT")
