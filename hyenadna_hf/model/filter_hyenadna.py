"""The implicit long filters, and the constants of published checkpoints that they compute instead."""

import math
import re

import torch
from torch import nn
from torch.nn import functional as F


def positional_features(length, config, device, dtype, start=0):
    """
    What the implicit filters are functions of, for `length` positions from `start` on; computed in float64.

    Args:
        length (`int`): Number of positions.
        config ([`HyenaDNAConfig`]): Gives `max_seq_len` and `emb_dim`.
        device, dtype: Of the result.
        start (`int`, defaults to 0): The first position.

    Returns:
        `tuple(torch.Tensor)`: time `t`, which runs from 0 to 1 over max_seq_len, of shape `(length, 1)`, and features
        `z = [t, cos(f w), -sin(f w)]` of shape `(length, emb_dim)`.
    """
    precise = {"dtype": _most_precise(device), "device": device}
    bands = (config.emb_dim - 1) // 2
    position = torch.arange(start, start + length, **precise)[:, None]
    t = position / (config.max_seq_len - 1)
    w = 2 * math.pi * position / config.max_seq_len
    f = torch.linspace(1e-4, bands - 1, bands, **precise)
    z = torch.cat([t, torch.cos(f * w), -torch.sin(f * w)], dim=-1)
    return t.to(dtype), z.to(dtype)


def decay_rates(config, device, dtype):
    """How fast each filter channel decays over max_seq_len, of shape `(d_model * (hyena_order - 1),)`."""
    slow, fast = -math.log(1e-2) / 1.5, -math.log(1e-2) / 0.3
    channels = config.d_model * (config.hyena_order - 1)
    return torch.linspace(slow, fast, channels, dtype=_most_precise(device), device=device).to(dtype)


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
                t, z = positional_features(config.max_seq_len, config, cpu, torch.float64)
            expected = (t if match["position"] == "t" else z)[None]
        elif name.endswith("deltas"):
            expected = -decay_rates(config, cpu, torch.float64)[None, None]
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

    def forward(self, length, start=0):
        """Those of `length` positions from `start` on; behind the last trained one, zeros."""
        z = self.z[0, start : start + length]
        return F.pad(z, (0, 0, 0, length - len(z)))


class HyenaDNAFilter(nn.Module):
    """
    The `hyena_order - 1` implicit long filters of a layer: a sine MLP of the position under an exponential decay.

    Args:
        config ([`HyenaDNAConfig`]): Of the model.
        skip (`bool`, defaults to `True`): Whether there may be skip terms; filters over the future have none.
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

    def forward(self, length, device, start=0):
        """
        The filters for `length` lags from `start` on, at least in float32, and the weights of their skip terms.

        Everything that reads a parameter is in here, so that hooks may bring it from elsewhere (offloading, sharding).

        Returns:
            `tuple`: filters of shape `(hyena_order - 1, d_model, length)`, and for each of them its skip weights, of
            shape `(d_model,)`, or `None`.
        """
        t, features = self.features(length, device, start)
        with torch.autocast(device.type, enabled=False):
            decay = torch.exp(-t * decay_rates(self.config, device, t.dtype)) + 0.05
            h = self.implicit_filter[self.last](features) * decay  # [L, C]
        filters = h.T.reshape(-1, self.config.d_model, length)
        return filters, [None] * len(filters) if self.bias is None else self.bias.view(len(filters), -1)

    def _positions(self, length, device, dtype, start=0):
        t, z = positional_features(length, self.config, device, dtype, start)
        return t, z if self.pos_emb is None else self.pos_emb(length, start).to(dtype)

    def _features(self, z):
        """What the last layer reads: `(length, emb_dim)` to `(length, filter_order)`."""
        first, sine, *inner, _ = self.implicit_filter.values()
        h = sine(first(z))
        for layer in inner:
            h = sine(layer(h))
        return h

    def features(self, length, device, start=0):
        """Times, `(length, 1)`, and what the last layer reads, `(length, filter_order)`, at least in float32."""
        dtype = torch.promote_types(self.implicit_filter[self.last].weight.dtype, torch.float32)
        with torch.autocast(device.type, enabled=False):
            t, z = self._positions(length, device, dtype, start)
            return t, self._features(z)

    def piece(self, t, features, channels):
        """What `forward` gives, for some channels (a `slice`), made of what `features` gave."""
        weight = self.implicit_filter[self.last].weight.view(-1, self.config.d_model, features.shape[-1])[:, channels]
        rates = decay_rates(self.config, t.device, t.dtype).view(len(weight), -1, 1)[:, channels]
        with torch.autocast(t.device.type, enabled=False):
            filters = (weight.to(t.dtype) @ features.T) * (torch.exp(-rates * t.T) + 0.05)
        if self.bias is None:
            return filters, [None] * len(filters)
        return filters, self.bias.view(len(filters), -1)[:, channels]

    def in_pieces(self, length, device):
        """
        The filters a few channels at a time, with their skip terms at lag 0, for inference.

        Returns:
            `Callable`: `fill(i, channels, out, scratch)` writes filter i of the channels (a `slice`) to `out`;
            both tensors are of shape `(channels, length)`.
        """
        last = self.implicit_filter[self.last]
        dtype = torch.promote_types(last.weight.dtype, torch.float32)
        t, z = self._positions(length, device, dtype)
        features = z.new_empty(length, self.config.filter_order)
        for out, piece in zip(features.split(8192), z.split(8192)):
            out.copy_(self._features(piece))
        rates = decay_rates(self.config, device, dtype)[:, None]

        def fill(i, channels, out, scratch):
            rows = slice(i * self.config.d_model + channels.start, i * self.config.d_model + channels.stop)
            torch.mul(rates[rows], -t.T, out=out).exp_().add_(0.05)
            out *= torch.mm(last.weight[rows].to(dtype), features.T, out=scratch)
            if self.bias is not None:
                out[:, 0] += self.bias[rows]

        return fill

    def _load_from_state_dict(self, state_dict, prefix, *args):
        mine = {name: tensor for name, tensor in state_dict.items() if name.startswith(prefix)}
        for name in check_published_constants(self.config, mine, mine.get):
            del state_dict[name]
        super()._load_from_state_dict(state_dict, prefix, *args)
