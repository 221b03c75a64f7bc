"""The Hyena operator (Poli et al. 2023, arXiv:2302.10866)."""

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from .cache_hyenadna import NO_PAST, Past
from .configuration_hyenadna import HyenaDNAConfig
from .filter_hyenadna import HyenaDNAFilter
from .longconv_hyenadna import LongConvolution
from .padding_hyenadna import UNPACKED, Rows
from .pieces_hyenadna import Pieces
from .plan_hyenadna import TRANSPARENT, Plan
from .shortconv_hyenadna import ShortConvolution, convolve_short
from .spectra_hyenadna import KeptSpectra


class HyenaDNAOperator(nn.Module):
    """
    The Hyena recurrence: projections and a short convolution, followed by alternating gates and long convolutions.

    `forward` calls modules on whole inputs. [`Pieces`] and [`InPlace`] compute parts of it with `project`,
    `convolve_short` and the kernels of some channels at a time.
    """

    def __init__(self, config: HyenaDNAConfig) -> None:
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
        self.kept: KeptSpectra | None = None
        self.dropout = nn.Dropout(config.hyena_dropout)
        self.out_proj = nn.Linear(config.d_model, config.d_model)
        self.out_proj.closes_residual_branch = True

    def forward(
        self, hidden_states: Tensor, plan: Plan = TRANSPARENT, past: Past = NO_PAST, rows: Rows = UNPACKED
    ) -> Tensor:
        """
        Apply the operator.

        Args:
            hidden_states: Output of the layer norm, of shape `(batch, length, d_model)`.
            plan: How to compute.
            past: Context before the input.
            rows: Rows to compute; all other positions get the bias of `out_proj`.

        Returns:
            A tensor of the shape of `hidden_states`.
        """
        if plan.path == "pieces" and plan.mixer_in_pieces:
            return self._in_pieces(hidden_states, plan, rows.valid)
        if plan.path == "rows":
            projected = self.project(hidden_states)
            # In float32 even under autocast: CPUs are slow at elementwise bfloat16 products.
            wide = projected.to(torch.promote_types(projected.dtype, torch.float32))
            x = self.convolve_short(wide)  # order + 1 times [D, B, L]
            y = self._apply_recurrence(x, past.convolutions(self, hidden_states, plan), rows.valid)
            return self._project_out(y.to(projected.dtype))
        x = rows.pack(self.in_proj(hidden_states)).transpose(1, 2)  # [B, (order+1) D, L]
        extended = past.extend(x)
        before = extended.shape[-1] - x.shape[-1]
        valid = None if rows.valid is None else rows.valid[:, None]
        x = self.short_filter(extended)[..., before : extended.shape[-1]]
        y = self._apply_recurrence(x.split(self.d_model, dim=1), past.convolutions(self, x, plan), valid)
        past.advance()
        return self.out_proj(rows.unpack(y.transpose(1, 2)))

    def _apply_recurrence(
        self, projections: Sequence[Tensor], long_convolutions: Iterable[Callable], valid: Tensor | None
    ) -> Tensor:
        gate, *gates, v = projections
        for x, convolve in zip(reversed(gates), long_convolutions):
            v = self.dropout(v * x)
            v = convolve(v if valid is None else v.masked_fill(~valid, 0))
        return v * gate

    def filter_fns(self) -> list[HyenaDNAFilter]:
        """List the filters over the past and, in a bidirectional model, over the future."""
        return [self.filter_fn] if self.filter_fn_rev is None else [self.filter_fn, self.filter_fn_rev]

    def long_convolution(self, x: Tensor, plan: Plan) -> tuple[LongConvolution, list[Sequence[Tensor]]]:
        """
        Prepare the long convolutions of a whole signal of the length (last dimension), dtype and device of `x`.

        Returns the convolution, and the spectra of each of the `hyena_order - 1` kernels.
        """
        causal = self.filter_fn_rev is None
        convolution = LongConvolution(x.shape[-1], causal=causal, native=plan.native, tuning=plan.tuning)
        if plan.keeps_spectra:
            return convolution, list(zip(*self.get_spectra(convolution, torch.promote_types(x.dtype, torch.float32))))
        self.kept = None
        lags = torch.arange(x.shape[-1], device=x.device)
        kernels = zip(*(filter_fn(lags) for filter_fn in self.filter_fns()))
        return convolution, [convolution.spectra(*past_and_future) for past_and_future in kernels]

    def get_spectra(self, convolution: LongConvolution, dtype: torch.dtype) -> list[Tensor]:
        """Return the kept spectra, after computing them if there are none or they are out of date."""
        kept = self.kept  # another thread may replace it
        if kept is None or not kept.is_valid_for(self.filter_fns(), convolution, dtype):
            self.kept = kept = None  # free the memory before computing new ones
            self.kept = kept = KeptSpectra.make(self.filter_fns(), convolution, dtype)
        return kept.spectra

    def train(self, mode: bool = True) -> "HyenaDNAOperator":
        if mode:
            self.kept = None
        return super().train(mode)

    def _apply(self, *args: Any, **kwargs: Any) -> "HyenaDNAOperator":
        self.kept = None
        return super()._apply(*args, **kwargs)

    def project(
        self, u: Tensor, streams: slice = slice(None), channels: slice = slice(None), out: Tensor | None = None
    ) -> Tensor:
        """
        Compute a part of `in_proj`.

        Args:
            u: Input of shape `(batch, length, d_model)`.
            streams: Which of the `hyena_order + 1` projections to compute.
            channels: Which channels of each to compute.
            out: Tensor of shape `(streams, channels, batch, length)` to write the result to.

        Returns:
            A tensor of the shape of `out`, with each channel contiguous, as transforms need it.
        """
        weight, bias = self._slice_parameters(self.in_proj, streams, channels)
        to = None if out is None else out.flatten(2).flatten(0, 1)
        projected = torch.addmm(bias.reshape(-1, 1), weight.flatten(0, 1), u.flatten(0, 1).T, out=to)
        return projected.view(*bias.shape, *u.shape[:2])

    def convolve_short(
        self, x: Tensor, streams: slice = slice(None), channels: slice = slice(None), out: Tensor | None = None
    ) -> Any:
        """
        Compute a part of `short_filter` from `x`, the result of [`HyenaDNAOperator.project`].

        The other arguments and the result are those of `project`; without `out`, the result is a tuple of streams.
        """
        taps, bias = self._slice_parameters(self.short_filter, streams, channels)
        if out is None:
            return ShortConvolution.apply(x, taps, bias)
        return convolve_short(x, taps, bias, out)

    def _slice_parameters(self, module: nn.Module, streams: slice, channels: slice) -> list[Tensor]:
        """Slice weight and bias, accessed by name: pruning and the like change the order of parameters."""
        shape = -1, self.d_model
        return [p.unflatten(0, shape)[streams, channels] for p in (module.weight, module.bias)]

    def _in_pieces(self, u: Tensor, plan: Plan, valid: Tensor | None) -> Tensor:
        """Compute the same as `forward`, some channels at a time."""
        lags = torch.arange(u.shape[1], device=u.device)
        filter_inputs = [filter_fn.features(lags) for filter_fn in self.filter_fns()]
        times, features = filter_inputs[0][0], [features for _, features in filter_inputs]
        projected = None if plan.low_memory else self.project(u)
        dtype = (self.project(u[:, :0]) if projected is None else projected).dtype  # that of autocast, if active
        pieces = Pieces(
            partial(self._compute_piece, plan=plan, valid=valid),
            (self.d_model, *u.shape[:2]),
            dtype,
            dim=0,
            size=plan.tuning.channels,
            split_dim=1,
            random=self.dropout.training and self.dropout.p > 0,
        )
        # Only parameters that the pieces use directly: a graph for second gradients would count those of `projected`
        # and of the features twice.
        modules = [self.short_filter, *(filter_fn.implicit_filter[filter_fn.last] for filter_fn in self.filter_fns())]
        modules += [self.in_proj] if plan.low_memory else []
        parameters = [parameter for module in modules for parameter in module.parameters()]
        parameters += [filter_fn.bias for filter_fn in self.filter_fns() if filter_fn.bias is not None]
        inputs = [u, times, *features] if plan.low_memory else [times, *features]
        return self._project_out(pieces(projected, inputs, parameters))

    def _project_out(self, y: Tensor) -> Tensor:
        """Apply `out_proj` to `(d_model, batch, length)`."""
        return self.out_proj(y.flatten(1).T).unflatten(0, y.shape[1:])

    def _compute_piece(
        self, channels: slice, x: Tensor, times: Tensor, *features: Tensor, plan: Plan, valid: Tensor | None
    ) -> Tensor:
        """Compute one piece, `(channels, batch, length)`, from its projections `x`, or all inputs if memory is low."""
        if plan.low_memory:
            x = self.project(x, channels=channels)
        x = self.convolve_short(x, channels=channels)  # order + 1 times [C, B, L]
        convolution = LongConvolution(times.shape[0], causal=len(features) == 1, tuning=plan.tuning)
        kernels = (fn.kernel(times, h, (slice(None), channels)) for fn, h in zip(self.filter_fns(), features))
        spectra = convolution.spectra(*(kernel.unsqueeze(-2) for kernel in kernels))
        convolutions = [partial(convolution, spectra=kernel_spectra) for kernel_spectra in zip(*spectra)]
        return self._apply_recurrence(x, convolutions, valid)
