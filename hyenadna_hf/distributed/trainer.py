"""Context parallelism for `transformers.Trainer`."""

from contextlib import contextmanager

from torch.distributed.device_mesh import init_device_mesh
from torch.utils.data import IterableDataset

from ..data.streams import WindowStream
from ..errors import InputError
from .context_parallel import context_parallel


@contextmanager
def context_parallel_trainer(trainer, context_size):
    """
    Shard the sequences of a Trainer over `context_size` processes, and its batches over the groups of so many.

    `with context_parallel_trainer(trainer, context_size=4): trainer.train()`, under torchrun; `evaluate` and `predict`
    work too. A step reads `per_device_train_batch_size` rows for each group, not for each process. Of streams every
    process reads all, and keeps the rows of its group.

    Args:
        trainer (`transformers.Trainer`): Of a HyenaDNA model.
        context_size (`int`): Processes that share a sequence; neighbours in rank. 1 changes nothing.

    Raises:
        InputError: if the number of processes is no multiple of `context_size`, or the Trainer or a stream shares out
            batches in another way.
        ValueError: as [`context_parallel`].
    """
    accelerator = trainer.accelerator
    processes = accelerator.num_processes
    if context_size < 1 or processes % context_size:
        raise InputError(
            f"context_size={context_size}: {processes} processes cannot be divided into groups of that size; start a "
            "multiple of it (torchrun --nproc_per_node), or choose another."
        )
    if accelerator.parallelism_config is not None and accelerator.parallelism_config.non_data_parallel_size > 1:
        raise InputError("parallelism_config: it shards sequences or tensors already; leave tp, cp and sp out of it.")
    if trainer.args.eval_use_gather_object:
        raise InputError("eval_use_gather_object: rows would be counted once for each process; leave it out.")
    if context_size == 1:
        yield trainer
        return
    if trainer.args.label_smoothing_factor:
        raise InputError(
            f"label_smoothing_factor={trainer.args.label_smoothing_factor}: the Trainer smooths the loss of whole "
            "rows, of which each process has a stretch; leave it out."
        )
    for name in ("train_dataset", "eval_dataset"):
        _check_stream(name, getattr(trainer, name), accelerator)
    # The names by which accelerate gives the ranks of a group the same batches.
    mesh = init_device_mesh(
        trainer.args.device.type, (processes // context_size, context_size), mesh_dim_names=("dp_replicate", "cp")
    )
    gather_for_metrics = _gathering_once(accelerator, context_size)
    with (
        context_parallel(trainer.model, mesh["cp"]),
        _replaced(accelerator, "_prepare_device_mesh", lambda: mesh),
        _replaced(accelerator.dataloader_config, "dispatch_batches", False),
        _replaced(accelerator, "gather_for_metrics", gather_for_metrics),
        _replaced(trainer, "gather_function", gather_for_metrics),
    ):
        yield trainer


def _check_stream(name, data, accelerator):
    """Refuse a stream that would give the processes of a group different rows."""
    if not isinstance(data, IterableDataset):
        return
    if accelerator.dispatch_batches:
        raise InputError("dispatch_batches: the first process would cut the batches of a group; leave it out.")
    if isinstance(data, WindowStream) and len(data) < data.size():
        raise InputError(
            f"{name}: this {type(data).__name__} gives each process another share; the Trainer shares it out itself, "
            "so make it with rank=0, world_size=1."
        )


def _gathering_once(accelerator, context_size):
    """`gather_for_metrics` where every row is on `context_size` neighbours."""
    from accelerate.utils.operations import recursively_apply

    gather_all, gather_for_metrics = accelerator.gather, accelerator.gather_for_metrics

    def gather_one_of_each_group(values):
        return recursively_apply(
            lambda found: found.unflatten(0, (accelerator.num_processes, -1))[::context_size].flatten(0, 1),
            gather_all(values),
        )

    def gather_once(*args, **kwargs):
        with _replaced(accelerator, "gather", gather_one_of_each_group):
            return gather_for_metrics(*args, **kwargs)

    return gather_once


@contextmanager
def _replaced(owner, name, value):
    """`owner` with another attribute of its own."""
    getattr(owner, name)  # an error if this version has no such thing
    before = vars(owner).copy()
    setattr(owner, name, value)
    try:
        yield
    finally:
        if name in before:
            setattr(owner, name, before[name])
        else:
            delattr(owner, name)
