"""This process among those that were launched together, and its device."""

from datetime import timedelta

import torch


def has_accelerator():
    """Whether there is a GPU or the like."""
    return torch.accelerator.is_available() if hasattr(torch, "accelerator") else torch.cuda.is_available()


def processes(use_cpu=False):
    """Accelerate's `PartialState`: this process among those that were launched together, and its device."""
    from accelerate import PartialState

    # They meet at the end of a job; the first one there waits as long as it takes.
    return PartialState(cpu=use_cpu or not has_accelerator(), timeout=timedelta(days=30))
