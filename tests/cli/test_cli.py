import importlib
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from hyenadna_cli import COMMANDS, main
from hyenadna_hf.errors import InputError

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
def test_help_is_quick(arguments):
    script = f"""
import sys, time
before = set(sys.modules)
started = time.process_time()
from hyenadna_cli import main
status = main({arguments!r})
seconds = time.process_time() - started
heavy = {{"torch", "transformers", "numpy", "rich", "hyenadna_hf"}} & (set(sys.modules) - before)
print(status, seconds < 0.5, heavy or None)
"""
    result = run(script)
    assert result.stdout.splitlines()[-1] == f"{2 if arguments == ['fly'] else 0} True None", result.stderr


def test_help_names_every_command_and_exit_status(capsys):
    assert main([]) == 0
    text = capsys.readouterr().out
    assert all(f"\n  {name} " in text for name in COMMANDS)
    assert "0 success, 1 the work failed, 2 bad input or a missing package, 130 interrupted" in text


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
        (OSError("no space left"), 1, "OSError: no space left\n"),
        (KeyboardInterrupt(), 130, "hyenadna try: interrupted.\n"),
    ],
)
def test_exit_status(command, capsys, error, status, message):
    def fail(argv):
        raise error

    command(fail)
    assert main(["try", "--json"]) == status
    printed = capsys.readouterr()
    assert message in printed.err and printed.out == ""
    assert ("Traceback" in printed.err) == (status == 1)


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
    assert "problem: torch >=2.4 is wanted, 2.0 is installed; pip install 'torch>=2.4'" in text
    assert re.search(r"problem: datasets.*: missing, not all commands work; pip install 'hyenadna_hf\[all\]'", text)
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
