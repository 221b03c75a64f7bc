"""The cells of a table: what each runs, its result in a file, and how ranks share them out."""

import hashlib
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import torch

from .. import __version__
from ..errors import InputError
from ..jobs import write_text
from ..pretrained import BUNDLED_CHECKPOINTS
from ..training.runs import last_whole_checkpoint
from .data import Data

# What tells a process that it is one of several; the commands that cells run are each alone.
_LAUNCHER = re.compile(r"(RANK|WORLD_SIZE|LOCAL_RANK|LOCAL_WORLD_SIZE|GROUP_|ROLE_|MASTER_|TORCHELASTIC_|ACCELERATE_)")

# How a command says what is wrong, and how a traceback ends.
_ERROR = re.compile(r"hyenadna[\w .-]*: error: (?P<said>.*)|(?P<raised>\w+(\.\w+)*(Error|Exception)\b.*)")
FIRST_OUTPUT = "FIRST_OUTPUT"


@dataclass(frozen=True)
class Step:
    """
    A command of a cell.

    Attributes:
        command (`str`): A subcommand of `hyenadna`.
        arguments (`tuple[str, ...]`): Its arguments, but for `--output_dir`. [`FIRST_OUTPUT`] stands for the folder
            that the first step of the cell has made.
        results (`str`): The JSON file that it leaves in `--output_dir`.
        resumes (`bool`): Whether it is a training run, which goes on from a checkpoint if it is told to.
    """

    command: str
    arguments: tuple[str, ...]
    results: str = "results.json"
    resumes: bool = False

    def words(self, first_output=FIRST_OUTPUT):
        """As on a command line."""
        is_ours = self.command in ("probe", "bits")  # commands that only tables have
        module = [f"hyenadna_hf.reproduce.{self.command}"] if is_ours else ["hyenadna_hf", self.command]
        arguments = [first_output if word == FIRST_OUTPUT else word for word in self.arguments]
        return ["python", "-m", *module, *arguments]


@dataclass(frozen=True)
class Cell:
    """One run: a data set, a model and a seed."""

    dataset: str
    model: str
    source: str
    seed: int
    steps: tuple[Step, ...]
    data: Data
    evaluated: str = ""

    @property
    def key(self):
        """Of all that its result depends on: arguments, the content of data and model, and the version."""
        what = {
            "version": __version__,
            "data": self.data.fingerprint,
            "model": _content(self.source),
            "steps": [[self._portable(word) for word in step.words()] for step in self.steps],
        }
        return hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()[:16]

    def _portable(self, word):
        """A word of a command without where data and model are."""
        if word == self.source:
            return "MODEL"
        return word.replace(self.data.argument, "DATA") if word.startswith(self.data.argument) else word

    def path(self, out):
        """The file of its result."""
        name = re.sub(r"[^\w.-]+", "_", f"{self.dataset}-{self.model}-seed{self.seed}")
        return out / "cells" / f"{name}-{self.key}.json"

    def describe(self, **more):
        """What there is to know of it before it has run, a `dict`, and `more`."""
        return {
            "dataset": self.dataset,
            "model": self.model,
            "source": self.source,
            "seed": self.seed,
            "command": " && ".join(shlex.join(step.words()) for step in self.steps),
            "data": self.data.origin,
            "split": self.data.split,
            "evaluated": self.evaluated,
            "sequences": self.data.sizes,
            "bases": self.data.bases,
        } | more

    def load(self, out):
        """Its result, a `dict`, or `None`."""
        path = self.path(out)
        return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None


def share(cells, rank, world_size):
    """The cells of a rank: each cell is that of one rank, and their numbers differ by one at most."""
    return cells[rank::world_size]


