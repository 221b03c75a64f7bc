"""
The `hyenadna` command: one subcommand a job.

It is not a part of `hyenadna_hf` because importing that imports torch: `hyenadna --help` should not wait for it, and
`hyenadna doctor` should work without it.
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
from contextlib import contextmanager, nullcontext, redirect_stdout
from importlib.metadata import version

# Name, module whose main(argv) does it and returns its result as a dict, and what it does. The module's parser() gives
# its arguments. Modules are imported when asked for.
COMMANDS = {
    "attribute": ("hyenadna_hf.inference.attribute", "attribute a prediction to the bases, as a track and a logo"),
    "completion": ("hyenadna_cli.completion", "print a script that completes these commands in a shell"),
    "convert": ("hyenadna_hf.hub.convert", "make a Hub folder of a checkpoint in any published layout"),
    "data": ("hyenadna_hf.data.info", "describe a labelled data set, or list the published ones"),
    "dependency-map": (
        "hyenadna_hf.inference.dependency_map",
        "map how a change of each base moves what is predicted at the others",
    ),
    "doctor": ("hyenadna_cli.doctor", "print what is installed, which devices there are, and what is missing"),
    "embed": ("hyenadna_hf.inference.embed_fasta", "embed the sequences of a FASTA file, or intervals of it"),
    "evaluate-variants": (
        "hyenadna_hf.inference.evaluate_variants",
        "compare scores of labelled variants: AUROC, AUPRC and Spearman, by group",
    ),
    "export-onnx": ("hyenadna_hf.hub.export_onnx", "write a model as an ONNX graph, compared with the model"),
    "few-shot": ("hyenadna_hf.training.few_shot", "classify with a language model after demonstrations"),
    "finetune": ("hyenadna_hf.training.finetune", "fine-tune a sequence classifier and compare it with baselines"),
    "mutagenesis": ("hyenadna_hf.inference.mutagenesis", "score every single-base change of a region"),
    "pretrain": ("hyenadna_hf.training.pretrain", "train a language model on genomes, nucleotide by nucleotide"),
    "publish": ("hyenadna_hf.hub.publish", "upload a folder to the Hub, with all that is needed to load it"),
    "reproduce": ("hyenadna_hf.reproduce.command", "run a published table, and write its figures beside ours"),
    "score-variants": ("hyenadna_hf.inference.score_variants", "score the variants of a VCF file"),
    "soft-prompt": ("hyenadna_hf.training.soft_prompt", "train soft prompts before a frozen language model"),
    "track": ("hyenadna_hf.inference.tracks", "write the log-likelihood of every base as bedGraph or bigWig"),
}

OK, FAILED, BAD_INPUT, INTERRUPTED, CLOSED, TERMINATED = 0, 1, 2, 130, 141, 143

OUT_OF_MEMORY = "out of memory; make the batch (--max_tokens, --batch_size, --per_device_train_batch_size) smaller."

HELP = """\
usage: hyenadna COMMAND [ARGUMENTS]

{commands}

examples:
  hyenadna finetune                                    the bundled example, in about a minute
  hyenadna finetune --dataset my_data/ --output_dir my_model
  hyenadna data info splice_sites_chr20 --json

