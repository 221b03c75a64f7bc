import os
import subprocess
import sys
from pathlib import Path

import pytest

import hyenadna_hf

WORKERS = Path(__file__).parent / "workers"
IMPORTS = [str(Path(hyenadna_hf.__file__).parents[1]), str(Path(__file__).parents[1])]


@pytest.fixture
def launch(tmp_path):
    """Runs a file of workers/ in several processes, as a user does: by torchrun, or by another module that launches."""

    def run(worker, processes, *arguments, launcher=None, folder=tmp_path, timeout=400, fails=False):
        torchrun = ["torch.distributed.run", "--standalone", "--nproc_per_node", processes]
        command = [sys.executable, "-m", *(launcher or torchrun), WORKERS / worker, *arguments]
        finished = subprocess.run(
            list(map(str, command)),
            cwd=folder,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(IMPORTS), "OMP_NUM_THREADS": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=timeout,
        )
        assert (finished.returncode != 0) == fails, finished.stdout[-6000:]
        return finished.stdout

    return run
