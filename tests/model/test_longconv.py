from functools import partial

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from reference import causal_conv_direct, future_conv_direct

from hyenadna_hf.model.longconv_hyenadna import (
    LongConvolution,
    RealFFT,
    fft_size,
    prefix_lengths,
)
from hyenadna_hf.model.tuning_hyenadna import TUNING


def causal_conv_fft(v, k, tuning=TUNING):
    convolution = LongConvolution(v.shape[-1], tuning=tuning)
    return convolution(v, convolution.spectra(k))


def bidirectional_conv_fft(v, k, future):
    convolution = LongConvolution(v.shape[-1], causal=False)
    return convolution(v, convolution.spectra(k, future))


def loops(v, k):
    """The sum in the module's first lines, literally."""
    y = torch.zeros_like(v)
    for t in range(v.shape[-1]):
        for s in range(t + 1):
            y[..., t] += k[:, t - s] * v[..., s]
    return y


def test_direct_is_the_definition():
    v, k = torch.randn(2, 3, 9), torch.randn(3, 9)
    torch.testing.assert_close(causal_conv_direct(v, k), loops(v, k), rtol=0, atol=1e-5)


@pytest.mark.parametrize("length", [1, 2, 3, 7, 64, 65, 129, 1000, 1537])
@pytest.mark.parametrize("least_prefix", [1, 64])
def test_fft_equals_direct_in_values_and_gradients(length, least_prefix):
    tuning = TUNING._replace(least_prefix=least_prefix)
    # float64: the two differ by rounding alone, which grows with the logarithm of the length.
    arguments = [
        torch.randn(2, 3, length, dtype=torch.float64, requires_grad=True),
        torch.randn(3, length, dtype=torch.float64, requires_grad=True),
    ]
    weight = torch.randn(2, 3, length, dtype=torch.float64)
    results = []
    for conv in (causal_conv_direct, partial(causal_conv_fft, tuning=tuning)):
        y = conv(*arguments)
        results.append((y, *torch.autograd.grad((y * weight).sum(), arguments)))
    for direct, fft in zip(*results, strict=True):
        torch.testing.assert_close(fft, direct, rtol=0, atol=1e-11 * max(1, float(direct.detach().abs().max())))


@pytest.mark.parametrize("start, stop", [(0, 5), (3, 9), (7, 30), (0, 64), (30, 31)])
@pytest.mark.parametrize("length", [1, 7, 30])
def test_a_stretch_of_the_linear_convolution(length, start, stop):
    v = torch.randn(2, 3, length, dtype=torch.float64)
    k = torch.randn(3, stop, dtype=torch.float64)
    convolution = LongConvolution(length, start, stop)
    padded = torch.nn.functional.pad(v, (0, stop))[..., :stop]
    expected = causal_conv_direct(padded, k)[..., start:]
    torch.testing.assert_close(convolution(v, convolution.spectra(k)), expected, rtol=0, atol=1e-12)


def test_in_memory_that_is_used_again():
    convolution = LongConvolution(1000, tuning=TUNING._replace(least_prefix=1))
    v, k = torch.randn(2, 3, 1000, dtype=torch.float64), torch.randn(3, 1000, dtype=torch.float64)
    expected = convolution(v, convolution.spectra(k))
    spectra = [torch.empty(3, n, dtype=torch.complex128) for n in convolution.spectrum_lengths]
    convolution.spectra(k, out=spectra)
    signal = torch.zeros(2, 3, convolution.size, dtype=torch.float64)
    signal[..., :1000] = v
    spectrum = torch.empty(2, 3, convolution.size // 2 + 1, dtype=torch.complex128)
    found = convolution(signal[..., :1000], spectra, signal, spectrum)
    assert found.data_ptr() == signal.data_ptr()
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-11)


@pytest.mark.parametrize("length", [1537, 5003, 100_003])
def test_the_first_positions_are_as_exact_as_the_last_ones(length):
    """Where outputs grow: the error in float32 relative to the size of outputs so far, of those of 64 at least."""
    torch.manual_seed(0)
    v, k = torch.rand(1, 4, length, dtype=torch.float64), torch.rand(4, length, dtype=torch.float64)
    exact = causal_conv_fft(v, k)  # float64 has digits to spare
    largest = torch.maximum(exact.cummax(-1).values, exact[..., 63:64])
    error = (causal_conv_fft(v.float(), k.float()) - exact).abs() / largest
    one_transform = bidirectional_conv_fft(v.float(), k.float(), torch.zeros(4, length))
    assert error.max() < 1e-5
    assert length < 100_000 or ((one_transform - exact).abs() / largest).max() > 1e-4


