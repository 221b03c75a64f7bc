"""
Python scripts in fresh processes that start at once.

A process needs seconds to import torch and transformers. Those of this module are forked from a server that has
imported them, but nothing of this package. Its only Hub is that of `hub_server`, which is empty outside of `serve()`.
Tests of imports, of launchers and of the command itself need `subprocess`.
"""

import atexit
import gc
import json
import multiprocessing
import os
import runpy
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from functools import cache
from multiprocessing.forkserver import _forkserver, ensure_running
from pathlib import Path
from unittest.mock import patch

from hub_server import environment as environment_of_hub

IMPORTS = ["torch", "transformers", "transformers.trainer", "transformers.models.auto.modeling_auto", "accelerate"]
IMPORTS += ["datasets", "peft", "pandas", "scipy.stats", "sklearn.metrics", "matplotlib.figure", "rich.progress"]
CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(IMPORTS)
# A command whose constants are set, and which is killed at a call of a function. Names are relative to `hyenadna_hf`.
JOB = """
import importlib, json, os, signal, sys
command, constants, function, call, *arguments = sys.argv[1:]
def find(name):
    module, _, attribute = name.rpartition(".")
    return importlib.import_module(f"hyenadna_hf.{module}"), attribute
for name, value in json.loads(constants).items():
    setattr(*find(name), value)
if function:
    module, attribute = find(function)
    calls = []
    def kill_at_call(*args, original=getattr(module, attribute)):
        calls.append(args)
        if len(calls) == int(call):
            os.kill(os.getpid(), signal.SIGKILL)
        return original(*args)
    setattr(module, attribute, kill_at_call)
find(f"{command}.main")[0].main(arguments)
"""
# The command `hyenadna`.
COMMAND = "import sys\nfrom hyenadna_cli import main\nsys.exit(main(sys.argv[1:]))\n"


@cache
def home():
    """A folder that is removed at the end. The forked processes, which import this module too, need none."""
    folder = tempfile.mkdtemp()
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


class Script:
    """
    A script in a process of its own, which starts on construction.

    Args:
        script: Code as a string, or a file as a `Path`, which runs as `__main__`.
        arguments: Words of `sys.argv`.
        stdin: File to read from standard input.
        folder: Working directory. Defaults to that of this process.
        environment: Variables to add to those of this process and of its Hub.
        timeout: Seconds after which the process is killed.
    """

    def __init__(self, script, *arguments, stdin=os.devnull, folder=None, environment=(), timeout=300):
        self.args = [str(script), *map(str, arguments)]
        self.deadline = time.monotonic() + timeout
        self.outputs = Path(tempfile.mkdtemp(dir=home()))
        self.process = CONTEXT.Process(
            target=_run,
            args=(
                isinstance(script, Path),
                self.args,
                {**environment_of_hub(home()), **dict(environment)},
                str(folder or os.getcwd()),
                str(stdin),
                self.outputs,
            ),
        )
        variables = {**environment_of_hub(home()), "OMP_NUM_THREADS": "1"}
        variables.pop("COVERAGE_PROCESS_CONFIG", None)  # these processes end without saving what it traces
        with patch.dict(os.environ, variables, clear=True):
            ensure_running()
        self.process.start()

    def wait(self):
        """Wait for the end, and return a `subprocess.CompletedProcess` with text."""
        self.process.join(max(0, self.deadline - time.monotonic()))
        if self.process.exitcode is None:
            self.process.kill()
            self.process.join()
        files = [self.outputs / name for name in ("stdout", "stderr")]
        texts = [file.read_text() if file.exists() else "" for file in files]
        shutil.rmtree(self.outputs)
        return subprocess.CompletedProcess(self.args, self.process.exitcode, *texts)


def run_script(script, *arguments, **options):
    """Run a [`Script`] to its end, and return a `subprocess.CompletedProcess` with text."""
    return Script(script, *arguments, **options).wait()