def run(cell, out, work, device=None):
    """
    Run a cell and write its result, or the reason that there is none; the pictures that it draws are kept beside it.

    Args:
        cell ([`Cell`]): Which.
        out (`Path`): The folder of the table.
        work (`Path`): The folder of what is not kept. A run that was killed goes on from what it left there.
        device (`int`, *optional*): Which of the visible GPUs to use.

    Returns:
        `dict`: `metrics` by name, or `reason`; and `command`, `seconds`, and what there is to know of the data.
    """
    started = time.monotonic()
    result = cell.describe()
    folder = work / "runs" / cell.path(out).stem
    try:
        result["metrics"] = {}
        for number, step in enumerate(cell.steps):
            found = _run_step(step, folder, number, device)
            result["metrics"].update(metrics(step.command, found))
            result.update({name: found[name] for name in ("start", "epochs") if name in found})
    except (InputError, OSError, KeyError) as error:
        result.pop("metrics")
        result["reason"] = str(error)
    path = cell.path(out)
    path.parent.mkdir(parents=True, exist_ok=True)
    if "metrics" in result:
        for picture in folder.glob("*/*.png"):
            shutil.move(picture, path.with_name(f"{path.stem}-{picture.name}"))
        shutil.rmtree(folder)
    result["seconds"] = round(time.monotonic() - started, 1)
    write_text(path, json.dumps(result, indent=2) + "\n")
    return result


def metrics(command, results):
    """What the results of a command are for a table, as `dict[str, float]`."""
    if command == "finetune":
        return results["test"]["model"]
    if command == "pretrain":
        return {"pretraining_seconds": results["train_seconds"]}
    if command in ("soft-prompt", "few-shot"):
        return {_setting(row): row["accuracy"] for row in results["rows"] if "accuracy" in row}
    return results["metrics"]


def _setting(row):
    (length, shots) = ((name, row[name]) for name in ("prompt_tokens", "tuning_samples", "shots") if name in row)
    return f"accuracy, {length[1]:,} {length[0].replace('_', ' ')}, {shots[1]:,} shots"


def _run_step(step, folder, number, device):
    """The results of a step, which it leaves in `folder/number`; what is done already is not done again."""
    output, done = folder / str(number), folder / f"{number}.done"
    if not done.is_file():
        words = [*step.words(str(folder / "0")), "--output_dir", str(output)]
        if step.resumes and last_whole_checkpoint(output):
            words += ["--resume_from_checkpoint", "true"]
        elif step.resumes:
            shutil.rmtree(output, ignore_errors=True)  # what was killed before its first checkpoint
        folder.mkdir(parents=True, exist_ok=True)
        with open(folder / "log.txt", "w", encoding="utf-8") as log:
            status = subprocess.run(
                [sys.executable, *words[1:]],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=_environment(device),
            ).returncode
        if status:
            raise InputError(f"{step.command}: {_last_words(folder / 'log.txt')} (exit status {status})")
        done.touch()
    return json.loads((output / step.results).read_text(encoding="utf-8"))


def _environment(device):
    kept = {name: value for name, value in os.environ.items() if not _LAUNCHER.match(name)}
    if device is not None and torch.cuda.device_count() > device:
        visible = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")
        kept["CUDA_VISIBLE_DEVICES"] = visible[device] if visible != [""] else str(device)
    return kept | {"COLUMNS": "200"}  # errors in one line


def _last_words(log):
    """The last line of a log that says something: a command's error, or the end of a traceback."""
    lines = [line.strip() for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    errors = [match for line in lines if (match := _ERROR.match(line))]
    return errors[-1]["said"] or errors[-1]["raised"] if errors else (lines or ["it said nothing"])[-1]


def _content(source):
    """What a model is: the digest of the weights and configuration in a folder, or else its name."""
    folder = Path(BUNDLED_CHECKPOINTS.get(source, source)).expanduser()
    if not folder.is_dir():
        return source
    digest = hashlib.sha256()
    for path in sorted(folder.iterdir()):
        if path.suffix in (".json", ".safetensors", ".bin") and path.name not in ("results.json", "trainer_state.json"):
            digest.update(path.name.encode() + path.read_bytes())
    return digest.hexdigest()
