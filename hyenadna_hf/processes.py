"""This process among those that were launched together, and its device."""

from datetime import timedelta

import torch


def has_accelerator():
    """Whether there is a GPU or the like."""
    return torch.accelerator.is_available() if hasattr(torch, "accelerator") else torch.cuda.is_available()


def has_fast_bfloat16(use_cpu=False):
    """Whether the GPU, or the CPU if there is none or `use_cpu` is set, computes faster in bfloat16 than in float32."""
    if use_cpu or not has_accelerator():
        return any(getattr(torch.cpu, f"_is_{name}_supported", bool)() for name in ("avx512_bf16", "amx_tile"))
    return torch.cuda.is_available() and torch.cuda.get_device_capability() >= (8, 0)


def processes(use_cpu=False):
    """Accelerate's `PartialState`: this process among those that were launched together, and its device."""
    from accelerate import PartialState

    # They meet at the end of a job; the first one there waits as long as it takes.
    return PartialState(cpu=use_cpu or not has_accelerator(), timeout=timedelta(days=30))
