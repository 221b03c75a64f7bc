"""The device of this process and its rank among the processes launched together."""

from datetime import timedelta
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from accelerate import PartialState


def has_accelerator() -> bool:
    """Return whether a GPU or another accelerator is available."""
    return torch.accelerator.is_available() if hasattr(torch, "accelerator") else torch.cuda.is_available()


def has_fast_bfloat16(use_cpu: bool = False) -> bool:
    """Return whether bfloat16 is faster than float32 on the GPU, or on the CPU if there is none or `use_cpu` is set."""
    if use_cpu or not has_accelerator():
        return any(getattr(torch.cpu, f"_is_{name}_supported", bool)() for name in ("avx512_bf16", "amx_tile"))
    return torch.cuda.is_available() and torch.cuda.get_device_capability() >= (8, 0)


class SingleProcess:
    """This process on its own, in place of Accelerate's `PartialState`, for work that processes do not share."""

    process_index, num_processes, is_main_process = 0, 1, True

    def wait_for_everyone(self) -> None:
        """Return at once."""


def processes(use_cpu: bool = False) -> "PartialState":
    """Return Accelerate's `PartialState`: rank and device of this process among those launched together."""
    from accelerate import PartialState

    # Processes wait for each other at the end of a job, for as long as the slowest one takes.
    return PartialState(cpu=use_cpu or not has_accelerator(), timeout=timedelta(days=30))
