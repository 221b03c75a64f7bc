"""Values and gradients against the float64 reference with direct convolution."""

import pytest
import reference
import torch

from hyenadna_hf import HyenaDNAConfig, HyenaDNAModel

CONFIGS = {
    "order 2": {"max_seq_len": 70},
    "order 3": {"hyena_order": 3, "max_seq_len": 66},
    "order 4, odd kernel, three bands": {"hyena_order": 4, "short_filter_order": 4, "emb_dim": 7, "max_seq_len": 80},
    "no inner layers, no bias, fixed frequency": {"num_inner_mlps": 0, "use_bias": False, "train_freq": False},
    "one band": {"emb_dim": 3, "num_inner_mlps": 1, "short_filter_order": 1, "max_seq_len": 200},
    "bidirectional": {"bidirectional": True, "max_seq_len": 70},
}


@pytest.mark.parametrize("length", [1, 2, 3, 31, 66])
@pytest.mark.parametrize("sizes", CONFIGS.values(), ids=CONFIGS)
# float64 shows that the formulas are the same. In float32 the sines of a filter amplify rounding: 2e-4 of the largest.
@pytest.mark.parametrize("dtype, tolerance", [(torch.float64, 1e-9), (torch.float32, 2e-4)])
def test_values_and_gradients_equal_the_reference(make_model, sizes, length, dtype, tolerance):
    config = HyenaDNAConfig(d_model=6, n_layer=2, filter_order=8, embed_dropout=0.0, **sizes)
    model = make_model(HyenaDNAModel, config, dtype)
    ids = torch.randint(0, config.vocab_size, (length,))
    weight = torch.randn(config.n_layer + 1, length, config.d_model, dtype=torch.float64)

    expected = reference.parameters(model)
    states = reference.hidden_states(expected, config, ids)
    (torch.stack(states) * weight).sum().backward()

    ours = model(ids[None], output_hidden_states=True).hidden_states
    (torch.cat(ours) * weight).sum().backward()

    assert len(ours) == len(states) == config.n_layer + 1
    for mine, state in zip(ours, states, strict=True):
        close(mine[0], state, tolerance)
    for name, parameter in model.named_parameters():
        assert expected[name].grad.abs().max() > 0 or length == 1, name
        close(parameter.grad, expected[name].grad, tolerance)


def close(mine, expected, tolerance):
    scale = max(float(expected.detach().abs().max()), 1.0)
    torch.testing.assert_close(mine.double(), expected, rtol=0, atol=tolerance * scale)


def test_gradient_checkpointing_changes_nothing(make_model, config):
    plain = make_model(HyenaDNAModel, config).train()
    saving = HyenaDNAModel(config).train()
    saving.load_state_dict(plain.state_dict())
    # The second name is the first one's in transformers 4.
    getattr(saving, "activation_checkpointing_enable", saving.gradient_checkpointing_enable)()
    assert saving.state_dict().keys() == plain.state_dict().keys()
    ids = torch.randint(7, 12, (2, 33))
    for model in (plain, saving):
        model(ids).last_hidden_state.square().sum().backward()
    for (name, a), b in zip(plain.named_parameters(), saving.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad, rtol=0, atol=1e-5 * max(1, float(a.grad.abs().max())), msg=name)
