"""
What came before the input of an operator: nothing, or in generation the positions of earlier calls.

A cache makes exact long convolutions of a signal that arrives in pieces. Every long convolution keeps its input, and
what that input contributes to the positions to come. When a block of `2^k` positions is complete, one FFT adds what it
contributes to the next `2^k` positions (van der Hoeven's relaxed multiplication; Flash Inference of Oncescu et al. 2024
and FutureFill of Agarwal et al. 2024 do it for models like this one), so that N positions cost O(N log^2 N) and each
step finds all but its last block done.
"""

from functools import partial

import torch
from transformers.cache_utils import Cache

from .longconv_hyenadna import LongConvolution
from .tuning_hyenadna import TUNING

BLOCK = TUNING.cache_block


class Past:
    """
    What came before the input of an operator; this class is for nothing, so that the input is whole.

    Operators call these methods and never ask which class it is. [`HyenaDNACacheLayer`] has the positions of earlier
    calls, and `ContextGroup` of `hyenadna_hf.distributed` those on other ranks.
    """

    def extend(self, x):
        """Put the projections that the short convolution reads before the new ones, `(rows, channels, length)`."""
        return x

    def convolutions(self, operator, x, plan):
        """
        Prepare the long convolutions of the new positions, to be called once each, in order.

        Args:
            operator ([`HyenaDNAOperator`]): Gives the kernels.
            x (`torch.Tensor` of shape `(rows, channels, length)`): Of the dtype and device of what they will get.
            plan ([`Plan`]): Whether spectra are kept, and constants.

        Returns:
            `list[Callable]`: each maps `(rows, d_model, length)` to its convolution with all there was and is.
        """
        convolution, spectra = operator.long_convolution(x, plan)
        return [partial(convolution, spectra=these) for these in spectra]

    def advance(self):
        """Note that the new positions are in all long convolutions."""

    def horizon_of(self, length):
        """Tell how many positions, the `length` new ones first, long convolutions in place are to reach."""
        return length

    def begin_in_place(self, operator, norm, hidden_states, tuning):
        """
        Begin a call whose channels come some at a time, by the two methods below.

        Args:
            operator ([`HyenaDNAOperator`]): Gives kernels, and the projections that the short convolution will read.
            norm (`nn.LayerNorm`): Of its input.
            hidden_states (`torch.Tensor` of shape `(rows, length, d_model)`): The residual stream.
            tuning ([`Tuning`]): Constants.

        Returns:
            `torch.Tensor` of shape `(rows, (hyena_order + 1) * d_model, reach)`, or `None`: the projections before the
            new ones that the short convolution reads.
        """

    def keep_signal(self, i, rows, channels, signal):
        """Keep what long convolution i reads in some rows and channels (`slice`s), zeros where it is masked."""

    def keep_contributions(self, i, rows, channels, y):
        """Keep what long convolution i makes of that, up to the horizon, and add what was there before to `y`."""


NOTHING = Past()


class Prepared(Past):
    """
    Nothing, with the long convolutions of an operator prepared once for several calls.

    Args:
        operator ([`HyenaDNAOperator`]): Whose convolutions to prepare.
        like (`torch.Tensor` of shape `(rows, length, d_model)`): Of the length, dtype and device of its inputs.
        plan ([`Plan`]): Of those calls.
    """

    def __init__(self, operator, like, plan):
        convolution, spectra = operator.long_convolution(like.transpose(1, 2), plan)
        # Channels come first, then rows.
        spectra = [[spectrum.unsqueeze(-2) for spectrum in these] for these in spectra]
        self.prepared = [partial(convolution, spectra=these) for these in spectra]

    def convolutions(self, operator, x, plan):
        return self.prepared


