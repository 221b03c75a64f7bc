"""Implicit long filters, and the constants of published checkpoints that they compute instead of loading them."""

import math
import re
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .configuration_hyenadna import HyenaDNAConfig


def positional_features(lags: Tensor, config: HyenaDNAConfig, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """
    Compute the inputs of the implicit filters, in float64 where the device has it.

    Args:
        lags: Integer positions in the filter, from 0 on, of shape `(length,)`.
        config: Provides `max_seq_len` and `emb_dim`.
        dtype: Data type of the result.

    Returns:
        Times of shape `(length, 1)`, from 0 to 1 over `max_seq_len`, and features `[t, cos(f w), -sin(f w)]` of shape
        `(length, emb_dim)`.
    """
    precise = {"dtype": _most_precise(lags.device), "device": lags.device}
    bands = (config.emb_dim - 1) // 2
    position = lags.to(**precise)[:, None]
    t = position / (config.max_seq_len - 1)
    w = 2 * math.pi * position / config.max_seq_len
    f = torch.linspace(1e-4, bands - 1, bands, **precise)
    z = torch.cat([t, torch.cos(f * w), -torch.sin(f * w)], dim=-1)
    return t.to(dtype), z.to(dtype)


def decay_rates(config: HyenaDNAConfig, device: torch.device, dtype: torch.dtype) -> Tensor:
    """Compute the exponential decay rate of each filter over `max_seq_len`, of shape `(hyena_order - 1, d_model)`."""
    slow, fast = -math.log(1e-2) / 1.5, -math.log(1e-2) / 0.3
    channels = config.d_model * (config.hyena_order - 1)
    rates = torch.linspace(slow, fast, channels, dtype=_most_precise(device), device=device).to(dtype)
    return rates.view(-1, config.d_model)


def _most_precise(device: torch.device) -> torch.dtype:
    return torch.float32 if device.type == "mps" else torch.float64


# Tensors of published checkpoints that this model computes, or shares between layers ("implicit_filter.1.freq").
PUBLISHED_CONSTANT = re.compile(
    r"(?P<filter>.*filter_fn\.)(?:pos_emb\.(?P<position>[tz])|modulation\.deltas|implicit_filter\.(?!1\.)\d+\.freq)$"
)


def published_constants(
    config: HyenaDNAConfig, names: Iterable[str], get_tensor: Callable[[str], Tensor]
) -> dict[str, str | None]:
    """
    Compare the constants stored in a published checkpoint with those that this model uses instead.

    Stored constants differ from the formula by up to 1e-6, trained ones by far more; the tolerance is 1e-5.

    Args:
        config: Configuration of the model that the weights are for.
        names: Names of the tensors in the checkpoint.
        get_tensor: Returns the tensor of a name.

    Returns:
        For each name of a constant, a description of the difference, or `None` if there is none.
    """
    names = set(names)
    differences: dict[str, str | None] = {}
    cpu = torch.device("cpu")
    features: dict[str, Tensor] = {}
    for name in sorted(names):
        match = PUBLISHED_CONSTANT.match(name)
        if match is None:
            continue
        stored = get_tensor(name).detach().to(cpu, torch.float64)
        if match["position"]:
            if not features:
                features = dict(zip("tz", positional_features(torch.arange(config.max_seq_len), config, torch.float64)))
            expected = features[match["position"]][None]
        elif name.endswith("deltas"):
            expected = -decay_rates(config, cpu, torch.float64).view(1, 1, -1)
        else:
            first = f"{match['filter']}implicit_filter.1.freq"
            if first not in names:
                differences[name] = f"is a copy of {first}, which is missing"
                continue
            expected = get_tensor(first).detach().to(cpu, torch.float64)
        differences[name] = None
        if stored.shape != expected.shape:
            differences[name] = f"has shape {tuple(stored.shape)} instead of {tuple(expected.shape)}"
        elif not torch.allclose(stored, expected, rtol=0, atol=1e-5):
            differences[name] = f"differs by up to {float((stored - expected).abs().max()):.2g}"
    return differences


def check_published_constants(
    config: HyenaDNAConfig, names: Iterable[str], get_tensor: Callable[[str], Tensor]
) -> list[str]:
    """
    Check that the constants stored in a published checkpoint can be dropped without loss.

    The arguments are those of [`published_constants`].

    Returns:
        The names of constants, which are not parameters of a model with this configuration.

    Raises:
        ValueError: If a constant differs from the one that this model uses instead.
    """
    if config.trained_positions:
        names = [name for name in names if not name.endswith("pos_emb.z")]
    differences = published_constants(config, names, get_tensor)
    for name, difference in differences.items():
        if difference is not None:
            raise ValueError(
                f"{name} in the checkpoint does not match the constant that this model uses instead (max_seq_len="
                f"{config.max_seq_len}, emb_dim={config.emb_dim}; it {difference}): it was trained, or belongs to "
                "another config. The weights are not loaded, since every prediction would change. `hyenadna convert` "
                "keeps trained positional features."
            )
    return list(differences)


class HyenaDNASine(nn.Module):
    """Compute `sin(freq * x)`; all layers of a filter share `freq`."""

    def __init__(self, config: HyenaDNAConfig) -> None:
        super().__init__()
        self.freq: float | Tensor = config.activation_freq
        if config.train_freq:
            self.freq = nn.Parameter(torch.full((1, config.filter_order), float(config.activation_freq)))

    def forward(self, x: Tensor) -> Tensor:
        freq = self.freq.to(x.dtype) if isinstance(self.freq, Tensor) else self.freq
        return torch.sin(freq * x)


class HyenaDNAFilterLinear(nn.Linear):
    """Linear layer in the precision of its input: positions need float32 even if the weights are bfloat16."""

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight.to(x.dtype), None if self.bias is None else self.bias.to(x.dtype))