@pytest.mark.parametrize("length, size", [(1, 1), (1, 2), (2, 3), (3, 3), (5, 8), (8, 8), (9, 12), (100, 256)])
def test_gradients_of_the_transform(length, size):
    """First and second ones, by finite differences; and those of PyTorch's transform."""
    x = torch.randn(2, length, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: RealFFT.apply(x, size), x)
    assert torch.autograd.gradgradcheck(lambda x: RealFFT.apply(x, size).abs().square(), x)
    weight = torch.randn(2, size // 2 + 1, dtype=torch.complex128)
    mine, theirs = (
        torch.autograd.grad((transform(x, size) * weight).abs().square().sum(), x)[0]
        for transform in (RealFFT.apply, torch.fft.rfft)
    )
    torch.testing.assert_close(mine, theirs, rtol=1e-12, atol=1e-12)


@given(st.integers(1, 10**7))
def test_prefixes_get_shorter(size):
    lengths = prefix_lengths(size)
    assert all(16 * n <= before for before, n in zip([size // 2, *lengths], lengths))
    assert (size < 2048) == (not lengths)


@given(st.integers(1, 300))
def test_both_directions_in_values_and_gradients(length):
    make = torch.Generator().manual_seed(length)
    shapes = [(2, 3, length), (3, length), (3, length)]
    arguments = [torch.randn(shape, dtype=torch.float64, generator=make).requires_grad_() for shape in shapes]
    weight = torch.randn(2, 3, length, dtype=torch.float64, generator=make)

    def direct(v, k, future):
        return causal_conv_direct(v, k) + future_conv_direct(v, future)

    results = []
    for conv in (direct, bidirectional_conv_fft):
        y = conv(*arguments)
        results.append((y, *torch.autograd.grad((y * weight).sum(), arguments)))
    for expected, fft in zip(*results, strict=True):
        torch.testing.assert_close(fft, expected, rtol=0, atol=1e-11 * max(1, float(expected.detach().abs().max())))
    assert not results[1][3][:, 0].abs().max() > 1e-11  # lag 0 is the other filter's


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_signals_are_convolved_in_float32(dtype):
    v, k = torch.randn(1, 2, 100).to(dtype), torch.randn(2, 100)
    y = causal_conv_fft(v, k)
    assert y.dtype == dtype
    torch.testing.assert_close(y, causal_conv_direct(v.float(), k).to(dtype), rtol=torch.finfo(dtype).eps, atol=1e-4)


@given(st.integers(1, 10**7))
def test_fft_size_is_the_least_fast_one(length):
    fast = [odd << n for odd in (1, 3, 5, 9) for n in range(25)]
    assert fft_size(length) == min(size for size in fast if size >= max(length, 32))


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("length", [1, 2, 17, 64, 257, 1100])
def test_gradients_are_those_of_the_transforms_one_by_one(length, causal):
    """First and second ones equal those of autograd through PyTorch's transforms, with and without prefixes."""
    make = torch.Generator().manual_seed(length)
    # As in groups of rows: a kernel for all rows of a channel.
    v = torch.randn(3, 2, length, generator=make, dtype=torch.float64).requires_grad_()
    kernels = [
        torch.randn(3, 1, length, generator=make, dtype=torch.float64).requires_grad_() for _ in range(2 - causal)
    ]
    weights = torch.randn(2, 3, 2, length, generator=make, dtype=torch.float64)
    for least in (1, 64):
        found = []
        for native in (True, False):
            convolution = LongConvolution(
                length, causal=causal, native=native, tuning=TUNING._replace(least_prefix=least)
            )
            y = convolution(v, convolution.spectra(*kernels))
            first = torch.autograd.grad((y * weights[0]).sum(), (v, *kernels), create_graph=True)
            second = torch.autograd.grad((first[0] * weights[1]).sum() + first[1].square().sum(), (v, *kernels))
            found.append((y, *first, *second))
        for mine, other in zip(*reversed(found)):
            torch.testing.assert_close(mine, other, rtol=1e-9, atol=1e-9)
