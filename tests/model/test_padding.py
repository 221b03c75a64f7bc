"""A masked position does not exist: real positions equal the row with its masked positions deleted."""

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
    HyenaDNAModel,
)
from hyenadna_hf.model.padding_hyenadna import pool_positions

SIZES = {"d_model": 8, "n_layer": 2, "max_seq_len": 50, "filter_order": 8, "embed_dropout": 0.0, "num_labels": 3}
DTYPES = [torch.bool, torch.uint8, torch.int64, torch.float16, torch.float32, torch.float64]
# float64, so that what is compared is the arithmetic of padding and not rounding; float32 has its own test below.
TOLERANCE = {"rtol": 0, "atol": 1e-10}


def build(model_class, **overrides):
    torch.manual_seed(1)
    return randomise(model_class(HyenaDNAConfig(**SIZES, **overrides))).double().eval()


@st.composite
def padded_batches(draw):
    """Token ids and a mask with zeros anywhere, at least one real position a row, and columns nobody uses."""
    rows, length = draw(st.integers(1, 4)), draw(st.integers(1, 40))
    mask = torch.tensor(
        draw(st.lists(st.lists(st.booleans(), min_size=length, max_size=length), min_size=rows, max_size=rows))
    )
    mask[:, draw(st.integers(0, length - 1))] = True
    ids = torch.randint(0, 16, (rows, length), generator=torch.Generator().manual_seed(draw(st.integers(0, 99))))
    return ids, mask, draw(st.sampled_from(DTYPES))


def alone(model, row, real, **kwargs):
    return model(row[real][None], **{name: value[real][None] for name, value in kwargs.items()})


@given(padded_batches(), st.sampled_from([2, 3]))
def test_hidden_states(batch, order):
    ids, mask, dtype = batch
    model = build(HyenaDNAModel, hyena_order=order)
    with torch.no_grad():
        together = model(ids, attention_mask=mask.to(dtype), output_hidden_states=True)
        for i, (row, real) in enumerate(zip(ids, mask, strict=True)):
            expected = model(row[real][None], output_hidden_states=True).hidden_states
            for mine, theirs in zip(together.hidden_states, expected, strict=True):
                torch.testing.assert_close(mine[i, real].double(), theirs[0].double(), **TOLERANCE)
                assert not mine[i, ~real].any()


@given(padded_batches(), st.sampled_from(["mean", "last", "first", "max"]))
def test_pooled_logits(batch, pooling):
    ids, mask, dtype = batch
    model = build(HyenaDNAForSequenceClassification, classifier_pooling=pooling)
    with torch.no_grad():
        together = model(ids, attention_mask=mask.to(dtype)).logits
        separate = torch.cat([alone(model, row, real).logits for row, real in zip(ids, mask, strict=True)])
    torch.testing.assert_close(together, separate, **TOLERANCE)


@settings(max_examples=40)
@given(padded_batches(), st.sampled_from([HyenaDNAForCausalLM, HyenaDNAForTokenClassification]), st.booleans())
def test_loss_and_gradients(batch, model_class, ignore_some):
    ids, mask, dtype = batch
    model = build(model_class)
    labels = ids if model_class is HyenaDNAForCausalLM else ids % 3
    if ignore_some:
        labels = labels.masked_fill(ids == 9, -100)
    # The loss is a mean over all scored positions of the batch: weight the rows by how many they have.
    scored = [labels[i, real][1 if model_class is HyenaDNAForCausalLM else 0 :] != -100 for i, real in enumerate(mask)]
    counts = torch.tensor([int(row.sum()) for row in scored])
    if not counts.sum():
        return
    together = model(ids, attention_mask=mask.to(dtype), labels=labels).loss
    mine = torch.autograd.grad(together, list(model.parameters()), allow_unused=True)
    separate = sum(
        alone(model, row, real, labels=label).loss * count / counts.sum()
        for row, real, label, count in zip(ids, mask, labels, counts, strict=True)
        if count
    )
    theirs = torch.autograd.grad(separate, list(model.parameters()), allow_unused=True)
    # transformers computes the language-model loss in float32.
    torch.testing.assert_close(together.double(), separate.double(), rtol=0, atol=1e-6)
    for a, b in zip(mine, theirs, strict=True):
        assert (a is None) == (b is None)
        if a is not None:
            torch.testing.assert_close(a, b, rtol=0, atol=1e-6 * max(1.0, float(b.abs().max())))


@pytest.mark.parametrize("model_class", [HyenaDNAModel, HyenaDNAForCausalLM, HyenaDNAForSequenceClassification])
def test_float32_within_1e_5(model_class):
    """At the initial weights, padded far: left, right, and with the gap that PEFT makes."""
    model = model_class(HyenaDNAConfig(max_seq_len=400, embed_dropout=0.0, num_labels=3)).eval()
    ids = torch.randint(7, 12, (3, 300))
    mask = torch.ones(3, 300)
    mask[0, :123] = 0
    mask[1, 200:] = 0
    mask[2, 17:150] = 0
    with torch.no_grad():
        together = model(ids, attention_mask=mask)[0]
        for i, real in enumerate(mask.bool()):
            expected = model(ids[i][real][None])[0][0]
            mine = together[i] if together.dim() == 2 else together[i, real]
            torch.testing.assert_close(mine, expected, rtol=0, atol=1e-5)


