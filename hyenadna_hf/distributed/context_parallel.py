"""Context parallelism: one sequence over several processes, each with a stretch of it."""

import inspect
from contextlib import ExitStack, contextmanager

import torch
import torch.distributed as dist
from torch.nn import functional as F

from ..model.modeling_hyenadna import (
    JOINED,
    HyenaDNAForCausalLM,
    HyenaDNAForSequenceClassification,
    HyenaDNAForTokenClassification,
    HyenaDNAPreTrainedModel,
)
from .shards import ContextGroup, ShardedRows


@contextmanager
def context_parallel(model, mesh, gather_outputs=True):
    """
    Shard the sequences that `model` reads over the ranks of `mesh`, for as long as the context lasts.

    Every rank calls the model with the same whole inputs and labels, and computes a stretch of them; around the long
    convolutions, stretches of all channels become all positions of some channels. Values are those of the model by
    itself, for any length and mask. The loss is that of the whole rows, on every rank.

    A backward pass leaves on each rank gradients whose mean over the ranks is the gradient of the loss.
    DistributedDataParallel or FSDP over these ranks, or over these and those of a data dimension, compute that mean;
    without them, call [`average_gradients`].

    Args:
        model (`torch.nn.Module`): A HyenaDNA model, bare or wrapped (DDP, FSDP2, PEFT).
        mesh (`torch.distributed.DeviceMesh`): Of one dimension, such as `mesh_2d["context"]`.
        gather_outputs (`bool`, defaults to `True`):
            Give logits and hidden states of all positions to every rank. Otherwise they are `(batch, stretch, ...)`:
            masked positions are deleted from their rows, the longest of which is cut into stretches of equal size.

    Raises:
        ValueError: if there is no causal HyenaDNA model in `model`, `mesh` has more than one dimension, or `d_model` is
            no multiple of its size; and from the model, if ranks are given different inputs, or for a cache.
    """
    core = next((module for module in model.modules() if isinstance(module, HyenaDNAPreTrainedModel)), None)
    if core is None:
        raise ValueError(
            f"model is a {type(model).__name__} without a HyenaDNA model of this package in it; load it with "
            "hyenadna_hf installed and without trust_remote_code."
        )
    if mesh.ndim != 1:
        raise ValueError(f'mesh has {mesh.ndim} dimensions; give the one of the sequence, such as mesh["context"].')
    config = core.config
    if config.bidirectional:
        raise ValueError("bidirectional=True: sharded sequences are for causal models; train this one by DDP or FSDP.")
    if config.d_model % mesh.size():
        raise ValueError(
            f"d_model={config.d_model} is no multiple of the {mesh.size()} ranks that share a sequence; use a number "
            "of ranks that divides it."
        )
    group = ContextGroup(mesh, config.short_filter_order - 1)
    call = _Call(core, group, gather_outputs)
    with ExitStack() as stack:
        core.base_model.sharding = group
        stack.callback(setattr, core.base_model, "sharding", None)
        stack.callback(core.register_forward_pre_hook(call.begin, with_kwargs=True).remove)
        stack.callback(core.register_forward_hook(call.end, with_kwargs=True).remove)
        if isinstance(core, HyenaDNAForSequenceClassification):
            core.pool_positions = call.pool_positions
            stack.callback(delattr, core, "pool_positions")
        yield model


def average_gradients(model, mesh):
    """Replace the gradients of `model` by their mean over the ranks of `mesh`, where neither DDP nor FSDP does it."""
    for parameter in model.parameters():
        if parameter.grad is not None:
            dist.all_reduce(parameter.grad, group=mesh.get_group())
            parameter.grad /= mesh.size()


