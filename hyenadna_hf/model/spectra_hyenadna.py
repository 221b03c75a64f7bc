"""The spectra of the long filters in inference: made a few channels at a time, or kept from one call to the next."""

import math
from dataclasses import dataclass

import torch


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


class SpectrumMaker:
    """
    Makes the spectra of an operator's long filters, a few channels at a time.

    Args:
        filter_fns (`list[HyenaDNAFilter]`): Of the past, then perhaps of the future.
        convolution ([`LongConvolution`]): What they are for.
        lags (`int`): How many lags the kernels have; from then on they are zero.
        space ([`WorkSpace`]): Where to work.
    """

    def __init__(self, filter_fns, convolution, lags, space):
        self.filter_fns, self.convolution, self.lags, self.space = filter_fns, convolution, lags, space
        pieces = torch.arange(lags, device=space.device).split(convolution.tuning.feature_positions)
        self.features = []
        for filter_fn in filter_fns:
            times, features = filter_fn.features(pieces[0][:0])
            self.times, features = times.new_empty(lags, 1), features.new_empty(lags, features.shape[1])
            for piece in pieces:
                here = slice(int(piece[0]), int(piece[-1]) + 1)
                self.times[here], features[here] = filter_fn.features(piece)
            self.features.append(features)

    def __call__(self, i, channels, out):
        """Write the spectra of filter i of some channels (a `slice`) to `out`, as [`LongConvolution.spectra`] does."""
        dtype, count = self.times.dtype, channels.stop - channels.start
        padded = self.space("signal", (1, count, self.convolution.size), dtype)
        shape, part = (1, count, self.lags), (slice(i, i + 1), channels)
        kernels = [padded[..., : self.lags], *(self.space("future", shape, dtype) for _ in self.filter_fns[1:])]
        for filter_fn, features, kernel in zip(self.filter_fns, self.features, kernels):
            filter_fn.kernel(self.times, features, part, out=kernel, scratch=self.space("scratch", shape, dtype))
        if len(kernels) == 1:
            padded[..., self.lags :] = 0
            kernels = [padded]
        self.convolution.spectra(*(kernel[0] for kernel in kernels), out=out)


@dataclass(frozen=True)
class KeptSpectra:
    """
    The spectra of an operator's long filters, kept for inference on a CPU.

    They are those of one transform size, and serve all lengths of that size. They hold as long as the numbers in the
    parameters are those that they were made of, so whatever changes weights need not know of them. Nothing in here
    ever changes: threads that read while another replaces them go on with what they have.
    """

    made_for: tuple
    parameters: list
    spectra: list

    @classmethod
    def make(cls, filter_fns, convolution, dtype):
        """Make them: a tensor `(hyena_order - 1, d_model, numbers)` for each of `convolution.spectrum_lengths`."""
        config, tuning = filter_fns[0].config, convolution.tuning
        shape = config.hyena_order - 1, config.d_model
        spectra = [torch.empty(*shape, n, dtype=dtype.to_complex()) for n in convolution.spectrum_lengths]
        parameters = [parameter.detach().clone() for fn in filter_fns for parameter in fn.parameters()]
        # As many lags as are harmless for the longest input of this size; they are right for shorter ones, too.
        lags = (convolution.size + 1) // 2
        maker = SpectrumMaker(filter_fns, convolution, lags, WorkSpace(torch.device("cpu")))
        for i in range(shape[0]):
            for first in range(0, shape[1], tuning.channels):
                channels = slice(first, min(first + tuning.channels, shape[1]))
                maker(i, channels, [spectrum[i, channels] for spectrum in spectra])
        return cls(cls._settings(filter_fns, convolution, dtype), parameters, spectra)

    @staticmethod
    def _settings(filter_fns, convolution, dtype):
        """List what they depend on besides parameters."""
        frequencies = [filter_fn.implicit_filter["1"].freq for filter_fn in filter_fns]
        fixed = [freq for freq in frequencies if not isinstance(freq, torch.Tensor)]
        return convolution.size, dtype, filter_fns[0].config.max_seq_len, *fixed

    def serve(self, filter_fns, convolution, dtype):
        """Whether they are what [`KeptSpectra.make`] would make."""
        if self.made_for != self._settings(filter_fns, convolution, dtype):
            return False
        parameters = [parameter for fn in filter_fns for parameter in fn.parameters()]
        return all(
            kept.dtype == now.dtype and torch.equal(kept, now)
            for kept, now in zip(self.parameters, parameters, strict=True)
        )

    def __reduce__(self):  # neither copied nor saved with the model
        return type(None), ()
