"""Yardsticks: the published formulation of HyenaDNA on the same weights, attention of the same size, and the bound."""

import torch
from torch import nn
from transformers import GPT2Config, GPT2Model

from hyenadna_hf.model.filter_hyenadna import decay_rates, positional_features


class Published(nn.Module):
    """
    The hidden states of a [`HyenaDNAModel`] of order 2, whole layers at a time, with transforms of twice the length.

    Args:
        model ([`HyenaDNAModel`]): Whose weights to use; they are shared.
        length (`int`): Longest input. The published code stores the positional features of all positions, so what
            they take is not part of its time.
    """

    def __init__(self, model, length):
        super().__init__()
        self.model = model
        device = next(model.parameters()).device
        t, z = positional_features(torch.arange(length, device=device), model.config, torch.float32)
        decay = torch.exp(-t * decay_rates(model.config, device, torch.float32).flatten())
        for name, constant in {"z": z, "decay": decay}.items():
            self.register_buffer(name, constant)

    def forward(self, ids):
        backbone = self.model.backbone
        residual = backbone.dropout(backbone.embeddings(ids))
        for layer in backbone.layers:
            residual = residual + self._mix(layer.mixer, layer.norm1(residual))
            residual = residual + layer.mlp(layer.norm2(residual))
        return backbone.ln_f(residual)

    def _mix(self, mixer, u):
        length = u.shape[1]
        u = mixer.short_filter(mixer.in_proj(u).transpose(1, 2))[..., :length]
        gate, x, v = u.split(mixer.d_model, dim=1)
        v = self._convolve(mixer.filter_fn, v * x)
        return mixer.out_proj((v * gate).transpose(1, 2))

    def _convolve(self, filter_fn, v):
        length = v.shape[-1]
        first, sine, *inner, last = filter_fn.implicit_filter.values()
        h = sine(first(self.z[:length]))
        for layer in inner:
            h = sine(layer(h))
        k = (last(h) * (self.decay[:length] + 0.05)).T
        k_f = torch.fft.rfft(k, n=2 * length) / (2 * length)
        v_f = torch.fft.rfft(v.to(k.dtype), n=2 * length)
        y = torch.fft.irfft(v_f * k_f, n=2 * length, norm="forward")[..., :length]
        return (y + v * filter_fn.bias[:, None]).to(v.dtype)


class Bound:
    """
    What no formulation goes below: the matrix products of all layers, with nothing else but two transforms a channel.

    The products are of 1,024 positions at a time, the transforms of the next size that is fast and of 16 channels at a
    time, in memory that is used again.

    Args:
        model ([`HyenaDNAModel`]): Of which sizes and dtype.
        rows, length (`int`): Of the input.
        size (`int`, defaults to 0): Of the transforms; without any if it is 0.
        backward (`bool`): Whether to do three times as much, as a forward and a backward pass must.
    """

    def __init__(self, model, rows, length, size=0, backward=False):
        weights = [parameter for parameter in model.parameters() if parameter.dim() == 2]
        layer = model.backbone.layers[0]
        linear = [layer.mixer.in_proj, layer.mixer.out_proj, layer.mlp.fc1, layer.mlp.fc2]
        self.weights = [module.weight.detach() for module in linear]
        dtype = weights[0].dtype
        pieces, rest = divmod(rows * length, 1024)
        self.pieces = [1024] * pieces + [rest] * bool(rest)
        self.inputs = [torch.randn(1024, weight.shape[1]).to(dtype) for weight in self.weights]
        self.outputs = [torch.empty(1024, weight.shape[0], dtype=dtype) for weight in self.weights]
        channels = min(16, model.config.d_model)
        self.signal = torch.randn(channels, size)
        self.spectrum = torch.empty(channels, size // 2 + 1, dtype=torch.complex64)
        self.transforms = rows * model.config.d_model // channels if size else 0
        self.times = model.config.n_layer * (3 if backward else 1)
        self.size = size

    def __call__(self, ids=None):
        for _ in range(self.times):
            for piece in self.pieces:
                for weight, x, y in zip(self.weights, self.inputs, self.outputs):
                    torch.mm(x[:piece], weight.T, out=y[:piece])
            for _ in range(self.transforms):
                torch.fft.rfft(self.signal, out=self.spectrum)
                torch.fft.irfft(self.spectrum, n=self.size, out=self.signal)


def gpt2(config, length, **options):
    """Make a GPT-2 of random weights, of the width and depth of a [`HyenaDNAConfig`], for `length` positions."""
    sizes = {"n_embd": config.d_model, "n_layer": config.n_layer, "n_head": 8, "n_positions": length}
    tokens = {"vocab_size": config.vocab_size, "bos_token_id": 2, "eos_token_id": 1}
    return GPT2Model(GPT2Config(**sizes, **tokens, **options))


def loss_of(hidden):
    """Of half the channels: the mean square of all is the same for any input, after a norm."""
    return hidden[..., ::2].float().square().mean()
