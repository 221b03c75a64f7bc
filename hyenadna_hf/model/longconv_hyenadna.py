"""
Long convolutions by FFT.

They compute `y[t] = sum over s <= t of k[t - s] * v[s]` for every channel. Bidirectional convolutions add
`sum over s > t of future[s - t] * v[s]`.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from .tuning_hyenadna import TUNING, Tuning


class LongConvolution:
    """
    Convolve signals of one length by FFT, in float64 for float64 signals and in float32 for any other dtype.

    The error of a transform is uniform and proportional to its largest values, whereas the first outputs of a causal
    convolution are sums of few terms: at 160,000 positions, their relative error in float32 would be a hundred times
    that of the last ones. Prefixes of the result are therefore recomputed by shorter transforms.

    Args:
        length: Number of positions of the signals.
        start: First position of the linear convolution to compute; 0 is the first position of the signal.
        stop: End of the positions to compute, exclusive. Defaults to `length`.
        causal: Whether there is no kernel over the future.
        native: Whether to call PyTorch's transforms directly, as compilers and torch.func require.
        tuning: Constants.
    """

    def __init__(
        self,
        length: int,
        start: int = 0,
        stop: int | None = None,
        causal: bool = True,
        native: bool = False,
        tuning: Tuning = TUNING,
    ) -> None:
        self.start, self.stop = start, length if stop is None else stop
        self.native, self.tuning = native, tuning
        linear = length + self.stop - 1 - start
        # Circular wrap-around falls before `start`.
        self.size = fft_size(linear if start == 0 else max(self.stop, linear), tuning)
        self.prefixes = prefix_lengths(self.size, tuning) if causal and start == 0 else []

    @property
    def spectrum_lengths(self) -> list[int]:
        """Number of frequencies of each spectrum of a kernel."""
        return [self.size // 2 + 1, *(self._prefix_size(n) // 2 + 1 for n in self.prefixes)]

    def spectra(self, k: Tensor, future: Tensor | None = None, out: Sequence[Tensor] | None = None) -> list[Tensor]:
        """
        Transform kernels for the whole result and for each prefix.

        Args:
            k: Kernels of shape `(..., lags)`, lag 0 first, with `stop` lags or zeros after the last one.
            future: Kernels over the future, of the same shape. Their lag 0 is not used.
            out: Tensors to write the spectra to, without gradient.

        Returns:
            Complex tensors of `spectrum_lengths`.
        """
        if future is not None:  # lag -s of a circular kernel is at size - s
            between = k.new_zeros(*k.shape[:-1], self.size - 2 * k.shape[-1] + 1)
            k = torch.cat([k, between, future[..., 1:].flip(-1)], dim=-1)
        kernels = [(k, self.size), *((k[..., :n], self._prefix_size(n)) for n in self.prefixes)]
        return [self._transform(*kernel, out=to) for kernel, to in zip(kernels, out or [None] * len(kernels))]

    def __call__(
        self, v: Tensor, spectra: Sequence[Tensor], signal: Tensor | None = None, spectrum: Tensor | None = None
    ) -> Tensor:
        """
        Convolve a signal.

        Args:
            v: Signal of shape `(..., length)`.
            spectra: The result of [`LongConvolution.spectra`].
            signal: Buffer of shape `(..., size)` that contains `v` (as a view) and then zeros. It is overwritten, and
                the result is a view of it.
            spectrum: Work buffer of shape `(..., size // 2 + 1)`.

        Returns:
            A tensor of shape `(..., stop - start)` and the dtype of `v`.
        """
        wide = v.to(torch.promote_types(v.dtype, torch.float32))
        with torch.autocast(v.device.type, enabled=False):
            if signal is None and not self.native and (self.start, self.stop) == (0, v.shape[-1]):
                y = FFTConvolution.apply(self, wide, *spectra)
            else:
                y, _ = self.convolve(wide, spectra, signal, spectrum)
        return y.to(v.dtype)

    def convolve(
        self, x: Tensor, spectra: Sequence[Tensor], signal: Tensor | None = None, spectrum: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Convolve a float32 or float64 signal; also return its transform, which is invalid if `spectrum` is given."""
        prefixes = [self._convolve_prefix(x, n, short) for n, short in zip(self.prefixes, spectra[1:])]
        transformed = self._transform(x if signal is None else signal, self.size, out=spectrum)
        product = torch.mul(transformed, spectra[0], out=spectrum)
        y = torch.fft.irfft(product, n=self.size, out=signal)[..., self.start : self.stop]
        for prefix in prefixes:  # the longest first
            y[..., : prefix.shape[-1]] = prefix[..., : y.shape[-1]]
        return y, transformed

    def parts(self) -> list[tuple[int, int, int]]:
        """List the positions of the result that each transform computes, as `(start, stop, transform size)`."""
        bounds = [self.stop, *self.prefixes, 0]
        sizes = [self.size, *map(self._prefix_size, self.prefixes)]
        return list(zip(bounds[1:], bounds, sizes))

    def _transform(self, x: Tensor, size: int, out: Tensor | None = None) -> Tensor:
        if out is not None or self.native:
            return torch.fft.rfft(x, n=size, out=out)
        return RealFFT.apply(x, size)

    def _convolve_prefix(self, x: Tensor, n: int, spectrum: Tensor) -> Tensor:
        size = self._prefix_size(n)
        return torch.fft.irfft(self._transform(x[..., :n], size) * spectrum, n=size)[..., :n]

    def _prefix_size(self, n: int) -> int:
        return fft_size(2 * n - 1, self.tuning)


