"""Context parallelism for `transformers.Trainer`."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from torch.distributed.device_mesh import init_device_mesh
from torch.utils.data import IterableDataset

from ..data.streams import WindowStream
from ..errors import InputError
from .context_parallel import context_parallel

if TYPE_CHECKING:
    from transformers import Trainer


@contextmanager
def context_parallel_trainer(trainer: "Trainer", context_size: int) -> Iterator["Trainer"]:
    """
    Shard the sequences of a Trainer over groups of `context_size` processes, and its batches over the groups.

    `with context_parallel_trainer(trainer, context_size=4): trainer.train()`, started with torchrun; `evaluate` and
    `predict` work too. A step reads `per_device_train_batch_size` rows per group, not per process. Every process reads
    the whole of a stream and keeps the rows of its group.

    Args:
        trainer: Trainer of a HyenaDNA model.
        context_size: Number of processes of neighbouring rank that share a sequence. 1 has no effect.

    Raises:
        InputError: If the number of processes is not a multiple of `context_size`, or the Trainer or a stream
            distributes batches in another way.
        ValueError: For the reasons given in [`context_parallel`].
    """
    accelerator = trainer.accelerator
    processes = accelerator.num_processes
    if context_size < 1 or processes % context_size:
        raise InputError(
            f"context_size={context_size}: {processes} processes cannot be divided into groups of that size; start a "
            "multiple of it (torchrun --nproc_per_node), or choose another size."
        )
    if accelerator.parallelism_config is not None and accelerator.parallelism_config.non_data_parallel_size > 1:
        raise InputError("parallelism_config: it already shards sequences or tensors; leave tp, cp and sp out of it.")
    if trainer.args.eval_use_gather_object:
        raise InputError("eval_use_gather_object: each process would count all rows; leave it out.")
    if context_size == 1:
        yield trainer
        return
    if trainer.args.label_smoothing_factor:
        raise InputError(
            f"label_smoothing_factor={trainer.args.label_smoothing_factor}: the Trainer smooths the loss of whole "
            "rows, of which each process has one shard; leave it out."
        )
    for name in ("train_dataset", "eval_dataset"):
        _check_stream(name, getattr(trainer, name), accelerator)
    # With these names, accelerate gives the ranks of a group the same batches.
    mesh = init_device_mesh(
        trainer.args.device.type, (processes // context_size, context_size), mesh_dim_names=("dp_replicate", "cp")
    )
    gather_for_metrics = _make_gather_for_metrics(accelerator, context_size)
    with (
        context_parallel(trainer.model, mesh["cp"]),
        _replace_attribute(accelerator, "_prepare_device_mesh", lambda: mesh),
        _replace_attribute(accelerator.dataloader_config, "dispatch_batches", False),
        _replace_attribute(accelerator, "gather_for_metrics", gather_for_metrics),
        _replace_attribute(trainer, "gather_function", gather_for_metrics),
    ):
        yield trainer


def _check_stream(name: str, data: Any, accelerator: Any) -> None:
    """Raise `InputError` for a stream that would give the processes of a group different rows."""
    if not isinstance(data, IterableDataset):
        return
    if accelerator.dispatch_batches:
        raise InputError(
            "dispatch_batches=True: the first process would split each batch among the processes of a group, which "
            "need it whole; leave it out."
        )
    if isinstance(data, WindowStream) and len(data) < data.size():
        raise InputError(
            f"{name}: this {type(data).__name__} gives each process a different part, but the Trainer distributes rows "
            "itself; create it with rank=0, world_size=1."
        )


def _make_gather_for_metrics(accelerator: Any, context_size: int) -> Callable:
    """Create a `gather_for_metrics` that counts each row once, although `context_size` neighbours have it."""
    from accelerate.utils.operations import recursively_apply

    gather_all, gather_for_metrics = accelerator.gather, accelerator.gather_for_metrics

    def gather_first_of_groups(values: Any) -> Any:
        return recursively_apply(
            lambda tensor: tensor.unflatten(0, (accelerator.num_processes, -1))[::context_size].flatten(0, 1),
            gather_all(values),
        )

    def gather_once(*args: Any, **kwargs: Any) -> Any:
        with _replace_attribute(accelerator, "gather", gather_first_of_groups):
            return gather_for_metrics(*args, **kwargs)

    return gather_once


@contextmanager
def _replace_attribute(owner: Any, name: str, value: Any) -> Iterator[None]:
    """Replace an attribute of `owner` within a `with` block."""
    getattr(owner, name)  # raises if this version does not have it
    before = vars(owner).copy()
    setattr(owner, name, value)
    try:
        yield
    finally:
        if name in before:
            setattr(owner, name, before[name])
        else:
            delattr(owner, name)
