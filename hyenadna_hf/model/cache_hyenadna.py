"""
What generation carries from one call to the next: exact long convolutions of a signal that arrives in pieces.

Every long convolution keeps its input, and what that input contributes to the positions to come. When a block of `2^k`
positions is complete, one FFT adds what it contributes to the next `2^k` positions (van der Hoeven's relaxed
multiplication; Flash Inference of Oncescu et al. 2024 and FutureFill of Agarwal et al. 2024 do it for models like this
one), so that N positions cost O(N log^2 N) and each step finds all but its last block done.
"""

import torch
from transformers.cache_utils import Cache

from .fftconv_hyenadna import fft_conv_add

BLOCK = 32  # positions that are summed directly; shorter transforms cost more than they save


class HyenaDNACache(Cache):
    """
    The state of a HyenaDNA model after the positions that it has seen.

    Rows may be of different lengths: masked positions take no place. Besides the model's own, it has the methods of
    transformers' caches that generation needs; `crop`, and with it assisted generation, is not among them. No gradient
    flows into what is cached.

    Args:
        config ([`HyenaDNAConfig`]): Of the model.
    """

    def __init__(self, config):
        super().__init__(layers=[HyenaDNACacheLayer(config) for _ in range(config.n_layer)])
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

    def begin(self, columns, width, rows, real=None):
        """
        Announce the next positions to all layers.

        Args:
            columns (`int`): Positions of the call, masked ones included.
            width (`int`): Positions that the layers get, at most `columns`.
            rows (`int`): Size of the batch.
            real (`torch.BoolTensor` of shape `(rows, width)`, *optional*):
                Where they are real; the masked ones stand behind the real ones. By default all are real.

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
        counts = torch.full_like(self.lengths, width) if real is None else real.sum(1).cpu()
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
            layer.begin(width, real, counts, total)

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


class HyenaDNACacheLayer:
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

    def __init__(self, config):
        self.max_length = config.max_seq_len
        self.d_model = config.d_model
        self.long_convolutions = config.hyena_order - 1
        self.reach = config.short_filter_order - 1  # how far the short convolution looks back
        self.reset()

    def reset(self):
        self.length = self.anchor = self.horizon = 0
        self.signal = self.filters = self.projections = None

    def begin(self, width, real, counts, total):
        self.width, self.real, self.counts, self.total = width, real, counts, total

    def select(self, rows):
        if self.signal is not None:
            self.signal = self.signal.index_select(1, rows.to(self.signal.device))
        if self.projections is not None:
            self.projections = self.projections.index_select(0, rows.to(self.projections.device))

    def recall(self, u):
        """The new projections, `(batch, channels, width)`, behind the last ones that the short convolution reads."""
        if self.projections is None:
            self.projections = u.new_zeros(*u.shape[:2], self.reach)
        u = torch.cat([self.projections, u], dim=-1)
        if self.real is None:
            self.projections = u[..., self.width :].detach().clone()
        else:
            last = self.counts[:, None] + torch.arange(self.reach)  # [B, reach]
            last = last.to(u.device)[:, None].expand(-1, u.shape[1], -1)
            self.projections = u.detach().gather(2, last)
        return u

    def convolutions(self, filter_fn, like):
        """
        The long convolutions of the new positions, to be called once each, in order.

        Args:
            filter_fn ([`HyenaDNAFilter`]): Gives the filters.
            like (`torch.Tensor` of shape `(batch, channels, width)`): Of the dtype and device of what they will get.

        Returns:
            `list[Callable]`: each maps `(batch, d_model, width)` to its convolution with all there was and is.
        """
        self.stepping = self.length > 0 and self.width <= BLOCK and self.real is None
        if self.length + self.width > self.horizon or not (self.stepping or self.length == self.anchor):
            self._look_ahead(filter_fn, like)
        if self.signal.is_inference() and not torch.is_inference_mode_enabled():
            self.signal = self.signal.clone()
        convolve = self._convolve_step_by_step if self.stepping else self._convolve_at_once
        return [lambda v, i=i: convolve(i, v) for i in range(self.long_convolutions)]

    def begin_in_pieces(self, mixer, norm, hidden):
        """
        Begin a first call whose channels come some at a time, by the methods below.

        Args:
            mixer ([`HyenaDNAOperator`]): Gives the filters, and the projections that the short convolution will read.
            norm (`nn.LayerNorm`): Of its input.
            hidden (`torch.Tensor` of shape `(batch, width, d_model)`): The residual stream.
        """
        self.stepping = False
        self.horizon = self.next_horizon()
        lags = min(max(self.horizon - self.total, BLOCK), self.horizon)  # as many as `_keep_filters` leaves
        self.filters = self._filters_with_skips(mixer.filter_fn, lags, hidden.device)
        self.signal = self.filters.new_empty(self.long_convolutions, len(hidden), self.d_model, self.horizon)
        last = (self.counts[:, None] + torch.arange(-self.reach, 0)).to(hidden.device)[..., None]  # [B, reach, 1]
        read = hidden.take_along_dim(last.clamp(min=0), 1).to(norm.weight.dtype)
        self.projections = mixer.in_proj(norm(read)).masked_fill_(last < 0, 0).transpose(1, 2)

    def keep_signal(self, i, rows, channels, signal):
        """What long convolution i reads in some rows and channels (`slice`s), zeros where it is masked."""
        self.signal[i, rows, channels, : self.width] = signal

    def keep_contributions(self, i, rows, channels, y):
        """What long convolution i makes of that, up to the horizon."""
        now, to_come = self.signal[i, rows, channels].tensor_split([self.width], dim=-1)
        to_come.copy_(y[..., self.width :])
        if self.real is not None:  # as in `_convolve_at_once`
            now.copy_(torch.where(self.real[rows, None].to(now.device), now, y[..., : self.width]))

    def advance(self):
        """The new positions are in all long convolutions."""
        self.length += self.width
        if self.stepping:
            return
        if self.real is not None:
            self._align()
        self.anchor = self.length
        self._keep_filters()

    @torch.no_grad()
    def _look_ahead(self, filter_fn, like):
        """Complete the contributions of all there was to more positions to come."""
        self.horizon = self.next_horizon()
        filters = self._filters_with_skips(filter_fn, self.horizon, like.device)
        signal = filters.new_zeros(self.long_convolutions, like.shape[0], self.d_model, self.horizon)
        if self.length:
            signal[..., : self.length] = self.signal[..., : self.length]
            for x, k in zip(signal, filters):
                fft_conv_add(x[..., self.length :], x[..., : self.length], k, self.length)
        self.signal, self.filters, self.anchor = signal, filters, self.length
        self._keep_filters()

    def next_horizon(self):
        """How far to look ahead next."""
        ahead = max(self.width, 8 * BLOCK, self.length // 8)
        if self.length == 0:
            ahead = self.width + max(8 * BLOCK, self.width // 8)
        return min(self.length + ahead, self.max_length)

    @staticmethod
    def _filters_with_skips(filter_fn, lags, device):
        """The long filters for so many lags, with their skip terms at lag 0."""
        filters, skips = filter_fn(lags, device)
        filters = filters.clone()
        for k, skip in zip(filters, skips):
            if skip is not None:
                k[:, 0] += skip
        return filters

    def _keep_filters(self):
        """No more lags than the positions up to the horizon need."""
        lags = max(self.horizon - self.length, BLOCK)
        if self.filters.shape[-1] > lags:
            self.filters = self.filters[..., :lags].clone()

    @torch.no_grad()
    def _convolve_at_once(self, i, v):
        begin, end = self.length, self.length + self.width
        x, k = self.signal[i], self.filters[i]
        real = torch.ones((), dtype=torch.bool) if self.real is None else self.real[:, None]
        real = real.to(v.device)
        new = v.to(x.dtype) * real
        fft_conv_add(x[..., begin : self.horizon], new, k, 0)
        y = x[..., begin:end].to(v.dtype, copy=True)
        # Behind the real positions of a row stands what they contribute there: `_align` makes these columns the next.
        x[..., begin:end] = torch.where(real, new, x[..., begin:end])
        return y

    @torch.no_grad()
    def _convolve_step_by_step(self, i, v):
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
                fft_conv_add(ahead, x[..., after - block : after], k, block)
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


__all__ = ["HyenaDNACache"]
