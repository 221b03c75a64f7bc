"""Spectra of the long filters for inference, computed in groups of channels or kept between calls."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .filter_hyenadna import HyenaDNAFilter
from .longconv_hyenadna import LongConvolution


class WorkSpace:
    """Named buffers that are reused without being cleared."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.buffers: dict[str, Tensor] = {}

    def __call__(self, name: str, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        numbers = math.prod(shape)
        buffer = self.buffers.get(name)
        if buffer is None or buffer.numel() < numbers or buffer.dtype != dtype:
            buffer = self.buffers[name] = torch.empty(numbers, dtype=dtype, device=self.device)
        return buffer[:numbers].view(shape)


class SpectrumMaker:
    """
    Compute the spectra of an operator's long filters, some channels at a time.

    Args:
        filter_fns: Filters over the past, and over the future if there are any.
        convolution: Convolution that uses the spectra.
        lags: Number of lags of the kernels, which are zero from then on.
        space: Buffers to work in.
    """

    def __init__(
        self, filter_fns: Sequence[HyenaDNAFilter], convolution: LongConvolution, lags: int, space: WorkSpace
    ) -> None:
        self.filter_fns, self.convolution, self.lags, self.space = filter_fns, convolution, lags, space
        pieces = torch.arange(lags, device=space.device).split(convolution.tuning.feature_positions)
        self.features = []
        for filter_fn in filter_fns:
            times, features = filter_fn.features(pieces[0][:0])
            self.times, features = times.new_empty(lags, 1), features.new_empty(lags, features.shape[1])
            for piece in pieces:
                place = slice(int(piece[0]), int(piece[-1]) + 1)
                self.times[place], features[place] = filter_fn.features(piece)
            self.features.append(features)

    def __call__(self, i: int, channels: slice, out: Sequence[Tensor]) -> None:
        """Write the spectra of some channels of filter `i` to `out`, as [`LongConvolution.spectra`] does."""
        dtype, count = self.times.dtype, channels.stop - channels.start
        padded = self.space("signal", (1, count, self.convolution.size), dtype)
        shape, part = (1, count, self.lags), (slice(i, i + 1), channels)
        kernels = [padded[..., : self.lags], *(self.space("future", shape, dtype) for _ in self.filter_fns[1:])]
        for filter_fn, features, kernel in zip(self.filter_fns, self.features, kernels):
            filter_fn.kernel(self.times, features, part, out=kernel, scratch=self.space("scratch", shape, dtype))
        if len(kernels) == 1:
            padded[..., self.lags :] = 0
            kernels = [padded]
        self.convolution.spectra(kernels[0][0], kernels[1][0] if len(kernels) > 1 else None, out)


@dataclass(frozen=True)
class KeptSpectra:
    """
    Spectra of an operator's long filters, kept for inference on a CPU.

    They belong to one transform size and serve all lengths of that size, as long as the parameters have the values that
    they were computed from, so that code that changes weights need not reset them. They are immutable: a thread that
    reads them is not affected when another one replaces them.
    """

    settings: tuple
    parameters: list[Tensor]
    spectra: list[Tensor]

    @classmethod
    def make(
        cls, filter_fns: Sequence[HyenaDNAFilter], convolution: LongConvolution, dtype: torch.dtype
    ) -> "KeptSpectra":
        """Compute a tensor `(hyena_order - 1, d_model, n)` for each `n` of `convolution.spectrum_lengths`."""
        config, tuning = filter_fns[0].config, convolution.tuning
        shape = config.hyena_order - 1, config.d_model
        spectra = [torch.empty(*shape, n, dtype=dtype.to_complex()) for n in convolution.spectrum_lengths]
        parameters = [parameter.detach().clone() for fn in filter_fns for parameter in fn.parameters()]
        # The most lags that fit the longest input of this size; they are exact for shorter inputs, too.
        lags = (convolution.size + 1) // 2
        maker = SpectrumMaker(filter_fns, convolution, lags, WorkSpace(torch.device("cpu")))
        for i in range(shape[0]):
            for first in range(0, shape[1], tuning.channels):
                channels = slice(first, min(first + tuning.channels, shape[1]))
                maker(i, channels, [spectrum[i, channels] for spectrum in spectra])
        return cls(cls._settings(filter_fns, convolution, dtype), parameters, spectra)

    @staticmethod
    def _settings(filter_fns: Sequence[HyenaDNAFilter], convolution: LongConvolution, dtype: torch.dtype) -> tuple:
        """List all that the spectra depend on besides parameters."""
        frequencies = [filter_fn.implicit_filter["1"].freq for filter_fn in filter_fns]
        fixed = [freq for freq in frequencies if not isinstance(freq, Tensor)]
        return convolution.size, dtype, filter_fns[0].config.max_seq_len, *fixed

    def is_valid_for(
        self, filter_fns: Sequence[HyenaDNAFilter], convolution: LongConvolution, dtype: torch.dtype
    ) -> bool:
        """Whether [`KeptSpectra.make`] would compute the same spectra."""
        if self.settings != self._settings(filter_fns, convolution, dtype):
            return False
        parameters = [parameter for fn in filter_fns for parameter in fn.parameters()]
        return all(
            kept.dtype == now.dtype and torch.equal(kept, now)
            for kept, now in zip(self.parameters, parameters, strict=True)
        )

    def __reduce__(self) -> tuple[Any, ...]:  # neither copied nor saved with the model
        return type(None), ()
