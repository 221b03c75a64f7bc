"""Short causal depthwise convolutions, computed as sums of shifted products."""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from .pieces_hyenadna import needs_new_memory


def convolve_short(x: Tensor, taps: Tensor, bias: Tensor, out: Tensor | None = None) -> Tensor:
    """
    Compute `y[t] = bias + sum over lag of taps[-1 - lag] * x[t - lag]`.

    Args:
        x: Signals of shape `(..., channels, rows, length)`.
        taps: Filters of shape `(..., channels, 1, order)`, lag 0 last, as in `nn.Conv1d`.
        bias: Bias of each channel, of shape `(..., channels)`.
        out: Tensor to write the result to, without gradient.

    Returns:
        A tensor of the shape of `x`.
    """
    taps, bias = taps.to(x.dtype), bias.to(x.dtype)[..., None, None]
    y = torch.addcmul(bias, x, taps[..., -1:], out=out)
    for lag in range(1, min(taps.shape[-1], x.shape[-1])):
        y[..., lag:].addcmul_(x[..., :-lag], taps[..., -1 - lag, None])
    return y


class ShortConvolution(torch.autograd.Function):
    """
    Apply [`convolve_short`] to `(streams, channels, rows, length)` and return a tuple of streams.

    The backward pass also sums shifted products, whereas autograd would copy each shifted part.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, taps: Tensor, bias: Tensor) -> tuple[Tensor, ...]:
        ctx.save_for_backward(x, taps)
        return convolve_short(x, taps, bias).unbind()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        x, taps = ctx.saved_tensors
        grad_x = grad_taps = grad_bias = None
        if ctx.needs_input_grad[0]:
            if any(map(needs_new_memory, gradients)):
                grad_x = torch.stack([_signal_gradient(*stream) for stream in zip(gradients, taps)])
            else:
                grad_x = torch.empty_like(x)
                for stream in zip(gradients, taps, grad_x):
                    _signal_gradient(*stream)
        if ctx.needs_input_grad[1]:
            order = taps.shape[-1]
            grad_taps = torch.stack([_taps_gradient(*stream, order) for stream in zip(gradients, x)]).to(taps.dtype)
        if ctx.needs_input_grad[2]:
            grad_bias = torch.stack([gradient.sum((-2, -1)) for gradient in gradients]).to(taps.dtype)
        return grad_x, grad_taps, grad_bias


def _signal_gradient(gradient: Tensor, taps: Tensor, out: Tensor | None = None) -> Tensor:
    taps, length = taps.to(gradient.dtype), gradient.shape[-1]
    result = torch.mul(gradient, taps[..., -1:], out=out)
    for lag in range(1, min(taps.shape[-1], length)):
        later = gradient.narrow(-1, lag, length - lag)
        result.narrow(-1, 0, length - lag).addcmul_(later, taps[..., -1 - lag, None])
    return result


def _taps_gradient(gradient: Tensor, x: Tensor, order: int) -> Tensor:
    length, sums = x.shape[-1], []
    for lag in reversed(range(min(order, length))):
        product = gradient.narrow(-1, lag, length - lag) * x.narrow(-1, 0, length - lag)
        sums.append(product.sum((-2, -1), keepdim=True))
    return F.pad(torch.cat(sums, -1), (order - len(sums), 0))
