"""Inference and training in pieces against the same model run whole, in float64."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from plans import IN_PLACE, LOW, PIECES, PREFIXES, ROWS, TRANSPARENT, WHOLE
from reference import randomise

from hyenadna_hf import HyenaDNAConfig, HyenaDNAForSequenceClassification, HyenaDNAModel


def model_of(model_class=HyenaDNAModel, **kwargs):
    torch.manual_seed(0)
    defaults = {"d_model": 10, "n_layer": 2, "max_seq_len": 3000, "filter_order": 8, "embed_dropout": 0.1}
    return randomise(model_class(HyenaDNAConfig(**{**defaults, **kwargs}))).double().eval()


def whole(model, *args, **kwargs):
    """The reference: modules called on whole inputs."""
    return model(*args, plan=TRANSPARENT, **kwargs)


@pytest.mark.parametrize("order, short", [(2, 3), (3, 3), (4, 1), (2, 5)])
@pytest.mark.parametrize("length", [1, 2, 3, 6, 7, 8, 29, 257, 1000])
def test_values(length, order, short):
    model = model_of(hyena_order=order, short_filter_order=short, use_bias=order != 3)
    ids = torch.randint(0, 12, (2, length))
    with torch.no_grad():
        out = model(ids, output_hidden_states=True, plan=IN_PLACE)
    expected = whole(model, ids, output_hidden_states=True)
    for mine, other in zip(out.hidden_states, expected.hidden_states):
        torch.testing.assert_close(mine, other, rtol=0, atol=1e-9)


@torch.no_grad()
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("length", [1, 2, 3, 4])
def test_several_short_rows_share_a_piece(length, masked):
    model = model_of(hyena_order=3)
    ids = torch.randint(0, 12, (11, length))
    mask = (torch.rand(11, length) < 0.8).long() if masked else None
    torch.testing.assert_close(model(ids, mask, plan=IN_PLACE)[0], whole(model, ids, mask)[0], rtol=0, atol=1e-9)


def test_sizes_of_a_published_model():
    """The pieces as they are, in float32, at a length that is no multiple of anything."""
    model = model_of(d_model=128, max_seq_len=16386, trained_positions=True)
    ids = torch.randint(7, 11, (1, 5003))
    with torch.no_grad():
        exact = model(ids).last_hidden_state
        single = model.float()(ids).last_hidden_state
    expected = whole(model.double(), ids).last_hidden_state
    torch.testing.assert_close(exact, expected, rtol=0, atol=1e-7)
    assert (single - expected).abs().max() <= 1e-4 * expected.abs().max()


@torch.no_grad()
@pytest.mark.parametrize("order, short", [(2, 3), (3, 1), (4, 5)])
@pytest.mark.parametrize("length", [1, 2, 33, 300, 1000])
@pytest.mark.parametrize("masked", [False, True])
def test_reading_a_prompt_into_a_cache(length, order, short, masked):
    model = model_of(hyena_order=order, short_filter_order=short)
    ids = torch.randint(0, 12, (2, length + 90))
    mask = torch.ones_like(ids)
    if masked:
        mask[1, : length // 2 + 1] = 0
        mask[0, length // 3] = 0
    out = model(ids[:, :length], mask[:, :length], use_cache=True, plan=replace(IN_PLACE, tuning=PREFIXES))
    hidden = [out.last_hidden_state]
    for begin, end in [(length, length + 50), *((i, i + 1) for i in range(length + 50, length + 90))]:
        out = model(ids[:, begin:end], mask[:, begin:end], past_key_values=out.past_key_values)
        hidden.append(out.last_hidden_state)
    torch.testing.assert_close(torch.cat(hidden, 1), whole(model, ids, mask).last_hidden_state, rtol=0, atol=1e-9)


@torch.no_grad()
def test_a_prompt_in_bfloat16_leaves_a_cache_as_exact_as_the_whole_run():
    model = model_of()
    ids = torch.randint(7, 11, (2, 400))
    exact = whole(model, ids).last_hidden_state[:, 300:]
    model = model.to(torch.bfloat16)

    def error(plan):
        cache = model(ids[:, :300], use_cache=True, plan=plan).past_key_values
        assert cache.layers[0].signal.dtype == torch.float32
        return (model(ids[:, 300:], past_key_values=cache).last_hidden_state - exact).abs().mean()

    assert error(IN_PLACE) <= 1.1 * error(WHOLE)


@torch.no_grad()
def test_masks_and_heads():
    model = model_of(HyenaDNAForSequenceClassification, num_labels=3)
    ids = torch.randint(0, 12, (3, 50))
    mask = (torch.rand(3, 50) < 0.7).long()
    expected = whole(model, ids, mask).logits
    torch.testing.assert_close(model(ids, mask, plan=IN_PLACE).logits, expected, rtol=0, atol=1e-9)


@torch.no_grad()
@pytest.mark.parametrize("rows, length", [(2, 500), (301, 3)])
def test_bfloat16_is_as_near_to_the_exact_values_as_the_whole_run(rows, length):
    model = model_of()
    ids = torch.randint(7, 11, (rows, length))
    exact = whole(model, ids).last_hidden_state
    model.bfloat16()
    error = (whole(model, ids).last_hidden_state - exact).abs().mean()
    assert (model(ids, plan=IN_PLACE).last_hidden_state - exact).abs().mean() <= 1.1 * error


@torch.no_grad()
def test_under_autocast_inference_is_as_exact_as_the_whole_run():
    model = model_of()
    ids = torch.randint(7, 11, (2, 400))
    exact = whole(model, ids)[0]
    model.float()
    with torch.autocast("cpu", torch.bfloat16):
        assert model.plan(ids).path == "whole"
        error = (whole(model, ids)[0] - exact).abs().mean()
        assert 0 < (model(ids)[0] - exact).abs().mean() <= 1.1 * error


@torch.no_grad()
def test_what_the_user_passes_is_left_as_it_is():
    model = model_of()
    embeds = torch.randn(2, 40, 10, dtype=torch.float64)
    before = embeds.clone()
    out = model(inputs_embeds=embeds, output_hidden_states=True, plan=IN_PLACE)
    assert torch.equal(embeds, before) and torch.equal(out.hidden_states[0], before)
    torch.testing.assert_close(out[0], whole(model, inputs_embeds=embeds)[0], rtol=0, atol=1e-9)


@settings(max_examples=10)
@given(st.integers(1, 64))
def test_gradients_and_dropout_are_for_whole_runs(length):
    model = model_of()
    ids = torch.randint(7, 11, (1, length))
    assert model(ids)[0].requires_grad
    model.train()
    with torch.no_grad():
        assert not torch.equal(model(ids)[0], model(ids)[0])


class TestTrainingInPieces:
    """Values and gradients against those of the whole run, in float64."""

    @staticmethod
    def gradients(model, ids, plan, **kwargs):
        model.zero_grad()
        torch.manual_seed(3)
        out = model(ids, plan=plan, **kwargs)
        out[0].square().sum().backward()
        return [out[0].detach(), *(parameter.grad.clone() for parameter in model.parameters())]

    @pytest.mark.parametrize("order, short", [(2, 3), (3, 3), (4, 1), (2, 5)])
    @pytest.mark.parametrize("length", [1, 2, 7, 8, 65, 258])
    def test_gradients(self, length, order, short):
        model = model_of(hyena_order=order, short_filter_order=short, use_bias=order != 3)
        ids = torch.randint(0, 12, (2, length))
        expected = self.gradients(model, ids, TRANSPARENT)
        for plan in (WHOLE, ROWS, replace(ROWS, tuning=PREFIXES), PIECES, LOW):
            for mine, other in zip(self.gradients(model, ids, plan), expected):
                torch.testing.assert_close(mine, other, rtol=1e-8, atol=1e-8)

    @pytest.mark.parametrize("reentrant", [None, False, True])
    def test_checkpointing_and_masks(self, reentrant):
        model = model_of().train()
        model.backbone.dropout.p = 0.0
        ids = torch.randint(0, 12, (3, 40))
        mask = (torch.rand(3, 40) < 0.7).long()
        expected = self.gradients(model, ids, TRANSPARENT, attention_mask=mask)
        if reentrant is not None:
            # The second name is the first one's in transformers 4.
            enable = getattr(model, "activation_checkpointing_enable", None) or model.gradient_checkpointing_enable
            enable({"use_reentrant": reentrant})
            model.enable_input_require_grads()
        for plan in (PIECES,) if reentrant else (ROWS, PIECES):  # rows share a graph
            for mine, other in zip(self.gradients(model, ids, plan, attention_mask=mask), expected):
                torch.testing.assert_close(mine, other, rtol=1e-8, atol=1e-8)

    @pytest.mark.parametrize("plan", [ROWS, PIECES], ids=str)
    def test_dropout_is_the_same_when_it_is_computed_again(self, plan):
        """A finite difference along the gradient, with the same random numbers."""
        model = model_of(resid_dropout=0.3, hyena_dropout=0.3, embed_dropout=0.0).train()
        ids = torch.randint(7, 11, (1, 50))
        _, *gradients = self.gradients(model, ids, plan)
        squared = sum(float(gradient.square().sum()) for gradient in gradients)
        step = 1e-6 / squared**0.5
        losses = []
        for sign in (1, -2):
            with torch.no_grad():
                for parameter, gradient in zip(model.parameters(), gradients):
                    parameter += sign * step * gradient
            torch.manual_seed(3)
            losses.append(float(model(ids, plan=plan)[0].detach().square().sum()))
        assert abs((losses[0] - losses[1]) / (2 * step) / squared - 1) < 1e-5

    @pytest.mark.parametrize("plan", [WHOLE, ROWS, PIECES, LOW], ids=str)
    def test_autocast(self, plan):
        model = model_of().float()
        ids = torch.randint(7, 11, (2, 40))
        expected = self.gradients(model, ids, TRANSPARENT)
        with torch.autocast("cpu", torch.bfloat16):
            found = self.gradients(model, ids, plan)
            if plan is not ROWS:  # which rounds less: nothing but the linear layers is in bfloat16
                expected = self.gradients(model, ids, TRANSPARENT)
        for mine, other in zip(found, expected):
            assert (mine - other).abs().max() <= 0.03 * other.abs().max()

    @torch.no_grad()
    @pytest.mark.parametrize("plan", [WHOLE, replace(PIECES, mixer_in_pieces=False)], ids=str)
    def test_reading_into_a_cache(self, plan):
        model = model_of()
        ids = torch.randint(7, 11, (2, 40))
        found = model(ids, use_cache=True, plan=plan)[0]
        torch.testing.assert_close(found, whole(model, ids)[0], rtol=0, atol=1e-9)
