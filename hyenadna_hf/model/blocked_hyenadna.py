"""
Inference of a block in pieces and in place: the arithmetic of `HyenaDNABlock`, in a third of its memory and time.

On long sequences, moving fresh memory about costs more time than arithmetic. So the residual stream is changed in
place, and everything else passes through a work space that all blocks share: the gates of some channels at a time, the
transforms of fewer channels at a time, and matrix products of some positions at a time. Nothing but the signal of the
long convolutions is as large as the residual stream.
"""

import torch

from .fftconv_hyenadna import convolved_beginnings, fft_size
from .spectra_hyenadna import WorkSpace, spectra_in_pieces, spectrum_lengths

BLOCKED_FROM = 256  # positions of all rows from which on it pays
POSITIONS = 1024  # in a piece of a matrix product
TRANSFORMS = 16  # channels in a piece of transforms,
SHORT_TRANSFORMS = 1 << 18  # more if all have no more numbers than this,
LONG_TRANSFORMS = 1 << 23  # fewer if they have more than this
SMALL_GATES = 1 << 21  # numbers in the gates of all channels, up to which they are made at once


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
        numbers = self.size * len(hidden[self._rows()[0]])
        transforms = max(min(TRANSFORMS, LONG_TRANSFORMS // numbers), SHORT_TRANSFORMS // numbers, 1)
        self.transforms = min(transforms, hidden.shape[-1])

    def run(self, block, cache=None):
        """Change the residual stream as `block` does, and its `cache` (a [`HyenaDNACacheLayer`]) if there is one."""
        if any(map(has_hooks, block.modules())):  # made for whole inputs
            self.hidden.copy_(block(self.hidden, cache, self.real))
            return
        dtype = block.norm1.weight.dtype
        mixer, plain = block.mixer, block.mixer.is_plain()
        mixed = self._mixed(block, cache) if plain else mixer(block.norm1(self.hidden.to(dtype)), cache, self.real)
        for rows, positions in self._pieces():
            h = self.hidden[rows, positions]
            if plain:
                h += mixer.out_proj(mixed[rows, :, positions].transpose(1, 2).flatten(0, 1)).view_as(h)
            else:
                h += mixed[rows, positions]
            h += block.mlp(block.norm2(h.to(dtype)))

    def _rows(self):
        """As many rows at a time (`slice`s) as a piece of a matrix product has room for."""
        count = max(1, POSITIONS // self.length)
        return [slice(first, min(first + count, len(self.hidden))) for first in range(0, len(self.hidden), count)]

    def _pieces(self):
        """Rows and positions (`slice`s) of each piece of a matrix product."""
        starts = range(0, self.length, POSITIONS)
        return [(rows, slice(start, min(start + POSITIONS, self.length))) for rows in self._rows() for start in starts]

    def _mixed(self, block, cache):
        """What `out_proj` reads, of shape `(batch, d_model, length)`."""
        mixer, batch, width = block.mixer, len(self.hidden), self.hidden.shape[-1]
        dtype = mixer.in_proj.weight.dtype
        spectra = self._spectra(mixer, cache)
        if cache is not None:
            cache.begin_in_pieces(mixer, block.norm1, self.hidden)
        mixed = self.space("mixed", (batch, width, self.length), dtype)
        for rows, positions in self._pieces():
            x, v = self._projected(block, slice(-2, None), slice(None), rows, positions)
            mixed[rows, :, positions] = v.mul_(x).transpose(0, 1)
        convolutions = mixer.config.hyena_order - 1
        some = width
        if convolutions * mixed.numel() > SMALL_GATES:  # of as many channels as take a quarter of the residual stream
            some = max(self.transforms, width // 4 // convolutions // self.transforms * self.transforms)
        for first in range(0, width, some):
            channels = slice(first, min(first + some, width))
            count = channels.stop - channels.start
            gates = self.space("gates", (batch, convolutions, count, self.length), dtype)
            for rows, positions in self._pieces():
                gates[rows, ..., positions] = self._projected(block, slice(-2), channels, rows, positions).movedim(2, 0)
            for start in range(0, count, self.transforms):
                part = slice(start, min(start + self.transforms, count))
                piece = slice(first + part.start, first + part.stop)
                self._convolve(spectra, gates[:, :, part], piece, mixed[:, piece], cache)
        if cache is not None:
            cache.advance()
        return mixed

    def _projected(self, block, streams, channels, rows, positions):
        """Some (`slice`s) of what the short convolution gives, of shape `(streams, channels, rows, positions)`."""
        mixer, width = block.mixer, self.hidden.shape[-1]
        weight = mixer.in_proj.weight.unflatten(0, (-1, width))[streams, channels]
        bias = mixer.in_proj.bias.unflatten(0, (-1, width))[streams, channels]
        taps = mixer.short_filter.weight.unflatten(0, (-1, width))[streams, channels].to(self.hidden.dtype)
        offset = mixer.short_filter.bias.unflatten(0, (-1, width))[streams, channels].to(self.hidden.dtype)
        begin = max(positions.start - taps.shape[-1] + 1, 0)  # what the short convolution reads
        hidden = self.hidden[rows, begin : positions.stop].to(weight.dtype)
        shape = *bias.shape, *hidden.shape[:2]
        x = self.space("projected", shape, weight.dtype)
        normed = block.norm1(hidden).flatten(0, 1)
        torch.addmm(bias.reshape(-1, 1), weight.flatten(0, 1), normed.T, out=x.view(-1, len(normed)))
        if x.dtype != self.hidden.dtype:
            x = self.space("projected, wide", shape, self.hidden.dtype).copy_(x)
        short = self.space("short", shape, self.hidden.dtype)
        torch.addcmul(offset[..., None, None], x, taps[..., -1:], out=short)
        for lag in range(1, min(taps.shape[-1], shape[-1])):
            short[..., lag:].addcmul_(x[..., :-lag], taps[..., -1 - lag, None])
        return short[..., positions.start - begin :]

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
            shapes = [(count, numbers) for numbers in lengths]
            out = [self.space(f"filter {i}, {n}", shape, wide.to_complex()) for n, shape in enumerate(shapes)]
            fill(i, channels, out)
            return out

        return make

    def _convolve(self, spectra, gates, channels, mixed, cache):
        """Long convolutions and gates, in turn, of some channels and all rows of `mixed`, in place."""
        wide = self.hidden.dtype
        filter_spectra = [spectra(i, channels) for i in range(gates.shape[1])]
        for rows in self._rows():
            shape = mixed[rows].shape[:2]
            signal = self.space("signal", (*shape, self.size), wide)
            spectrum = self.space("spectrum", (*shape, self.size // 2 + 1), wide.to_complex())
            v = signal[..., : self.length].copy_(mixed[rows])
            for i, (gate, of_filter) in enumerate(zip(reversed(gates[rows].unbind(1)), filter_spectra)):
                if self.real is not None:
                    v.masked_fill_(~self.real[rows, None], 0)
                if cache is not None:
                    cache.keep_signal(i, rows, channels, v)
                beginnings = convolved_beginnings(v, of_filter, self.size)
                signal[..., self.length :] = 0
                torch.fft.rfft(signal, out=spectrum)
                torch.fft.irfft(spectrum.mul_(of_filter[0]), n=self.size, out=signal)
                for beginning in beginnings:
                    v[..., : beginning.shape[-1]] = beginning[..., : self.length]
                if cache is not None:
                    cache.keep_contributions(i, rows, channels, signal[..., : self.horizon])
                v *= gate
            mixed[rows] = v


def has_hooks(module):
    """Whether something wants to see, or bring, what passes through a module."""
    return bool(module._forward_hooks or module._forward_pre_hooks) or "forward" in vars(module)
