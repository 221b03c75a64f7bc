import importlib
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from forked import result_of

from hyenadna_cli import COMMANDS, main
from hyenadna_hf.errors import InputError, WorkError

ROOT = Path(__file__).parents[2]


def run(script, **options):
    return subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=120, cwd=ROOT, **options
    )


@pytest.fixture
def command(monkeypatch):
    """Makes `hyenadna try` do what a function does."""

    def make(do):
        module = type(sys)("a_command")
        module.main = do
        monkeypatch.setitem(sys.modules, "a_command", module)
        monkeypatch.setitem(COMMANDS, "try", ("a_command", "for this test"))

    return make


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["fly"], []])
def test_help_imports_nothing_but_the_standard_library(arguments):
    script = f"""
import sys
before = set(sys.modules)
from hyenadna_cli import main
status = main({arguments!r})
loaded = {{name.partition(".")[0] for name in set(sys.modules) - before}}
print(status, sorted(loaded - sys.stdlib_module_names))
"""
    result = run(script)
    assert result.stdout.splitlines()[-1] == f"{2 if arguments == ['fly'] else 0} ['hyenadna_cli']", result.stderr


def test_help_names_every_command_and_exit_status(capsys):
    assert main([]) == 0
    text = capsys.readouterr().out
    assert all(f"\n  {name} " in text for name in COMMANDS)
    assert "0 success, 1 the work failed, 2 bad input or a missing package, 130 interrupted, 143 terminated" in text


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help_with_examples_and_defaults(name, capsys):
    with pytest.raises(SystemExit) as stop:
        main([name, "--help"])
    assert stop.value.code == 0
    text = capsys.readouterr().out
    assert f"usage: hyenadna {name}" in text
    assert "example" in text.lower() and text.count(f"hyenadna {name}") > 1
    assert "(default: None)" not in text
    parser = importlib.import_module(COMMANDS[name][0]).parser()
    assert [action.dest for action in parser._actions if not action.help] == []


@pytest.mark.parametrize(
    ("error", "status", "message"),
    [
        (InputError("--size 0: give 1 or more."), 2, "hyenadna try: error: --size 0: give 1 or more.\n"),
        (ModuleNotFoundError("no", name="pysam"), 2, "the package pysam is missing; pip install 'hyenadna_hf[all]'."),
        (WorkError("1 of 2 is missing;\n see x.", {"missing": 1}), 1, "try: error: 1 of 2 is missing; see x.\n"),
        (OSError(28, "No space left", "x.tsv"), 1, "hyenadna try: error: x.tsv: No space left\n"),
        (OSError(28, "No space left"), 1, "hyenadna try: error: No space left\n"),
        (OSError("no config.json there"), 1, "hyenadna try: error: no config.json there\n"),
        (RuntimeError("I/O error: full (os error 28)"), 1, "hyenadna try: error: No space left on device\n"),
        (RuntimeError("[inline_container.cc:672] . unexpected pos 576"), 1, "try: error: the file cannot be written"),
        (MemoryError(), 1, "hyenadna try: error: out of memory; reduce the batch size (--max_tokens,"),
        (RuntimeError("CUDA out of memory. Tried to allocate 2 GiB"), 1, "hyenadna try: error: out of memory;"),
        (RuntimeError("alloc_cpu.cpp: can't allocate memory"), 1, "hyenadna try: error: out of memory;"),
        (KeyboardInterrupt(), 130, "hyenadna try: interrupted.\n"),
    ],
)
def test_exit_status(command, capsys, error, status, message):
    def fail(argv):
        raise error

    command(fail)
    assert main(["try"]) == status
    printed = capsys.readouterr()
    assert message in printed.err and printed.err.count("\n") == 1 and printed.out == ""

    assert main(["try", "--json"]) == status
    in_json = capsys.readouterr()
    assert in_json.err == printed.err
    result = json.loads(in_json.out)
    assert result.pop("error") == ("interrupted" if status == 130 else printed.err.partition("error: ")[2].strip())
    assert result == getattr(error, "result", {})


def test_an_unexpected_error_has_a_traceback(command, capsys):
    command(lambda argv: {}["absent"])
    assert main(["try", "--json"]) == 1
    printed = capsys.readouterr()
    assert "Traceback" in printed.err and json.loads(printed.out) == {"error": "KeyError: 'absent'"}


