"""Arguments, checks, output folder and checkpoints shared by all training commands."""

import json
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from transformers import PreTrainedModel, Trainer, TrainerCallback, TrainingArguments
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR, get_last_checkpoint

from ..baselines.cnn import CNNConfig
from ..baselines.dilated_cnn import DilatedCNNConfig
from ..baselines.gpt import GPTConfig
from ..errors import InputError
from ..jobs import has_other_files, output_folder, parts_folder, writing_folder
from ..model.configuration_hyenadna import HyenaDNAConfig
from ..processes import SingleProcess, has_accelerator, has_fast_bfloat16
from .ema import UNAVERAGED_FILE, EMACallback

# Arguments of transformers that the commands support only in part: supported values, and the reason.
UNSUITABLE = {
    "batch_eval_metrics": ((False,), "the metrics need a whole split, not batches"),
    "dataloader_drop_last": ((False,), "it would also skip the last sequences of an evaluation"),
    "eval_do_concat_batches": ((True,), "the metrics need a whole split, not batches"),
    "label_names": ((None, ["labels"]), "the only label column of the batches is labels"),
    "prediction_loss_only": ((False,), "the metrics need predictions"),
}
OUR_CONFIGS = (HyenaDNAConfig, GPTConfig, CNNConfig, DilatedCNNConfig)
OUR_TYPES = tuple(config_class.model_type for config_class in OUR_CONFIGS)


@dataclass
class RunArguments(TrainingArguments):
    """
    Arguments of transformers, with a floor for the cosine schedule, and with bfloat16 by default where it is faster.
    """

    bf16: bool | None = field(
        default=None,
        metadata={
            "help": "Compute in bfloat16, keep weights in float32 (default: if this is faster on the device, unless "
            "--fp16, --deepspeed or a launcher such as accelerate sets the precision)."
        },
    )
    lr_scheduler_type: str = field(default="cosine_with_min_lr", metadata={"help": "Learning rate schedule."})
    min_lr_rate: float = field(
        default=0.0, metadata={"help": "Final learning rate of cosine_with_min_lr, as a fraction of the peak, 0 to 1."}
    )
    warmup_steps: float = field(default=0.1, metadata={"help": "Warm-up steps; below 1, a fraction of all steps."})
    muon_learning_rate: float | None = field(
        default=None,
        metadata={
            "help": "Update the weight matrices of the blocks with Muon, at this peak learning rate (such as twice "
            "--learning_rate), and all other parameters with --optim; 0: no Muon (default: no Muon)."
        },
    )
    ema_decay: float | None = field(
        default=None,
        metadata={
            "help": "Evaluate and save an exponential moving average of the weights with this decay (such as 0.999)."
        },
    )
    save_total_limit: int | None = field(default=1, metadata={"help": "Number of checkpoints to keep."})
    report_to: str | None = field(default="none", metadata={"help": "Trackers to report to."})
    dataloader_pin_memory: bool = field(default=torch.cuda.is_available(), metadata={"help": "Pin memory for the GPU."})

    def __post_init__(self) -> None:
        if not has_accelerator():
            self.use_cpu = True  # otherwise transformers refuses --bf16 on a CPU
        if self.bf16 is None:
            is_precision_set = self.fp16 or self.deepspeed or "ACCELERATE_MIXED_PRECISION" in os.environ
            self.bf16 = not is_precision_set and has_fast_bfloat16(self.use_cpu)
        if 0 < self.warmup_steps < 1 and hasattr(self, "warmup_ratio"):  # transformers 4
            self.warmup_ratio, self.warmup_steps = self.warmup_steps, 0
        if not 0 <= self.min_lr_rate <= 1:
            raise InputError(f"--min_lr_rate {self.min_lr_rate}: give 0 to 1.")
        if self.lr_scheduler_type == "cosine_with_min_lr" and not self.lr_scheduler_kwargs:  # type: ignore[has-type]
            self.lr_scheduler_kwargs = {"min_lr_rate": self.min_lr_rate}
        super().__post_init__()


def check_trainer_arguments(args: RunArguments) -> None:
    """Raise an `InputError` for arguments of transformers with which a command would fail or mislead."""
    if not 0 <= args.label_smoothing_factor < 1:
        raise InputError(f"--label_smoothing_factor {args.label_smoothing_factor}: give a number from 0 to below 1.")
    if args.ema_decay is not None and not 0 < args.ema_decay < 1:
        raise InputError(f"--ema_decay {args.ema_decay}: give a number between 0 and 1, such as 0.999.")
    if args.ema_decay is not None and (args.fsdp or args.deepspeed):
        raise InputError(f"--ema_decay {args.ema_decay}: sharded parameters cannot be averaged; omit it.")
    _check_muon(args)
    for name, (suitable, reason) in UNSUITABLE.items():
        value = getattr(args, name)
        if value not in suitable:
            raise InputError(f"--{name} {value}: {reason}; omit it.")


def _check_muon(args: RunArguments) -> None:
    if not args.muon_learning_rate:
        return
    option = f"--muon_learning_rate {args.muon_learning_rate}"
    if not args.muon_learning_rate >= 0:
        raise InputError(f"{option}: give at least 0.")
    obstacle = find_muon_obstacle(args)
    if obstacle is not None:
        raise InputError(f"{option}: {obstacle}.")


def find_muon_obstacle(args: RunArguments) -> str | None:
    """Return the reason why Muon cannot be used, with the remedy, or `None`."""
    if args.fsdp or args.deepspeed:
        return "Muon needs whole matrices, which are sharded here; omit it"
    return None


