"""Arguments, checks, output folder and checkpoints that all training runs share."""

import json
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import torch
from transformers import PreTrainedModel, Trainer, TrainingArguments
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR, get_last_checkpoint

from ..baselines.cnn import CNNConfig
from ..baselines.gpt import GPTConfig
from ..errors import InputError
from ..jobs import errors_naming, has_other_files, locked
from ..model.configuration_hyenadna import HyenaDNAConfig
from ..processes import has_accelerator, has_fast_bfloat16
from .ema import UNAVERAGED_FILE, EMACallback

# Arguments of transformers that the commands cannot honour: the values that they can, and why not the others.
UNSUITABLE = {
    "batch_eval_metrics": ((False,), "the metrics are those of a whole split, not of batches"),
    "dataloader_drop_last": ((False,), "it would leave out the last sequences of an evaluation, too"),
    "eval_do_concat_batches": ((True,), "the metrics are those of a whole split, not of batches"),
    "label_names": ((None, ["labels"]), "the batches have no other than labels"),
    "prediction_loss_only": ((False,), "the metrics need predictions"),
}
OUR_TYPES = tuple(config_class.model_type for config_class in (HyenaDNAConfig, GPTConfig, CNNConfig))


@dataclass
class RunArguments(TrainingArguments):
    """Those of transformers, with a floor of the cosine schedule, and `bf16` by default where that is faster."""

    bf16: bool | None = field(
        default=None,
        metadata={
            "help": "Compute in bfloat16, keep weights in float32 (default: where the device is faster so, unless "
            "--fp16, --deepspeed or a launcher such as accelerate says the precision)."
        },
    )
    lr_scheduler_type: str = field(default="cosine_with_min_lr", metadata={"help": "Learning rate schedule."})
    min_lr_rate: float = field(
        default=0.0, metadata={"help": "Where cosine_with_min_lr ends, as a share of the peak, 0 to 1."}
    )
    warmup_steps: float = field(default=0.1, metadata={"help": "Steps of warm-up; below 1, a share of all steps."})
    muon_learning_rate: float | None = field(
        default=None,
        metadata={
            "help": "Update the weight matrices of the blocks by Muon, with this peak learning rate (such as twice "
            "--learning_rate), and all else by --optim (default: no Muon)."
        },
    )
    ema_decay: float | None = field(
        default=None,
        metadata={
            "help": "Evaluate and save an average of the weights over the steps, with this decay (such as 0.999)."
        },
    )
    save_total_limit: int | None = field(default=1, metadata={"help": "How many checkpoints to keep."})
    report_to: str | None = field(default="none", metadata={"help": "Trackers to report to."})
    dataloader_pin_memory: bool = field(default=torch.cuda.is_available(), metadata={"help": "Pin memory for the GPU."})

    def __post_init__(self) -> None:
        self.use_cpu = self.use_cpu or not has_accelerator()  # or else --bf16 is refused there
        if self.bf16 is None:
            is_said = self.fp16 or self.deepspeed or "ACCELERATE_MIXED_PRECISION" in os.environ
            self.bf16 = not is_said and has_fast_bfloat16(self.use_cpu)
        if 0 < self.warmup_steps < 1 and hasattr(self, "warmup_ratio"):  # transformers 4
            self.warmup_ratio, self.warmup_steps = self.warmup_steps, 0
        if not 0 <= self.min_lr_rate <= 1:
            raise InputError(f"--min_lr_rate {self.min_lr_rate}: give 0 to 1.")
        if self.lr_scheduler_type == "cosine_with_min_lr" and not self.lr_scheduler_kwargs:
            self.lr_scheduler_kwargs = {"min_lr_rate": self.min_lr_rate}
        super().__post_init__()


def check_trainer_arguments(args) -> None:
    """Refuse, by an `InputError`, arguments of transformers with which a command would fail or mislead."""
    if not 0 <= args.label_smoothing_factor < 1:
        raise InputError(f"--label_smoothing_factor {args.label_smoothing_factor}: give at least 0 and less than 1.")
    if args.ema_decay is not None and not 0 < args.ema_decay < 1:
        raise InputError(f"--ema_decay {args.ema_decay}: give a number between 0 and 1, such as 0.999.")
    if args.ema_decay is not None and (args.fsdp or args.deepspeed):
        raise InputError(f"--ema_decay {args.ema_decay}: sharded parameters cannot be averaged; leave it out.")
    if args.muon_learning_rate is not None:
        _check_muon(args)
    for name, (suitable, reason) in UNSUITABLE.items():
        value = getattr(args, name)
        if value not in suitable:
            raise InputError(f"--{name} {value}: {reason}; leave it out.")


def _check_muon(args) -> None:
    given = f"--muon_learning_rate {args.muon_learning_rate}"
    if not args.muon_learning_rate >= 0:
        raise InputError(f"{given}: give 0 or more.")
    if args.fsdp or args.deepspeed:
        raise InputError(f"{given}: Muon needs whole matrices, which are sharded here; leave it out.")
    if not hasattr(torch.optim, "Muon"):
        raise InputError(f"{given}: PyTorch {torch.__version__} has no Muon; update it (2.9 or later).")