@pytest.mark.parametrize("arguments", [["fly"], ["doctor", "--fly"], ["completion"], ["embed"], ["track", "--stride"]])
def test_bad_arguments_are_one_line(arguments, capsys):
    assert main([*arguments, "--json"]) == 2
    printed = capsys.readouterr()
    assert (
        printed.err
        == f"hyenadna{'' if arguments == ['fly'] else ' ' + arguments[0]}: error: "
        + json.loads(printed.out)["error"]
        + "\n"
    )


def test_json_is_all_of_stdout(command, capsys, monkeypatch):
    def work(argv):
        assert argv == ["--size", "3"]
        print("a table")
        return {"out": Path("x.tsv"), "loss": float("nan"), "sizes": (1, 2), "names": {1: None}}

    command(work)
    assert main(["try", "--json", "--size", "3"]) == 0
    printed = capsys.readouterr()
    assert json.loads(printed.out) == {"out": "x.tsv", "loss": None, "sizes": [1, 2], "names": {"1": None}}
    assert printed.err == "a table\n"
    monkeypatch.setenv("RANK", "1")
    assert main(["try", "--json", "--size", "3"]) == 0
    assert capsys.readouterr().out == ""


def test_json_is_all_of_stdout_also_below_python(tmp_path):
    """Libraries in C and other processes print to the file descriptor, which `redirect_stdout` does not change."""
    (tmp_path / "noisy.py").write_text(
        "import os, subprocess\n"
        "def main(argv):\n"
        "    os.write(1, b'from C')\n"
        "    subprocess.run(['echo', 'from a process'])\n"
        "    return {'size': 3}\n"
    )
    script = f"""
import sys
sys.path.insert(0, {str(tmp_path)!r})
from hyenadna_cli import COMMANDS, main
COMMANDS["try"] = ("noisy", "for this test")
sys.exit(main(["try", "--json"]))
"""
    result = run(script)
    assert (result.returncode, result.stdout) == (0, '{"size": 3}\n')
    assert "from C" in result.stderr and "from a process" in result.stderr


WAIT = """
import signal, sys, time
signal.signal(signal.SIGINT, signal.default_int_handler)  # shells let background jobs ignore it
from hyenadna_cli import COMMANDS, main
class Command:
    def main(argv):
        try:
            print("ready", file=sys.stderr, flush=True)
            time.sleep(60)
        finally:
            print("cleaned up", file=sys.stderr)
sys.modules["a_command"] = Command
COMMANDS["try"] = ("a_command", "for this test")
sys.exit(main(["try", "--json"]))
"""


@pytest.mark.parametrize(
    ("number", "status", "word"), [(signal.SIGTERM, 143, "terminated"), (signal.SIGINT, 130, "interrupted")]
)
def test_signals_end_a_command_after_its_cleanup(number, status, word):
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen([sys.executable, "-c", WAIT], cwd=ROOT, **pipes) as process:
        assert process.stderr.readline() == "ready\n"
        process.send_signal(number)
        out, err = process.communicate(timeout=30)
    assert (process.returncode, json.loads(out)) == (status, {"error": word})
    assert err == f"cleaned up\nhyenadna try: {word}.\n"


GROUP = """
import json
import torch.distributed as dist
from hyenadna_cli import run
dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
print(json.dumps([run(), dist.is_initialized()]))
"""


@pytest.mark.parametrize("word, found", [("--version", [0, False]), ("fly", [2, True])])
def test_a_process_leaves_its_group_after_success(word, found):
    assert result_of(GROUP, word) == found


def test_a_handler_of_the_caller_is_left_alone(command):
    handlers = []
    command(lambda argv: handlers.append(signal.getsignal(signal.SIGTERM)))
    main(["try"])
    before = signal.signal(signal.SIGTERM, lambda *_: None)
    try:
        ours = signal.getsignal(signal.SIGTERM)
        main(["try"])
    finally:
        signal.signal(signal.SIGTERM, before)
    assert handlers[0] not in (ours, signal.SIG_DFL) and handlers[1] is ours
    assert signal.getsignal(signal.SIGTERM) is before


