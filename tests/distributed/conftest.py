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
    """Runs a file of workers/ in several processes, as a user does."""

    def run(worker, processes, *arguments, timeout=400, fails=False):
        command = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(processes)]
        finished = subprocess.run(
            [sys.executable, *command, str(WORKERS / worker), *map(str, arguments)],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(IMPORTS), "OMP_NUM_THREADS": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=timeout,
        )
        assert (finished.returncode != 0) == fails, finished.stdout[-6000:]
        return finished.stdout

    return run
