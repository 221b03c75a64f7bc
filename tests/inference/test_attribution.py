import copy
import random

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import randomise

from hyenadna_hf import (
    HyenaDNAConfig,
    HyenaDNAForCausalLM,
    HyenaDNAForSequenceClassification,
    HyenaDNAForTokenClassification,
    HyenaDNATokenizer,
)
from hyenadna_hf.data.shuffle import dinucleotide_shuffle
from hyenadna_hf.errors import InputError
from hyenadna_hf.inference.attribution import OneHotModel, attribute, integrated_gradients, one_hot
from hyenadna_hf.inference.likelihood import sequence_log_likelihood

SEQUENCE = "ACGTTGCANATTACAGGTCCAT"
HEADS = (HyenaDNAForSequenceClassification, HyenaDNAForCausalLM)


def model_of(head, **fields):
    torch.manual_seed(0)
    labels = {"id2label": dict(enumerate("xyz")), "label2id": {name: i for i, name in enumerate("xyz")}}
    config = HyenaDNAConfig(
        d_model=12, n_layer=2, max_seq_len=60, filter_order=16, embed_dropout=0.0, **labels, **fields
    )
    return randomise(head(config)).eval()


MODELS = {head: model_of(head) for head in HEADS}


@pytest.fixture(scope="module", params=HEADS, ids=lambda head: head.__name__)
def model(request):
    return MODELS[request.param]


@settings(max_examples=30)
@given(
    st.sampled_from(HEADS), st.text("ACGTacgtUNR", min_size=2, max_size=40), st.sampled_from(["sep", "cls_sep", "none"])
)
def test_one_hot_sequences_are_read_like_tokens(head, sequence, mode):
    """By a classifier with special tokens, by a language model as scores are; N is a column of zeros."""
    model = MODELS[head]
    tokenizer = HyenaDNATokenizer(special_tokens_mode=mode)
    found = OneHotModel(model, tokenizer)(one_hot([sequence, sequence[::-1]]))
    if head is HyenaDNAForCausalLM:
        scores = sequence_log_likelihood(model, tokenizer, [sequence, sequence[::-1]])
        expected = torch.tensor([[score.log_likelihood] for score in scores])
    else:
        ids = tokenizer([sequence, sequence[::-1]], return_tensors="pt")["input_ids"]
        expected = model(ids).logits
    torch.testing.assert_close(found, expected.float(), rtol=1e-4, atol=1e-4)


def prediction(model, sequence, target):
    return OneHotModel(model, HyenaDNATokenizer())(one_hot([sequence]))[0, target].item()


def test_mutagenesis_is_that_of_edited_sequences(model):
    target = len(OneHotModel(model, HyenaDNATokenizer()).targets) - 1
    found = attribute(model, HyenaDNATokenizer(), SEQUENCE, "mutagenesis", target, max_tokens=50)
    for i, base in enumerate(SEQUENCE):
        if base == "N":
            assert np.isnan(found[i])
            continue
        edited = [prediction(model, SEQUENCE[:i] + other + SEQUENCE[i + 1 :], target) for other in "ACGT"]
        assert found[i] == pytest.approx(prediction(model, SEQUENCE, target) - np.mean(edited), abs=1e-4)


def test_input_x_gradient_is_a_difference_quotient(model):
    """The slope along the share of the base that is there, in float64."""
    double = copy.deepcopy(model).double()
    found = attribute(double, HyenaDNATokenizer(), SEQUENCE, "input_x_gradient", 0)
    predict, X = OneHotModel(double, HyenaDNATokenizer()), one_hot([SEQUENCE]).double()  # noqa: N806
    for i, base in enumerate(SEQUENCE):
        if base != "N":
            step = torch.zeros_like(X)
            step[0, "ACGT".index(base), i] = 1e-5
            slope = (predict(X + step) - predict(X - step))[0, 0].item() / 2e-5
            assert found[i] == pytest.approx(slope, rel=1e-4, abs=1e-5)


def test_integrated_gradients_are_those_of_captum(model):
    captum = pytest.importorskip("captum.attr")
    rng = random.Random(7)
    shuffles = [dinucleotide_shuffle(SEQUENCE, rng) for _ in range(3)]
    X, references = one_hot([SEQUENCE]), one_hot(shuffles)  # noqa: N806
    predict = OneHotModel(model, HyenaDNATokenizer())
    method = captum.IntegratedGradients(predict)
    options = {"target": 0, "n_steps": 11, "method": "riemann_middle"}
    expected = [method.attribute(X, reference[None], **options)[0] for reference in references]
    expected = torch.stack(expected).mean(0)
    found = integrated_gradients(predict, X, references, 0, 11, rows=4)
    torch.testing.assert_close(found, expected.float(), rtol=1e-4, atol=1e-5)
    values = attribute(model, HyenaDNATokenizer(), SEQUENCE, target=0, references=3, steps=11, seed=7)
    np.testing.assert_allclose(values, expected.sum(0).where(X[0].sum(0) > 0, torch.nan), rtol=1e-4, atol=1e-4)