def result_of(script, *arguments, **options):
    """Run a [`Script`] that succeeds, and return the JSON of its last line."""
    result = run_script(script, *arguments, **options)
    assert result.returncode == 0, result.stderr[-3000:]
    return json.loads(result.stdout.splitlines()[-1])


def run_ranks(script, *arguments, processes=2, **options):
    """
    Run a script in several processes that find each other, as those of `torchrun --standalone` do.

    Returns:
        A `subprocess.CompletedProcess` with the first exit status that is not 0, and the texts of all processes.
    """
    from torch.distributed import TCPStore

    store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    variables = {"WORLD_SIZE": processes, "LOCAL_WORLD_SIZE": processes, "MASTER_ADDR": "127.0.0.1"}
    variables |= {"MASTER_PORT": store.port, "TORCHELASTIC_USE_AGENT_STORE": True, "OMP_NUM_THREADS": 1}
    variables = {name: str(value) for name, value in variables.items()}
    ranks = [
        Script(script, *arguments, environment={**variables, "RANK": str(rank), "LOCAL_RANK": str(rank)}, **options)
        for rank in range(processes)
    ]
    ended = [rank.wait() for rank in ranks]
    status = next((rank.returncode for rank in ended if rank.returncode), 0)
    texts = ("".join(getattr(rank, name) for rank in ended) for name in ("stdout", "stderr"))
    return subprocess.CompletedProcess(ended[0].args, status, *texts)


def run_until_killed(command, arguments, function, call, constants=()):
    """
    Run the `main` of a module in another process, which is killed.

    Args:
        command (`str`): Module, relative to `hyenadna_hf`.
        arguments (`list[str]`): Arguments of the command.
        function (`str`): Function, with its module, that the process is killed at.
        call (`int`): The call of the function, counted from 1.
        constants (`dict[str, Any]`): Values of constants, by their names with their modules.
    """
    result = run_script(JOB, command, json.dumps(dict(constants)), function, call, *arguments)
    assert result.returncode == -signal.SIGKILL, result.stderr


def run_in_two_processes(command, arguments, constants=()):
    """Run the `main` of a module in two processes that share its work, and return what they print."""
    result = run_ranks(JOB, command, json.dumps(dict(constants)), "", 0, *arguments)
    assert result.returncode == 0, result.stderr
    return result


@contextmanager
def server_with(modules):
    """Replace the server by one that has imported these modules; gives a context for its processes."""
    # `_stop` is there for tests; a process has one server only.
    _forkserver._stop()
    CONTEXT.set_forkserver_preload(modules)
    try:
        yield CONTEXT
    finally:
        _forkserver._stop()
        CONTEXT.set_forkserver_preload(IMPORTS)


def _run(is_file, arguments, variables, folder, stdin, outputs):
    assert "hyenadna_hf" not in sys.modules, "the package was imported before the fork"
    import torch
    from transformers import dynamic_module_utils

    gc.freeze()  # a collection would copy the pages of what the server has imported
    torch.set_num_threads(1)  # as in workers of a DataLoader: threads do not survive a fork
    dynamic_module_utils.HF_MODULES_CACHE = str(outputs / "modules")  # which was read on import
    sys.path[:] = [path for path in sys.path if not Path(path, "transformers_modules").is_dir()]  # of the parent
    for number, path in enumerate((stdin, outputs / "stdout", outputs / "stderr")):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT if number else os.O_RDONLY), number)
    sys.stdin = open(0, closefd=False)  # noqa: SIM115
    os.environ.clear()
    os.environ.update(variables)
    os.chdir(folder)
    if is_file:
        sys.argv = arguments
        sys.path.insert(0, str(Path(arguments[0]).parent))
        runpy.run_path(arguments[0], run_name="__main__")
    else:
        sys.argv = ["-c", *arguments[1:]]
        # Kept until the process ends, as those of `python -c` are: a DDP module that is destroyed earlier may wait for
        # other ranks forever.
        _run.names = {"__name__": "__main__"}
        exec(compile(arguments[0], "<script>", "exec"), _run.names)