class HyenaDNAPositions(nn.Module):
    """Trained positional features of a filter, initialised by the formula."""

    def __init__(self, config: HyenaDNAConfig) -> None:
        super().__init__()
        self.z = nn.Parameter(torch.empty(1, config.max_seq_len, config.emb_dim))

    def forward(self, lags: Tensor) -> Tensor:
        """Map lags `(length,)` to features `(length, emb_dim)`: zeros after the last trained lag."""
        trained = self.z.shape[1]
        return self.z[0, lags.clamp(max=trained - 1)] * (lags < trained)[:, None]


class HyenaDNAFilter(nn.Module):
    """
    The `hyena_order - 1` kernels of a layer: a sine MLP of the position under an exponential decay, plus skip terms.

    A skip term `bias * v[t]` of a long convolution equals `bias` at lag 0 of its kernel.

    Args:
        config: Configuration of the model.
        skip: Whether to add skip terms if `config.use_bias`; kernels over the future have none.
    """

    def __init__(self, config: HyenaDNAConfig, skip: bool = True) -> None:
        super().__init__()
        self.config = config
        channels = config.d_model * (config.hyena_order - 1)
        self.bias = nn.Parameter(torch.randn(channels)) if config.use_bias and skip else None
        self.pos_emb = HyenaDNAPositions(config) if config.trained_positions else None
        # Numbered as published, where the activations between the linear layers are "1", "3", "5", ...
        width = config.filter_order
        layers = {"0": HyenaDNAFilterLinear(config.emb_dim, width), "1": HyenaDNASine(config)}
        for i in range(1, config.num_inner_mlps + 1):
            layers[str(2 * i)] = HyenaDNAFilterLinear(width, width)
        self.last = str(2 * config.num_inner_mlps + 2)
        layers[self.last] = HyenaDNAFilterLinear(width, channels, bias=False)
        self.implicit_filter = nn.ModuleDict(layers)

    def forward(self, lags: Tensor) -> Tensor:
        """Compute the kernels `(hyena_order - 1, d_model, length)` at ascending `lags`, at least in float32."""
        return self.kernel(*self.features(lags))

    def features(self, lags: Tensor) -> tuple[Tensor, Tensor]:
        """Compute times, `(length, 1)`, and the input of the last layer, `(length, filter_order)`."""
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

    def kernel(
        self,
        times: Tensor,
        features: Tensor,
        part: tuple[slice, slice] | None = None,
        out: Tensor | None = None,
        scratch: Tensor | None = None,
    ) -> Tensor:
        """
        Compute kernels from the result of [`HyenaDNAFilter.features`].

        Args:
            times: Times of shape `(length, 1)`.
            features: Features of shape `(length, filter_order)`.
            part: Kernels and channels to compute. Defaults to all, and then the last layer is called as a module.
            out: Tensor of the shape of the result to write to, without gradient.
            scratch: Work buffer of that shape.
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

    def _load_from_state_dict(self, state_dict: dict[str, Tensor], prefix: str, *args: Any) -> None:
        tensors = {name: tensor for name, tensor in state_dict.items() if name.startswith(prefix)}
        for name in check_published_constants(self.config, tensors, tensors.get):
            del state_dict[name]
        super()._load_from_state_dict(state_dict, prefix, *args)
