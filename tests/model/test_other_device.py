from pathlib import Path

import pytest
from forked import run_script

PYTEST = "import sys, pytest\nsys.exit(pytest.main(sys.argv[1:]))\n"


def test_no_tensor_of_the_cpu_meets_those_of_another_device():
    pytest.importorskip("torch.utils.backend_registration")
    cases = Path(__file__).with_name("on_another_device.py")
    # PyTorch does not forget the device that it is told of.
    result = run_script(PYTEST, "-q", "-p", "no:cacheprovider", cases, folder=cases.parents[2])
    assert result.returncode == 0, result.stdout[-5000:]
