"""Context parallelism: each process computes one shard of every sequence."""

import inspect
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import DeviceMesh
from torch.nn import functional as F

from ..model.modeling_hyenadna import (
    JOINED_SEQUENCES_ARGUMENTS,
    HyenaDNAForCausalLM,
    HyenaDNAForSequenceClassification,
    HyenaDNAForTokenClassification,
    HyenaDNAPreTrainedModel,
)
from .shards import ContextGroup, ShardedRows


@contextmanager
def context_parallel(model: nn.Module, mesh: DeviceMesh, gather_outputs: bool = True) -> Iterator[nn.Module]:
    """
    Shard the sequences that `model` reads over the ranks of `mesh`, within a `with` block.

    Every rank calls the model with the same whole inputs and labels, and computes one shard of them. Around the long
    convolutions, the ranks exchange shards of all channels for all positions of some channels. Values equal those of
    the unsharded model, for any length and mask, and every rank gets the loss of the whole rows.

    After a backward pass, the mean of the gradients over the ranks is the gradient of the loss.
    DistributedDataParallel or FSDP over these ranks, or over these and a data dimension, compute this mean; without
    them, call [`average_gradients`].

    Args:
        model: A HyenaDNA model, bare or wrapped (DDP, FSDP2, PEFT).
        mesh: Mesh of one dimension, such as `mesh_2d["context"]`.
        gather_outputs: Whether every rank gets logits and hidden states of all positions, rather than of its shard,
            `(batch, shard, ...)`: masked positions are deleted from their rows, the longest of which is cut into equal
            shards.

    Raises:
        ValueError: If `model` contains no causal HyenaDNA model, `mesh` has more than one dimension, or its size does
            not divide `d_model`. A call of the model raises it if ranks get different inputs, or for a cache.
    """
    core = next((module for module in model.modules() if isinstance(module, HyenaDNAPreTrainedModel)), None)
    if core is None:
        raise ValueError(
            f"model is a {type(model).__name__} that contains no HyenaDNA model of this package; load it with "
            "hyenadna_hf installed and without trust_remote_code."
        )
    if mesh.ndim != 1:
        raise ValueError(f'mesh has {mesh.ndim} dimensions; pass the one of the sequence, such as mesh["context"].')
    config = core.config
    if config.bidirectional:
        raise ValueError("bidirectional=True: only causal models support sharded sequences; train with DDP or FSDP.")
    if config.d_model % mesh.size():
        raise ValueError(
            f"d_model={config.d_model} is not a multiple of the {mesh.size()} ranks that share a sequence; use a "
            "number of ranks that divides it."
        )
    group = ContextGroup(mesh, config.short_filter_order - 1)
    call = _ShardedCall(core, group, gather_outputs)
    with ExitStack() as stack:
        core.base_model.sharding = group
        stack.callback(setattr, core.base_model, "sharding", None)
        stack.callback(core.register_forward_pre_hook(call.begin, with_kwargs=True).remove)
        stack.callback(core.register_forward_hook(call.end, with_kwargs=True).remove)
        if isinstance(core, HyenaDNAForSequenceClassification):
            core.pool_positions = call.pool_positions
            stack.callback(delattr, core, "pool_positions")
        yield model


def average_gradients(model: nn.Module, mesh: DeviceMesh) -> None:
    """Average the gradients of `model` over the ranks of `mesh`, as DDP and FSDP do."""
    for parameter in model.parameters():
        if parameter.grad is not None:
            dist.all_reduce(parameter.grad, group=mesh.get_group())
            parameter.grad /= mesh.size()


