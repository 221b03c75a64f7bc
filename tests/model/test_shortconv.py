"""Short convolutions against PyTorch's, in values and gradients of both orders."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from hyenadna_hf.model.shortconv_hyenadna import ShortConvolution, convolve_short


def arguments(streams, channels, rows, length, order, dtype=torch.float64):
    generator = torch.Generator().manual_seed(0)
    shapes = (streams, channels, rows, length), (streams, channels, 1, order), (streams, channels)
    return [torch.randn(shape, generator=generator, dtype=dtype).requires_grad_() for shape in shapes]


def reference(x, taps, bias):
    """Compute it as `nn.Conv1d` does, of `(rows, streams * channels, length)`."""
    padded = F.pad(x.flatten(0, 1).transpose(0, 1), (taps.shape[-1] - 1, 0))
    y = F.conv1d(padded, taps.flatten(0, 1), bias.flatten(), groups=taps.shape[0] * taps.shape[1])
    return y.transpose(0, 1).unflatten(0, taps.shape[:2])


@settings(max_examples=60)
@given(st.integers(1, 4), st.integers(1, 3), st.integers(1, 3), st.integers(1, 70), st.integers(1, 6))
def test_values_and_gradients(streams, channels, rows, length, order):
    given_to_both = arguments(streams, channels, rows, length, order)
    found, expected = torch.stack(ShortConvolution.apply(*given_to_both)), reference(*given_to_both)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)
    with torch.no_grad():
        torch.testing.assert_close(convolve_short(*given_to_both), expected, rtol=0, atol=1e-12)
    weights = torch.randn(expected.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    for one, other in zip(*(torch.autograd.grad((y * weights).sum(), given_to_both) for y in (found, expected))):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-11)


def test_gradients_of_both_orders():
    def convolve(*given_to_it):
        return torch.stack(ShortConvolution.apply(*given_to_it))

    for length, order in ((1, 3), (2, 3), (9, 4)):
        given_to_it = arguments(2, 2, 2, length, order)
        assert torch.autograd.gradcheck(convolve, given_to_it, check_batched_grad=True)
        assert torch.autograd.gradgradcheck(convolve, given_to_it)


def test_what_needs_no_gradient_gets_none():
    x, taps, bias = arguments(2, 2, 2, 9, 3)
    (found,) = torch.autograd.grad(torch.stack(ShortConvolution.apply(x, taps.detach(), bias.detach())).sum(), x)
    (expected,) = torch.autograd.grad(reference(x, taps, bias).sum(), x)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)


def test_half_precision_keeps_the_dtypes_of_its_arguments():
    x, taps, bias = arguments(3, 4, 2, 50, 3, torch.float32)
    signal = x.detach().bfloat16().requires_grad_()
    found = torch.stack(ShortConvolution.apply(signal, taps, bias))
    gradients = torch.autograd.grad(found.float().square().sum(), (signal, taps, bias))
    assert found.dtype == torch.bfloat16 and [g.dtype for g in gradients] == [torch.bfloat16, *[torch.float32] * 2]
    expected = torch.autograd.grad(reference(x, taps, bias).square().sum(), (x, taps, bias))
    for one, other in zip(gradients, expected):
        assert (one - other).abs().max() <= 0.03 * other.abs().max()
