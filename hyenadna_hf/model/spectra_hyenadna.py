"""The spectra of the long filters in inference: made a few channels at a time, or kept from one call to the next."""

import math

import torch
from torch import nn

from .fftconv_hyenadna import beginnings, fft_size
from .filter_hyenadna import HyenaDNAFilter, HyenaDNAFilterLinear, HyenaDNASine

CHANNELS = 16  # in a piece of spectra to be kept
KEPT_BYTES = 17 << 20  # most that a block keeps with memory="auto": one long filter of width 256 for 8,192 positions
# What is made by arithmetic that depends on nothing but parameters and the configuration.
PLAIN = (HyenaDNAFilter, HyenaDNAFilterLinear, HyenaDNASine, nn.ModuleDict)


class WorkSpace:
    """Named pieces of memory that are used again and again, with whatever they hold."""

    def __init__(self, device):
        self.device = device
        self.buffers = {}

    def __call__(self, name, shape, dtype):
        numbers = math.prod(shape)
        buffer = self.buffers.get(name)
        if buffer is None or buffer.numel() < numbers or buffer.dtype != dtype:
            buffer = self.buffers[name] = torch.empty(numbers, dtype=dtype, device=self.device)
        return buffer[:numbers].view(shape)


def spectra_in_pieces(filter_fns, length, size, space):
    """
    The spectra of the long filters of an operator, skip terms included.

    Args:
        filter_fns (`list[HyenaDNAFilter]`): What gives the filters over the past, then perhaps those over the future.
        length (`int`): How many lags they have; from then on they are zero.
        size (`int`): Of the transforms, at least `2 * length - 1`.
        space ([`WorkSpace`]): Where to work.

    Returns:
        `Callable`: `fill(i, channels, out)` writes the spectra of filter i of the channels (a `slice`) to `out`, which
        is what [`spectra_of`] gives: complex tensors, the first one of shape `(channels, size // 2 + 1)`.
    """
    past, *future = [filter_fn.in_pieces(length, space.device) for filter_fn in filter_fns]

    def fill(i, channels, out):
        dtype, count = out[0].dtype.to_real(), len(out[0])
        circular = space("signal", (count, size), dtype)
        scratch = space("scratch", (count, length), dtype)
        past(i, channels, circular[:, :length], scratch)
        circular[:, length:] = 0
        for fill_reverse in future:  # as in `bidirectional_conv_fft`
            reverse = space("reverse", (count, length), dtype)
            fill_reverse(i, channels, reverse, scratch)
            circular[:, size - length + 1 :] = reverse[:, 1:].flip(-1)
        torch.fft.rfft(circular, out=out[0])
        for n, spectrum in zip(beginnings(size), out[1:]):
            torch.fft.rfft(circular[:, :n], n=fft_size(2 * n - 1), out=spectrum)

    return fill


def spectrum_lengths(filter_fns, size):
    """How many numbers each of the spectra has that [`spectra_in_pieces`] makes."""
    shorter = beginnings(size) if len(filter_fns) == 1 else ()  # what looks ahead has no beginning to itself
    return [size // 2 + 1, *(fft_size(2 * n - 1) // 2 + 1 for n in shorter)]


class KeptSpectra:
    """
    The spectra of the long filters of an operator, for inference on a CPU.

    They are those of the last transform size, and serve all lengths of that size. They are made anew when the numbers
    in a parameter are not those that they were made of; so whatever changes weights need not know of them.
    """

    def __init__(self):
        self.forget()

    def __reduce__(self):  # neither copied nor saved with the model
        return KeptSpectra, ()

    def forget(self):
        self.made_for = self.spectra = None
        self.parameters = []

    def get(self, filter_fns, size, dtype):
        """For each spectrum of `spectrum_lengths` a tensor `(hyena_order - 1, d_model, numbers)`, made of `dtype`."""
        config = filter_fns[0].config
        made_for = size, dtype, config.max_seq_len
        parameters = [parameter.detach() for fn in filter_fns for parameter in fn.parameters()]
        if made_for != self.made_for or not same(parameters, self.parameters):
            self.forget()  # before there are new ones
            shape = config.hyena_order - 1, config.d_model
            lengths = spectrum_lengths(filter_fns, size)
            spectra = [torch.empty(*shape, numbers, dtype=dtype.to_complex()) for numbers in lengths]
            # As many lags as are harmless for the longest input of this size; they are right for shorter ones, too.
            with torch.autocast("cpu", enabled=False):
                fill = spectra_in_pieces(filter_fns, (size + 1) // 2, size, WorkSpace(torch.device("cpu")))
                for i in range(config.hyena_order - 1):
                    for first in range(0, config.d_model, CHANNELS):
                        channels = slice(first, min(first + CHANNELS, config.d_model))
                        fill(i, channels, [spectrum[i, channels] for spectrum in spectra])
            self.made_for, self.spectra = made_for, spectra
            self.parameters = [parameter.clone() for parameter in parameters]
        return self.spectra

    @staticmethod
    def pay(filter_fns, size, dtype, memory):
        """Whether to keep them: with `memory="auto"` if they are small, and only where nothing else decides on them."""
        modules = [module for fn in filter_fns for module in fn.modules()]
        parameters = [parameter for fn in filter_fns for parameter in fn.parameters()]
        # Quantised weights have types of their own.
        if any(type(module) not in PLAIN for module in modules) or any(type(p) is not nn.Parameter for p in parameters):
            return False
        if filter_fns[0].config.trained_positions:
            return False
        config = filter_fns[0].config
        size_in_bytes = (config.hyena_order - 1) * config.d_model * (size // 2 + 1) * dtype.to_complex().itemsize
        return memory == "fast" or (memory == "auto" and size_in_bytes <= KEPT_BYTES)


def same(tensors, others):
    """Whether two lists of tensors hold the same numbers of the same types."""
    return len(tensors) == len(others) and all(
        one.dtype == other.dtype and torch.equal(one, other) for one, other in zip(tensors, others)
    )
