"""Sequences sharded over processes with torch.distributed. (Data parallelism works without this package.)"""

from .context_parallel import average_gradients, context_parallel
from .trainer import context_parallel_trainer

__all__ = ["average_gradients", "context_parallel", "context_parallel_trainer"]
