"""Cells of a table: the commands that each runs, its result in a file, and their distribution over ranks."""

import hashlib
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from .. import __version__
from ..errors import InputError
from ..jobs import Job, write_text
from ..pretrained import BUNDLED_CHECKPOINTS
from ..processes import SingleProcess
from ..training.runs import last_whole_checkpoint
from .data import Data

# Variables that mark one of several processes; the commands of cells run alone.
_LAUNCHER = re.compile(r"(RANK|WORLD_SIZE|LOCAL_RANK|LOCAL_WORLD_SIZE|GROUP_|ROLE_|MASTER_|TORCHELASTIC_|ACCELERATE_)")

# The error line of a command, and the last line of a traceback.
_ERROR = re.compile(r"hyenadna[\w .-]*: error: (?P<message>.*)|(?P<exception>\w+(\.\w+)*(Error|Exception)\b.*)")
FIRST_OUTPUT = "FIRST_OUTPUT"


@dataclass(frozen=True)
class Step:
    """
    Command of a cell.

    Attributes:
        command: Subcommand of `hyenadna`.
        arguments: Its arguments, without `--output_dir`. [`FIRST_OUTPUT`] stands for the output folder of the first
            step of the cell.
        results: Name of the JSON file that it writes to `--output_dir`.
        resumes: Whether it is a training run, which can resume from a checkpoint.
    """

    command: str
    arguments: tuple[str, ...]
    results: str = "results.json"
    resumes: bool = False

    def words(self, first_output: str = FIRST_OUTPUT) -> list[str]:
        """Return the words of the command line."""
        is_module = self.command in ("probe", "bits")  # commands that only tables run
        module = [f"hyenadna_hf.reproduce.{self.command}"] if is_module else ["hyenadna_hf", self.command]
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

    @cached_property
    def identity(self) -> dict[str, Any]:
        """Everything that the result depends on: arguments, contents of data and model, and the version."""
        return {
            "version": __version__,
            "data": self.data.fingerprint,
            "model": _fingerprint(self.source),
            "steps": [[self._portable(word) for word in step.words()] for step in self.steps],
        }

    @property
    def key(self) -> str:
        """Digest of the identity."""
        return hashlib.sha256(json.dumps(self.identity, sort_keys=True).encode()).hexdigest()[:16]

    def _portable(self, word: str) -> str:
        """Replace the locations of data and model in a word of a command."""
        if word == self.source:
            return "MODEL"
        return word.replace(self.data.argument, "DATA") if word.startswith(self.data.argument) else word

    def path(self, out: Path) -> Path:
        """Return the path of the result."""
        name = re.sub(r"[^\w.-]+", "_", f"{self.dataset}-{self.model}-seed{self.seed}")
        return out / "cells" / f"{name}-{self.key}.json"

    def describe(self, **more: Any) -> dict[str, Any]:
        """Describe the cell before it has run, together with `more`."""
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

    def load(self, out: Path) -> dict[str, Any] | None:
        """Load the result, if it exists."""
        path = self.path(out)
        return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None


def share(cells: Sequence[Cell], rank: int, world_size: int) -> Sequence[Cell]:
    """Select the cells of a rank; each cell belongs to one rank, and their numbers differ by one at most."""
    return cells[rank::world_size]


