"""
Long convolutions: the definition, and the FFT.

Both compute, for every channel, `y[t] = sum over s <= t of k[t - s] * v[s]`. In both directions it is that plus
`sum over s > t of future[s - t] * v[s]`.
"""

import torch
from torch.nn import functional as F

from .tuning_hyenadna import TUNING


def causal_conv_direct(v, k):
    """
    Compute a causal convolution by its definition, in O(length^2) time and memory. For tests.

    Args:
        v (`torch.Tensor` of shape `(batch, channels, length)`): The signal.
        k (`torch.Tensor` of shape `(channels, length)`): The kernel, lag 0 first.

    Returns:
        `torch.Tensor` of shape `(batch, channels, length)`, in the precision of the arguments.
    """
    position = torch.arange(v.shape[-1], device=v.device)
    lag = position[:, None] - position[None, :]  # [T, S]
    toeplitz = k[:, lag.clamp(min=0)] * (lag >= 0)  # [C, T, S]
    return torch.einsum("cts,bcs->bct", toeplitz, v)


class LongConvolution:
    """
    Convolves signals of one length by FFT, in float32 (in float64 for float64 signals) whatever their dtype.

    A transform's error is everywhere that of its largest values. The first outputs of a causal convolution are sums of
    few terms, so at 160,000 positions their error in float32 would be a hundred times that of the last ones. Therefore
    the beginnings of the result are computed once more, by shorter transforms.

    Args:
        length (`int`): Positions of the signals.
        start (`int`, defaults to 0), stop (`int`, defaults to `length`):
            Which positions of the linear convolution to compute: 0 is the first position of the signal, `length` the
            one after its end.
        causal (`bool`, defaults to `True`): Whether there is no kernel over the future.
        native (`bool`, defaults to `False`): Whether to transform as PyTorch does, for compilers and torch.func.
        tuning ([`Tuning`]): Constants.
    """

    def __init__(self, length, start=0, stop=None, causal=True, native=False, tuning=TUNING):
        self.start, self.stop = start, length if stop is None else stop
        self.native, self.tuning = native, tuning
        linear = length + self.stop - 1 - start
        # What wraps around lands before `start`.
        self.size = fft_size(linear if start == 0 else max(self.stop, linear), tuning)
        self.beginnings = beginnings(self.size, tuning) if causal and start == 0 else []

    @property
    def spectrum_lengths(self):
        """How many numbers each spectrum of a kernel has."""
        return [self.size // 2 + 1, *(self._beginning_size(n) // 2 + 1 for n in self.beginnings)]

    def spectra(self, k, future=None, out=None):
        """
        Transform kernels: for the whole, and for each beginning.

        Args:
            k (`torch.Tensor` of shape `(..., lags)`): Kernels, lag 0 first, with as many lags as `stop` or zeros after.
            future (`torch.Tensor` of the same shape, *optional*): Kernels over the future; their lag 0 is not used.
            out (`list[torch.Tensor]`, *optional*): Where to write them, without gradient.

        Returns:
            `list[torch.Tensor]`, complex, of `spectrum_lengths`.
        """
        if future is not None:  # lag -s of a circular kernel stands at size - s
            between = k.new_zeros(*k.shape[:-1], self.size - 2 * k.shape[-1] + 1)
            k = torch.cat([k, between, future[..., 1:].flip(-1)], dim=-1)
        kernels = [(k, self.size), *((k[..., :n], self._beginning_size(n)) for n in self.beginnings)]
        return [self._transform(*kernel, out=to) for kernel, to in zip(kernels, out or [None] * len(kernels))]

    def __call__(self, v, spectra, signal=None, spectrum=None):
        """
        Convolve a signal.

        Args:
            v (`torch.Tensor` of shape `(..., length)`): The signal.
            spectra (`list[torch.Tensor]`): What [`LongConvolution.spectra`] gives.
            signal (`torch.Tensor` of shape `(..., size)`, *optional*):
                `v` and zeros after it, of which `v` is a part. It is overwritten, and the result is a part of it.
            spectrum (`torch.Tensor` of shape `(..., size // 2 + 1)`, *optional*): Memory to work in.

        Returns:
            `torch.Tensor` of shape `(..., stop - start)` and the dtype of `v`.
        """
        wide = v.to(torch.promote_types(v.dtype, torch.float32))
        with torch.autocast(v.device.type, enabled=False):
            if signal is None and not self.native and (self.start, self.stop) == (0, v.shape[-1]):
                y = Convolved.apply(self, wide, *spectra)
            else:
                y, _ = self.convolve(wide, spectra, signal, spectrum)
        return y.to(v.dtype)

    def convolve(self, x, spectra, signal=None, spectrum=None):
        """Compute what a call does, of a signal of float32 or float64, and its transform (not if it is overwritten)."""
        first = [self._beginning(x, n, short) for n, short in zip(self.beginnings, spectra[1:])]
        transformed = self._transform(x if signal is None else signal, self.size, out=spectrum)
        product = torch.mul(transformed, spectra[0], out=spectrum)
        y = torch.fft.irfft(product, n=self.size, out=signal)[..., self.start : self.stop]
        for beginning in first:  # the longest first
            y[..., : beginning.shape[-1]] = beginning[..., : y.shape[-1]]
        return y, transformed

    def parts(self):
        """List which positions of the result each transform gives: where they start and stop, and its size."""
        bounds = [self.stop, *self.beginnings, 0]
        sizes = [self.size, *map(self._beginning_size, self.beginnings)]
        return list(zip(bounds[1:], bounds, sizes))

    def _transform(self, x, size, out=None):
        if out is not None or self.native:
            return torch.fft.rfft(x, n=size, out=out)
        return RealTransform.apply(x, size)

    def _beginning(self, x, n, spectrum):
        size = self._beginning_size(n)
        return torch.fft.irfft(self._transform(x[..., :n], size) * spectrum, n=size)[..., :n]

    def _beginning_size(self, n):
        return fft_size(2 * n - 1, self.tuning)


def beginnings(size, tuning=TUNING):
    """
    List the lengths of the beginnings that are computed once more after a transform of `size`, the longest first.

    There are none for short transforms, nor for a size that is a symbol, as in an exported graph.
    """
    lengths = []
    while not isinstance(size, torch.SymInt) and size // 32 >= tuning.least_beginning:
        lengths.append(size // 32)
        size //= 16
    return lengths


def fft_size(length, tuning=TUNING):
    """
    Find the least 2^n, 3 * 2^n, 5 * 2^n or 9 * 2^n of 32 or more that is no less than `length`: such FFTs are fast.

    In an exported graph it is `length + 1`, since nothing there may depend on how large a symbol is. In an ONNX graph
    it is a power of two: onnxruntime is inexact for all other sizes.
    """
    if isinstance(length, torch.SymInt):
        return length + 1
    power = tuning.least_size
    while power < length:  # by comparisons, so that a compiled graph serves all lengths of one size
        power *= 2
    if power > tuning.least_size and not torch.onnx.is_in_onnx_export():
        for size in (power // 16 * 9, power // 16 * 10, power // 16 * 12):
            if size >= length:
                return size
    return power


class RealTransform(torch.autograd.Function):
    """
    `torch.fft.rfft(x, n=size)` with a backward pass of half the work: a transform to real numbers.

    PyTorch's own is a complex one of all frequencies.
    """

    @staticmethod
    def forward(ctx, x, size):
        ctx.length, ctx.size = x.shape[-1], size
        return torch.fft.rfft(x, n=size)

    @staticmethod
    def backward(ctx, gradient):
        whole = torch.fft.irfft(gradient / _weights(gradient, ctx.size), n=ctx.size)
        return whole.narrow(-1, 0, ctx.length), None  # indexing would make an alias, which batches of gradients lack


class Convolved(torch.autograd.Function):
    """
    [`LongConvolution.convolve`] with a backward pass of two transforms.

    The gradient of the signal is a correlation of that of the result with the kernel; the gradient of the kernel, one
    with the signal. Both share a transform.
    """

    @staticmethod
    def forward(ctx, convolution, x, *spectra):
        y, transformed = convolution.convolve(x, spectra)
        ctx.convolution = convolution
        ctx.save_for_backward(x, transformed if ctx.needs_input_grad[2] else None, *spectra)
        return y

    @staticmethod
    def backward(ctx, gradient):
        x, transformed, *spectra = ctx.saved_tensors
        _, of_signal, *of_spectra = ctx.needs_input_grad
        of_x, found = None, []
        for (start, stop, size), spectrum, wanted in zip(ctx.convolution.parts(), spectra, of_spectra):
            part = gradient.narrow(-1, start, stop - start)
            here = torch.fft.rfft(F.pad(part, (start, 0)) if start else part, n=size)
            if of_signal:
                y = torch.fft.irfft(here * spectrum.conj(), n=size).narrow(-1, 0, stop)
                if of_x is None:  # the whole comes first
                    of_x = y
                else:
                    of_x.narrow(-1, 0, stop).add_(y)
            if wanted:
                # That of a beginning is not kept, and second gradients go through the signal.
                if transformed is None or torch.is_grad_enabled():
                    transformed = torch.fft.rfft(x.narrow(-1, 0, stop), n=size)
                here = here * transformed.conj()
                transformed = None
                found.append(here.sum_to_size(spectrum.shape) * _weights(spectrum, size))
            else:
                found.append(None)
        return None, of_x, *found


def _weights(spectrum, size):
    """How often each frequency of a real signal counts (for its conjugate too), over the size of the transform."""
    weights = torch.full((size // 2 + 1,), 2 / size, dtype=spectrum.dtype.to_real(), device=spectrum.device)
    weights[0] = 1 / size
    if size % 2 == 0:
        weights[-1] = 1 / size
    return weights
