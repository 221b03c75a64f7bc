"""HyenaDNA once more, straight from its formulas: float64, direct convolution, one row, no padding."""

import math

import torch
from torch.nn import functional as F


def randomise(model):
    """Give every parameter a value of a size that matters: initial biases are zero and initial filters tiny."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("freq"):
                parameter.uniform_(1, 10)
            elif parameter.dim() == 1:
                parameter.normal_(1.0 if "norm" in name or "ln_f" in name else 0.0, 0.3)
            else:
                parameter.normal_(0, 1 / math.sqrt(parameter[0].numel()))
    return model


def parameters(model):
    """Copies of a model's parameters in float64, as leaves, under their names in the base model."""
    return {
        name.removeprefix("hyena."): value.detach().double().requires_grad_()
        for name, value in model.named_parameters()
    }


def hidden_states(p, config, input_ids):
    """
    All hidden states of one row.

    Args:
        p (`dict[str, torch.Tensor]`): Parameters, as `parameters` gives them.
        input_ids (`torch.LongTensor` of shape `(length,)`): Tokens.

    Returns:
        `list[torch.Tensor]`, `n_layer + 1` of shape `(length, d_model)`.
    """
    d = config.d_model

    def norm(h, name):
        return F.layer_norm(h, (d,), p[f"{name}.weight"], p[f"{name}.bias"], config.layer_norm_epsilon)

    def linear(h, name):
        return F.linear(h, p[f"{name}.weight"], p.get(f"{name}.bias"))

    h = p["backbone.embeddings.word_embeddings.weight"][input_ids]
    states = [h]
    for n in range(config.n_layer):
        layer = f"backbone.layers.{n}"
        u = linear(norm(h, f"{layer}.norm1"), f"{layer}.mixer.in_proj").T[None]  # [1, (order+1) D, L]
        size = config.short_filter_order
        kernel = p[f"{layer}.mixer.short_filter.weight"]
        u = F.conv1d(F.pad(u, (size - 1, 0)), kernel, p[f"{layer}.mixer.short_filter.bias"], groups=len(kernel))
        *x, v = u.split(d, dim=1)
        filters = long_filters(p, config, f"{layer}.mixer.filter_fn", len(input_ids))
        if config.bidirectional:
            reverse = long_filters(p, config, f"{layer}.mixer.filter_fn_rev", len(input_ids))
        skip = p.get(f"{layer}.mixer.filter_fn.bias")
        for o in range(config.hyena_order - 1):
            v = v * x[config.hyena_order - 1 - o]
            past = causal_conv_direct(v, filters[o])
            if skip is not None:
                past = past + skip[o * d : (o + 1) * d, None] * v
            v = past + future_conv_direct(v, reverse[o]) if config.bidirectional else past
        h = h + linear((v * x[0])[0].T, f"{layer}.mixer.out_proj")
        g = linear(norm(h, f"{layer}.norm2"), f"{layer}.mlp.fc1")
        h = h + linear(F.gelu(g, approximate="tanh"), f"{layer}.mlp.fc2")
        states.append(h)
    states[-1] = norm(states[-1], "backbone.ln_f")
    return states


def causal_conv_direct(v, k):
    """
    Compute a causal convolution by its definition, in O(length^2) time and memory.

    Args:
        v: Signal of shape `(batch, channels, length)`.
        k: Kernel of shape `(channels, length)`, lag 0 first.

    Returns:
        A tensor of the shape of `v`, in the precision of the arguments.
    """
    position = torch.arange(v.shape[-1], device=v.device)
    lag = position[:, None] - position[None, :]  # [T, S]
    toeplitz = k[:, lag.clamp(min=0)] * (lag >= 0)  # [C, T, S]
    return torch.einsum("cts,bcs->bct", toeplitz, v)


def future_conv_direct(v, k):
    """`y[t] = sum over s > t of k[s - t] * v[s]`, by the definition."""
    length = v.shape[-1]
    lag = torch.arange(length)[None, :] - torch.arange(length)[:, None]  # [T, S]
    return torch.einsum("cts,bcs->bct", k[:, lag.clamp(min=0)] * (lag > 0), v)


def long_filters(p, config, name, length):
    """The long filters of a layer, of shape `(hyena_order - 1, d_model, length)`."""
    l_max, bands = config.max_seq_len, (config.emb_dim - 1) // 2
    t = torch.linspace(0, 1, l_max, dtype=torch.float64)[:length, None]
    w = 2 * math.pi * torch.linspace(0, l_max - 1, l_max, dtype=torch.float64)[:length, None] / l_max
    f = torch.linspace(1e-4, bands - 1, bands, dtype=torch.float64)
    h = torch.cat([t, torch.cos(f * w), -torch.sin(f * w)], dim=1)
    freq = p.get(f"{name}.implicit_filter.1.freq", config.activation_freq)
    for i in range(config.num_inner_mlps + 1):
        layer = f"{name}.implicit_filter.{2 * i}"
        h = torch.sin(freq * F.linear(h, p[f"{layer}.weight"], p[f"{layer}.bias"]))
    h = F.linear(h, p[f"{name}.implicit_filter.{2 * config.num_inner_mlps + 2}.weight"])
    deltas = torch.linspace(math.log(1e-2) / 1.5, math.log(1e-2) / 0.3, h.shape[1], dtype=torch.float64)
    k = h * (torch.exp(-t * deltas.abs()) + 0.05)
    return k.T.reshape(config.hyena_order - 1, config.d_model, length)