def test_integrated_gradients_sum_to_the_difference(model):
    sequence, rng = SEQUENCE.replace("N", "G"), random.Random(0)
    values = attribute(model, HyenaDNATokenizer(), sequence, target=0, references=4, steps=300)
    references = [prediction(model, dinucleotide_shuffle(sequence, rng), 0) for _ in range(4)]
    difference = prediction(model, sequence, 0) - np.mean(references)
    assert values.sum() == pytest.approx(difference, rel=0.02, abs=0.02)


def test_the_target_is_the_highest_logit_by_default_and_may_be_a_name():
    model = MODELS[HyenaDNAForSequenceClassification]
    predict = OneHotModel(model, HyenaDNATokenizer())
    best = int(predict(one_hot([SEQUENCE])).argmax())
    by_default, by_name, by_number = (
        attribute(model, HyenaDNATokenizer(), SEQUENCE, "input_x_gradient", target)
        for target in (None, predict.targets[best], best)
    )
    np.testing.assert_array_equal(by_default, by_name)
    np.testing.assert_array_equal(by_default, by_number)
    other = attribute(model, HyenaDNATokenizer(), SEQUENCE, "input_x_gradient", (best + 1) % 3)
    assert not np.allclose(by_default, other, equal_nan=True)


def test_tangermeme_reads_the_model():
    """Its predictions and its DeepLIFT, with the same shuffles."""
    tangermeme = pytest.importorskip("tangermeme")
    from tangermeme.deep_lift_shap import deep_lift_shap
    from tangermeme.predict import predict as predict_by

    assert tangermeme
    model, sequence, rng = MODELS[HyenaDNAForSequenceClassification], SEQUENCE.replace("N", "G"), random.Random(0)
    predict, X = OneHotModel(model, HyenaDNATokenizer()), one_hot([sequence])  # noqa: N806
    torch.testing.assert_close(predict_by(predict, X, device="cpu"), predict(X).detach())
    references = one_hot([dinucleotide_shuffle(sequence, rng) for _ in range(2)])[None]
    with pytest.warns(RuntimeWarning, match="Convergence deltas"):
        expected = deep_lift_shap(predict, X, references=references, target=2, device="cpu")[0].sum(0)
        values = attribute(model, HyenaDNATokenizer(), sequence, "deep_lift", "z", references=2)
    np.testing.assert_allclose(values, expected.detach(), rtol=1e-5, atol=1e-6)


def test_mutagenesis_is_that_of_tangermeme(model):
    saturation_mutagenesis = pytest.importorskip("tangermeme.saturation_mutagenesis").saturation_mutagenesis
    sequence = SEQUENCE.replace("N", "G")
    found = saturation_mutagenesis(OneHotModel(model, HyenaDNATokenizer()), one_hot([sequence]), target=0, device="cpu")
    values = attribute(model, HyenaDNATokenizer(), sequence, "mutagenesis", 0)
    np.testing.assert_allclose(values, found[0].sum(0), rtol=1e-4, atol=1e-4)


def test_deep_lift_without_tangermeme(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(InputError, match="the package tangermeme is missing; pip install tangermeme"):
        attribute(MODELS[HyenaDNAForSequenceClassification], HyenaDNATokenizer(), SEQUENCE, "deep_lift")


def test_the_model_is_left_as_it_was(model):
    trained = copy.deepcopy(model).train()
    attribute(trained, HyenaDNATokenizer(), SEQUENCE, references=1, steps=1)
    assert trained.training and all(parameter.grad is None for parameter in trained.parameters())


@pytest.mark.parametrize(
    "options, message",
    [
        ({"method": "lime"}, "method='lime': choose one of input_x_gradient, integrated_gradients"),
        ({"target": "w"}, "target='w': unknown target; choose one of x, y, z."),
        ({"target": 3}, "target=3: unknown target; choose one of x, y, z."),
        ({"references": 0}, "references=0, steps=20: give 1 or more of each."),
        ({"sequence": "A" * 61}, "sequence: it has 61 bases; give 2 to 60 IUPAC"),
        ({"sequence": "ACXT"}, "sequence: it contains 'X' at base 3"),
    ],
)
def test_bad_arguments(options, message):
    options = {"sequence": SEQUENCE, **options}
    with pytest.raises(InputError, match=message):
        attribute(MODELS[HyenaDNAForSequenceClassification], HyenaDNATokenizer(), **options)


def test_other_heads_are_refused():
    with pytest.raises(InputError, match="HyenaDNAForTokenClassification is neither"):
        attribute(model_of(HyenaDNAForTokenClassification), HyenaDNATokenizer(), SEQUENCE)
