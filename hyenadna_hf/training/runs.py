"""What training runs have in common: arguments, the folder, and where a run goes on."""

from dataclasses import dataclass, field
from pathlib import Path

import torch
from transformers import TrainingArguments
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR, get_last_checkpoint

from ..baselines.cnn import CNNConfig
from ..baselines.gpt import GPTConfig
from ..errors import InputError
from ..inference.command import has_accelerator
from ..model.configuration_hyenadna import HyenaDNAConfig

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
    """Those of transformers, which also take a floor of the cosine schedule, and `bf16` where there is only a CPU."""

    lr_scheduler_type: str = field(default="cosine_with_min_lr", metadata={"help": "Learning rate schedule."})
    min_lr_rate: float = field(
        default=0.0, metadata={"help": "Where cosine_with_min_lr ends, as a share of the peak, 0 to 1."}
    )
    warmup_steps: float = field(default=0.1, metadata={"help": "Steps of warm-up; below 1, a share of all steps."})
    save_total_limit: int | None = field(default=1, metadata={"help": "How many checkpoints to keep."})
    report_to: str | None = field(default="none", metadata={"help": "Trackers to report to."})
    dataloader_pin_memory: bool = field(default=torch.cuda.is_available(), metadata={"help": "Pin memory for the GPU."})

    def __post_init__(self):
        self.use_cpu = self.use_cpu or not has_accelerator()  # or else --bf16 is refused there
        if 0 < self.warmup_steps < 1 and hasattr(self, "warmup_ratio"):  # transformers 4
            self.warmup_ratio, self.warmup_steps = self.warmup_steps, 0
        if not 0 <= self.min_lr_rate <= 1:
            raise InputError(f"--min_lr_rate {self.min_lr_rate}: give 0 to 1.")
        if self.lr_scheduler_type == "cosine_with_min_lr" and not self.lr_scheduler_kwargs:
            self.lr_scheduler_kwargs = {"min_lr_rate": self.min_lr_rate}
        super().__post_init__()


def check_trainer_arguments(args):
    """Refuse, by an `InputError`, arguments of transformers with which a command would fail or mislead."""
    if not 0 <= args.label_smoothing_factor < 1:
        raise InputError(f"--label_smoothing_factor {args.label_smoothing_factor}: give at least 0 and less than 1.")
    for name, (suitable, reason) in UNSUITABLE.items():
        value = getattr(args, name)
        if value not in suitable:
            raise InputError(f"--{name} {value}: {reason}; leave it out.")


def check_model_arguments(args, model):
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


def check_output_folder(path, results_file):
    """
    Refuse an output folder that holds something else than what is made there.

    Args:
        path (`str` or `Path`): The folder; it need not be there yet.
        results_file (`str`): The file that what is made there leaves; a checkpoint of a Trainer will do, too.

    Raises:
        InputError: saying what is wrong.
    """
    path = Path(path)
    if path.is_file():
        raise InputError(f"--output_dir {path}: this is a file; name a folder.")
    is_ours = path.is_dir() and ((path / results_file).is_file() or get_last_checkpoint(path) is not None)
    if path.is_dir() and any(path.iterdir()) and not is_ours:
        raise InputError(f"--output_dir {path}: the folder holds something else; name an empty or a new one.")


def check_run_folder(args, results_file):
    """
    Refuse an output folder that holds something else than such a run, or has no checkpoint to resume from.

    Args:
        args (`TrainingArguments`): Gives `output_dir` and `resume_from_checkpoint`.
        results_file (`str`): The file that a finished run leaves there.

    Raises:
        InputError: saying what is wrong.
    """
    check_output_folder(args.output_dir, results_file)
    if args.resume_from_checkpoint and not checkpoint_to_resume(args):
        raise InputError(f"--resume_from_checkpoint {args.resume_from_checkpoint}: there is no such checkpoint.")


def checkpoint_to_resume(args):
    """The folder to resume from, or `None`; `--resume_from_checkpoint true` means the last one in `output_dir`."""
    asked = args.resume_from_checkpoint
    if not asked:
        return None
    if str(asked).lower() == "true":
        return last_whole_checkpoint(args.output_dir)
    return asked if Path(asked).is_dir() else None


def last_whole_checkpoint(folder):
    """The last checkpoint that a Trainer wrote to its end in a folder, as `str`; `None` if there is none."""
    # The state is what it writes last.
    whole = [path.parent for path in Path(folder).glob(f"{PREFIX_CHECKPOINT_DIR}-*/trainer_state.json")]
    return str(max(whole, key=lambda path: int(path.name.rpartition("-")[2]))) if whole else None
