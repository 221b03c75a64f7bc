"""
A sequence cut into equal stretches, one a rank, and how the ranks exchange what lies in the others' stretches.

Every collective is differentiated as what it is, a linear map of what all ranks hold. So if each rank has the whole
loss, the gradients of the parameters on one rank are those of the sum of these equal losses through its own stretch,
and their mean over the ranks is the gradient of the loss: what DistributedDataParallel and FSDP compute anyway.
"""

from functools import partial

import torch
from torch.distributed import _functional_collectives as collectives
from torch.nn import functional as F

from ..model.cache_hyenadna import Past
from ..model.longconv_hyenadna import LongConvolution
from ..model.padding_hyenadna import after_prompt, pool_positions, rows_of

# The second is the name before torch 2.13.
all_gather = getattr(collectives, "all_gather_single_autograd", None) or collectives.all_gather_tensor_autograd


def _done(values):
    """Waits here: a result that nobody reads would stay in flight until the process ends."""
    return values.wait() if isinstance(values, collectives.AsyncCollectiveTensor) else values


class ContextGroup(Past):
    """
    The ranks that share a sequence: what came before the stretch of this rank is on other ranks.

    It gives operators the projections before the stretch, and makes the long convolutions, which need the whole
    sequence.

    Args:
        mesh (`torch.distributed.DeviceMesh`): Of one dimension.
        reach (`int`): How many positions back the short convolution reads.
    """

    def __init__(self, mesh, reach):
        self.group = mesh.get_group()
        self.rank = mesh.get_local_rank()
        self.size = mesh.size()
        self.reach = reach
        self.exists = None  # which positions of this rank's stretch do, in the call that is being made

    def stretch(self, length):
        """Positions a rank, for a whole of `length`: behind its end there are some that do not exist."""
        return max(-(-length // self.size), self.reach, 1)

    def gather(self, values):
        """What all ranks hold, of shape `(ranks, *values.shape)`."""
        return _done(all_gather(values.contiguous(), 0, self.group)).unflatten(0, (self.size, -1))

    def clear(self, embeds):
        """Put zeros where a stretch is filled up: rounding of the transforms would train what stands there."""
        return embeds.masked_fill(~self.exists[..., None], 0)

    def extend(self, u):
        """Put the last projections of the left neighbour before those of this rank, `(batch, channels, stretch)`."""
        to_right = [self.reach * (rank == self.rank + 1) for rank in range(self.size)]
        from_left = [self.reach * (rank == self.rank - 1) for rank in range(self.size)]
        sent = u[..., u.shape[-1] - sum(to_right) :].movedim(-1, 0).contiguous()
        before = _done(collectives.all_to_all_single_autograd(sent, from_left, to_right, self.group)).movedim(0, -1)
        return torch.cat([F.pad(before, (self.reach - before.shape[-1], 0)), u], dim=-1)

    def convolutions(self, operator, x, plan):
        """
        Prepare the long convolutions of the whole sequence, each over the channels of this rank.

        A kernel is a function of position, so each rank computes its own stretch of it. The arguments and the result
        are those of [`Past.convolutions`].
        """
        stretch = x.shape[-1]
        lags = torch.arange(self.rank * stretch, (self.rank + 1) * stretch, device=x.device)
        kernels = self.to_channels(operator.filter_fn(lags))
        convolution = LongConvolution(kernels.shape[-1], tuning=plan.tuning)
        return [partial(self._convolve_shared, convolution, convolution.spectra(k)) for k in kernels]

    def _convolve_shared(self, convolution, spectra, v):
        return self.to_stretch(convolution(self.to_channels(v), spectra))

    def to_channels(self, values):
        """`(batch, channels, stretch)`, all channels, to `(batch, channels / ranks, length)`, all positions."""
        by_rank = values.unflatten(1, (self.size, -1)).movedim(1, 0)  # [destination, B, C/R, S]
        return self._exchange(by_rank).permute(1, 2, 0, 3).flatten(2)

    def to_stretch(self, values):
        """`(batch, channels / ranks, length)` to `(batch, channels, stretch)`: the way back."""
        by_rank = values.unflatten(2, (self.size, -1)).permute(2, 0, 1, 3)  # [destination, B, C/R, S]
        return self._exchange(by_rank).movedim(0, 1).flatten(1, 2)

    def _exchange(self, by_rank):
        return _done(collectives.all_to_all_single_autograd(by_rank.contiguous(), None, None, self.group))


class ShardedRows:
    """
    The rows of one input: packed, filled up at the end, and cut into stretches.

    Args:
        group ([`ContextGroup`]): The ranks.
        config ([`HyenaDNAConfig`]): Of the model.
        inputs (`torch.Tensor` of shape `(batch, length, ...)`): The whole input, the same on every rank.
        attention_mask (`torch.Tensor` of shape `(batch, length)`, *optional*): The whole mask.
    """

    def __init__(self, group, config, inputs, attention_mask=None):
        self.group, self.attention_mask = group, attention_mask
        self.rows = rows_of(config, attention_mask)
        exists = self.rows.valid
        if exists is None:
            exists = torch.ones(inputs.shape[:2], dtype=torch.bool, device=inputs.device)
        self.length = exists.shape[1]
        self.stretch = group.stretch(self.length)
        group.exists = self.take(exists, False)
        pooled = self._fill_up(after_prompt(exists, config.num_prompt_tokens), False).unflatten(1, (group.size, -1))
        self.valid = pooled[:, group.rank]
        self.counts = pooled.sum(2)  # [B, ranks]

    def pack(self, values, fill=0):
        """The whole `(batch, length, ...)` as the rows are computed, before they are cut."""
        return self.rows.pack(values, fill)

    def take(self, packed, fill=0):
        """The stretch of this rank, `(batch, stretch, ...)`."""
        return self._fill_up(packed, fill).unflatten(1, (self.group.size, -1))[:, self.group.rank].contiguous()

    def gather(self, values, empty=None):
        """
        `(batch, stretch, size)` of each rank to the whole `(batch, length, size)`.

        Masked positions become `empty`, of shape `(size,)`, or zeros.
        """
        whole = self.group.gather(values).movedim(0, 1).flatten(1, 2)[:, : self.length]
        if self.rows.valid is None:
            return whole
        whole = self.rows.unpack(whole)
        return whole if empty is None else torch.where(self.attention_mask[..., None] != 0, whole, empty)

    def pool_positions(self, hidden, valid, how):
        """Pool as [`pool_positions`], over all stretches; which positions are `valid` is known from the whole mask."""
        pooled = self.group.gather(pool_positions(hidden, self.valid, how)).movedim(0, 1)  # [B, ranks, D]
        if how == "mean":
            counts = self.counts.to(torch.promote_types(hidden.dtype, torch.float32))
            share = counts / counts.sum(1, keepdim=True).clamp(min=1)
            return (pooled * share[..., None]).sum(1).to(hidden.dtype)
        return pool_positions(pooled, self.counts > 0, how)

    def _fill_up(self, packed, fill):
        missing = self.group.size * self.stretch - packed.shape[1]
        return F.pad(packed, (0, 0) * (packed.dim() - 2) + (0, missing), value=fill)
