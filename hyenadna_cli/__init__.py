"""
The `hyenadna` command and its subcommands.

It is a package of its own because importing `hyenadna_hf` imports torch: `hyenadna --help` should not wait for torch,
and `hyenadna doctor` should work without it.
"""

import importlib
import json
import math
import os
import re
import select
import signal
import sys
import threading
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, redirect_stdout
from importlib.metadata import version
from typing import Any

# Name, module and description of each command. The module has parser(), which returns the argument parser, and
# main(argv), which returns the result as a dict. Modules are imported only when their command runs.
COMMANDS = {
    "attribute": ("hyenadna_hf.inference.attribute", "attribute a prediction to the bases, as a track and a logo"),
    "completion": ("hyenadna_cli.completion", "print a script that completes these commands in a shell"),
    "context": ("hyenadna_hf.inference.context", "measure how far back a language model uses its context"),
    "convert": ("hyenadna_hf.hub.convert", "convert a checkpoint in any published layout to a Hub folder"),
    "data": ("hyenadna_hf.data.info", "describe a labelled data set, or list the published ones"),
    "dependency-map": (
        "hyenadna_hf.inference.dependency_map",
        "map how changing each base changes the predictions at the others",
    ),
    "doctor": ("hyenadna_cli.doctor", "print installed versions, available devices, and what is missing"),
    "embed": ("hyenadna_hf.inference.embed_fasta", "embed the sequences of a FASTA file, or intervals of it"),
    "evaluate-variants": (
        "hyenadna_hf.inference.evaluate_variants",
        "evaluate scores of labelled variants: AUROC, AUPRC and Spearman, by group",
    ),
    "export-onnx": ("hyenadna_hf.hub.export_onnx", "export a model to ONNX and compare the outputs"),
    "few-shot": ("hyenadna_hf.training.few_shot", "classify with a language model after demonstrations"),
    "finetune": ("hyenadna_hf.training.finetune", "fine-tune a classifier or regressor and compare it with baselines"),
    "mutagenesis": ("hyenadna_hf.inference.mutagenesis", "score every single-base change of a region"),
    "predict": ("hyenadna_hf.inference.predict", "predict sequences, or every base, with a fine-tuned model"),
    "pretrain": ("hyenadna_hf.training.pretrain", "train a causal or masked language model on DNA sequences"),
    "probe": ("hyenadna_hf.probing.probe", "fit classifiers on frozen embeddings, by layer and pooling"),
    "publish": ("hyenadna_hf.hub.publish", "upload a folder to the Hub, with everything needed to load it"),
    "reproduce": ("hyenadna_hf.reproduce.command", "run the experiments of a published table and compare the figures"),
    "score-variants": ("hyenadna_hf.inference.score_variants", "score the variants of a VCF file"),
    "soft-prompt": ("hyenadna_hf.training.soft_prompt", "train soft prompts for a frozen language model"),
    "track": ("hyenadna_hf.inference.tracks", "write the log-likelihood of every base as bedGraph or bigWig"),
}

OK, FAILED, BAD_INPUT, INTERRUPTED, CLOSED, TERMINATED = 0, 1, 2, 130, 141, 143  # exit statuses
Outcome = tuple[int, dict[str, Any]]  # exit status, and result or error

OUT_OF_MEMORY = "out of memory; reduce the batch size (--max_tokens, --batch_size, --per_device_train_batch_size)."

HELP = """\
usage: hyenadna COMMAND [ARGUMENTS]

{commands}

examples:
  hyenadna finetune                                    the bundled example, in two minutes
  hyenadna finetune --dataset my_data/ --output_dir my_model
  hyenadna data info splice_sites_chr20 --json

hyenadna COMMAND --help lists the arguments of a command, with their defaults.
With --json, any command prints its result or error as one JSON object on stdout, and everything else on stderr.
exit status: 0 success, 1 the work failed, 2 bad input or a missing package, 130 interrupted, 143 terminated.\
"""


def main(argv: list[str] | None = None) -> int:
    """
    Run `hyenadna ARGS`.

    With `--json`, the result of the command is printed on stdout as one JSON object, with `error` if it failed, by the
    first of several processes only. All other output goes to stderr.

    Args:
        argv: Command-line arguments. Defaults to those of the process.

    Returns:
        The exit status: 0 for success; 1 if the work failed; 2 for bad input or a missing package; 130 if interrupted;
        141 if the reader of stdout has closed it; 143 if terminated. Errors print one line on stderr, unexpected ones
        a traceback.
    """
    argv = sys.argv[1:] if argv is None else argv
    if not argv or argv[0] in ("-h", "--help"):
        width = max(map(len, COMMANDS))
        commands = "\n".join(f"  {name:<{width}}  {description}" for name, (_, description) in COMMANDS.items())
        return _print(HELP.format(commands=commands), OK)
    if argv[0] == "--version":
        return _print(version("hyenadna_hf"), OK)
    if not sys.stderr.isatty():
        os.environ.setdefault("TQDM_DISABLE", "1")  # hide progress bars of transformers, datasets and huggingface_hub
    command, *rest = argv
    as_json = "--json" in rest
    with _stdout_on_stderr() if as_json else nullcontext(), _sigterm_interrupts():
        status, result = _run_command(command, [word for word in rest if word != "--json"])
    is_first = os.environ.get("RANK", "0") == "0"
    return _print(json.dumps(_to_json_types(result)) if as_json and is_first else None, status)