hyenadna COMMAND --help lists the arguments of each, with their defaults.
--json with any command prints its result, or its error, as one JSON object on stdout; all else goes to stderr.
exit status: 0 success, 1 the work failed, 2 bad input or a missing package, 130 interrupted, 143 terminated.\
"""


def main(argv=None):
    """
    Run `hyenadna ARGS`.

    With `--json` among the arguments, stdout receives the result of the command as one JSON object, with `error` if it
    failed, from the first of several processes only. Everything else that the command prints goes to stderr.

    Args:
        argv (`list[str]`, *optional*): The arguments; those of the process by default.

    Returns:
        `int`: the exit status: 0 for success; 1 for a failure in the work; 2 for bad input or a missing package; 130
        if interrupted; 141 if the reader of stdout has closed it; 143 if terminated. An error costs one line on stderr,
        and an unexpected one its traceback.
    """
    argv = sys.argv[1:] if argv is None else argv
    if not argv or argv[0] in ("-h", "--help"):
        width = max(map(len, COMMANDS))
        commands = "\n".join(f"  {name:<{width}}  {what}" for name, (_, what) in COMMANDS.items())
        return _print(HELP.format(commands=commands), OK)
    if argv[0] == "--version":
        return _print(version("hyenadna_hf"), OK)
    if not sys.stderr.isatty():
        os.environ.setdefault("TQDM_DISABLE", "1")  # the progress bars of transformers, datasets and huggingface_hub
    command, *rest = argv
    as_json = "--json" in rest
    with _stdout_on_stderr() if as_json else nullcontext(), _sigterm_interrupts():
        status, result = _run(command, [word for word in rest if word != "--json"])
    first = os.environ.get("RANK", "0") == "0"
    return _print(json.dumps(_plain(result)) if as_json and first else None, status)


def _run(command, argv):
    """The exit status of a command and its result, or its error, which has been printed."""
    if command not in COMMANDS:
        return _fail("hyenadna", BAD_INPUT, f"no command {command!r}; there are {', '.join(COMMANDS)}.")
    who = f"hyenadna {command}"
    try:
        return OK, importlib.import_module(COMMANDS[command][0]).main(argv)
    except KeyboardInterrupt as stop:
        status, word = (TERMINATED, "terminated") if isinstance(stop, _Terminated) else (INTERRUPTED, "interrupted")
        print(f"{who}: {word}.", file=sys.stderr)
        return status, {"error": word}
    except SystemExit as stop:
        if isinstance(stop.__context__, BrokenPipeError):  # how rich ends
            return CLOSED, {}
        raise
    except ModuleNotFoundError as error:
        missing = f"the package {error.name} is missing; pip install 'hyenadna_hf[all]'."
        return _fail(who, BAD_INPUT, missing)
    except Exception as error:
        if isinstance(error, BrokenPipeError) and _stdout_is_closed():
            return CLOSED, {}
        if hasattr(error, "exit_status"):  # one of hyenadna_hf.errors, whose import would import torch
            return _fail(who, error.exit_status, error, getattr(error, "result", {}))
        if _out_of_memory(error):
            return _fail(who, FAILED, OUT_OF_MEMORY)
        cause = _system_error(error)
        if cause is not None:
            return _fail(who, FAILED, cause)
        traceback.print_exc()
        return FAILED, {"error": f"{type(error).__name__}: {error}"}


def _fail(who, status, reason, result=()):
    reason = re.sub(r"\s*\n\s*", " ", str(reason).strip())
    print(f"{who}: error: {reason}", file=sys.stderr)
    return status, {**dict(result), "error": reason}


def _out_of_memory(error):
    words = "out of memory|can't allocate memory"
    return isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and re.search(words, str(error)))


def _system_error(error):
    """Path and cause of an error of the operating system; `None` for other errors."""
    errors = sys.modules.get("hyenadna_hf.errors")
    if errors is not None:
        error = errors.system_error(error)
    if not isinstance(error, OSError):
        return None
    path = error.filename2 or error.filename  # of two, the destination comes second
    return ": ".join(str(part) for part in (path, error.strerror or error) if part is not None)


def _print(text, status):
    """Print a text, if there is one, and all that was printed before; returns `status` if stdout takes it."""
    try:
        if text is not None:
            print(text)
        sys.stdout.flush()
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or else Python tries again at its end
        if isinstance(error, BrokenPipeError):
            return CLOSED
        return status or _fail("hyenadna", FAILED, f"stdout: {error.strerror}")[0]
    return status


def _stdout_is_closed():
    poll = select.poll()
    poll.register(sys.stdout, 0)
    return any(event & select.POLLERR for _, event in poll.poll(0))


@contextmanager
def _stdout_on_stderr():
    """Send to stderr all that is printed, also by libraries in C and by other processes."""
    sys.stdout.flush()
    kept = os.dup(1)
    os.dup2(2, 1)
    try:
        with redirect_stdout(sys.stderr):
            yield
    finally:
        os.dup2(kept, 1)
        os.close(kept)


class _Terminated(KeyboardInterrupt):
    """The signal SIGTERM."""


@contextmanager
def _sigterm_interrupts():
    """Let SIGTERM interrupt this process as Ctrl-C does, unless whoever calls has a handler for it."""
    if threading.current_thread() is not threading.main_thread() or signal.getsignal(signal.SIGTERM) != signal.SIG_DFL:
        yield
        return
    process = os.getpid()

    def interrupt(*_):
        if os.getpid() == process:
            raise _Terminated
        signal.signal(signal.SIGTERM, signal.SIG_DFL)  # in a process that was forked from it
        signal.raise_signal(signal.SIGTERM)

    signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _plain(value):
    """A result in the types of JSON, which has no NaN."""
    if isinstance(value, dict):
        return {str(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(inner) for inner in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if value is None or isinstance(value, (bool, int, str)) else str(value)
