"""
Sequences cut into equal shards, one per rank, and the exchange of data between the ranks.

Every collective is differentiated as a linear map of the data of all ranks. If every rank has the whole loss, the
gradients of the parameters on one rank are those of the sum of these equal losses through its shard, and their mean
over the ranks is the gradient of the loss, which DistributedDataParallel and FSDP compute anyway.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.distributed import _functional_collectives as collectives
from torch.distributed.device_mesh import DeviceMesh
from torch.nn import functional as F

from ..model.cache_hyenadna import Past
from ..model.configuration_hyenadna import HyenaDNAConfig
from ..model.longconv_hyenadna import LongConvolution
from ..model.padding_hyenadna import find_rows, mask_prompt, pool_positions
from ..model.plan_hyenadna import Plan

# Renamed in torch 2.13.
all_gather = getattr(collectives, "all_gather_single_autograd", None) or collectives.all_gather_tensor_autograd


def _wait(values: torch.Tensor) -> torch.Tensor:
    """Wait for a collective: a result that is never read would stay in flight until the process ends."""
    return values.wait() if isinstance(values, collectives.AsyncCollectiveTensor) else values


class ContextGroup(Past):
    """
    Ranks that share a sequence; the context of this rank's shard is on other ranks.

    The group provides operators with the projections before the shard, and computes the long convolutions, which need
    the whole sequence.

    Args:
        mesh: Mesh of one dimension.
        lookback: Number of positions that the short convolution reads before its own.
    """

    def __init__(self, mesh: DeviceMesh, lookback: int) -> None:
        self.group = mesh.get_group()
        self.rank = mesh.get_local_rank()
        self.size = mesh.size()
        self.lookback = lookback
        self.valid: Any = None  # mask of this rank's shard in the current call

    def shard_length(self, length: int) -> int:
        """Return the number of positions per rank for rows of `length`, which padding fills up."""
        return max(-(-length // self.size), self.lookback, 1)

    def gather(self, values: torch.Tensor) -> torch.Tensor:
        """Gather the values of all ranks, of shape `(ranks, *values.shape)`."""
        return _wait(all_gather(values.contiguous(), 0, self.group)).unflatten(0, (self.size, -1))

    def clear(self, embeds: torch.Tensor) -> torch.Tensor:
        """Set padding of the shard to zero, so that rounding errors of the transforms do not train it."""
        return embeds.masked_fill(~self.valid[..., None], 0)

    def extend(self, x: torch.Tensor) -> torch.Tensor:
        """Prepend the last projections of the previous rank to those of this rank, `(batch, channels, shard)`."""
        to_next = [self.lookback * (rank == self.rank + 1) for rank in range(self.size)]
        from_previous = [self.lookback * (rank == self.rank - 1) for rank in range(self.size)]
        sent = x[..., x.shape[-1] - sum(to_next) :].movedim(-1, 0).contiguous()
        received = collectives.all_to_all_single_autograd(sent, from_previous, to_next, self.group)
        before = _wait(received).movedim(0, -1)
        return torch.cat([F.pad(before, (self.lookback - before.shape[-1], 0)), x], dim=-1)

    def convolutions(self, operator: nn.Module, x: torch.Tensor, plan: Plan) -> list[Callable]:
        """
        Prepare the long convolutions of the whole sequence over the channels of this rank.

        A kernel is a function of position, so each rank computes a shard of it. The arguments and the result are those
        of [`Past.convolutions`].
        """
        length = x.shape[-1]
        lags = torch.arange(self.rank * length, (self.rank + 1) * length, device=x.device)
        kernels = self.to_channels(operator.filter_fn(lags))
        convolution = LongConvolution(kernels.shape[-1], tuning=plan.tuning)
        return [partial(self._convolve, convolution, convolution.spectra(k)) for k in kernels]

    def _convolve(self, convolution: LongConvolution, spectra: Sequence[torch.Tensor], v: torch.Tensor) -> torch.Tensor:
        return self.to_shard(convolution(self.to_channels(v), spectra))

    def to_channels(self, values: torch.Tensor) -> torch.Tensor:
        """Exchange `(batch, channels, shard)` for some channels of all positions, `(batch, channels/ranks, length)`."""
        by_rank = values.unflatten(1, (self.size, -1)).movedim(1, 0)  # [destination, B, C/R, S]
        return self._exchange(by_rank).permute(1, 2, 0, 3).flatten(2)

    def to_shard(self, values: torch.Tensor) -> torch.Tensor:
        """Exchange `(batch, channels/ranks, length)` for `(batch, channels, shard)`."""
        by_rank = values.unflatten(2, (self.size, -1)).permute(2, 0, 1, 3)  # [destination, B, C/R, S]
        return self._exchange(by_rank).movedim(0, 1).flatten(1, 2)

    def _exchange(self, by_rank: torch.Tensor) -> torch.Tensor:
        return _wait(collectives.all_to_all_single_autograd(by_rank.contiguous(), None, None, self.group))


class ShardedRows:
    """
    Rows of one input, packed, padded at the end and cut into shards.

    Args:
        group: Ranks that share the rows.
        config: Configuration of the model.
        inputs: The whole input of shape `(batch, length, ...)`, the same on every rank.
        attention_mask: The whole mask of shape `(batch, length)`.
    """

    def __init__(
        self,
        group: ContextGroup,
        config: HyenaDNAConfig,
        inputs: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
    ) -> None:
        self.group = group
        self.attention_mask: Any = attention_mask
        self.rows = find_rows(config, attention_mask)
        valid = self.rows.valid
        if valid is None:
            valid = torch.ones(inputs.shape[:2], dtype=torch.bool, device=inputs.device)
        self.length = valid.shape[1]
        self.shard_length = group.shard_length(self.length)
        group.valid = self.take_shard(valid, False)
        pooled = self._pad(mask_prompt(valid, config.num_prompt_tokens), False).unflatten(1, (group.size, -1))
        self.pooled = pooled[:, group.rank]
        self.counts = pooled.sum(2)  # [B, ranks]

    def pack(self, values: torch.Tensor, fill: Any = 0) -> torch.Tensor:
        """Pack the whole `(batch, length, ...)` into the rows to shard."""
        return self.rows.pack(values, fill)

    def take_shard(self, packed: torch.Tensor, fill: Any = 0) -> torch.Tensor:
        """Return the shard of this rank, `(batch, shard, ...)`."""
        return self._pad(packed, fill).unflatten(1, (self.group.size, -1))[:, self.group.rank].contiguous()

    def gather(self, values: torch.Tensor, empty: torch.Tensor | None = None) -> torch.Tensor:
        """
        Gather `(batch, shard, size)` of each rank into the whole `(batch, length, size)`.

        Masked positions get the value `empty`, of shape `(size,)`, which defaults to zeros.
        """
        gathered = self.group.gather(values).movedim(0, 1).flatten(1, 2)[:, : self.length]
        if self.rows.valid is None:
            return gathered
        gathered = self.rows.unpack(gathered)
        return gathered if empty is None else torch.where(self.attention_mask[..., None] != 0, gathered, empty)

    def pool_positions(self, hidden_states: torch.Tensor, valid: torch.Tensor, pooling: str) -> torch.Tensor:
        """Pool like [`pool_positions`] over all shards; the whole mask replaces `valid`."""
        pooled = self.group.gather(pool_positions(hidden_states, self.pooled, pooling)).movedim(0, 1)  # [B, ranks, D]
        if pooling == "mean":
            counts = self.counts.to(torch.promote_types(hidden_states.dtype, torch.float32))
            share = counts / counts.sum(1, keepdim=True).clamp(min=1)
            return (pooled * share[..., None]).sum(1).to(hidden_states.dtype)
        return pool_positions(pooled, self.counts > 0, pooling)

    def _pad(self, packed: torch.Tensor, fill: Any) -> torch.Tensor:
        missing = self.group.size * self.shard_length - packed.shape[1]
        return F.pad(packed, (0, 0) * (packed.dim() - 2) + (0, missing), value=fill)
