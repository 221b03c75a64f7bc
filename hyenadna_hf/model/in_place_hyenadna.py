"""
Inference of blocks in pieces and in place: the arithmetic of `HyenaDNABlock`, in a third of its memory and time.

On long sequences, moving fresh memory about costs more time than arithmetic. So the residual stream is changed in
place, and everything else passes through a work space that all blocks share: the gates of some channels at a time, the
transforms of fewer channels at a time, and matrix products of some positions at a time. Nothing but the signal of the
long convolutions is as large as the residual stream.
"""

from .cache_hyenadna import NOTHING
from .longconv_hyenadna import LongConvolution
from .spectra_hyenadna import SpectrumMaker, WorkSpace


class InPlace:
    """
    Runs blocks one after the other over the residual stream, which it changes.

    Args:
        hidden_states (`torch.Tensor` of shape `(rows, length, d_model)`): The residual stream, float32 or float64.
        plan ([`Plan`]): Of the path "in_place".
        valid (`torch.BoolTensor` of shape `(rows, length)`, *optional*): Which positions exist.
        past ([`Past`]): What came before the first block.
        causal (`bool`, defaults to `True`): Whether long convolutions only look back.
    """

    def __init__(self, hidden_states, plan, valid=None, past=NOTHING, causal=True):
        self.hidden, self.plan, self.valid = hidden_states, plan, valid
        self.length = hidden_states.shape[1]
        self.horizon = past.horizon_of(self.length)
        self.convolution = LongConvolution(self.length, stop=self.horizon, causal=causal, tuning=plan.tuning)
        self.space = WorkSpace(hidden_states.device)
        tuning, numbers = plan.tuning, self.convolution.size * len(hidden_states[self._rows()[0]])
        transforms = max(min(tuning.channels, tuning.long_transforms // numbers), tuning.short_transforms // numbers, 1)
        self.transforms = min(transforms, hidden_states.shape[-1])

    def run(self, block, past=NOTHING):
        """Change the residual stream as `block` does, and what the next call finds in `past`."""
        mixed = self._mixed(block, past)
        for rows, positions in self._pieces():
            h = self.hidden[rows, positions]
            h += block.mixer.out_proj(mixed[rows, :, positions].transpose(1, 2).flatten(0, 1)).view_as(h)
            h += block.mlp_branch(h, infer=True)

    def _rows(self):
        """List as many rows at a time (`slice`s) as a piece of a matrix product has room for."""
        count = max(1, self.plan.tuning.positions // self.length)
        return [slice(first, min(first + count, len(self.hidden))) for first in range(0, len(self.hidden), count)]

    def _pieces(self):
        """List rows and positions (`slice`s) of each piece of a matrix product."""
        step = self.plan.tuning.positions
        stretches = [slice(start, min(start + step, self.length)) for start in range(0, self.length, step)]
        return [(rows, positions) for rows in self._rows() for positions in stretches]

    def _mixed(self, block, past):
        """Compute what `out_proj` reads, of shape `(rows, d_model, length)`."""
        mixer, width, convolutions = block.mixer, self.hidden.shape[-1], block.mixer.config.hyena_order - 1
        dtype = mixer.in_proj.weight.dtype
        spectra = self._spectra(mixer)
        before = past.begin_in_place(mixer, block.norm1, self.hidden, self.plan.tuning)
        mixed = self.space("mixed", (len(self.hidden), width, self.length), dtype)
        some = width
        if convolutions * mixed.numel() > self.plan.tuning.small_gates:
            share = width // self.plan.tuning.gates_share // convolutions
            some = max(self.transforms, share // self.transforms * self.transforms)
        gates = self.space("gates", (len(self.hidden), convolutions, some, self.length), dtype)
        at_once = some == width
        for rows, positions in self._pieces():
            streams = slice(None) if at_once else slice(-2, None)
            made = self._projected(block, before, streams, slice(None), rows, positions)
            mixed[rows, :, positions] = made[-1].mul_(made[-2]).transpose(0, 1)
            if at_once:
                gates[rows, ..., positions] = made[:-2].movedim(2, 0)
        for first in range(0, width, some):
            channels = slice(first, min(first + some, width))
            count = channels.stop - channels.start
            if not at_once:
                for rows, positions in self._pieces():
                    made = self._projected(block, before, slice(-2), channels, rows, positions)
                    gates[rows, :, :count, positions] = made.movedim(2, 0)
            for start in range(0, count, self.transforms):
                part = slice(start, min(start + self.transforms, count))
                piece = slice(first + part.start, first + part.stop)
                self._convolve(spectra, gates[:, :, part], piece, mixed[:, piece], past)
        past.advance()
        return mixed

    def _projected(self, block, before, streams, channels, rows, positions):
        """Compute some (`slice`s) of what the short convolution gives: `(streams, channels, rows, positions)`."""
        mixer, wide = block.mixer, self.hidden.dtype
        reach = mixer.config.short_filter_order - 1
        begin = max(positions.start - reach, 0)  # what the short convolution reads
        normed = block.norm1(self.hidden[rows, begin : positions.stop].to(block.norm1.weight.dtype))
        widths = len(range(mixer.config.hyena_order + 1)[streams]), len(range(mixer.d_model)[channels])
        x = mixer.project(
            normed, streams, channels, out=self.space("projected", (*widths, *normed.shape[:2]), normed.dtype)
        )
        missing = 0 if before is None else max(reach - positions.start, 0)
        shape = *x.shape[:-1], missing + x.shape[-1]
        if missing or x.dtype != wide:
            narrow, x = x, self.space("projected, wide", shape, wide)
            x[..., missing:] = narrow
        if missing:
            earlier = before[rows].unflatten(1, (-1, mixer.d_model))[:, streams, channels, -missing:]
            x[..., :missing] = earlier.movedim(0, 2)
        short = mixer.convolve_shortly(x, streams, channels, out=self.space("short", shape, wide))
        return short[..., positions.start - begin + missing :]

    def _spectra(self, mixer):
        """Give a function of the number of a long filter and of channels (a `slice`): their spectra."""
        if self.plan.keeps_spectra and self.horizon == self.length:  # those kept have too few lags to look ahead
            kept = mixer.kept_spectra(self.convolution, self.hidden.dtype)
            return lambda i, channels: [spectrum[i, channels] for spectrum in kept]
        mixer.kept = None
        make = SpectrumMaker(mixer.filter_fns(), self.convolution, self.horizon, self.space)

        def made(i, channels):
            count, dtype = channels.stop - channels.start, self.hidden.dtype.to_complex()
            lengths = self.convolution.spectrum_lengths
            out = [self.space(f"filter {i}, {n}", (count, numbers), dtype) for n, numbers in enumerate(lengths)]
            make(i, channels, out)
            return out

        return made

    def _convolve(self, spectra, gates, channels, mixed, past):
        """Run long convolutions and gates, in turn, of some channels and all rows of `mixed`, in place."""
        wide, size = self.hidden.dtype, self.convolution.size
        filter_spectra = [spectra(i, channels) for i in range(gates.shape[1])]
        for rows in self._rows():
            shape = mixed[rows].shape[:2]
            signal = self.space("signal", (*shape, size), wide)
            spectrum = self.space("spectrum", (*shape, size // 2 + 1), wide.to_complex())
            v = signal[..., : self.length].copy_(mixed[rows])
            for i, (gate, of_filter) in enumerate(zip(reversed(gates[rows].unbind(1)), filter_spectra)):
                if self.valid is not None:
                    v.masked_fill_(~self.valid[rows, None], 0)
                past.keep_signal(i, rows, channels, v)
                signal[..., self.length :] = 0
                past.keep_contributions(i, rows, channels, self.convolution(v, of_filter, signal, spectrum))
                v *= gate
            mixed[rows] = v
