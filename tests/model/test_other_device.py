import subprocess
import sys
from pathlib import Path

import pytest


def test_no_tensor_of_the_cpu_meets_those_of_another_device():
    pytest.importorskip("torch.utils.backend_registration")
    cases = Path(__file__).with_name("on_another_device.py")
    # PyTorch does not forget the device that it is told of.
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(cases)]
    result = subprocess.run(command, cwd=cases.parents[2], capture_output=True, text=True)
    assert result.returncode == 0, result.stdout[-5000:]
