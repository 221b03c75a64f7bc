"""
Inference of a block in pieces and in place: the arithmetic of `HyenaDNABlock`, in a third of its memory and time.

On long sequences, moving fresh memory about costs more time than arithmetic. So the residual stream is changed in
place, and everything else passes through a work space that all blocks share: the projections of some channels at a
time, the transforms of fewer channels at a time, and the MLP of some positions at a time. Nothing but the gated output
of the mixer is as large as the residual stream.
"""

import math

import torch

from .fftconv_hyenadna import fft_size

BLOCKED_FROM = 4096  # positions of all rows from which on it pays
POSITIONS = 1024  # in a piece of a matrix product
TRANSFORMS = 16  # channels in a piece of transforms, fewer where they are very long
TRANSFORM_NUMBERS = 1 << 23  # most numbers in such a piece


class BlockedInference:
    """
    Runs blocks one after the other over the residual stream, which it changes.

    Args:
        hidden (`torch.Tensor` of shape `(batch, length, d_model)`): The residual stream, in float32 or float64.
        real (`torch.BoolTensor` of shape `(batch, length)`, *optional*): As `HyenaDNABlock` takes it.
    """

    def __init__(self, hidden, real=None):
        self.hidden = hidden
        self.real = real
        self.length = hidden.shape[1]
        self.size = fft_size(2 * self.length - 1)
        self.buffers = {}
        width = hidden.shape[-1]
        self.transforms = min(width, TRANSFORMS, max(1, TRANSFORM_NUMBERS // self.size))
        # Projections of as many channels as take half the memory of the residual stream.
        self.channels = max(self.transforms, width // 6 // self.transforms * self.transforms)

    def run(self, block):
        """Change the residual stream as `block` does."""
        if any(map(has_hooks, block.modules())):  # made for whole inputs
            self.hidden.copy_(block(self.hidden, real=self.real))
            return
        dtype = block.norm1.weight.dtype
        mixer, plain = block.mixer, block.mixer.is_plain()
        mixed = self._mixed(block) if plain else mixer(block.norm1(self.hidden.to(dtype)), real=self.real)
        for row, hidden in enumerate(self.hidden):
            for stretch in self._stretches():
                h = hidden[stretch]
                h += mixer.out_proj(mixed[row, :, stretch].T) if plain else mixed[row, stretch]
                h += block.mlp(block.norm2(h.to(dtype)))

    def _stretches(self):
        return [slice(start, min(start + POSITIONS, self.length)) for start in range(0, self.length, POSITIONS)]

    def _mixed(self, block):
        """What `out_proj` reads, of shape `(batch, d_model, length)`."""
        mixer, batch, width = block.mixer, len(self.hidden), self.hidden.shape[-1]
        streams = mixer.in_proj.out_features // width
        weight = mixer.in_proj.weight.view(streams, width, width)
        bias = mixer.in_proj.bias.view(streams, width, 1)
        dtype = weight.dtype
        filters = [filter_fn.in_pieces(self.length, self.hidden.device) for filter_fn in mixer.filter_fns()]
        gated = self._buffer("gated", (batch, width, self.length), dtype)
        for first in range(0, width, self.channels):
            some = slice(first, min(first + self.channels, width))
            count = some.stop - some.start
            projected = self._buffer("projected", (batch, streams, count, self.length), dtype)
            w, b = weight[:, some].reshape(-1, width), bias[:, some].reshape(-1, 1)
            for row, hidden in enumerate(self.hidden):
                out = projected[row].view(-1, self.length)
                for stretch in self._stretches():
                    torch.addmm(b, w, block.norm1(hidden[stretch].to(dtype)).T, out=out[:, stretch])
            for start in range(0, count, self.transforms):
                part = slice(start, min(start + self.transforms, count))
                channels = slice(first + part.start, first + part.stop)
                self._convolve(mixer, filters, projected[:, :, part], channels, gated[:, channels])
        return gated

    def _convolve(self, mixer, filters, projected, channels, gated):
        """Short convolution, gates and long convolutions of some channels, all streams, and all rows."""
        batch, streams, count, length = projected.shape
        wide = self.hidden.dtype
        signal = self._buffer("signal", (count, self.size), wide)
        spectra = []
        scratch = self._buffer("scratch", (count, length), wide)
        past, *future = filters
        for i in range(streams - 2):
            past(i, channels, signal[:, :length], scratch)
            signal[:, length:] = 0
            for fill in future:  # as in `bidirectional_conv_fft`
                reverse = self._buffer("reverse", (count, length), wide)
                fill(i, channels, reverse, scratch)
                signal[:, self.size - length + 1 :] = reverse[:, 1:].flip(-1)
            spectra.append(self._buffer(f"filter {i}", (count, self.size // 2 + 1), wide.to_complex()))
            torch.fft.rfft(signal, out=spectra[i])
        taps = mixer.short_filter.weight.view(streams, -1, mixer.short_filter.kernel_size[0])[:, channels].to(wide)
        bias = mixer.short_filter.bias.view(streams, -1, 1)[:, channels].to(wide)
        short = self._buffer("short", (streams, count, length), wide)
        spectrum = self._buffer("spectrum", (count, self.size // 2 + 1), wide.to_complex())
        for row in range(batch):
            x = projected[row]
            if x.dtype != wide:
                x = self._buffer("projected, wide", x.shape, wide).copy_(x)
            torch.addcmul(bias, x, taps[..., -1:], out=short)
            for lag in range(1, min(taps.shape[-1], length)):
                short[..., lag:].addcmul_(x[..., :-lag], taps[..., -1 - lag, None])
            gate, *gates, v = short
            for other, filter_spectrum in zip(reversed(gates), spectra):
                torch.mul(v, other, out=signal[:, :length])
                if self.real is not None:
                    signal[:, :length].masked_fill_(~self.real[row], 0)
                signal[:, length:] = 0
                torch.fft.rfft(signal, out=spectrum)
                torch.fft.irfft(spectrum.mul_(filter_spectrum), n=self.size, out=signal)
                v = signal[:, :length]
            torch.mul(v, gate, out=gated[row])

    def _buffer(self, name, shape, dtype):
        """A piece of the work space, with whatever it holds."""
        numbers = math.prod(shape)
        buffer = self.buffers.get(name)
        if buffer is None or buffer.numel() < numbers or buffer.dtype != dtype:
            buffer = self.buffers[name] = torch.empty(numbers, dtype=dtype, device=self.hidden.device)
        return buffer[:numbers].view(shape)


def has_hooks(module):
    """Whether something wants to see, or bring, what passes through a module."""
    return bool(module._forward_hooks or module._forward_pre_hooks) or "forward" in vars(module)
