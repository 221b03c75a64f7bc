"""
Inference in place: the arithmetic of `HyenaDNABlock`, in a third of its memory and time.

On long sequences, moving newly allocated memory costs more time than arithmetic. The residual stream is therefore
updated in place, and all blocks share one work space for everything else: gates of a group of channels, transforms of a
smaller group, and matrix products of some positions at a time. Only the signal of the long convolutions is as large as
the residual stream.
"""

from collections.abc import Callable

from torch import Tensor, nn

from .cache_hyenadna import NO_PAST, Past
from .longconv_hyenadna import LongConvolution
from .operator_hyenadna import HyenaDNAOperator
from .plan_hyenadna import Plan
from .spectra_hyenadna import SpectrumMaker, WorkSpace


class InPlace:
    """
    Run blocks in turn over the residual stream, which is overwritten.

    Args:
        hidden_states: Residual stream of shape `(rows, length, d_model)`, in float32 or float64.
        plan: A plan with the path "in_place".
        valid: Boolean mask of shape `(rows, length)`. Defaults to all valid.
        past: Context of the first block.
        causal: Whether the long convolutions look back only.
    """

    def __init__(
        self, hidden_states: Tensor, plan: Plan, valid: Tensor | None = None, past: Past = NO_PAST, causal: bool = True
    ) -> None:
        self.hidden, self.plan, self.valid = hidden_states, plan, valid
        self.length = hidden_states.shape[1]
        self.horizon = past.choose_horizon(self.length)
        self.convolution = LongConvolution(self.length, stop=self.horizon, causal=causal, tuning=plan.tuning)
        self.space = WorkSpace(hidden_states.device)
        tuning, numbers = plan.tuning, self.convolution.size * len(hidden_states[self._rows()[0]])
        transforms = max(min(tuning.channels, tuning.long_transforms // numbers), tuning.short_transforms // numbers, 1)
        self.transforms = min(transforms, hidden_states.shape[-1])

    def run(self, block: nn.Module, past: Past = NO_PAST) -> None:
        """Update the residual stream as `block` does, and `past` for the next call."""
        mixed = self._mix(block, past)
        for rows, positions in self._pieces():
            h = self.hidden[rows, positions]
            h += block.mixer.out_proj(mixed[rows, :, positions].transpose(1, 2).flatten(0, 1)).view_as(h)
            h += block.mlp_branch(h, infer=True)

    def _rows(self) -> list[slice]:
        """List groups of rows, each as large as fits into a piece of a matrix product."""
        count = max(1, self.plan.tuning.positions // self.length)
        return [slice(first, min(first + count, len(self.hidden))) for first in range(0, len(self.hidden), count)]

    def _pieces(self) -> list[tuple[slice, slice]]:
        """List the rows and positions of each piece of a matrix product."""
        step = self.plan.tuning.positions
        stretches = [slice(start, min(start + step, self.length)) for start in range(0, self.length, step)]
        return [(rows, positions) for rows in self._rows() for positions in stretches]

    def _mix(self, block: nn.Module, past: Past) -> Tensor:
        """Compute the input of `out_proj`, of shape `(rows, d_model, length)`."""
        mixer, width, convolutions = block.mixer, self.hidden.shape[-1], block.mixer.config.hyena_order - 1
        dtype = mixer.in_proj.weight.dtype
        spectra = self._prepare_spectra(mixer)
        before = past.begin_in_place(mixer, block.norm1, self.hidden, self.plan.tuning)
        mixed = self.space("mixed", (len(self.hidden), width, self.length), dtype)
        group = width
        if convolutions * mixed.numel() > self.plan.tuning.small_gates:
            share = width // self.plan.tuning.gates_share // convolutions
            group = max(self.transforms, share // self.transforms * self.transforms)
        gates = self.space("gates", (len(self.hidden), convolutions, group, self.length), dtype)
        is_one_group = group == width
        for rows, positions in self._pieces():
            streams = slice(None) if is_one_group else slice(-2, None)
            projected = self._project(block, before, streams, slice(None), rows, positions)
            mixed[rows, :, positions] = projected[-1].mul_(projected[-2]).transpose(0, 1)
            if is_one_group:
                gates[rows, ..., positions] = projected[:-2].movedim(2, 0)
        for first in range(0, width, group):
            channels = slice(first, min(first + group, width))
            count = channels.stop - channels.start
            if not is_one_group:
                for rows, positions in self._pieces():
                    projected = self._project(block, before, slice(-2), channels, rows, positions)
                    gates[rows, :, :count, positions] = projected.movedim(2, 0)
            for start in range(0, count, self.transforms):
                part = slice(start, min(start + self.transforms, count))
                piece = slice(first + part.start, first + part.stop)
                self._convolve(spectra, gates[:, :, part], piece, mixed[:, piece], past)
        past.advance()
        return mixed

    def _project(
        self, block: nn.Module, before: Tensor | None, streams: slice, channels: slice, rows: slice, positions: slice
    ) -> Tensor:
        """Compute a part of the output of the short convolution, `(streams, channels, rows, positions)`."""
        mixer, wide = block.mixer, self.hidden.dtype
        lookback = mixer.config.short_filter_order - 1
        begin = max(positions.start - lookback, 0)  # where the short convolution reads from
        normed = block.norm1(self.hidden[rows, begin : positions.stop].to(block.norm1.weight.dtype))
        widths = len(range(mixer.config.hyena_order + 1)[streams]), len(range(mixer.d_model)[channels])
        shape = *widths, *normed.shape[:2]
        x = mixer.project(normed, streams, channels, out=self.space("projected", shape, normed.dtype))
        missing = 0 if before is None else max(lookback - positions.start, 0)
        if missing or x.dtype != wide:
            narrow, x = x, self.space("projected, wide", (*shape[:-1], missing + shape[-1]), wide)
            x[..., missing:] = narrow
        if before is not None and missing:
            earlier = before[rows].unflatten(1, (-1, mixer.d_model))[:, streams, channels, -missing:]
            x[..., :missing] = earlier.movedim(0, 2)
        short = mixer.convolve_short(x, streams, channels, out=self.space("short", x.shape, wide))
        return short[..., positions.start - begin + missing :]

    def _prepare_spectra(self, mixer: HyenaDNAOperator) -> Callable[[int, slice], list[Tensor]]:
        """Return a function that maps the number of a long filter and channels to spectra."""
        if self.plan.keeps_spectra and self.horizon == self.length:  # kept spectra have too few lags to look ahead
            kept = mixer.get_spectra(self.convolution, self.hidden.dtype)
            return lambda i, channels: [spectrum[i, channels] for spectrum in kept]
        mixer.kept = None
        make = SpectrumMaker(mixer.filter_fns(), self.convolution, self.horizon, self.space)

        def make_spectra(i: int, channels: slice) -> list[Tensor]:
            count, dtype = channels.stop - channels.start, self.hidden.dtype.to_complex()
            lengths = self.convolution.spectrum_lengths
            out = [self.space(f"filter {i}, {n}", (count, numbers), dtype) for n, numbers in enumerate(lengths)]
            make(i, channels, out)
            return out

        return make_spectra

    def _convolve(
        self, spectra: Callable[[int, slice], list[Tensor]], gates: Tensor, channels: slice, mixed: Tensor, past: Past
    ) -> None:
        """Apply long convolutions and gates in turn to some channels and all rows of `mixed`, in place."""
        wide, size = self.hidden.dtype, self.convolution.size
        filter_spectra = [spectra(i, channels) for i in range(gates.shape[1])]
        for rows in self._rows():
            shape = mixed[rows].shape[:2]
            signal = self.space("signal", (*shape, size), wide)
            spectrum = self.space("spectrum", (*shape, size // 2 + 1), wide.to_complex())
            v = signal[..., : self.length].copy_(mixed[rows])
            for i, (gate, filter_spectrum) in enumerate(zip(reversed(gates[rows].unbind(1)), filter_spectra)):
                if self.valid is not None:
                    v.masked_fill_(~self.valid[rows, None], 0)
                past.keep_signal(i, rows, channels, v)
                signal[..., self.length :] = 0
                past.keep_contributions(i, rows, channels, self.convolution(v, filter_spectrum, signal, spectrum))
                v *= gate
            mixed[rows] = v