def prefix_lengths(size: int, tuning: Tuning = TUNING) -> list[int]:
    """
    List the lengths of the prefixes to recompute after a transform of `size`, the longest first.

    Short transforms have none, and neither have symbolic sizes, as in an exported graph.
    """
    lengths = []
    while not isinstance(size, torch.SymInt) and size // 32 >= tuning.least_prefix:
        lengths.append(size // 32)
        size //= 16
    return lengths


def fft_size(length: int, tuning: Tuning = TUNING) -> int:
    """
    Return the least fast FFT size of at least `length`: 2^n, 3 * 2^n, 5 * 2^n or 9 * 2^n, and no less than 32.

    In an exported graph, return `length + 1`, since nothing there may depend on the value of a symbol. In an ONNX
    graph, return a power of two: onnxruntime is inexact for all other sizes.
    """
    if isinstance(length, torch.SymInt):
        return length + 1
    power = tuning.least_size
    while power < length:  # comparisons let a compiled graph serve all lengths of one size
        power *= 2
    if power > tuning.least_size and not torch.onnx.is_in_onnx_export():
        for size in (power // 16 * 9, power // 16 * 10, power // 16 * 12):
            if size >= length:
                return size
    return power


class RealFFT(torch.autograd.Function):
    """Compute `torch.fft.rfft(x, n=size)` with half the work of PyTorch in the backward pass: a real transform."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, size: int) -> Tensor:
        ctx.length, ctx.size = x.shape[-1], size
        return torch.fft.rfft(x, n=size)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        full = torch.fft.irfft(gradient / _frequency_weights(gradient, ctx.size), n=ctx.size)
        return full.narrow(-1, 0, ctx.length), None  # indexing would make an alias, which batched gradients forbid


class FFTConvolution(torch.autograd.Function):
    """
    Compute [`LongConvolution.convolve`] with a backward pass of two transforms.

    The gradient of the signal correlates the gradient of the result with the kernel; that of the kernel correlates it
    with the signal. Both share a transform.
    """

    @staticmethod
    def forward(ctx: Any, convolution: LongConvolution, x: Tensor, *spectra: Tensor) -> Tensor:
        y, transformed = convolution.convolve(x, spectra)
        ctx.convolution = convolution
        ctx.save_for_backward(x, transformed if ctx.needs_input_grad[2] else None, *spectra)
        return y

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, transformed, *spectra = ctx.saved_tensors
        _, needs_grad_x, *needs_grad_spectra = ctx.needs_input_grad
        grad_x: Tensor | None = None
        grad_spectra = []
        for (start, stop, size), spectrum, needs_grad in zip(ctx.convolution.parts(), spectra, needs_grad_spectra):
            part = gradient.narrow(-1, start, stop - start)
            product = torch.fft.rfft(F.pad(part, (start, 0)) if start else part, n=size)
            if needs_grad_x:
                y = torch.fft.irfft(product * spectrum.conj(), n=size).narrow(-1, 0, stop)
                if grad_x is None:  # the whole comes first
                    grad_x = y
                else:
                    grad_x.narrow(-1, 0, stop).add_(y)
            if needs_grad:
                # Transforms of prefixes are not saved, and second-order gradients must flow through the signal.
                if transformed is None or torch.is_grad_enabled():
                    transformed = torch.fft.rfft(x.narrow(-1, 0, stop), n=size)
                product = product * transformed.conj()
                transformed = None
                grad_spectra.append(product.sum_to_size(spectrum.shape) * _frequency_weights(spectrum, size))
            else:
                grad_spectra.append(None)
        return None, grad_x, *grad_spectra


def _frequency_weights(spectrum: Tensor, size: int) -> Tensor:
    """Return how often each frequency of a real signal counts (twice with its conjugate), divided by the size."""
    weights = torch.full((size // 2 + 1,), 2 / size, dtype=spectrum.dtype.to_real(), device=spectrum.device)
    weights[0] = 1 / size
    if size % 2 == 0:
        weights[-1] = 1 / size
    return weights
