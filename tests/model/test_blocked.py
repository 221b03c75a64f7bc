"""Inference and training in pieces against the same model run whole, in float64, and the choice between them."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from peft import LoraConfig, get_peft_model
from reference import randomise

from hyenadna_hf import HyenaDNAConfig, HyenaDNAForSequenceClassification, HyenaDNAModel
from hyenadna_hf.model import blocked_hyenadna, fftconv_hyenadna, modeling_hyenadna


def model_of(model_class=HyenaDNAModel, **kwargs):
    torch.manual_seed(0)
    defaults = {"d_model": 10, "n_layer": 2, "max_seq_len": 3000, "filter_order": 8, "embed_dropout": 0.1}
    return randomise(model_class(HyenaDNAConfig(**{**defaults, **kwargs}))).double().eval()


@pytest.fixture
def blocked(monkeypatch):
    """Small pieces, at any length."""
    for module in (blocked_hyenadna, modeling_hyenadna):
        monkeypatch.setattr(module, "POSITIONS", 7)
        monkeypatch.setattr(module, "TRANSFORMS", 3)
    monkeypatch.setattr(blocked_hyenadna, "SHORT_TRANSFORMS", 1)
    monkeypatch.setattr(blocked_hyenadna, "SMALL_GATES", 1)
    monkeypatch.setattr(modeling_hyenadna, "BLOCKED_FROM", 1)


def whole(model, *args, **kwargs):
    """The reference: with gradients on, nothing runs blocked."""
    with torch.enable_grad():
        return model(*args, **kwargs)


@pytest.mark.parametrize("order, short", [(2, 3), (3, 3), (4, 1), (2, 5)])
@pytest.mark.parametrize("length", [1, 2, 3, 6, 7, 8, 29, 257, 1000])
def test_values(blocked, length, order, short):
    model = model_of(hyena_order=order, short_filter_order=short, use_bias=order != 3)
    ids = torch.randint(0, 12, (2, length))
    with torch.no_grad():
        out = model(ids, output_hidden_states=True)
    expected = whole(model, ids, output_hidden_states=True)
    for mine, other in zip(out.hidden_states, expected.hidden_states):
        torch.testing.assert_close(mine, other, rtol=0, atol=1e-9)


@torch.no_grad()
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("length", [1, 2, 3, 4])
def test_several_short_rows_share_a_piece(blocked, length, masked):
    model = model_of(hyena_order=3)
    ids = torch.randint(0, 12, (11, length))
    mask = (torch.rand(11, length) < 0.8).long() if masked else None
    torch.testing.assert_close(model(ids, mask)[0], whole(model, ids, mask)[0], rtol=0, atol=1e-9)


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
def test_reading_a_prompt_into_a_cache(blocked, monkeypatch, length, order, short, masked):
    monkeypatch.setattr(fftconv_hyenadna, "LEAST_BEGINNING", 1)
    model = model_of(hyena_order=order, short_filter_order=short)
    ids = torch.randint(0, 12, (2, length + 90))
    mask = torch.ones_like(ids)
    if masked:
        mask[1, : length // 2 + 1] = 0
        mask[0, length // 3] = 0
    out = model(ids[:, :length], mask[:, :length], use_cache=True)
    hidden = [out.last_hidden_state]
    for begin, end in [(length, length + 50), *((i, i + 1) for i in range(length + 50, length + 90))]:
        out = model(ids[:, begin:end], mask[:, begin:end], past_key_values=out.past_key_values)
        hidden.append(out.last_hidden_state)
    torch.testing.assert_close(torch.cat(hidden, 1), whole(model, ids, mask).last_hidden_state, rtol=0, atol=1e-9)


@torch.no_grad()
def test_a_prompt_in_bfloat16_leaves_a_cache_as_exact_as_the_whole_run(blocked, monkeypatch):
    model = model_of()
    ids = torch.randint(7, 11, (2, 400))
    exact = whole(model, ids).last_hidden_state[:, 300:]
    model = model.to(torch.bfloat16)

    def error():
        cache = model(ids[:, :300], use_cache=True).past_key_values
        assert cache.layers[0].signal.dtype == torch.float32
        return (model(ids[:, 300:], past_key_values=cache).last_hidden_state - exact).abs().mean()

    in_pieces = error()
    monkeypatch.setattr(modeling_hyenadna, "BLOCKED_FROM", 10**9)
    assert in_pieces <= 1.1 * error()


@torch.no_grad()
def test_masks_and_heads(blocked):
    model = model_of(HyenaDNAForSequenceClassification, num_labels=3)
    ids = torch.randint(0, 12, (3, 50))
    mask = (torch.rand(3, 50) < 0.7).long()
    expected = whole(model, ids, mask).logits
    torch.testing.assert_close(model(ids, mask).logits, expected, rtol=0, atol=1e-9)


@torch.no_grad()
@pytest.mark.parametrize("rows, length", [(2, 500), (301, 3)])
def test_bfloat16_is_as_near_to_the_exact_values_as_the_whole_run(blocked, rows, length):
    model = model_of()
    ids = torch.randint(7, 11, (rows, length))
    exact = whole(model, ids).last_hidden_state
    model.bfloat16()
    error = (whole(model, ids).last_hidden_state - exact).abs().mean()
    assert (model(ids).last_hidden_state - exact).abs().mean() <= 1.1 * error


@torch.no_grad()
def test_autocast_decides_on_dtypes_itself(blocked):
    model = model_of(memory="low").float()  # with kept spectra, what is rounded to bfloat16 differs
    ids = torch.randint(7, 11, (2, 40))
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(model(ids)[0], whole(model, ids)[0], rtol=0, atol=0)


@torch.no_grad()
def test_what_the_user_passes_is_left_as_it_is(blocked):
    model = model_of()
    embeds = torch.randn(2, 40, 10, dtype=torch.float64)
    before = embeds.clone()
    out = model(inputs_embeds=embeds, output_hidden_states=True)
    assert torch.equal(embeds, before) and torch.equal(out.hidden_states[0], before)
    torch.testing.assert_close(out[0], whole(model, inputs_embeds=embeds)[0], rtol=0, atol=1e-9)


@torch.no_grad()
@pytest.mark.parametrize(
    "targets", [["in_proj", "out_proj"], ["fc1", "fc2"], ["implicit_filter.0", "implicit_filter.6"]]
)
def test_adapters(blocked, targets):
    model = get_peft_model(model_of(), LoraConfig(target_modules=targets)).eval()
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            parameter.normal_(0, 0.3)
    ids = torch.randint(7, 11, (2, 40))
    expected = whole(model, input_ids=ids)[0]
    torch.testing.assert_close(model(input_ids=ids)[0], expected, rtol=0, atol=1e-9)
    with model.disable_adapter():
        assert not torch.allclose(model(input_ids=ids)[0], expected)


@torch.no_grad()
def test_hooks_see_whole_inputs(blocked):
    model = model_of()
    ids = torch.randint(7, 11, (2, 40))
    expected = whole(model, ids)[0]
    seen = []
    model.backbone.layers[1].mlp.register_forward_hook(lambda module, inputs, output: seen.append(output.shape))
    torch.testing.assert_close(model(ids)[0], expected, rtol=0, atol=1e-9)
    assert seen == [(2, 40, 10)]


@settings(deadline=None, max_examples=10)
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
    def gradients(model, ids, monkeypatch, pieces, **kwargs):
        monkeypatch.setattr(modeling_hyenadna, "RECOMPUTED_FROM", 1 if pieces else 1 << 60)
        model.zero_grad()
        torch.manual_seed(3)
        out = model(ids, **kwargs)
        out[0].square().sum().backward()
        return [out[0].detach(), *(parameter.grad.clone() for parameter in model.parameters())]

    @pytest.mark.parametrize("order, short", [(2, 3), (3, 3), (4, 1), (2, 5)])
    @pytest.mark.parametrize("length", [1, 2, 7, 8, 65, 258])
    def test_gradients(self, blocked, monkeypatch, length, order, short):
        model = model_of(hyena_order=order, short_filter_order=short, use_bias=order != 3)
        ids = torch.randint(0, 12, (2, length))
        pieces, expected = (self.gradients(model, ids, monkeypatch, pieces) for pieces in (True, False))
        for mine, other in zip(pieces, expected):
            torch.testing.assert_close(mine, other, rtol=1e-8, atol=1e-8)

    @pytest.mark.parametrize("reentrant", [None, False, True])
    def test_checkpointing_and_masks(self, blocked, monkeypatch, reentrant):
        model = model_of().train()
        model.backbone.dropout.p = 0.0
        ids = torch.randint(0, 12, (3, 40))
        mask = (torch.rand(3, 40) < 0.7).long()
        expected = self.gradients(model, ids, monkeypatch, False, attention_mask=mask)
        if reentrant is not None:
            # The second name is the first one's in transformers 4.
            enable = getattr(model, "activation_checkpointing_enable", None) or model.gradient_checkpointing_enable
            enable({"use_reentrant": reentrant})
            model.enable_input_require_grads()
        pieces = self.gradients(model, ids, monkeypatch, True, attention_mask=mask)
        for mine, other in zip(pieces, expected):
            torch.testing.assert_close(mine, other, rtol=1e-8, atol=1e-8)

    def test_dropout_is_the_same_when_it_is_computed_again(self, blocked, monkeypatch):
        """A finite difference along the gradient, with the same random numbers."""
        model = model_of(resid_dropout=0.3, hyena_dropout=0.3, embed_dropout=0.0).train()
        ids = torch.randint(7, 11, (1, 50))
        _, *gradients = self.gradients(model, ids, monkeypatch, True)
        squared = sum(float(gradient.square().sum()) for gradient in gradients)
        step = 1e-6 / squared**0.5
        losses = []
        for sign in (1, -2):
            with torch.no_grad():
                for parameter, gradient in zip(model.parameters(), gradients):
                    parameter += sign * step * gradient
            torch.manual_seed(3)
            losses.append(float(model(ids)[0].detach().square().sum()))
        assert abs((losses[0] - losses[1]) / (2 * step) / squared - 1) < 1e-5

    def test_adapters(self, blocked, monkeypatch):
        model = get_peft_model(model_of(), LoraConfig(target_modules=["in_proj", "fc1", "implicit_filter.6"]))
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(parameter, std=0.3)
        ids = torch.randint(7, 11, (2, 40))
        trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
        results = []
        for pieces in (True, False):
            monkeypatch.setattr(modeling_hyenadna, "RECOMPUTED_FROM", 1 if pieces else 1 << 60)
            loss = model(input_ids=ids)[0].square().sum()
            results.append(torch.autograd.grad(loss, trained))
        for mine, other in zip(*results):
            torch.testing.assert_close(mine, other, rtol=1e-8, atol=1e-8)

    @pytest.mark.parametrize("memory", ["auto", "low"])
    def test_autocast(self, blocked, monkeypatch, memory):
        model = model_of(memory=memory).float()
        ids = torch.randint(7, 11, (2, 40))
        with torch.autocast("cpu", torch.bfloat16):
            pieces, expected = (self.gradients(model, ids, monkeypatch, pieces) for pieces in (True, False))
        for mine, other in zip(pieces, expected):
            assert (mine - other).abs().max() <= 0.03 * other.abs().max()  # both round to bfloat16

    @torch.no_grad()
    def test_reading_into_a_cache(self, blocked, monkeypatch):
        model = model_of()
        ids = torch.randint(7, 11, (2, 40))
        monkeypatch.setattr(modeling_hyenadna, "RECOMPUTED_FROM", 1)
        monkeypatch.setattr(modeling_hyenadna, "BLOCKED_FROM", 10**9)
        torch.testing.assert_close(model(ids, use_cache=True)[0], whole(model, ids)[0], rtol=0, atol=1e-9)


class Quantised(torch.Tensor):
    """As the weights of torchao are: they have the product of a linear layer, and no views."""

    @classmethod
    def __torch_function__(cls, function, types, args=(), kwargs=None):
        if function in (torch.Tensor.view, torch.Tensor.unflatten, torch.Tensor.__getitem__):
            raise NotImplementedError(function)
        out = super().__torch_function__(function, types, args, kwargs or {})
        return out.as_subclass(torch.Tensor) if function is torch.nn.functional.linear else out


def test_quantised_weights_are_used_by_their_layers(blocked, monkeypatch):
    model = model_of()
    ids = torch.randint(0, 12, (2, 40))
    expected = whole(model, ids).last_hidden_state
    for block in model.backbone.layers:
        for linear in (block.mixer.in_proj, block.mixer.out_proj, block.mlp.fc1):
            linear.weight = torch.nn.Parameter(linear.weight.detach().as_subclass(Quantised))
    with torch.no_grad():
        torch.testing.assert_close(model(ids).last_hidden_state, expected)
    monkeypatch.setattr(modeling_hyenadna, "RECOMPUTED_FROM", 1)
    torch.testing.assert_close(model(ids).last_hidden_state, expected)
