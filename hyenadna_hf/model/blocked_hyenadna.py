"""
Inference of a block in pieces and in place: the arithmetic of `HyenaDNABlock`, in a third of its memory and time.

On long sequences, moving fresh memory about costs more time than arithmetic. So the residual stream is changed in
place, and everything else passes through a work space that all blocks share: the projections of some channels at a
time, the transforms of fewer channels at a time, and the MLP of some positions at a time. Nothing but the gated output
of the mixer is as large as the residual stream.
"""

import torch

from .fftconv_hyenadna import convolved_beginnings, fft_size
from .spectra_hyenadna import WorkSpace, spectra_in_pieces, spectrum_lengths

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
        cache ([`HyenaDNACache`], *optional*): To fill; it has seen nothing yet.
    """

    def __init__(self, hidden, real=None, cache=None):
        self.hidden = hidden
        self.real = real
        self.length = self.horizon = hidden.shape[1]
        if cache is not None:
            self.real, self.horizon = cache.layers[0].real, cache.layers[0].next_horizon()
        self.size = fft_size(self.length + self.horizon - 1)
        self.space = WorkSpace(hidden.device)
        width = hidden.shape[-1]
        self.transforms = min(width, TRANSFORMS, max(1, TRANSFORM_NUMBERS // self.size))
        # Projections of as many channels as take half the memory of the residual stream.
        self.channels = max(self.transforms, width // 6 // self.transforms * self.transforms)

    def run(self, block, cache=None):
        """Change the residual stream as `block` does, and its `cache` (a [`HyenaDNACacheLayer`]) if there is one."""
        if any(map(has_hooks, block.modules())):  # made for whole inputs
            self.hidden.copy_(block(self.hidden, cache, self.real))
            return
        dtype = block.norm1.weight.dtype
        mixer, plain = block.mixer, block.mixer.is_plain()
        mixed = self._mixed(block, cache) if plain else mixer(block.norm1(self.hidden.to(dtype)), cache, self.real)
        for row, hidden in enumerate(self.hidden):
            for stretch in self._stretches():
                h = hidden[stretch]
                h += mixer.out_proj(mixed[row, :, stretch].T) if plain else mixed[row, stretch]
                h += block.mlp(block.norm2(h.to(dtype)))

    def _stretches(self):
        return [slice(start, min(start + POSITIONS, self.length)) for start in range(0, self.length, POSITIONS)]

    def _mixed(self, block, cache):
        """What `out_proj` reads, of shape `(batch, d_model, length)`."""
        mixer, batch, width = block.mixer, len(self.hidden), self.hidden.shape[-1]
        streams = mixer.in_proj.out_features // width
        weight = mixer.in_proj.weight.view(streams, width, width)
        bias = mixer.in_proj.bias.view(streams, width, 1)
        dtype = weight.dtype
        spectra = self._spectra(mixer, cache)
        if cache is not None:
            cache.begin_in_pieces(mixer, self.hidden)
        gated = self.space("gated", (batch, width, self.length), dtype)
        for first in range(0, width, self.channels):
            some = slice(first, min(first + self.channels, width))
            count = some.stop - some.start
            projected = self.space("projected", (batch, streams, count, self.length), dtype)
            w, b = weight[:, some].reshape(-1, width), bias[:, some].reshape(-1, 1)
            for row, hidden in enumerate(self.hidden):
                out = projected[row].view(-1, self.length)
                for stretch in self._stretches():
                    torch.addmm(b, w, block.norm1(hidden[stretch].to(dtype)).T, out=out[:, stretch])
            if cache is not None:
                cache.keep_projections(some, projected)
            for start in range(0, count, self.transforms):
                part = slice(start, min(start + self.transforms, count))
                channels = slice(first + part.start, first + part.stop)
                self._convolve(mixer, spectra, projected[:, :, part], channels, gated[:, channels], cache)
        if cache is not None:
            cache.advance()
        return gated

    def _spectra(self, mixer, cache):
        """A function of the number of a long filter and of channels (a `slice`): their spectra."""
        wide = self.hidden.dtype
        # Those that are kept have too few lags to look ahead.
        kept = mixer.kept_spectra(self.size, wide, self.hidden.device) if cache is None else None
        if kept is not None:
            return lambda i, channels: [spectrum[i, channels] for spectrum in kept]
        fill = spectra_in_pieces(mixer.filter_fns(), self.horizon, self.size, self.space)
        lengths = spectrum_lengths(mixer.filter_fns(), self.size)

        def make(i, channels):
            count = channels.stop - channels.start
            out = [self.space(f"filter {i}, {numbers}", (count, numbers), wide.to_complex()) for numbers in lengths]
            fill(i, channels, out)
            return out

        return make

    def _convolve(self, mixer, spectra, projected, channels, gated, cache):
        """Short convolution, gates and long convolutions of some channels, all streams, and all rows."""
        batch, streams, count, length = projected.shape
        wide = self.hidden.dtype
        filter_spectra = [spectra(i, channels) for i in range(streams - 2)]
        signal = self.space("signal", (count, self.size), wide)
        taps = mixer.short_filter.weight.view(streams, -1, mixer.short_filter.kernel_size[0])[:, channels].to(wide)
        bias = mixer.short_filter.bias.view(streams, -1, 1)[:, channels].to(wide)
        short = self.space("short", (streams, count, length), wide)
        spectrum = self.space("spectrum", (count, self.size // 2 + 1), wide.to_complex())
        for row in range(batch):
            x = projected[row]
            if x.dtype != wide:
                x = self.space("projected, wide", x.shape, wide).copy_(x)
            torch.addcmul(bias, x, taps[..., -1:], out=short)
            for lag in range(1, min(taps.shape[-1], length)):
                short[..., lag:].addcmul_(x[..., :-lag], taps[..., -1 - lag, None])
            gate, *gates, v = short
            for i, (other, of_filter) in enumerate(zip(reversed(gates), filter_spectra)):
                torch.mul(v, other, out=signal[:, :length])
                if self.real is not None:
                    signal[:, :length].masked_fill_(~self.real[row], 0)
                if cache is not None:
                    cache.keep_signal(i, row, channels, signal[:, :length])
                beginnings = convolved_beginnings(signal[:, :length], of_filter, self.size)
                signal[:, length:] = 0
                torch.fft.rfft(signal, out=spectrum)
                torch.fft.irfft(spectrum.mul_(of_filter[0]), n=self.size, out=signal)
                y, v = signal[:, : self.horizon], signal[:, :length]
                for beginning in beginnings:
                    v[:, : beginning.shape[-1]] = beginning[:, :length]
                if cache is not None:
                    cache.keep_contributions(i, row, channels, y)
            torch.mul(v, gate, out=gated[row])


def has_hooks(module):
    """Whether something wants to see, or bring, what passes through a module."""
    return bool(module._forward_hooks or module._forward_pre_hooks) or "forward" in vars(module)