class _ShardedCall:
    """Hooks that shard the inputs of the outermost model and gather its outputs."""

    rows: ShardedRows

    def __init__(self, model: nn.Module, group: ContextGroup, gather_outputs: bool) -> None:
        self.model, self.group, self.gather_outputs = model, group, gather_outputs
        self.names = list(inspect.signature(type(model).forward).parameters)[1:]

    def begin(self, _: Any, args: tuple, kwargs: dict[str, Any]) -> tuple[tuple, dict[str, Any]]:
        kwargs = {**dict(zip(self.names, args)), **kwargs}
        self.as_tuple = not kwargs.pop("return_dict", self.model.config.return_dict)
        kwargs["return_dict"] = True
        for name in ("past_key_values", "use_cache", "logits_to_keep"):
            if kwargs.get(name):
                raise ValueError(
                    f"{name} is given, but context_parallel supports neither a cache nor generation; call the model "
                    "outside of it."
                )
        for name in ("position_ids", *JOINED_SEQUENCES_ARGUMENTS):
            if kwargs.get(name) is not None:
                raise ValueError(f"{name} is given, but sequences that share a row cannot be sharded; leave it out.")
        name = "input_ids" if kwargs.get("inputs_embeds") is None else "inputs_embeds"
        inputs, mask = kwargs.get(name), kwargs.pop("attention_mask", None)
        if inputs is None or (mask is not None and mask.shape != inputs.shape[:2]):
            return (), {**kwargs, "attention_mask": mask}  # the model raises the error
        self._check_same_inputs(inputs, mask)
        self.rows = ShardedRows(self.group, self.model.config, inputs, mask)
        self.model.base_model.check_length(self.rows.length)
        kwargs[name] = self.rows.take_shard(self.rows.pack(inputs))
        if kwargs.get("labels") is not None:
            kwargs.update(self._shard_labels(**kwargs))
        return (), kwargs

    def _shard_labels(self, labels: torch.Tensor, num_items_in_batch: Any = None, **_: Any) -> dict[str, Any]:
        """Return the labels of this rank, and the number by which to divide the sum of the losses of all ranks."""
        if isinstance(self.model, HyenaDNAForSequenceClassification):
            return {}
        labels = self.rows.pack(labels, fill=-100)
        if isinstance(self.model, HyenaDNAForCausalLM):
            labels = F.pad(labels[:, 1:], (0, 1), value=-100)
        if num_items_in_batch is None:
            num_items_in_batch = (labels != -100).sum()
        labels = self.rows.take_shard(labels, fill=-100)
        arguments = {"labels": labels, "num_items_in_batch": num_items_in_batch}
        return {**arguments, "shift_labels": labels} if isinstance(self.model, HyenaDNAForCausalLM) else arguments

    def end(self, _: Any, args: tuple, kwargs: dict[str, Any], outputs: Any) -> Any:
        """Sum the loss over the ranks, and gather the outputs of all positions if `gather_outputs`."""
        rows, pooled = self.rows, isinstance(self.model, HyenaDNAForSequenceClassification)
        del self.rows
        if outputs.get("loss") is not None and not pooled:
            outputs.loss = self.group.gather(outputs.loss[None]).sum()
        if self.gather_outputs:
            if outputs.get("last_hidden_state") is not None:
                outputs.last_hidden_state = rows.gather(outputs.last_hidden_state)
            if outputs.get("logits") is not None and not pooled:
                empty = self.model.score.bias if isinstance(self.model, HyenaDNAForTokenClassification) else None
                outputs.logits = rows.gather(outputs.logits, empty)
            if outputs.get("hidden_states") is not None:
                outputs.hidden_states = tuple(map(rows.gather, outputs.hidden_states))
        return outputs.to_tuple() if self.as_tuple else outputs

    def pool_positions(self, hidden_states: torch.Tensor, valid: torch.Tensor, pooling: str) -> torch.Tensor:
        return self.rows.pool_positions(hidden_states, valid, pooling)

    def _check_same_inputs(self, inputs: torch.Tensor, mask: torch.Tensor | None) -> None:
        """Raise `ValueError` if ranks have different inputs, which would give wrong results or a deadlock."""
        numbers = [*inputs.shape[:2], _checksum(inputs), 0 if mask is None else _checksum(mask != 0)]
        gathered = self.group.gather(torch.tensor(numbers, device=inputs.device))
        if not bool((gathered == gathered[0]).all()):
            raise ValueError(
                f"The {self.group.size} ranks that share a sequence were given different inputs; under "
                "context_parallel, pass the same whole batch on each. With a Trainer, use context_parallel_trainer."
            )


def _checksum(values: torch.Tensor) -> int:
    """Compute an integer that depends on the values and their order; 0 for embeddings."""
    if values.is_floating_point():
        return 0
    flat = values.flatten().long()
    return int((flat * torch.arange(1, len(flat) + 1, device=flat.device)).sum())
