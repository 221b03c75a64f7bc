"""An earlier commit beside this working tree: whole commands of both, each in a process of its own."""

import os
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).parents[1]


@contextmanager
def tree_of(commit):
    """Check out a commit for a while, and give the folder."""
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder) / "earlier"
        subprocess.run(["git", "worktree", "add", "--quiet", "--detach", tree, commit], cwd=ROOT, check=True)
        try:
            yield tree
        finally:
            subprocess.run(["git", "worktree", "remove", "--force", tree], cwd=ROOT, check=True)


def seconds_of(tree, *command):
    """Run a command of `hyenadna` as it is in a tree, and return the seconds that it takes."""
    started = time.perf_counter()
    subprocess.run(
        [sys.executable, "-m", "hyenadna_hf", *map(str, command)],
        env=os.environ | {"PYTHONPATH": str(tree)},
        cwd=tree,
        check=True,
        stdout=subprocess.DEVNULL,
    )
    return time.perf_counter() - started
