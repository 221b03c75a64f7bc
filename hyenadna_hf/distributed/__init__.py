"""Sequences sharded over processes, on torch.distributed. (Data parallelism needs nothing of ours.)"""

from .context_parallel import average_gradients, context_parallel
from .trainer import context_parallel_trainer

__all__ = ["average_gradients", "context_parallel", "context_parallel_trainer"]