class HyenaDNACache(Cache):
    """
    The state of a HyenaDNA model after the positions that it has seen.

    Rows may be of different lengths: masked positions take no place. Besides the model's own, it has the methods of
    transformers' caches that generation needs; `crop`, and with it assisted generation, is not among them. No gradient
    flows into what is cached.

    Args:
        config ([`HyenaDNAConfig`]): Of the model.
        expected_length (`int`, *optional*): Positions of a row in the end, for which the first call prepares.
    """

    def __init__(self, config, expected_length=0):
        super().__init__(layers=[HyenaDNACacheLayer(config, expected_length) for _ in range(config.n_layer)])
        self.seen = 0
        self.lengths = None

    def get_seq_length(self, layer_idx=0):
        """Number of positions seen, masked ones included: by so much is the attention mask longer than the input."""
        return self.seen

    def get_max_length(self, layer_idx=None):
        """Longest row that fits."""
        return self.layers[0].max_length

    get_max_cache_shape = get_max_length  # its name in transformers 4

    def get_mask_sizes(self, query_length, layer_idx=0):
        return self.seen + query_length, 0

    @property
    def batch_size(self):
        """Number of rows, -1 before the first call."""
        return -1 if self.lengths is None else len(self.lengths)

    @property
    def is_initialized(self):
        return self.lengths is not None

    def begin(self, columns, width, rows, valid=None):
        """
        Announce the next positions to all layers.

        Args:
            columns (`int`): Positions of the call, masked ones included.
            width (`int`): Positions that the layers get, at most `columns`.
            rows (`int`): Size of the batch.
            valid (`torch.BoolTensor` of shape `(rows, width)`, *optional*):
                Which of them exist; the masked ones stand after the valid ones. By default all exist.

        Raises:
            ValueError: if the number of rows has changed, or a row would be longer than `max_seq_len`.
        """
        if self.lengths is None:
            self.lengths = torch.zeros(rows, dtype=torch.long)
        elif rows != len(self.lengths):
            raise ValueError(
                f"The input has {rows} rows, but past_key_values was made by a call with {len(self.lengths)}; pass "
                "rows in the same order, or repeat or select them in the cache first (batch_repeat_interleave, "
                "batch_select_indices)."
            )
        counts = torch.full_like(self.lengths, width) if valid is None else valid.sum(1).cpu()
        lengths = self.lengths + counts
        total, longest = int(lengths.max()), self.get_max_length()
        if total > longest:
            raise ValueError(
                f"The sequence would have {total:,} positions, {int(self.lengths.max()):,} of them in past_key_values, "
                f"but this model's max_seq_len is {longest:,}. Generate less, or take a checkpoint made for longer "
                "sequences."
            )
        self.lengths = lengths
        self.seen += columns
        for layer in self.layers:
            layer.begin(width, valid, counts, total)

    def is_stepping(self, width, valid=None):
        """Tell whether the next `width` positions would be computed one by one, see [`HyenaDNACache.begin`]."""
        return self.layers[0].is_stepping(width, valid)

    def reset(self):
        """Forget everything."""
        self.seen, self.lengths = 0, None
        for layer in self.layers:
            layer.reset()

    def crop(self, *args, **kwargs):
        raise NotImplementedError(
            "A HyenaDNACache cannot be shortened: it does not keep what the short convolutions read. Call the model "
            "again on the shorter sequence."
        )

    def reorder_cache(self, beam_idx):
        """Row i becomes the former row `beam_idx[i]`."""
        self.batch_select_indices(beam_idx)

    def batch_select_indices(self, indices):
        """Keep these rows, in this order; a row may be named more than once."""
        rows = torch.as_tensor(indices).cpu()
        if rows.dtype == torch.bool:
            rows = rows.nonzero()[:, 0]
        if torch.equal(rows, torch.arange(self.batch_size)):
            return
        self.lengths = self.lengths[rows]
        for layer in self.layers:
            layer.select(rows)

    def batch_repeat_interleave(self, repeats):
        """Each row `repeats` times, the copies of one row side by side."""
        self.batch_select_indices(torch.arange(self.batch_size).repeat_interleave(repeats))


