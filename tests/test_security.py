"""What no code here may do: run shells, run text, unpickle, or unpack archives to where they say."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCES = sorted(
    file
    for folder in ("hyenadna_cli", "hyenadna_hf", "scripts", "benchmarks")
    for file in (ROOT / folder).rglob("*.py")
)

FORBIDDEN = {
    *("eval", "exec", "compile", "__import__", "os.system", "os.popen", "subprocess.getoutput"),
    *("subprocess.getstatusoutput", "pickle.load", "pickle.loads", "pickle.Unpickler", "dill.load", "dill.loads"),
    *("cloudpickle.load", "cloudpickle.loads", "joblib.load", "pandas.read_pickle", "shelve.open", "marshal.loads"),
    *("yaml.load", "yaml.unsafe_load", "shutil.unpack_archive", "tempfile.mktemp"),
}
# Whatever object they are called on.
FORBIDDEN_METHODS = {"extractall", "extract", "read_pickle"}


def violations(source):
    """What a source file calls that it must not, as `(line, name)`."""
    tree = ast.parse(source)
    names = {}  # by what the file calls them: modules and functions as they are called where they come from
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {
                alias.asname or alias.name.partition(".")[0]: alias.name
                if alias.asname
                else alias.name.partition(".")[0]
                for alias in node.names
            }
        elif isinstance(node, ast.ImportFrom) and not node.level:
            names |= {alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names}
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        first, *rest = ast.unparse(node.func).split(".")
        name = ".".join([names.get(first, first), *rest])
        given = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
        if (
            name in FORBIDDEN
            or (rest and rest[-1] in FORBIDDEN_METHODS)
            or (name == "torch.load" and given.get("weights_only") != "True")
            or given.get("shell", "False") != "False"
            or given.get("allow_pickle", "False") != "False"
        ):
            yield node.lineno, name


@pytest.mark.parametrize("file", SOURCES, ids=lambda file: str(file.relative_to(ROOT)))
def test_nothing_forbidden_is_called(file):
    assert list(violations(file.read_text(encoding="utf-8"))) == []


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("eval('1')", "eval"),
        ("import os as o\no.system('ls')", "os.system"),
        ("from pickle import loads as get\nget(b'')", "pickle.loads"),
        ("import pandas as pd\npd.read_pickle('x')", "pandas.read_pickle"),
        ("import subprocess\nsubprocess.run('ls', shell=True)", "subprocess.run"),
        ("import subprocess\nsubprocess.run('ls', shell=asked)", "subprocess.run"),
        ("import torch\ntorch.load('x')", "torch.load"),
        ("import torch\ntorch.load('x', weights_only=False)", "torch.load"),
        ("import tarfile\ntarfile.open('x').extractall()", "tarfile.open('x').extractall"),
        ("import numpy as np\nnp.load('x', allow_pickle=True)", "numpy.load"),
    ],
)
def test_what_is_forbidden_is_found(source, name):
    assert [found for _, found in violations(source)] == [name]


def test_what_is_allowed_is_not_found():
    source = "import re, torch, subprocess\nre.compile('a')\ntorch.load('x', weights_only=True)\nsubprocess.run(['ls'])"
    assert list(violations(source)) == []