def run(cell: Cell, out: Path, device: int | None = None) -> dict[str, Any]:
    """
    Run a cell as a [`~hyenadna_hf.jobs.Job`] whose parts are the results of its steps.

    The result is installed together with the plots of the cell. If a step fails, the reason is written instead, and the
    next run resumes with this step.

    Args:
        cell: The cell.
        out: Folder of the table.
        device: Index of the GPU to use among the visible ones.

    Returns:
        `metrics` by name, or `reason`; also `command`, `seconds`, and a description of the data.
    """
    started = time.monotonic()
    result, path = cell.describe(metrics={}), cell.path(out)

    def text() -> str:
        result["seconds"] = round(time.monotonic() - started, 1)
        return json.dumps(result, indent=2) + "\n"

    def finish(path: Path) -> None:
        for picture in job.folder.glob("*/*.png"):
            shutil.copy(picture, path.with_name(f"{path.stem}-{picture.name}"))
        path.write_text(text(), encoding="utf-8")

    path.parent.mkdir(parents=True, exist_ok=True)
    with Job(path, cell.identity, SingleProcess()) as job:
        try:
            for number, step in enumerate(cell.steps):
                part = job.part(number)
                if not part.exists():
                    write_text(part, json.dumps(_run_step(step, job.folder, number, device)))
                results = json.loads(part.read_text(encoding="utf-8"))
                result["metrics"].update(metrics(step.command, results))
                result.update({name: results[name] for name in ("start", "epochs") if name in results})
        except (InputError, OSError, KeyError) as error:
            del result["metrics"]
            result["reason"] = str(error)
            write_text(path, text())
        else:
            job.finish(finish)
    return result


def metrics(command: str, results: dict[str, Any]) -> dict[str, float]:
    """Select the metrics of a table from the results of a command."""
    if command == "finetune":
        return results["test"]["model"]
    if command == "pretrain":
        return {"pretraining_seconds": results["train_seconds"]}
    if command in ("soft-prompt", "few-shot"):
        return {_setting_name(row): row["accuracy"] for row in results["rows"] if "accuracy" in row}
    return results["metrics"]


def _setting_name(row: dict[str, Any]) -> str:
    (length, shots) = ((name, row[name]) for name in ("prompt_tokens", "tuning_samples", "shots") if name in row)
    return f"accuracy, {length[1]:,} {length[0].replace('_', ' ')}, {shots[1]:,} shots"


def _run_step(step: Step, folder: Path, number: int, device: int | None) -> dict[str, Any]:
    """Run a step, or resume it, in the folder of the job of its cell, and load its results."""
    output = folder / f"step-{number}"
    words = [*step.words(str(folder / "step-0")), "--output_dir", str(output)]
    if step.resumes and last_whole_checkpoint(output):
        words += ["--resume_from_checkpoint", "true"]
    elif step.resumes:
        shutil.rmtree(output, ignore_errors=True)  # left by a run that ended before its first checkpoint
    with open(folder / "log.txt", "w", encoding="utf-8") as log:
        status = subprocess.run(
            [sys.executable, *words[1:]],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env=_environment(device),
        ).returncode
    if status:
        raise InputError(f"{step.command}: {_find_error(folder / 'log.txt')} (exit status {status})")
    return json.loads((output / step.results).read_text(encoding="utf-8"))


def _environment(device: int | None) -> dict[str, str]:
    environment = {name: value for name, value in os.environ.items() if not _LAUNCHER.match(name)}
    if device is not None and torch.cuda.device_count() > device:
        visible = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")
        environment["CUDA_VISIBLE_DEVICES"] = visible[device] if visible != [""] else str(device)
    return environment | {"COLUMNS": "200"}  # keeps errors on one line


def _find_error(log: Path) -> str:
    """Return the last error in a log, of a command or of a traceback, or else its last line."""
    lines = [line.strip() for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    errors = [match for line in lines if (match := _ERROR.match(line))]
    return errors[-1]["message"] or errors[-1]["exception"] if errors else (lines or ["no output"])[-1]


def _fingerprint(source: str) -> str:
    """Return the digest of the weights and configuration in a folder, or else the name of the model."""
    folder = Path(BUNDLED_CHECKPOINTS.get(source, source)).expanduser()
    if not folder.is_dir():
        return source
    digest = hashlib.sha256()
    for path in sorted(folder.iterdir()):
        if path.suffix in (".json", ".safetensors", ".bin") and path.name not in ("results.json", "trainer_state.json"):
            digest.update(path.name.encode() + path.read_bytes())
    return digest.hexdigest()