def check_model_arguments(args, model: PreTrainedModel) -> None:
    """Refuse, by an `InputError`, arguments of transformers that would fail or do nothing with this model."""
    kind = model.config.model_type
    if args.use_liger_kernel and kind in OUR_TYPES:
        raise InputError(
            f"--use_liger_kernel: Liger has no kernels for a {kind} model, so it would change nothing; leave it out."
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
    Refuse an output folder that contains other files than those of such a run.

    Args:
        path: The folder; it need not exist.
        results_file: The file by which a folder of such a run is known; a checkpoint of a Trainer is enough.

    Raises:
        InputError: If it is a file, or contains other files.
    """
    path = Path(path)
    if path.is_file():
        raise InputError(f"--output_dir {path}: this is a file; name a folder.")
    is_ours = path.is_dir() and ((path / results_file).is_file() or get_last_checkpoint(path) is not None)
    if path.is_dir() and has_other_files(path) and not is_ours:
        raise InputError(f"--output_dir {path}: the folder contains other files; name an empty or a new one.")


def check_run_folder(args: TrainingArguments, results_file: str) -> None:
    """
    Refuse an output folder that contains other files than those of such a run, or a checkpoint that cannot be resumed.

    Args:
        args: Their `output_dir` and `resume_from_checkpoint` are checked.
        results_file: The file by which a folder of such a run is known.

    Raises:
        InputError: If the folder or the checkpoint is not suitable.
    """
    check_output_folder(args.output_dir, results_file)
    checkpoint = checkpoint_to_resume(args)
    if args.resume_from_checkpoint and not checkpoint:
        raise InputError(f"--resume_from_checkpoint {args.resume_from_checkpoint}: there is no such checkpoint.")
    if checkpoint and (Path(checkpoint) / UNAVERAGED_FILE).is_file() != (args.ema_decay is not None):
        raise InputError(f"--resume_from_checkpoint {checkpoint}: give --ema_decay as the run began, or leave it out.")


def averaging(args):
    """List the callbacks that `--ema_decay` needs: one, or none without it."""
    return [] if args.ema_decay is None else [EMACallback(args.ema_decay, checkpoint_to_resume(args))]


@contextmanager
def writing(folder: str | Path, first: bool = True) -> Iterator[None]:
    """
    Train in an output folder, which a second run is refused meanwhile. After an error there is no cut checkpoint.

    Args:
        folder: The output folder, made if it is absent.
        first: Whether this is the first of the processes that train together.

    Raises:
        InputError: If another run writes there.
        OSError: Naming the folder if it cannot be written.
    """
    if not first:
        yield
        return
    folder = Path(folder)
    with errors_naming(folder), locked(folder, f"--output_dir {folder}"):
        try:
            yield
        except BaseException:
            for checkpoint in folder.rglob(f"{PREFIX_CHECKPOINT_DIR}-*/"):
                if not _state_of(checkpoint):
                    shutil.rmtree(checkpoint)
            raise


def train(trainer: Trainer) -> float:
    """
    Train from the beginning or from the checkpoint to resume, and save the model.

    Args:
        trainer: Ready to train.

    Returns:
        The seconds of training.
    """
    checkpoint, most = checkpoint_to_resume(trainer.args), trainer.args.max_steps
    if checkpoint is not None and 0 < most <= _state_of(checkpoint).get("global_step", 0):
        trainer.get_train_dataloader = list  # without batches, or else the Trainer would make one more step
    trained = trainer.train(resume_from_checkpoint=checkpoint)
    trainer.save_model()
    return trained.metrics["train_runtime"]


def checkpoint_to_resume(args):
    """The folder to resume from, or `None`; `--resume_from_checkpoint true` means the last one in `output_dir`."""
    asked = args.resume_from_checkpoint
    if not asked:
        return None
    if str(asked).lower() == "true":
        return last_whole_checkpoint(args.output_dir)
    return asked if Path(asked).is_dir() else None


def last_whole_checkpoint(folder: Path):
    """The last complete checkpoint of a Trainer in a folder, as `str`; `None` if there is none."""
    whole = [path for path in Path(folder).glob(f"{PREFIX_CHECKPOINT_DIR}-*/") if _state_of(path)]
    return str(max(whole, key=lambda path: int(path.name.rpartition("-")[2]))) if whole else None


def _state_of(checkpoint):
    """The state in a checkpoint of a Trainer, a `dict`; empty if the checkpoint is not whole: the state comes last."""
    try:
        return json.loads((Path(checkpoint) / "trainer_state.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}


def print_where(console, folder: Path, auto_class, started) -> None:
    """Print how long a command took, where its checkpoint is, and the line that loads it."""
    console.print(f"Took {time.monotonic() - started:.0f} s. The checkpoint is in {folder}/; to use it anywhere:")
    console.print(f'  {auto_class}.from_pretrained("{folder}", trust_remote_code=True)', soft_wrap=True)
