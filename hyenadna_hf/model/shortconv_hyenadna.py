"""Short causal convolutions, one filter a channel, as sums of shifted products."""

import torch
from torch.nn import functional as F

from .pieces_hyenadna import needs_new_memory


def convolve_shortly(x, taps, bias, out=None):
    """
    Compute `y[t] = bias + sum over lag of taps[-1 - lag] * x[t - lag]`.

    Args:
        x (`torch.Tensor` of shape `(..., channels, rows, length)`): The signals.
        taps (`torch.Tensor` of shape `(..., channels, 1, order)`): As in `nn.Conv1d`, lag 0 last.
        bias (`torch.Tensor` of shape `(..., channels)`): Of each channel.
        out (`torch.Tensor` of the shape of `x`, *optional*): Where to write it, without gradient.

    Returns:
        `torch.Tensor` of the shape of `x`.
    """
    taps, bias = taps.to(x.dtype), bias.to(x.dtype)[..., None, None]
    y = torch.addcmul(bias, x, taps[..., -1:], out=out)
    for lag in range(1, min(taps.shape[-1], x.shape[-1])):
        y[..., lag:].addcmul_(x[..., :-lag], taps[..., -1 - lag, None])
    return y


class ShortConvolution(torch.autograd.Function):
    """
    [`convolve_shortly`] of several streams, `(streams, channels, rows, length)` to a tuple of them.

    The backward pass is sums of shifted products too; autograd would copy each shifted part.
    """

    @staticmethod
    def forward(ctx, x, taps, bias):
        ctx.save_for_backward(x, taps)
        return convolve_shortly(x, taps, bias).unbind()

    @staticmethod
    def backward(ctx, *gradients):
        x, taps = ctx.saved_tensors
        of_x = of_taps = of_bias = None
        if ctx.needs_input_grad[0]:
            if any(map(needs_new_memory, gradients)):
                of_x = torch.stack([_of_signal(*given) for given in zip(gradients, taps)])
            else:
                of_x = torch.empty_like(x)
                for given in zip(gradients, taps, of_x):
                    _of_signal(*given)
        if ctx.needs_input_grad[1]:
            of_taps = torch.stack([_of_taps(*given, taps.shape[-1]) for given in zip(gradients, x)]).to(taps.dtype)
        if ctx.needs_input_grad[2]:
            of_bias = torch.stack([gradient.sum((-2, -1)) for gradient in gradients]).to(taps.dtype)
        return of_x, of_taps, of_bias


def _of_signal(gradient, taps, out=None):
    taps, length = taps.to(gradient.dtype), gradient.shape[-1]
    found = torch.mul(gradient, taps[..., -1:], out=out)
    for lag in range(1, min(taps.shape[-1], length)):
        later = gradient.narrow(-1, lag, length - lag)
        found.narrow(-1, 0, length - lag).addcmul_(later, taps[..., -1 - lag, None])
    return found


def _of_taps(gradient, x, order):
    length, sums = x.shape[-1], []
    for lag in reversed(range(min(order, length))):
        product = gradient.narrow(-1, lag, length - lag) * x.narrow(-1, 0, length - lag)
        sums.append(product.sum((-2, -1), keepdim=True))
    return F.pad(torch.cat(sums, -1), (order - len(sums), 0))
