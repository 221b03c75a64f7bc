"""Causal long convolution: a direct reference and the FFT.

Both compute, for every channel, `y[t] = sum over s <= t of k[t - s] * v[s]`, plus the skip term `bias * v[t]`. In both
directions it is that plus `sum over s > t of reverse[s - t] * v[s]`.
"""

import torch

CHUNK = 1 << 20  # numbers in a transform of several channels: what stays in the caches of a CPU
LEAST_BEGINNING = 64  # positions
LEAST_SIZE = 32  # of a transform: shorter ones save nothing, and their filters depend on where in memory weights are


def causal_conv_direct(v, k, bias=None):
    """
    The definition, in O(length^2) time and memory and in the precision of its arguments. For tests.

    Args:
        v (`torch.Tensor` of shape `(batch, channels, length)`): The signal.
        k (`torch.Tensor` of shape `(channels, length)`): The filter, lag 0 first.
        bias (`torch.Tensor` of shape `(channels,)`, *optional*): Weight of the skip term.

    Returns:
        `torch.Tensor` of shape `(batch, channels, length)`.
    """
    length = v.shape[-1]
    position = torch.arange(length, device=v.device)
    lag = position[:, None] - position[None, :]  # [T, S]
    toeplitz = k[:, lag.clamp(min=0)] * (lag >= 0)  # [C, T, S]
    y = torch.einsum("cts,bcs->bct", toeplitz, v)
    return y if bias is None else y + bias[:, None] * v


def causal_conv_fft(v, k, bias=None):
    """
    The same in O(length log length), by FFT in float32 (in float64 for float64 arguments), whatever the dtype of `v`.

    Args:
        v (`torch.Tensor` of shape `(batch, channels, length)`): The signal.
        k (`torch.Tensor` of shape `(channels, length)`): The filter, lag 0 first.
        bias (`torch.Tensor` of shape `(channels,)`, *optional*): Weight of the skip term.

    Returns:
        `torch.Tensor` of shape `(batch, channels, length)` and the dtype of `v`.
    """
    size = fft_size(2 * v.shape[-1] - 1)
    return _circular_conv(v, k, bias, size, beginnings(size))


def bidirectional_conv_fft(v, k, reverse, bias=None):
    """
    [`causal_conv_fft`] over what was, and another filter over what is to come, at the price of one.

    Args:
        v (`torch.Tensor` of shape `(batch, channels, length)`): The signal.
        k (`torch.Tensor` of shape `(channels, length)`): The filter over the past, lag 0 first.
        reverse (`torch.Tensor` of shape `(channels, length)`): The filter over the future; its lag 0 is not used.
        bias (`torch.Tensor` of shape `(channels,)`, *optional*): Weight of the skip term.

    Returns:
        `torch.Tensor` of shape `(batch, channels, length)` and the dtype of `v`.
    """
    length = v.shape[-1]
    size = fft_size(2 * length - 1)
    # Lag -s of a circular filter stands at size - s; all 2 * length - 1 lags have places of their own.
    around = torch.cat([k, k.new_zeros(len(k), size - 2 * length + 1), reverse[:, 1:].flip(-1)], dim=-1)
    return _circular_conv(v, around, bias, size)


