"""
Generation cache: exact long convolutions of a signal that arrives in pieces.

Every long convolution stores its input and the contributions of that input to later positions. Once a block of `2^k`
positions is complete, one FFT adds its contributions to the next `2^k` positions (van der Hoeven's relaxed
multiplication, applied to such models by Flash Inference, Oncescu et al. 2024, and FutureFill, Agarwal et al. 2024).
N positions cost O(N log^2 N), and each step sums over its last block only.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from transformers.cache_utils import Cache

from .configuration_hyenadna import HyenaDNAConfig
from .longconv_hyenadna import LongConvolution
from .plan_hyenadna import Plan
from .tuning_hyenadna import TUNING, Tuning

BLOCK = TUNING.cache_block


class Past:
    """
    Context before the input of an operator. This base class stands for no context: the input is complete.

    Operators call these methods without knowing the class. [`HyenaDNACacheLayer`] holds the positions of earlier calls,
    and `ContextGroup` of `hyenadna_hf.distributed` those of other ranks.
    """

    def extend(self, x: Tensor) -> Tensor:
        """Prepend the projections that the short convolution reads to the new ones, `(rows, channels, length)`."""
        return x

    def convolutions(self, operator: nn.Module, x: Tensor, plan: Plan) -> list[Callable]:
        """
        Prepare the long convolutions of the new positions, each to be called once and in order.

        They map signals `(rows, d_model, length)`, of the length, dtype and device of `x`, to results with context.
        """
        convolution, kernels = operator.long_convolution(x, plan)
        return [partial(convolution, spectra=spectra) for spectra in kernels]

    def advance(self) -> None:
        """Mark the new positions as complete in all long convolutions."""

    def choose_horizon(self, length: int) -> int:
        """Choose how many positions long convolutions in place compute, the `length` new ones first."""
        return length

    def begin_in_place(
        self, operator: nn.Module, norm: nn.Module, hidden_states: Tensor, tuning: Tuning
    ) -> Tensor | None:
        """
        Begin a call on the residual stream, whose channels arrive in parts through the two methods below.

        Returns:
            Projections of the positions before the new ones that the short convolution reads, of shape
            `(rows, (hyena_order + 1) * d_model, lookback)`, or `None` if there are none.
        """
        return None

    def keep_signal(self, i: int, rows: slice, channels: slice, signal: Tensor) -> None:
        """Store the input of long convolution `i` for some rows and channels, zeros at masked positions."""

    def keep_contributions(self, i: int, rows: slice, channels: slice, y: Tensor) -> None:
        """Store the output of long convolution `i` for that input, up to the horizon; add earlier ones to `y`."""


NO_PAST = Past()


class PreparedPast(Past):
    """No context, with long convolutions prepared once for several inputs of the shape of `like`."""

    def __init__(self, operator: nn.Module, like: Tensor, plan: Plan) -> None:
        convolution, kernels = operator.long_convolution(like.transpose(1, 2), plan)
        # Channels come first, then rows.
        kernels = [[spectrum.unsqueeze(-2) for spectrum in spectra] for spectra in kernels]
        self.prepared: list[Callable] = [partial(convolution, spectra=spectra) for spectra in kernels]

    def convolutions(self, operator: nn.Module, x: Tensor, plan: Plan) -> list[Callable]:
        return self.prepared


class HyenaDNACache(Cache):
    """
    State of a HyenaDNA model after the positions that it has seen.

    Rows may differ in length: masked positions take no space. The cache has the methods that generation calls on
    transformers' caches, except `crop`, so that assisted generation is not supported. No gradient flows into it, but
    gradients flow into the `inputs_embeds` of a call that continues it.

    Args:
        config: Configuration of the model.
        expected_length: Final number of positions per row, if known, for which the first call prepares.
    """

    def __init__(self, config: HyenaDNAConfig, expected_length: int = 0) -> None:
        super().__init__(layers=[HyenaDNACacheLayer(config, expected_length) for _ in range(config.n_layer)])
        self.seen = 0
        self.lengths: Tensor = None

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """Return the number of positions seen, masked ones included, as the attention mask counts them."""
        return self.seen

    def get_max_length(self, layer_idx: int | None = None) -> int:
        """Return the length of the longest row that fits."""
        return self.layers[0].max_length

    get_max_cache_shape = get_max_length  # its name in transformers 4

    def get_mask_sizes(self, query_length: int, layer_idx: int = 0) -> tuple[int, int]:
        return self.seen + query_length, 0

    @property
    def batch_size(self) -> int:
        """Number of rows; -1 before the first call."""
        return -1 if self.lengths is None else len(self.lengths)

    @property
    def is_initialized(self) -> bool:
        return self.lengths is not None

    def begin(self, columns: int, width: int, rows: int, valid: Tensor | None = None, steps: bool = False) -> None:
        """
        Announce the next positions to all layers.

        Args:
            columns: Number of positions of the call, masked ones included.
            width: Number of positions that the layers get, at most `columns`.
            rows: Batch size.
            valid: Boolean mask of shape `(rows, width)`; masked positions follow the valid ones. Defaults to all valid.
            steps: Whether the positions are computed one by one, as `computes_steps` allows.

        Raises:
            ValueError: If the number of rows has changed or a row exceeds `max_seq_len`.
        """
        if self.lengths is None:
            self.lengths = torch.zeros(rows, dtype=torch.long)
        elif rows != len(self.lengths):
            raise ValueError(
                f"The input has {rows} rows, but past_key_values was created by a call with {len(self.lengths)}; pass "
                "rows in the same order, or repeat or select them in the cache first (batch_repeat_interleave, "
                "batch_select_indices)."
            )
        counts = torch.full_like(self.lengths, width) if valid is None else valid.sum(1).cpu()
        lengths = self.lengths + counts
        total, longest = int(lengths.max()), self.get_max_length()
        if total > longest:
            raise ValueError(
                f"The sequence would have {total:,} positions, {int(self.lengths.max()):,} of them in past_key_values, "
                f"but this model's max_seq_len is {longest:,}. Generate fewer tokens, or use a checkpoint for longer "
                "sequences."
            )
        self.lengths = lengths
        self.seen += columns
        for layer in self.layers:
            layer.begin(width, valid, counts, total, steps)

    def computes_steps(self, width: int, valid: Tensor | None = None) -> bool:
        """Tell whether the next `width` positions can be computed one by one, which takes no gradients."""
        return self.layers[0].computes_steps(width, valid)

    def reset(self) -> None:
        """Return to the state before the first call."""
        self.seen, self.lengths = 0, None
        for layer in self.layers:
            layer.reset()

    def crop(self, *args: Any, **kwargs: Any) -> None:
        raise NotImplementedError(
            "A HyenaDNACache cannot be shortened: it does not store the inputs of the short convolutions. Call the "
            "model on the shorter sequence instead."
        )

    def reorder_cache(self, beam_idx: Tensor) -> None:
        """Replace row `i` by the former row `beam_idx[i]`."""
        self.batch_select_indices(beam_idx)

    def batch_select_indices(self, indices: Tensor) -> None:
        """Keep the given rows, in this order; `indices` may repeat a row."""
        rows = torch.as_tensor(indices).cpu()
        if rows.dtype == torch.bool:
            rows = rows.nonzero()[:, 0]
        if torch.equal(rows, torch.arange(self.batch_size)):
            return
        self.lengths = self.lengths[rows]
        for layer in self.layers:
            layer.select(rows)

    def batch_repeat_interleave(self, repeats: int) -> None:
        """Repeat each row `repeats` times, with the copies of a row next to each other."""
        self.batch_select_indices(torch.arange(self.batch_size).repeat_interleave(repeats))


class HyenaDNACacheLayer(Past):
    """
    State of one block, of at most `hyena_order * d_model` numbers per position.

    `signal[i]`, of shape `(batch, d_model, horizon)`, stores the input of long convolution `i` at the `length`
    positions seen, followed by their contributions to later positions. Rows end together: shorter ones are padded with
    zeros at the front. Contributions of the positions before `anchor` are complete; later blocks have contributed as
    far as they are complete themselves.
    """

    is_compileable = False
    is_croppable = False
    is_sliding = False
    supports_early_init = False

    signal: Tensor
    filters: Tensor
    projections: Tensor
    contributed: Tensor | None

    def __init__(self, config: HyenaDNAConfig, expected_length: int = 0) -> None:
        self.max_length, self.expected_length = config.max_seq_len, expected_length
        self.d_model = config.d_model
        self.long_convolutions = config.hyena_order - 1
        self.lookback = config.short_filter_order - 1  # positions that the short convolution reads before its own
        self.reset()

    def reset(self) -> None:
        self.length = self.anchor = self.horizon = 0
        self.signal = self.filters = self.projections = self.contributed = None

    def begin(self, width: int, valid: Tensor | None, counts: Tensor, total: int, steps: bool) -> None:
        self.is_stepping = steps
        self.width, self.valid, self.counts, self.total = width, valid, counts, total

    def computes_steps(self, width: int, valid: Tensor | None) -> bool:
        return self.length > 0 and width <= BLOCK and valid is None

    def select(self, rows: Tensor) -> None:
        if self.signal is not None:
            self.signal = self.signal.index_select(1, rows.to(self.signal.device))
        if self.projections is not None:
            self.projections = self.projections.index_select(0, rows.to(self.projections.device))

    def extend(self, x: Tensor) -> Tensor:
        if self.projections is None:
            self.projections = x.new_zeros(*x.shape[:2], self.lookback)
        x = torch.cat([self.projections, x], dim=-1)
        if self.valid is None:
            self.projections = x[..., self.width :].detach().clone()
        else:
            last = self.counts[:, None] + torch.arange(self.lookback)  # [B, lookback]
            last = last.to(x.device)[:, None].expand(-1, x.shape[1], -1)
            self.projections = x.detach().gather(2, last)
        return x

    def convolutions(self, operator: nn.Module, x: Tensor, plan: Plan) -> list[Callable]:
        self._complete_horizon(operator.filter_fn, x, plan.tuning)
        convolve = self._convolve_step_by_step if self.is_stepping else self._convolve_at_once
        return [partial(convolve, plan.tuning, i) for i in range(self.long_convolutions)]

    def choose_horizon(self, length: int) -> int:
        return (self._next_horizon() if self._is_incomplete() else self.horizon) - self.length

    def begin_in_place(
        self, operator: nn.Module, norm: nn.Module, hidden_states: Tensor, tuning: Tuning
    ) -> Tensor | None:
        before, device = self.projections, hidden_states.device
        last = (self.counts[:, None] + torch.arange(-self.lookback, 0)).to(device)[:, None]  # [B, 1, lookback]
        recent = hidden_states.take_along_dim(last.mT.clamp(min=0), 1).to(norm.weight.dtype)
        projections = operator.in_proj(norm(recent)).transpose(1, 2)
        if self.signal is None:
            self.horizon = self._next_horizon()
            lags = min(max(self.horizon - self.total, BLOCK), self.horizon)  # the number that `_trim_filters` keeps
            self.filters = operator.filter_fn(torch.arange(lags, device=device))
            self.signal = self.filters.new_zeros(self.long_convolutions, len(hidden_states), self.d_model, self.horizon)
            earlier = projections.new_zeros(())
        else:
            self._complete_horizon(operator.filter_fn, hidden_states, tuning)
            earlier = before.take_along_dim((last + self.lookback).clamp(max=self.lookback - 1), 2)
        self.projections = torch.where(last < 0, earlier, projections)
        return before

    def keep_signal(self, i: int, rows: slice, channels: slice, signal: Tensor) -> None:
        current = self.signal[i, rows, channels, self.length : self.length + self.width]
        self.contributed = current.clone()
        current.copy_(signal)

    def keep_contributions(self, i: int, rows: slice, channels: slice, y: Tensor) -> None:
        y[..., : self.width] += self.contributed
        self.contributed = None
        new = self.signal[i, rows, channels, self.length : self.horizon]
        current, future = new.tensor_split([self.width], dim=-1)
        future += y[..., self.width :]
        if self.valid is not None:  # as in `_convolve_at_once`
            current.copy_(torch.where(self.valid[rows, None].to(current.device), current, y[..., : self.width]))

    def advance(self) -> None:
        self.length += self.width
        if self.is_stepping:
            return
        if self.valid is not None:
            self._align()
        self.anchor = self.length
        self._trim_filters()

    def _is_incomplete(self) -> bool:
        """Tell whether some new positions lack contributions of earlier ones."""
        return self.length + self.width > self.horizon or not (self.is_stepping or self.length == self.anchor)

    def _complete_horizon(self, filter_fn: Callable, like: Tensor, tuning: Tuning) -> None:
        if self._is_incomplete():
            self._extend_horizon(filter_fn, like, tuning)
        if self.signal.is_inference() and not torch.is_inference_mode_enabled():
            self.signal = self.signal.clone()

    @torch.no_grad()
    def _extend_horizon(self, filter_fn: Callable, like: Tensor, tuning: Tuning) -> None:
        """Compute the contributions of all positions seen to the positions up to a new horizon."""
        self.horizon = self._next_horizon()
        filters = filter_fn(torch.arange(self.horizon, device=like.device))
        signal = filters.new_zeros(self.long_convolutions, like.shape[0], self.d_model, self.horizon)
        if self.length:
            signal[..., : self.length] = self.signal[..., : self.length]
            for x, k in zip(signal, filters):
                add_convolution(x[..., self.length :], x[..., : self.length], k, self.length, tuning)
        self.signal, self.filters, self.anchor = signal, filters, self.length
        self._trim_filters()

    def _next_horizon(self) -> int:
        share = TUNING.cache_ahead
        ahead = max(self.width, share * BLOCK, self.length // share)
        if self.length == 0:
            ahead = max(self.width + max(share * BLOCK, self.width // share), self.expected_length)
        return min(self.length + ahead, self.max_length)

    def _trim_filters(self) -> None:
        """Drop the lags that no position up to the horizon needs."""
        lags = max(self.horizon - self.length, BLOCK)
        if self.filters.shape[-1] > lags:
            self.filters = self.filters[..., :lags].clone()

    def _convolve_at_once(self, tuning: Tuning, i: int, v: Tensor) -> Tensor:
        begin, end = self.length, self.length + self.width
        x, k = self.signal[i], self.filters[i]
        valid = torch.ones((), dtype=torch.bool) if self.valid is None else self.valid[:, None]
        valid = valid.to(v.device)
        new = v.to(x.dtype) * valid
        if new.requires_grad:
            convolution = LongConvolution(self.width, tuning=tuning)
            y = x[..., begin:end] + convolution(new, convolution.spectra(k[:, : self.width]))
            add_convolution(x[..., end : self.horizon], new, k, self.width, tuning)
        else:
            add_convolution(x[..., begin : self.horizon], new, k, 0, tuning)
            y = x[..., begin:end].clone()
        # Masked columns keep the contributions to them: `_align` makes these columns the next positions.
        x[..., begin:end] = torch.where(valid, new.detach(), x[..., begin:end])
        return y.to(v.dtype)

    @torch.no_grad()
    def _convolve_step_by_step(self, tuning: Tuning, i: int, v: Tensor) -> Tensor:
        x, k = self.signal[i], self.filters[i]
        recent = k[:, :BLOCK].flip(-1)  # lag 0 last
        y = torch.empty_like(v)
        for column in range(self.width):
            now = self.length + column
            step = now - self.anchor
            start = now - step % BLOCK
            earlier = x[..., now].clone()
            x[..., now] = v[..., column]
            summed = (x[..., start : now + 1] * recent[:, start - now - 1 :]).sum(-1)
            y[..., column] = earlier + summed
            after = now + 1
            block = (step + 1) & -(step + 1)  # the largest power of two that divides the steps taken
            if block >= BLOCK and after < self.horizon:
                ahead = x[..., after : min(after + block, self.horizon)]
                add_convolution(ahead, x[..., after - block : after], k, block, tuning)
        return y

    def _align(self) -> None:
        """Shift each row so that all rows end together."""
        shift = self.total - self.length + self.width - self.counts  # [B]
        self.horizon = min(self.horizon + min(int(shift.min()), 0), self.max_length)
        source = torch.arange(self.horizon) - shift[:, None]  # [B, horizon]
        outside = (source < 0).to(self.signal.device)[:, None]
        source = source.clamp(0, self.signal.shape[-1] - 1).to(self.signal.device)[:, None]
        for i, x in enumerate(self.signal):
            aligned = x.gather(2, source.expand(-1, self.d_model, -1)).masked_fill_(outside, 0)
            self.signal[i, ..., : self.horizon] = aligned
        self.length = self.total


@torch.no_grad()
def add_convolution(out: Tensor, v: Tensor, k: Tensor, start: int, tuning: Tuning = TUNING) -> None:
    """
    Add a range of the full linear convolution of `v` and `k` to `out`, in groups of channels and without gradient.

    Args:
        out: Float32 or float64 tensor of shape `(batch, channels, range)`, changed in place.
        v: Signal of shape `(batch, channels, length)` and the same dtype.
        k: Kernel of shape `(channels, lags)`, lag 0 first, with `lags >= start + range`.
        start: First position of the range; 0 is the first position of the signal, `length` the one after its end.
        tuning: Constants.
    """
    stop = start + out.shape[-1]
    convolution = LongConvolution(v.shape[-1], start, stop, tuning=tuning)
    channels = max(1, tuning.cache_transforms // (convolution.size * v.shape[0]))
    for y, x, h in zip(out.split(channels, 1), v.split(channels, 1), k[:, :stop].split(channels)):
        y += convolution(x, convolution.spectra(h))


__all__ = ["HyenaDNACache"]
