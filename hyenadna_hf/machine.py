"""Description of the machine that a measurement ran on."""

import os
import platform

import torch
import transformers


def machine() -> str:
    """Describe hardware and versions in one line, for the caption of a table or figure."""
    device = f"{os.cpu_count()} CPU cores with {torch.backends.cpu.get_cpu_capability()}, no GPU"
    if torch.cuda.is_available():
        device = torch.cuda.get_device_name()
    return (
        f"{device}; Python {platform.python_version()}, PyTorch {torch.__version__} with {torch.get_num_threads()} "
        f"threads, transformers {transformers.__version__}"
    )