def check_model_arguments(args: RunArguments, model: PreTrainedModel) -> None:
    """Raise an `InputError` for arguments of transformers that would fail or have no effect with this model."""
    kind = model.config.model_type
    if args.use_liger_kernel and kind in OUR_TYPES:
        raise InputError(
            f"--use_liger_kernel: Liger has no kernels for a {kind} model, so this has no effect; omit it."
        )
    if args.neftune_noise_alpha is not None:
        try:
            model.get_input_embeddings()
        except NotImplementedError as error:
            raise InputError(
                f"--neftune_noise_alpha {args.neftune_noise_alpha}: a {kind} model has no embeddings to add noise to; "
                "leave it out."
            ) from error


def check_output_folder(path: str | Path, results_file: str) -> None:
    """
    Raise an `InputError` if an output folder contains files that are not from such a run.

    Args:
        path: The folder; it need not exist.
        results_file: File that identifies a folder of such a run; parts of a job that writes it, or a checkpoint of a
            Trainer, do too.

    Raises:
        InputError: If the path is a file, or the folder contains other files.
    """
    path = output_folder("--output_dir", path)
    results = path / results_file
    is_ours = results.is_file() or parts_folder(results).is_dir()
    is_ours = is_ours or (path.is_dir() and get_last_checkpoint(path) is not None)
    if path.is_dir() and has_other_files(path) and not is_ours:
        raise InputError(f"--output_dir {path}: the folder contains other files; give an empty or a new one.")


def check_run_folder(args: RunArguments, results_file: str) -> None:
    """
    Raise an `InputError` if the output folder contains other files, or the checkpoint to resume from is unsuitable.

    Args:
        args: Arguments with `output_dir` and `resume_from_checkpoint`.
        results_file: File that identifies a folder of such a run.

    Raises:
        InputError: If the folder or the checkpoint is unsuitable.
    """
    check_output_folder(args.output_dir, results_file)
    checkpoint = checkpoint_to_resume(args)
    if args.resume_from_checkpoint and not checkpoint:
        raise InputError(f"--resume_from_checkpoint {args.resume_from_checkpoint}: there is no such checkpoint.")
    if checkpoint and (Path(checkpoint) / UNAVERAGED_FILE).is_file() != (args.ema_decay is not None):
        raise InputError(
            f"--resume_from_checkpoint {checkpoint}: give --ema_decay if, and only if, the run started with it."
        )


def averaging_callbacks(args: RunArguments) -> list[TrainerCallback]:
    """List the callbacks for `--ema_decay`: one, or none without it."""
    return [] if args.ema_decay is None else [EMACallback(args.ema_decay, checkpoint_to_resume(args))]


@contextmanager
def writing(folder: str | Path, first: bool = True) -> Iterator[None]:
    """
    Lock an output folder during training, and remove incomplete checkpoints after an error.

    Args:
        folder: Output folder, created if it does not exist.
        first: Whether this is the first of the processes that train together.

    Raises:
        InputError: If another run is writing to the folder.
        OSError: If the folder cannot be written. The error names it.
    """
    if not first:
        yield
        return
    folder = Path(folder)
    with writing_folder(folder, "--output_dir", SingleProcess()), whole_checkpoints(folder):
        yield


@contextmanager
def whole_checkpoints(folder: Path) -> Iterator[None]:
    """Remove the incomplete checkpoints in a folder after an error."""
    try:
        yield
    except BaseException:
        for checkpoint in folder.rglob(f"{PREFIX_CHECKPOINT_DIR}-*/"):
            if not _load_state(checkpoint):
                shutil.rmtree(checkpoint)
        raise


def train(trainer: Trainer, saving: AbstractContextManager[None] | None = None) -> float:
    """
    Train from the start or from the checkpoint to resume from, and save the model.

    Args:
        trainer: Trainer of the run.
        saving: Context to save the trained model in.

    Returns:
        The training time in seconds.
    """
    checkpoint, max_steps = checkpoint_to_resume(trainer.args), trainer.args.max_steps
    if checkpoint is not None and 0 < max_steps <= _load_state(checkpoint).get("global_step", 0):
        trainer.get_train_dataloader = list  # no batches, otherwise the Trainer makes one more step
    result = trainer.train(resume_from_checkpoint=checkpoint)
    with saving or nullcontext():
        trainer.save_model()
    return result.metrics["train_runtime"]


def checkpoint_to_resume(args: RunArguments) -> str | None:
    """
    Return the folder to resume from, or `None`; `--resume_from_checkpoint true` selects the last one in `output_dir`.
    """
    requested = args.resume_from_checkpoint
    if not requested:
        return None
    if str(requested).lower() == "true":
        return last_whole_checkpoint(args.output_dir)
    return requested if Path(requested).is_dir() else None


def last_whole_checkpoint(folder: str | Path) -> str | None:
    """Return the last complete checkpoint of a Trainer in a folder, or `None` if there is none."""
    complete = [path for path in Path(folder).glob(f"{PREFIX_CHECKPOINT_DIR}-*/") if _load_state(path)]
    return str(max(complete, key=lambda path: int(path.name.rpartition("-")[2]))) if complete else None


def _load_state(checkpoint: str | Path) -> dict[str, Any]:
    """
    Load the Trainer state of a checkpoint; empty if the checkpoint is incomplete, since the state is written last.
    """
    try:
        return json.loads((Path(checkpoint) / "trainer_state.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}


def print_where(console: Console, folder: Path, auto_class: str, started: float) -> None:
    """Print how long a command took, the location of its checkpoint, and the line that loads it."""
    console.print(f"Took {time.monotonic() - started:.0f} s. The checkpoint is in {folder}/; to use it anywhere:")
    console.print(f'  {auto_class}.from_pretrained("{folder}", trust_remote_code=True)', soft_wrap=True)