def run() -> int:
    """
    Run the command of this process, as `hyenadna` and `python -m hyenadna_hf` do.

    After success, processes of one launcher end together. A gloo thread that still holds the tensor of a collective
    needs the interpreter to release it, and gets it while this process waits; a process that ends earlier is aborted.
    After a failure there is no wait, because the others may never come.

    Returns:
        The exit status, as from [`main`].
    """
    status = main()
    torch = sys.modules.get("torch")
    if status == OK and torch is not None and torch.distributed.is_available() and torch.distributed.is_initialized():
        from accelerate import PartialState

        PartialState().wait_for_everyone()
        PartialState().destroy_process_group()
    return status


def _run_command(command: str, argv: list[str]) -> Outcome:
    """Run a command and print its error, if any. Return its exit status and its result or error."""
    if command not in COMMANDS:
        return _fail("hyenadna", BAD_INPUT, f"no command {command!r}; there are {', '.join(COMMANDS)}.")
    prog = f"hyenadna {command}"
    try:
        return OK, importlib.import_module(COMMANDS[command][0]).main(argv)
    except KeyboardInterrupt as stop:
        status, word = (TERMINATED, "terminated") if isinstance(stop, _Terminated) else (INTERRUPTED, "interrupted")
        print(f"{prog}: {word}.", file=sys.stderr)
        return status, {"error": word}
    except SystemExit as stop:
        if isinstance(stop.__context__, BrokenPipeError):  # rich exits in this way
            return CLOSED, {}
        raise
    except ModuleNotFoundError as error:
        missing = f"the package {error.name} is missing; pip install 'hyenadna_hf[all]'."
        return _fail(prog, BAD_INPUT, missing)
    except Exception as error:
        if isinstance(error, BrokenPipeError) and _is_stdout_closed():
            return CLOSED, {}
        if hasattr(error, "exit_status"):  # a class of hyenadna_hf.errors, which is not imported here to avoid torch
            return _fail(prog, error.exit_status, error, getattr(error, "result", {}))
        if _is_out_of_memory(error):
            return _fail(prog, FAILED, OUT_OF_MEMORY)
        cause = _system_error_message(error)
        if cause is not None:
            return _fail(prog, FAILED, cause)
        traceback.print_exc()
        return FAILED, {"error": f"{type(error).__name__}: {error}"}


def _fail(command: str, status: int, reason: object, result: dict[str, Any] | None = None) -> Outcome:
    message = re.sub(r"\s*\n\s*", " ", str(reason).strip())
    print(f"{command}: error: {message}", file=sys.stderr)
    return status, {**(result or {}), "error": message}


def _is_out_of_memory(error: Exception) -> bool:
    words = "out of memory|can't allocate memory"
    return isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and bool(re.search(words, str(error))))


def _system_error_message(error: Exception) -> str | None:
    """Return path and cause of an operating system error, `None` for other errors."""
    errors = sys.modules.get("hyenadna_hf.errors")
    if errors is not None:
        error = errors.system_error(error)
    if not isinstance(error, OSError):
        return None
    path = error.filename2 or error.filename  # filename2 is the destination
    return ": ".join(str(part) for part in (path, error.strerror or error) if part is not None)


def _print(text: str | None, status: int) -> int:
    """Print `text`, flush stdout, and return `status`, or a failure status if stdout cannot be written."""
    try:
        if text is not None:
            print(text)
        sys.stdout.flush()
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # otherwise Python flushes again at exit
        if isinstance(error, BrokenPipeError):
            return CLOSED
        return status or _fail("hyenadna", FAILED, f"stdout: {error.strerror}")[0]
    return status


def _is_stdout_closed() -> bool:
    poll = select.poll()
    poll.register(sys.stdout, 0)
    return any(event & select.POLLERR for _, event in poll.poll(0))


@contextmanager
def _stdout_on_stderr() -> Iterator[None]:
    """Redirect stdout to stderr, including the output of C libraries and child processes."""
    sys.stdout.flush()
    stdout = os.dup(1)
    os.dup2(2, 1)
    try:
        with redirect_stdout(sys.stderr):
            yield
    finally:
        os.dup2(stdout, 1)
        os.close(stdout)


class _Terminated(KeyboardInterrupt):
    """Raised on SIGTERM."""


@contextmanager
def _sigterm_interrupts() -> Iterator[None]:
    """Make SIGTERM interrupt this process like Ctrl-C, unless the caller has installed a handler for it."""
    if threading.current_thread() is not threading.main_thread() or signal.getsignal(signal.SIGTERM) != signal.SIG_DFL:
        yield
        return
    process = os.getpid()

    def interrupt(*_: object) -> None:
        if os.getpid() == process:
            raise _Terminated
        signal.signal(signal.SIGTERM, signal.SIG_DFL)  # in a forked child
        signal.raise_signal(signal.SIGTERM)

    signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _to_json_types(value: Any) -> Any:
    """Convert a result to the types of JSON; NaN and infinities become `None`."""
    if isinstance(value, dict):
        return {str(key): _to_json_types(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_to_json_types(item) for item in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if value is None or isinstance(value, (bool, int, str)) else str(value)
