"""The Hyena operator (Poli et al. 2023, arXiv:2302.10866)."""

from functools import partial

import torch
from torch import nn

from .cache_hyenadna import NOTHING
from .filter_hyenadna import HyenaDNAFilter
from .longconv_hyenadna import LongConvolution
from .padding_hyenadna import AS_THEY_STAND
from .pieces_hyenadna import Pieces
from .plan_hyenadna import TRANSPARENT
from .shortconv_hyenadna import ShortConvolution, convolve_shortly
from .spectra_hyenadna import KeptSpectra


class HyenaDNAOperator(nn.Module):
    """
    The Hyena recurrence: projections, a short convolution, then gates and long convolutions in turn.

    `forward` says what it computes, by calling modules on whole inputs. Pieces of it, for [`Pieces`] and for
    [`InPlace`], are made by `project`, `convolve_shortly` and the kernels of some channels at a time.
    """

    def __init__(self, config):
        super().__init__()
        width = (config.hyena_order + 1) * config.d_model
        self.config = config
        self.d_model = config.d_model
        self.in_proj = nn.Linear(config.d_model, width)
        self.short_filter = nn.Conv1d(
            width, width, config.short_filter_order, groups=width, padding=config.short_filter_order - 1
        )
        self.filter_fn = HyenaDNAFilter(config)
        self.filter_fn_rev = HyenaDNAFilter(config, skip=False) if config.bidirectional else None
        self.kept = None  # a `KeptSpectra`
        self.dropout = nn.Dropout(config.hyena_dropout)
        self.out_proj = nn.Linear(config.d_model, config.d_model)
        self.out_proj.closes_residual_branch = True

    def forward(self, hidden_states, plan=TRANSPARENT, past=NOTHING, rows=AS_THEY_STAND):
        """
        Args:
            hidden_states (`torch.Tensor` of shape `(batch, length, d_model)`): Normed.
            plan ([`Plan`]): How to compute.
            past ([`Past`]): What came before.
            rows ([`Rows`]): Which positions are the rows to compute; the others get the bias of `out_proj`.

        Returns:
            `torch.Tensor` of shape `(batch, length, d_model)`.
        """
        if plan.path == "pieces" and plan.mixer_in_pieces:
            return self._in_pieces(hidden_states, plan, rows.valid)
        if plan.path == "rows":
            projected = self.project(hidden_states)
            # In float32 whatever autocast says: a CPU is slow to multiply bfloat16 by element.
            wide = projected.to(torch.promote_types(projected.dtype, torch.float32))
            x = self.convolve_shortly(wide)  # order + 1 times [D, B, L]
            y = self._recurrence(x, past.convolutions(self, hidden_states, plan), rows.valid)
            return self._out(y.to(projected.dtype))
        x = rows.pack(self.in_proj(hidden_states)).transpose(1, 2)  # [B, (order+1) D, L]
        extended = past.extend(x)
        before = extended.shape[-1] - x.shape[-1]
        valid = None if rows.valid is None else rows.valid[:, None]
        x = self.short_filter(extended)[..., before : extended.shape[-1]]
        y = self._recurrence(x.split(self.d_model, dim=1), past.convolutions(self, x, plan), valid)
        past.advance()
        return self.out_proj(rows.unpack(y.transpose(1, 2)))

    def _recurrence(self, projections, long_convolutions, valid):
        gate, *gates, v = projections
        for x, convolve in zip(reversed(gates), long_convolutions):
            v = self.dropout(v * x)
            v = convolve(v if valid is None else v.masked_fill(~valid, 0))
        return v * gate

    def filter_fns(self):
        """List what gives the kernels over the past, and if there are any, those over the future."""
        return [self.filter_fn] if self.filter_fn_rev is None else [self.filter_fn, self.filter_fn_rev]

    def long_convolution(self, x, plan):
        """
        Prepare the long convolutions of a whole signal.

        Args:
            x (`torch.Tensor` of shape `(..., length)`): Of the dtype, length and device of the signal.
            plan ([`Plan`]): Whether spectra are kept, and constants.

        Returns:
            `tuple`: a [`LongConvolution`], and a list of the spectra of each of the `hyena_order - 1` kernels.
        """
        causal = self.filter_fn_rev is None
        convolution = LongConvolution(x.shape[-1], causal=causal, native=plan.native, tuning=plan.tuning)
        if plan.keeps_spectra:
            return convolution, list(zip(*self.kept_spectra(convolution, torch.promote_types(x.dtype, torch.float32))))
        self.kept = None
        lags = torch.arange(x.shape[-1], device=x.device)
        kernels = zip(*(filter_fn(lags) for filter_fn in self.filter_fns()))
        return convolution, [convolution.spectra(*past_and_future) for past_and_future in kernels]

    def kept_spectra(self, convolution, dtype):
        """Give the spectra that stay for the next call, made anew if the kept ones are for others or out of date."""
        kept = self.kept  # another thread may replace it
        if kept is None or not kept.serve(self.filter_fns(), convolution, dtype):
            self.kept = kept = None  # before there are new ones
            self.kept = kept = KeptSpectra.make(self.filter_fns(), convolution, dtype)
        return kept.spectra

    def train(self, mode=True):
        if mode:
            self.kept = None
        return super().train(mode)

    def _apply(self, *args, **kwargs):
        self.kept = None
        return super()._apply(*args, **kwargs)

    def project(self, u, streams=slice(None), channels=slice(None), out=None):
        """
        Compute some of what `in_proj` gives.

        Args:
            u (`torch.Tensor` of shape `(batch, length, d_model)`): Its input.
            streams, channels (`slice`): Which of the `hyena_order + 1` projections, and which channels of each.
            out (`torch.Tensor` of shape `(streams, channels, batch, length)`, *optional*): Where to write it.

        Returns:
            `torch.Tensor` of the shape of `out`, each channel in one stretch of memory, as transforms need it.
        """
        weight, bias = self._of_channels(self.in_proj, streams, channels)
        to = None if out is None else out.flatten(2).flatten(0, 1)
        projected = torch.addmm(bias.reshape(-1, 1), weight.flatten(0, 1), u.flatten(0, 1).T, out=to)
        return projected.view(*bias.shape, *u.shape[:2])

    def convolve_shortly(self, x, streams=slice(None), channels=slice(None), out=None):
        """
        Compute some of what `short_filter` gives.

        The arguments are those of [`HyenaDNAOperator.project`], whose result is `x`, and so is the result; but it is a
        tuple of streams without `out`.
        """
        taps, bias = self._of_channels(self.short_filter, streams, channels)
        if out is None:
            return ShortConvolution.apply(x, taps, bias)
        return convolve_shortly(x, taps, bias, out)

    def _of_channels(self, module, streams, channels):
        """Give weight and bias by name: pruning and its like change the order of parameters."""
        shape = -1, self.d_model
        return [p.unflatten(0, shape)[streams, channels] for p in (module.weight, module.bias)]

    def _in_pieces(self, u, plan, valid):
        """Compute what `forward` does, some channels at a time."""
        lags = torch.arange(u.shape[1], device=u.device)
        made_of = [filter_fn.features(lags) for filter_fn in self.filter_fns()]
        times, features = made_of[0][0], [features for _, features in made_of]
        projected = None if plan.low_memory else self.project(u)
        dtype = self.project(u[:, :0]).dtype if plan.low_memory else projected.dtype  # of autocast, if that is on
        pieces = Pieces(
            partial(self._piece, plan=plan, valid=valid),
            (self.d_model, *u.shape[:2]),
            dtype,
            dim=0,
            size=plan.tuning.channels,
            cut_dim=1,
            random=self.dropout.training and self.dropout.p > 0,
        )
        # Those that the pieces use themselves, and none that `projected` and the features are made of already: a graph
        # for second gradients would count these twice.
        modules = [self.short_filter, *(filter_fn.implicit_filter[filter_fn.last] for filter_fn in self.filter_fns())]
        modules += [self.in_proj] if plan.low_memory else []
        parameters = [parameter for module in modules for parameter in module.parameters()]
        parameters += [filter_fn.bias for filter_fn in self.filter_fns() if filter_fn.bias is not None]
        return self._out(pieces(projected, [*([u] if plan.low_memory else []), times, *features], parameters))

    def _out(self, y):
        """Apply `out_proj` to `(d_model, batch, length)`."""
        return self.out_proj(y.flatten(1).T).unflatten(0, y.shape[1:])

    def _piece(self, channels, x, times, *features, plan, valid):
        """Compute the channels of one piece, `(channels, batch, length)`; `x` is their projections, or all inputs."""
        if plan.low_memory:
            x = self.project(x, channels=channels)
        x = self.convolve_shortly(x, channels=channels)  # order + 1 times [C, B, L]
        convolution = LongConvolution(times.shape[0], causal=len(features) == 1, tuning=plan.tuning)
        kernels = (fn.kernel(times, these, (slice(None), channels)) for fn, these in zip(self.filter_fns(), features))
        spectra = convolution.spectra(*(kernel.unsqueeze(-2) for kernel in kernels))
        convolutions = [partial(convolution, spectra=these) for these in zip(*spectra)]
        return self._recurrence(x, convolutions, valid)
