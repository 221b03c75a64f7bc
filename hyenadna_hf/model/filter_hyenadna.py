"""The implicit long filters, and the constants of published checkpoints that they compute instead."""

import math
import re

import torch
from torch import nn
from torch.nn import functional as F


def positional_features(lags, config, dtype):
    """
    Compute what the implicit filters are functions of, in float64.

    Args:
        lags (`torch.LongTensor` of shape `(length,)`): Positions in the filter, from 0 on.
        config ([`HyenaDNAConfig`]): Gives `max_seq_len` and `emb_dim`.
        dtype (`torch.dtype`): Of the result.

    Returns:
        `tuple(torch.Tensor)`: times, which run from 0 to 1 over max_seq_len, of shape `(length, 1)`, and features
        `[t, cos(f w), -sin(f w)]` of shape `(length, emb_dim)`.
    """
    precise = {"dtype": _most_precise(lags.device), "device": lags.device}
    bands = (config.emb_dim - 1) // 2
    position = lags.to(**precise)[:, None]
    t = position / (config.max_seq_len - 1)
    w = 2 * math.pi * position / config.max_seq_len
    f = torch.linspace(1e-4, bands - 1, bands, **precise)
    z = torch.cat([t, torch.cos(f * w), -torch.sin(f * w)], dim=-1)
    return t.to(dtype), z.to(dtype)


def decay_rates(config, device, dtype):
    """Compute how fast each filter decays over max_seq_len, of shape `(hyena_order - 1, d_model)`."""
    slow, fast = -math.log(1e-2) / 1.5, -math.log(1e-2) / 0.3
    channels = config.d_model * (config.hyena_order - 1)
    rates = torch.linspace(slow, fast, channels, dtype=_most_precise(device), device=device).to(dtype)
    return rates.view(-1, config.d_model)


def _most_precise(device):
    return torch.float32 if device.type == "mps" else torch.float64


# What published checkpoints store and this model computes, or has only once ("implicit_filter.1.freq").
PUBLISHED_CONSTANT = re.compile(
    r"(?P<filter>.*filter_fn\.)(?:pos_emb\.(?P<position>[tz])|modulation\.deltas|implicit_filter\.(?!1\.)\d+\.freq)$"
)


def published_constants(config, names, get_tensor):
    """
    The constants that a published checkpoint stores, compared with what this model uses in their place.

    Stored constants differ from the formula by up to 1e-6, trained ones by far more; the tolerance is 1e-5.

    Args:
        config ([`HyenaDNAConfig`]): Of the model that the weights are for.
        names (iterable of `str`): The names in the checkpoint.
        get_tensor (`Callable[[str], torch.Tensor]`): Gives the tensor of a name.

    Returns:
        `dict[str, str | None]`: those of `names` that are constants, with how each differs, or `None` if it does not.
    """
    names = set(names)
    found = {}
    cpu = torch.device("cpu")
    t = z = None
    for name in sorted(names):
        match = PUBLISHED_CONSTANT.match(name)
        if match is None:
            continue
        stored = get_tensor(name).detach().to(cpu, torch.float64)
        if match["position"]:
            if t is None:
                t, z = positional_features(torch.arange(config.max_seq_len), config, torch.float64)
            expected = (t if match["position"] == "t" else z)[None]
        elif name.endswith("deltas"):
            expected = -decay_rates(config, cpu, torch.float64).view(1, 1, -1)
        else:
            first = f"{match['filter']}implicit_filter.1.freq"
            if first not in names:
                found[name] = f"is a copy of {first}, which is missing"
                continue
            expected = get_tensor(first).detach().to(cpu, torch.float64)
        found[name] = None
        if stored.shape != expected.shape:
            found[name] = f"has shape {tuple(stored.shape)} instead of {tuple(expected.shape)}"
        elif not torch.allclose(stored, expected, rtol=0, atol=1e-5):
            found[name] = f"differs by up to {float((stored - expected).abs().max()):.2g}"
    return found


def check_published_constants(config, names, get_tensor):
    """
    Make sure that leaving out the constants that a published checkpoint stores loses nothing.

    The arguments are those of [`published_constants`].

    Returns:
        `list[str]`: those of `names` that are constants, and no parameters of a model with this configuration.

    Raises:
        ValueError: if one of them is not what this model uses in its place.
    """
    if config.trained_positions:
        names = [name for name in names if not name.endswith("pos_emb.z")]
    found = published_constants(config, names, get_tensor)
    for name, difference in found.items():
        if difference is not None:
            raise ValueError(
                f"{name} in the checkpoint is not what this model uses in its place (max_seq_len={config.max_seq_len}, "
                f"emb_dim={config.emb_dim}; it {difference}): it was trained, or belongs to another config. Without it "
                "every prediction would change, so the weights are not loaded. `hyenadna convert` keeps trained "
                "positional features."
            )
    return list(found)


class HyenaDNASine(nn.Module):
    """`sin(freq * x)`; the one `freq` of a filter serves all its layers."""

    def __init__(self, config):
        super().__init__()
        self.freq = config.activation_freq
        if config.train_freq:
            self.freq = nn.Parameter(torch.full((1, config.filter_order), float(config.activation_freq)))

    def forward(self, x):
        freq = self.freq.to(x.dtype) if isinstance(self.freq, torch.Tensor) else self.freq
        return torch.sin(freq * x)


