"""
Milliseconds of short long-convolutions: the transforms of this package against products with Toeplitz matrices.

    python benchmarks/convolutions.py --out benchmarks/results/convolutions

Each row is a causal convolution of all channels of width 128 with the gradients of signal and kernel, 4,096 positions
in rows of one length, as training computes them at a time. The ways take turns; a time is the median of the rounds, and
results are compared with float64 before any time. The Toeplitz products are batched matrix products, a matrix a
channel, in float32 and in bfloat16; above 256 positions also in blocks of 128, which leave out the half that is zero.
"""

import argparse
import statistics
import time
from functools import partial

import torch
from report import write_table

from hyenadna_hf.model.longconv_hyenadna import LongConvolution

WIDTH, POSITIONS, BLOCK = 128, 4_096, 128
LENGTHS = (32, 64, 128, 256, 512, 1024)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--out", required=True, help="beginning of the names of the files to write")
    args = parser.parse_args()
    torch.manual_seed(0)
    rows = []
    for length in LENGTHS:
        ways = {
            "transforms": transforms,
            "Toeplitz": toeplitz,
            "Toeplitz, bfloat16": partial(toeplitz, dtype=torch.bfloat16),
        }
        if length > 256:
            ways |= {"in blocks": in_blocks, "in blocks, bfloat16": partial(in_blocks, dtype=torch.bfloat16)}
        v = torch.randn(WIDTH, POSITIONS // length, length, requires_grad=True)
        k = (torch.randn(WIDTH, length) * torch.linspace(0, -5, length).exp()).requires_grad_()
        exact = results(partial(toeplitz, dtype=torch.float64), v.double(), k.double())
        for name, way in ways.items():
            check(name, results(way, v, k), exact)
        seconds = {name: [] for name in ways}
        for _ in range(args.rounds + 1):
            for name, way in ways.items():
                started = time.perf_counter()
                results(way, v, k)
                seconds[name].append(time.perf_counter() - started)
        medians = {name: 1000 * statistics.median(times[1:]) for name, times in seconds.items()}
        names = ("transforms", "Toeplitz", "in blocks", "Toeplitz, bfloat16", "in blocks, bfloat16")
        rows.append(
            {"rows": POSITIONS // length, "positions": length, **{f"{name}, ms": medians.get(name) for name in names}}
        )
    write_table(rows, args.out)


def results(way, v, k):
    """Compute the convolution and both gradients."""
    v, k = v.detach().requires_grad_(), k.detach().requires_grad_()
    y = way(v, k)
    y.backward(torch.ones_like(y))
    return y.detach(), v.grad, k.grad


def check(name, found, exact):
    """Compare results in relation to the largest value."""
    tolerance = 0.05 if "bfloat16" in name else 1e-5  # eight bits of each sum
    for value, expected in zip(found, exact):
        error = float((value - expected).abs().max() / expected.abs().max())
        if not error <= tolerance:
            raise SystemExit(f"{name}: off by {error:.2g} of the largest value")


def transforms(v, k):
    """Convolve signals of shape `(channels, rows, length)` with kernels of shape `(channels, length)`."""
    convolution = LongConvolution(v.shape[-1])
    return convolution(v, [spectrum.unsqueeze(1) for spectrum in convolution.spectra(k)])


def toeplitz(v, k, dtype=torch.float32):
    """Do the same by a matrix `k[t - s]` a channel."""
    return (v.to(dtype) @ matrices(k, v.shape[-1]).to(dtype)).to(v.dtype)


def in_blocks(v, k, dtype=torch.float32):
    """Do the same with the blocks of the matrix that are not all zero."""
    blocks = v.to(dtype).split(BLOCK, -1)
    lags = [matrices(k[:, :BLOCK], BLOCK)]
    lags += [between(k[:, (lag - 1) * BLOCK + 1 : (lag + 1) * BLOCK]) for lag in range(1, len(blocks))]
    lags = [lag.to(dtype) for lag in lags]
    return torch.cat([sum((blocks[s] @ lags[t - s]).float() for s in range(t + 1)) for t in range(len(blocks))], -1)


def matrices(k, length):
    """Toeplitz matrices `(channels, s, t)` of causal kernels."""
    return between(torch.nn.functional.pad(k, (length - 1, 0)))


def between(k):
    """Matrices `(channels, s, t)` with `k[length - 1 + t - s]`, of kernels with `2 * length - 1` lags."""
    return k.unfold(-1, (k.shape[-1] + 1) // 2, 1).flip(1)


if __name__ == "__main__":
    main()
