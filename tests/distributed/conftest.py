import os
import subprocess
import sys
from pathlib import Path

import pytest
from forked import run_ranks

import hyenadna_hf

WORKERS = Path(__file__).parent / "workers"
IMPORTS = [str(Path(hyenadna_hf.__file__).parents[1]), str(Path(__file__).parents[1])]


@pytest.fixture
def launch(tmp_path):
    """Runs a file of workers/ in several processes, which are forked, or launched by a module as a user does."""

    def run(worker, processes, *arguments, launcher=None, folder=tmp_path, timeout=400, fails=False):
        if launcher is None:
            finished = run_ranks(WORKERS / worker, *arguments, processes=processes, folder=folder, timeout=timeout)
            output = finished.stdout + finished.stderr
        else:
            command = [sys.executable, "-m", *launcher, WORKERS / worker, *arguments]
            finished = subprocess.run(
                list(map(str, command)),
                cwd=folder,
                env={**os.environ, "PYTHONPATH": os.pathsep.join(IMPORTS), "OMP_NUM_THREADS": "1"},
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                timeout=timeout,
            )
            output = finished.stdout
        assert (finished.returncode != 0) == fails, output[-6000:]
        return output

    return run