def test_what_stands_at_masked_positions_has_no_effect_and_no_gradient():
    model = build(HyenaDNAModel)
    mask = torch.tensor([[0, 1, 1, 0, 1, 0]])
    embeds = torch.randn(1, 6, 8, dtype=torch.float64)
    embeds[mask == 0] = float("nan")
    embeds.requires_grad_()
    hidden = model(inputs_embeds=embeds, attention_mask=mask).last_hidden_state
    hidden.sum().backward()
    assert hidden.isfinite().all()
    assert not embeds.grad[mask == 0].any() and embeds.grad[mask == 1].isfinite().all()


def test_a_mask_of_ones_is_no_mask_and_without_one_padding_is_read():
    model = build(HyenaDNAForSequenceClassification)
    ids = torch.tensor([[4, 4, 7, 8, 9]])
    torch.testing.assert_close(model(ids, attention_mask=torch.ones(1, 5)).logits, model(ids).logits, rtol=0, atol=0)
    assert (model(ids).logits - model(ids, attention_mask=(ids != 4)).logits).abs().max() > 1e-3


def test_compat_padding_ignores_the_mask():
    model = build(HyenaDNAForSequenceClassification, compat_padding=True)
    ids = torch.tensor([[4, 4, 7, 8, 9]])
    mask = (ids != 4).long()
    labels = torch.tensor([1])
    torch.testing.assert_close(model(ids, mask).logits, model(ids).logits, rtol=0, atol=0)
    torch.testing.assert_close(model(ids, mask, labels=labels).loss, model(ids, labels=labels).loss, rtol=0, atol=0)


def test_only_real_positions_count_towards_max_seq_len():
    model = build(HyenaDNAModel)
    ids = torch.randint(7, 11, (2, 64))
    mask = torch.zeros(2, 64)
    mask[:, 14:] = 1
    expected = model(ids[:, 14:]).last_hidden_state
    torch.testing.assert_close(model(ids, mask).last_hidden_state[:, 14:], expected, **TOLERANCE)
    mask[0, 3] = 1
    with pytest.raises(ValueError, match="51 positions.*max_seq_len is 50"):
        model(ids, mask)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_means_over_long_sequences_do_not_overflow(dtype):
    hidden = torch.full((1, 100_000, 1), 3.0, dtype=dtype)
    real = torch.ones(1, 100_000, dtype=torch.bool)
    assert pool_positions(hidden, real, "mean").item() == 3.0


def test_a_row_without_real_positions_pools_to_zero():
    for how in ("mean", "last", "first", "max"):
        pooled = pool_positions(torch.randn(2, 3, 4), torch.tensor([[0, 0, 0], [0, 1, 0]]).bool(), how)
        assert not pooled[0].any() and pooled[1].all()
    model = build(HyenaDNAForSequenceClassification)
    logits = model(torch.randint(7, 11, (2, 3)), torch.zeros(2, 3)).logits
    torch.testing.assert_close(logits, model.score.bias.expand(2, 3), **TOLERANCE)


def test_labels_that_were_shifted_before():
    """As sequence parallelism gives them: each position is scored on its own label, and masked ones on none."""
    model = build(HyenaDNAForCausalLM)
    ids = torch.randint(7, 12, (2, 9))
    mask = torch.tensor([[0, 0, 0, 1, 1, 1, 1, 1, 1], [1] * 9])
    shifted = torch.cat([ids[:, 1:], torch.full((2, 1), -100)], dim=1)
    expected = model(ids, mask, labels=ids).loss
    torch.testing.assert_close(model(ids, mask, labels=ids, shift_labels=shifted).loss, expected, **TOLERANCE)
    other = model(ids, mask, labels=ids, shift_labels=shifted.masked_fill(mask == 0, 9)).loss
    torch.testing.assert_close(other, expected, **TOLERANCE)


@pytest.mark.parametrize("pooling", ["mean", "last", "first", "max"])
def test_gradients_of_each_row_by_vmap(pooling):
    model = build(HyenaDNAForSequenceClassification, classifier_pooling=pooling)
    ids, labels = torch.randint(7, 12, (3, 9)), torch.tensor([0, 2, 1])
    mask = torch.ones(3, 9, dtype=torch.long)
    mask[0, :4] = mask[2, 3:5] = 0

    def loss(parameters, ids, mask, label):
        return torch.func.functional_call(model, parameters, (ids[None], mask[None]), {"labels": label[None]}).loss

    parameters = {name: parameter.detach() for name, parameter in model.named_parameters()}
    together = torch.vmap(torch.func.grad(loss), in_dims=(None, 0, 0, 0))(parameters, ids, mask, labels)
    for i, real in enumerate(mask.bool()):
        expected = torch.autograd.grad(model(ids[i][real][None], labels=labels[i, None]).loss, list(model.parameters()))
        for mine, theirs in zip(together.values(), expected, strict=True):
            torch.testing.assert_close(mine[i], theirs, **TOLERANCE)
