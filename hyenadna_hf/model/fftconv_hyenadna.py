"""Causal long convolution: a direct reference and the FFT.

Both compute, for every channel, `y[t] = sum over s <= t of k[t - s] * v[s]`, plus the skip term `bias * v[t]`. In both
directions it is that plus `sum over s > t of reverse[s - t] * v[s]`.
"""

import torch

CHUNK = 1 << 20  # numbers in a transform of several channels: what stays in the caches of a CPU


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
    return _circular_conv(v, k, bias, fft_size(2 * v.shape[-1] - 1))


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


def spectral_conv(v, spectrum, size):
    """
    The same, by spectra of the filters that include the skip terms.

    Args:
        v (`torch.Tensor` of shape `(batch, channels, length)`): The signal.
        spectrum (`torch.Tensor` of shape `(channels, size // 2 + 1)`): That of the circular filters of `size` lags.
        size (`int`): At least `2 * length - 1`.

    Returns:
        `torch.Tensor` of shape `(batch, channels, length)` and the dtype of `v`.
    """
    signal = v.to(torch.promote_types(v.dtype, torch.float32))
    with torch.autocast(v.device.type, enabled=False):
        y = torch.fft.irfft(torch.fft.rfft(signal, n=size) * spectrum, n=size)
    return y[..., : v.shape[-1]].to(v.dtype)


def _circular_conv(v, k, bias, size):
    dtype = torch.promote_types(v.dtype, torch.float32)
    with torch.autocast(v.device.type, enabled=False):
        signal = v.to(dtype)
        y = spectral_conv(signal, torch.fft.rfft(k.to(dtype), n=size), size)
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
        spectrum = torch.fft.rfft(x, n=size).mul_(torch.fft.rfft(h, n=size))
        y += torch.fft.irfft(spectrum, n=size)[..., start:stop]


def fft_size(length):
    """
    The least 2^n or 3 * 2^n that is no less than `length`: the sizes that FFT libraries do fastest.

    An exported graph is for every length: there it is one more, since nothing may depend on how large a symbol is.
    """
    if isinstance(length, torch.SymInt):
        return length + 1
    power = 1
    while power < length:  # by comparisons, so that a compiled graph serves all lengths of one size
        power *= 2
    return 3 * power // 4 if 3 * power // 4 >= length else power