PRINTS = """
import sys
from hyenadna_cli import COMMANDS, main
class Command:
    def main(argv):
        if argv:
            from rich.console import Console
            Console().print("a table")
        else:
            print("a table")
        return {}
sys.modules["a_command"] = Command
COMMANDS["try"] = ("a_command", "for this test")
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.parametrize("unbuffered", ["1", ""])
@pytest.mark.parametrize("arguments", [["--help"], ["try"], ["try", "by rich"], ["try", "--json"]])
@pytest.mark.parametrize("kind", ["closed", "full"])
def test_a_stdout_that_takes_nothing(kind, arguments, unbuffered):
    """`| head` ends a command in silence, as it does other tools; a full disk is an error in one line."""
    if kind == "closed":
        reader, stdout = os.pipe()
        os.close(reader)
    else:
        stdout = os.open("/dev/full", os.O_WRONLY)
    result = subprocess.run(
        [sys.executable, "-c", PRINTS, *arguments],
        stdout=stdout,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env={**os.environ, "PYTHONUNBUFFERED": unbuffered},
    )
    os.close(stdout)
    printed = "a table\n" if "--json" in arguments else ""
    if kind == "closed":
        assert (result.returncode, result.stderr) == (141, printed)
    else:
        assert result.returncode == 1
        assert re.fullmatch(printed + "hyenadna(| try): error: (stdout: )?No space left on device\n", result.stderr)


def test_no_progress_bars_where_stderr_is_no_terminal():
    """Those of transformers, datasets and huggingface_hub; in a process of its own, for they ask at import."""
    script = """
from hyenadna_cli import COMMANDS, main
class Command:
    def main(argv):
        from datasets import Dataset
        from huggingface_hub.utils import tqdm
        from transformers.utils import logging
        Dataset.from_dict({"x": [1]}).map(lambda row: row)
        for bar in (tqdm, logging.tqdm):
            assert list(bar([1, 2], desc="a bar")) == [1, 2]
import sys
sys.modules["a_command"] = Command
COMMANDS["try"] = ("a_command", "for this test")
sys.exit(main(["try"]))
"""
    result = run(script)
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")
    shown = run(script, env={**os.environ, "TQDM_DISABLE": ""})
    assert shown.stderr.count("a bar") >= 2 and "Map" in shown.stderr  # or else the test would see nothing


def test_json_of_a_real_command(capsys):
    assert main(["data", "info", "splice_sites_chr20", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["splits"]["test"]["sequences"] == 5015
    assert found["splits"]["train"]["shortest"] == found["splits"]["train"]["longest"] == 120
    assert sum(found["splits"]["train"]["classes"].values()) == found["splits"]["train"]["sequences"]


def test_doctor_finds_what_is_missing(capsys, monkeypatch):
    assert main(["doctor", "--json"]) == 0
    healthy = json.loads(capsys.readouterr().out)
    assert healthy["packages"]["torch"]["fits"] and healthy["packages"]["torch"]["extra"] == ""
    assert healthy["packages"]["datasets"]["extra"] == "all"
    assert "pytest" not in healthy["packages"]

    from hyenadna_cli import doctor

    def version(name):
        if name in ("datasets", "anndata"):
            raise doctor.PackageNotFoundError(name)
        return "2.0" if name == "torch" else doctor_version(name)

    doctor_version = doctor.version
    monkeypatch.setattr(doctor, "version", version)
    assert main(["doctor"]) == 0
    text = capsys.readouterr().out
    assert "problem: torch >=2.4 is required, but 2.0 is installed; pip install 'torch>=2.4'" in text
    assert re.search(r"problem: datasets.*: missing, some commands do not work; pip install 'hyenadna_hf\[all\]'", text)
    assert not re.search("problem: .*anndata", text)  # for one kind of file only


def test_doctor_works_where_torch_does_not():
    script = "import sys; sys.modules['torch'] = None; from hyenadna_cli import main; sys.exit(main(['doctor']))"
    result = run(script)
    assert result.returncode == 0, result.stderr
    assert "problem: torch cannot be imported" in result.stdout


def test_completion_completes_in_bash(tmp_path, capsys):
    pytest.importorskip("shtab")
    assert main(["completion", "bash"]) == 0
    script = tmp_path / "hyenadna.bash"
    script.write_text(capsys.readouterr().out)

    def complete(*words):
        ask = f"""
source {script}
COMP_WORDS=({" ".join(words)}); COMP_CWORD={len(words) - 1}
$(complete -p hyenadna | sed 's/.*-F \\([^ ]*\\).*/\\1/') hyenadna "{words[-1]}"
printf '%s\\n' "${{COMPREPLY[@]}}"
"""
        return subprocess.run(["bash", "-c", ask], capture_output=True, text=True, timeout=60).stdout.split()

    assert complete("hyenadna", "fin") == ["finetune"]
    assert "--learning_rate" in complete("hyenadna", "finetune", "--learn")
    assert complete("hyenadna", "convert", "a", "b", "--to", "pub") == ["published"]