class HyenaDNACacheLayer(Past):
    """
    The state of one block, at most `hyena_order * d_model` numbers a position.

    `signal[i]`, of shape `(batch, d_model, horizon)`, holds for long convolution i its input at the `length` positions
    seen, and behind them what these contribute to the positions to come. Rows end together: shorter ones begin with
    zeros. The contributions of the positions before `anchor` are complete; later blocks have contributed as far as
    they are complete themselves.
    """

    is_compileable = False
    is_croppable = False
    is_sliding = False
    supports_early_init = False

    def __init__(self, config, expected_length=0):
        self.max_length, self.expected_length = config.max_seq_len, expected_length
        self.d_model = config.d_model
        self.long_convolutions = config.hyena_order - 1
        self.reach = config.short_filter_order - 1  # how far the short convolution looks back
        self.reset()

    def reset(self):
        self.length = self.anchor = self.horizon = 0
        self.signal = self.filters = self.projections = self.contributed = None

    def begin(self, width, valid, counts, total):
        self.stepping = self.is_stepping(width, valid)
        self.width, self.valid, self.counts, self.total = width, valid, counts, total

    def is_stepping(self, width, valid):
        return self.length > 0 and width <= BLOCK and valid is None

    def select(self, rows):
        if self.signal is not None:
            self.signal = self.signal.index_select(1, rows.to(self.signal.device))
        if self.projections is not None:
            self.projections = self.projections.index_select(0, rows.to(self.projections.device))

    def extend(self, u):
        if self.projections is None:
            self.projections = u.new_zeros(*u.shape[:2], self.reach)
        u = torch.cat([self.projections, u], dim=-1)
        if self.valid is None:
            self.projections = u[..., self.width :].detach().clone()
        else:
            last = self.counts[:, None] + torch.arange(self.reach)  # [B, reach]
            last = last.to(u.device)[:, None].expand(-1, u.shape[1], -1)
            self.projections = u.detach().gather(2, last)
        return u

    def convolutions(self, operator, x, plan):
        self._complete(operator.filter_fn, x, plan.tuning)
        convolve = self._convolve_step_by_step if self.stepping else self._convolve_at_once
        return [partial(convolve, plan.tuning, i) for i in range(self.long_convolutions)]

    def horizon_of(self, length):
        return (self.next_horizon() if self._is_incomplete() else self.horizon) - self.length

    def begin_in_place(self, operator, norm, hidden_states, tuning):
        before, device = self.projections, hidden_states.device
        last = (self.counts[:, None] + torch.arange(-self.reach, 0)).to(device)[:, None]  # [B, 1, reach]
        read = hidden_states.take_along_dim(last.mT.clamp(min=0), 1).to(norm.weight.dtype)
        projections = operator.in_proj(norm(read)).transpose(1, 2)
        if self.signal is None:
            self.horizon = self.next_horizon()
            lags = min(max(self.horizon - self.total, BLOCK), self.horizon)  # as many as `_keep_filters` leaves
            self.filters = operator.filter_fn(torch.arange(lags, device=device))
            self.signal = self.filters.new_zeros(self.long_convolutions, len(hidden_states), self.d_model, self.horizon)
            earlier = 0
        else:
            self._complete(operator.filter_fn, hidden_states, tuning)
            earlier = before.take_along_dim((last + self.reach).clamp(max=self.reach - 1), 2)
        self.projections = torch.where(last < 0, earlier, projections)
        return before

    def keep_signal(self, i, rows, channels, signal):
        now = self.signal[i, rows, channels, self.length : self.length + self.width]
        self.contributed = now.clone()
        now.copy_(signal)

    def keep_contributions(self, i, rows, channels, y):
        y[..., : self.width] += self.contributed
        self.contributed = None
        now, to_come = self.signal[i, rows, channels, self.length : self.horizon].tensor_split([self.width], dim=-1)
        to_come += y[..., self.width :]
        if self.valid is not None:  # as in `_convolve_at_once`
            now.copy_(torch.where(self.valid[rows, None].to(now.device), now, y[..., : self.width]))

    def advance(self):
        self.length += self.width
        if self.stepping:
            return
        if self.valid is not None:
            self._align()
        self.anchor = self.length
        self._keep_filters()

    def _is_incomplete(self):
        """Tell whether there are new positions to which not all earlier ones have contributed yet."""
        return self.length + self.width > self.horizon or not (self.stepping or self.length == self.anchor)

    def _complete(self, filter_fn, like, tuning):
        if self._is_incomplete():
            self._look_ahead(filter_fn, like, tuning)
        if self.signal.is_inference() and not torch.is_inference_mode_enabled():
            self.signal = self.signal.clone()

    @torch.no_grad()
    def _look_ahead(self, filter_fn, like, tuning):
        """Complete the contributions of all there was to more positions to come."""
        self.horizon = self.next_horizon()
        filters = filter_fn(torch.arange(self.horizon, device=like.device))
        signal = filters.new_zeros(self.long_convolutions, like.shape[0], self.d_model, self.horizon)
        if self.length:
            signal[..., : self.length] = self.signal[..., : self.length]
            for x, k in zip(signal, filters):
                add_convolution(x[..., self.length :], x[..., : self.length], k, self.length, tuning)
        self.signal, self.filters, self.anchor = signal, filters, self.length
        self._keep_filters()

    def next_horizon(self):
        """Tell how far to look ahead next."""
        share = TUNING.cache_ahead
        ahead = max(self.width, share * BLOCK, self.length // share)
        if self.length == 0:
            ahead = max(self.width + max(share * BLOCK, self.width // share), self.expected_length)
        return min(self.length + ahead, self.max_length)

    def _keep_filters(self):
        """No more lags than the positions up to the horizon need."""
        lags = max(self.horizon - self.length, BLOCK)
        if self.filters.shape[-1] > lags:
            self.filters = self.filters[..., :lags].clone()

    @torch.no_grad()
    def _convolve_at_once(self, tuning, i, v):
        begin, end = self.length, self.length + self.width
        x, k = self.signal[i], self.filters[i]
        valid = torch.ones((), dtype=torch.bool) if self.valid is None else self.valid[:, None]
        valid = valid.to(v.device)
        new = v.to(x.dtype) * valid
        add_convolution(x[..., begin : self.horizon], new, k, 0, tuning)
        y = x[..., begin:end].to(v.dtype, copy=True)
        # After the valid positions of a row stands what they contribute there: `_align` makes these columns the next.
        x[..., begin:end] = torch.where(valid, new, x[..., begin:end])
        return y

    @torch.no_grad()
    def _convolve_step_by_step(self, tuning, i, v):
        x, k = self.signal[i], self.filters[i]
        recent = k[:, :BLOCK].flip(-1)  # lag 0 last
        y = torch.empty_like(v)
        for column in range(self.width):
            now = self.length + column
            step = now - self.anchor
            start = now - step % BLOCK
            done = x[..., now].clone()
            x[..., now] = v[..., column]
            summed = (x[..., start : now + 1] * recent[:, start - now - 1 :]).sum(-1)
            y[..., column] = done + summed
            after = now + 1
            block = (step + 1) & -(step + 1)  # the largest power of two that divides the steps taken
            if block >= BLOCK and after < self.horizon:
                ahead = x[..., after : min(after + block, self.horizon)]
                add_convolution(ahead, x[..., after - block : after], k, block, tuning)
        return y

    def _align(self):
        """Move each row so that it ends where the longest one ends."""
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
def add_convolution(out, v, k, start, tuning=TUNING):
    """
    Add to `out` a stretch of the full linear convolution of `v` and `k`, a few channels at a time and without gradient.

    Args:
        out (`torch.Tensor` of shape `(batch, channels, stretch)`): Float32 or float64; changed in place.
        v (`torch.Tensor` of shape `(batch, channels, length)`): The signal, of the same dtype.
        k (`torch.Tensor` of shape `(channels, lags)`): The kernel, lag 0 first; `lags >= start + stretch`.
        start (`int`): Where the stretch begins: 0 is the first position of the signal, `length` the one after its end.
        tuning ([`Tuning`]): Constants.
    """
    stop = start + out.shape[-1]
    convolution = LongConvolution(v.shape[-1], start, stop, tuning=tuning)
    channels = max(1, tuning.cache_transforms // (convolution.size * v.shape[0]))
    for y, x, h in zip(out.split(channels, 1), v.split(channels, 1), k[:, :stop].split(channels)):
        y += convolution(x, convolution.spectra(h))


__all__ = ["HyenaDNACache"]