class HyenaDNAFilterLinear(nn.Linear):
    """A linear layer in the precision of its input: positions need float32 even where the weights are bfloat16."""

    def forward(self, x):
        return F.linear(x, self.weight.to(x.dtype), None if self.bias is None else self.bias.to(x.dtype))


class HyenaDNAPositions(nn.Module):
    """Positional features of a filter's own: parameters that began as the formula."""

    def __init__(self, config):
        super().__init__()
        self.z = nn.Parameter(torch.empty(1, config.max_seq_len, config.emb_dim))

    def forward(self, lags):
        """Return the features of some lags, `(length,)` to `(length, emb_dim)`: zeros after the last trained one."""
        trained = self.z.shape[1]
        return self.z[0, lags.clamp(max=trained - 1)] * (lags < trained)[:, None]


class HyenaDNAFilter(nn.Module):
    """
    The `hyena_order - 1` kernels of a layer: a sine MLP of the position under an exponential decay, plus skip terms.

    A skip term `bias * v[t]` of a long convolution is the same as `bias` at lag 0 of its kernel.

    Args:
        config ([`HyenaDNAConfig`]): Of the model.
        skip (`bool`, defaults to `True`): Whether there may be skip terms; kernels over the future have none.
    """

    def __init__(self, config, skip=True):
        super().__init__()
        self.config = config
        channels = config.d_model * (config.hyena_order - 1)
        self.bias = nn.Parameter(torch.randn(channels)) if config.use_bias and skip else None
        self.pos_emb = HyenaDNAPositions(config) if config.trained_positions else None
        # Numbered as published, where the activation stands between the linear layers as "1", "3", "5", ...
        width = config.filter_order
        layers = {"0": HyenaDNAFilterLinear(config.emb_dim, width), "1": HyenaDNASine(config)}
        for i in range(1, config.num_inner_mlps + 1):
            layers[str(2 * i)] = HyenaDNAFilterLinear(width, width)
        self.last = str(2 * config.num_inner_mlps + 2)
        layers[self.last] = HyenaDNAFilterLinear(width, channels, bias=False)
        self.implicit_filter = nn.ModuleDict(layers)

    def forward(self, lags):
        """
        Compute the kernels at some lags, at least in float32.

        Args:
            lags (`torch.LongTensor` of shape `(length,)`): Ascending by one; skip terms are at lag 0, if it is there.

        Returns:
            `torch.Tensor` of shape `(hyena_order - 1, d_model, length)`.
        """
        return self.kernel(*self.features(lags))

    def features(self, lags):
        """Compute times, `(length, 1)`, and what the last layer reads, `(length, filter_order)`."""
        dtype = torch.promote_types(self.implicit_filter[self.last].weight.dtype, torch.float32)
        with torch.autocast(lags.device.type, enabled=False):
            times, z = positional_features(lags, self.config, dtype)
            if self.pos_emb is not None:
                z = self.pos_emb(lags).to(dtype)
            first, sine, *inner, _ = self.implicit_filter.values()
            h = sine(first(z))
            for layer in inner:
                h = sine(layer(h))
        return times, h

    def kernel(self, times, features, part=None, out=None, scratch=None):
        """
        Compute kernels from what [`HyenaDNAFilter.features`] gives.

        Args:
            part (`tuple(slice, slice)`, *optional*): Which kernels, and which of their channels; by default all, and
                then the last layer is called as a module.
            out, scratch (`torch.Tensor`, *optional*):
                Where to write them, without gradient, and memory to work in, both of the shape of the result.

        The other arguments are those of `forward`.
        """
        last = self.implicit_filter[self.last]
        rates = decay_rates(self.config, times.device, times.dtype)
        with torch.autocast(times.device.type, enabled=False):
            if part is None:
                h = last(features).T.unflatten(0, rates.shape)
            else:
                rates = rates[part]
                weight = last.weight.unflatten(0, (-1, self.config.d_model))[part].to(times.dtype)
                to = None if scratch is None else scratch.flatten(0, 1)
                h = torch.mm(weight.flatten(0, 1), features.T, out=to).unflatten(0, rates.shape)
            decay = torch.mul(rates[..., None], -times.T, out=out).exp_().add_(0.05)
            k = torch.mul(decay, h, out=out)
            if self.bias is None:
                return k
            skip = self.bias.view(-1, self.config.d_model)[slice(None) if part is None else part]
            skip = skip.to(k.dtype) * (times[0] == 0)
            if out is None:
                return k + F.pad(skip[..., None], (0, k.shape[-1] - 1))
            k[..., 0] += skip
            return k

    def _load_from_state_dict(self, state_dict, prefix, *args):
        mine = {name: tensor for name, tensor in state_dict.items() if name.startswith(prefix)}
        for name in check_published_constants(self.config, mine, mine.get):
            del state_dict[name]
        super()._load_from_state_dict(state_dict, prefix, *args)