class _Call:
    """What happens before and after a forward of the outermost model: whole rows to stretches, and back."""

    def __init__(self, model, group, gather_outputs):
        self.model, self.group, self.gather_outputs = model, group, gather_outputs
        self.names = list(inspect.signature(type(model).forward).parameters)[1:]

    def begin(self, _, args, kwargs):
        kwargs = {**dict(zip(self.names, args)), **kwargs}
        self.as_tuple = not kwargs.pop("return_dict", self.model.config.return_dict)
        kwargs["return_dict"] = True
        for name in ("past_key_values", "use_cache", "logits_to_keep"):
            if kwargs.get(name):
                raise ValueError(
                    f"{name} is given, but with sequences sharded by context_parallel there is no cache and no "
                    "generation; call the model outside of it."
                )
        for name in ("position_ids", *JOINED):
            if kwargs.get(name) is not None:
                raise ValueError(f"{name} is given, but sequences that share a row cannot be sharded; leave it out.")
        name = "input_ids" if kwargs.get("inputs_embeds") is None else "inputs_embeds"
        inputs, mask = kwargs.get(name), kwargs.pop("attention_mask", None)
        if inputs is None or (mask is not None and mask.shape != inputs.shape[:2]):
            return (), {**kwargs, "attention_mask": mask}  # the model says what is wrong
        self._check_same(inputs, mask)
        self.rows = ShardedRows(self.group, self.model.config, inputs, mask)
        self.model.base_model.check_length(self.rows.length)
        kwargs[name] = self.rows.take(self.rows.pack(inputs))
        if kwargs.get("labels") is not None:
            kwargs.update(self._labels(**kwargs))
        return (), kwargs

    def _labels(self, labels, num_items_in_batch=None, **_):
        """This rank's labels, and by how many of all ranks the sum of their losses is divided."""
        if isinstance(self.model, HyenaDNAForSequenceClassification):
            return {}
        labels = self.rows.pack(labels, fill=-100)
        if isinstance(self.model, HyenaDNAForCausalLM):
            labels = F.pad(labels[:, 1:], (0, 1), value=-100)
        if num_items_in_batch is None:
            num_items_in_batch = (labels != -100).sum()
        labels = self.rows.take(labels, fill=-100)
        found = {"labels": labels, "num_items_in_batch": num_items_in_batch}
        return {**found, "shift_labels": labels} if isinstance(self.model, HyenaDNAForCausalLM) else found

    def end(self, _, args, kwargs, outputs):
        """Make the loss whole, and the outputs of all positions if they are wanted."""
        rows, pooled = self.rows, isinstance(self.model, HyenaDNAForSequenceClassification)
        del self.rows
        if outputs.get("loss") is not None and not pooled:
            outputs.loss = self.group.gather(outputs.loss[None]).sum()
        if self.gather_outputs:
            if outputs.get("last_hidden_state") is not None:
                outputs.last_hidden_state = rows.gather(outputs.last_hidden_state)
            if outputs.get("logits") is not None and not pooled:
                of_nothing = self.model.score.bias if isinstance(self.model, HyenaDNAForTokenClassification) else None
                outputs.logits = rows.gather(outputs.logits, of_nothing)
            if outputs.get("hidden_states") is not None:
                outputs.hidden_states = tuple(map(rows.gather, outputs.hidden_states))
        return outputs.to_tuple() if self.as_tuple else outputs

    def pool_positions(self, hidden, real, how):
        return self.rows.pool_positions(hidden, real, how)

    def _check_same(self, inputs, mask):
        """Ranks that read different inputs would compute nonsense, and with different shapes wait for ever."""
        numbers = [*inputs.shape[:2], _checksum(inputs), 0 if mask is None else _checksum(mask != 0)]
        seen = self.group.gather(torch.tensor(numbers, device=inputs.device))
        if not bool((seen == seen[0]).all()):
            raise ValueError(
                f"The {self.group.size} ranks that share a sequence were given different inputs; under "
                "context_parallel each must be given the same whole batch. With a Trainer use context_parallel_trainer."
            )


def _checksum(values):
    """A whole number that depends on the values and their order; of embeddings nothing is asked but their shape."""
    if values.is_floating_point():
        return 0
    flat = values.flatten().long()
    return int((flat * torch.arange(1, len(flat) + 1, device=flat.device)).sum())