def beginnings(size):
    """
    Lengths of the beginnings of a causal convolution that are computed once more, by shorter transforms.

    The error of a transform is everywhere that of its largest values. The first outputs are sums of few terms, so that
    at 160,000 positions their error in float32 would be a hundred times that of the last ones.

    Args:
        size (`int`): Of the transforms of the whole.

    Returns:
        `list[int]`: the longest first; none of them for a symbol, as an exported graph has, and for short transforms.
    """
    lengths = []
    while not isinstance(size, torch.SymInt) and size // 32 >= LEAST_BEGINNING:
        lengths.append(size // 32)
        size //= 16
    return lengths


def spectra_of(k, size, beginnings=()):
    """
    What [`spectral_conv`] multiplies with.

    Args:
        k (`torch.Tensor` of shape `(channels, lags)`): Circular filters, or causal ones if there are `beginnings`.
        size (`int`): Of the transforms, at least `lags`.
        beginnings (`Sequence[int]`): What [`beginnings`] gives.

    Returns:
        `list[torch.Tensor]`: spectra for `size` and for each beginning.
    """
    return [real_transform(k, size), *(real_transform(k[..., :n], fft_size(2 * n - 1)) for n in beginnings)]


def spectral_conv(v, spectra, size):
    """
    The convolution with filters whose spectra are known.

    Args:
        v (`torch.Tensor` of shape `(batch, channels, length)`): The signal.
        spectra (`list[torch.Tensor]`): What [`spectra_of`] gives for `size`.
        size (`int`): At least `length`; what wraps around must be behind the signal.

    Returns:
        `torch.Tensor` of shape `(batch, channels, length)` and the dtype of `v`.
    """
    signal = v.to(torch.promote_types(v.dtype, torch.float32))
    with torch.autocast(v.device.type, enabled=False):
        y = torch.fft.irfft(real_transform(signal, size) * spectra[0], n=size)[..., : v.shape[-1]]
        for beginning in convolved_beginnings(signal, spectra, size):
            y[..., : beginning.shape[-1]] = beginning[..., : y.shape[-1]]
    return y.to(v.dtype)


def real_transform(x, size):
    """`torch.fft.rfft(x, n=size)`, with a faster backward pass."""
    return _RealTransform.apply(x, size)


class _RealTransform(torch.autograd.Function):
    """The backward pass is a transform to real numbers. PyTorch's own is a complex one of all frequencies."""

    @staticmethod
    def forward(ctx, x, size):
        ctx.length, ctx.size = x.shape[-1], size
        return torch.fft.rfft(x, n=size)

    @staticmethod
    def backward(ctx, gradient):
        halves = gradient / 2  # all but these frequencies count for a conjugate too
        halves[..., 0] = gradient[..., 0]
        if ctx.size % 2 == 0:
            halves[..., -1] = gradient[..., -1]
        return torch.fft.irfft(halves, n=ctx.size, norm="forward")[..., : ctx.length], None


def convolved_beginnings(signal, spectra, size):
    """The beginnings of [`spectral_conv`] that take the place of those that the whole transform gives, in order."""
    found = []
    for n, spectrum in zip(beginnings(size), spectra[1:]):
        short = fft_size(2 * n - 1)
        y = torch.fft.irfft(real_transform(signal[..., :n], short) * spectrum, n=short)
        found.append(y[..., :n])
    return found


def _circular_conv(v, k, bias, size, beginnings=()):
    dtype = torch.promote_types(v.dtype, torch.float32)
    with torch.autocast(v.device.type, enabled=False):
        signal = v.to(dtype)
        y = spectral_conv(signal, spectra_of(k.to(dtype), size, beginnings), size)
        if bias is not None:
            y = y + bias.to(dtype)[:, None] * signal
    return y.to(v.dtype)


@torch.no_grad()
def fft_conv_add(out, v, k, start):
    """
    Add to `out` a stretch of the full linear convolution of `v` and `k`, a few channels at a time and without gradient.

    Args:
        out (`torch.Tensor` of shape `(batch, channels, stretch)`): Float32 or float64; changed in place.
        v (`torch.Tensor` of shape `(batch, channels, length)`): The signal, of the same dtype.
        k (`torch.Tensor` of shape `(channels, lags)`): The filter, lag 0 first; `lags >= start + stretch`.
        start (`int`): Where the stretch begins: 0 is the first position of the signal, `length` the one behind it.
    """
    stop = start + out.shape[-1]
    # What wraps around lands before `start`.
    size = fft_size(max(stop, v.shape[-1] + stop - 1 - start))
    channels = max(1, CHUNK // (size * v.shape[0]))
    for y, x, h in zip(out.split(channels, 1), v.split(channels, 1), k[:, :stop].split(channels)):
        spectra = spectra_of(h, size, beginnings(size) if start == 0 else ())
        new = torch.fft.irfft(torch.fft.rfft(x, n=size).mul_(spectra[0]), n=size)[..., start:stop]
        for beginning in convolved_beginnings(x, spectra, size):
            new[..., : beginning.shape[-1]] = beginning[..., : new.shape[-1]]
        y += new


def fft_size(length):
    """
    The least 2^n, 3 * 2^n, 5 * 2^n or 9 * 2^n of 32 or more that is no less than `length`: FFTs of these are fast.

    An exported graph is for every length: there it is one more, since nothing may depend on how large a symbol is.
    An ONNX graph has powers of two only: onnxruntime is inexact for all other sizes.
    """
    if isinstance(length, torch.SymInt):
        return length + 1
    power = LEAST_SIZE
    while power < length:  # by comparisons, so that a compiled graph serves all lengths of one size
        power *= 2
    if power > LEAST_SIZE and not torch.onnx.is_in_onnx_export():
        for size in (power // 16 * 9, power // 16 * 10, power // 16 * 12):
            if size >= length:
                return size
    return power
