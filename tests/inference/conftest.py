import json
import signal

import pytest
import torch
from forked import run_ranks, run_script
from reference import randomise

from hyenadna_hf import HyenaDNAConfig, HyenaDNAForCausalLM, HyenaDNATokenizer

# Names are relative to `hyenadna_hf.inference`.
COMMAND = """
import importlib, json, os, signal, sys
command, constants, function, call, *arguments = sys.argv[1:]
def find(name):
    module, _, attribute = name.rpartition(".")
    return importlib.import_module(f"hyenadna_hf.inference.{module}"), attribute
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


def small_model(model_class=HyenaDNAForCausalLM, **fields):
    """A model of at most 40 positions, without dropout, with weights that make every part of it matter."""
    torch.manual_seed(fields.pop("seed", 0))
    sizes = {"d_model": 12, "n_layer": 2, "max_seq_len": 40, "filter_order": 16, "embed_dropout": 0.0}
    return randomise(model_class(HyenaDNAConfig(**{**sizes, **fields}))).eval()


@pytest.fixture(scope="module")
def model():
    return small_model()


@pytest.fixture(scope="session")
def save_model():
    """Saves a small model, of any class and with any fields of its configuration, and its tokenizer."""

    def save(folder, *model_class, **fields):
        model = small_model(*model_class, **fields)
        model.save_pretrained(folder)
        HyenaDNATokenizer(model_max_length=model.config.max_seq_len).save_pretrained(folder)

    return save


@pytest.fixture(scope="session")
def run_until_killed():
    """Runs a command in another process, which is killed at a call of one of the functions of the package."""

    def run(command, arguments, function, call, constants=()):
        result = run_script(COMMAND, command, json.dumps(dict(constants)), function, call, *arguments)
        assert result.returncode == -signal.SIGKILL, result.stderr

    return run


@pytest.fixture(scope="session")
def run_in_two_processes():
    """Runs a command in two processes that share its work, and returns what they print."""

    def run(command, arguments, constants=()):
        result = run_ranks(COMMAND, command, json.dumps(dict(constants)), "", 0, *arguments)
        assert result.returncode == 0, result.stderr
        return result

    return run
