"""The folder of a training run: what may be in it, and where a run goes on."""

from pathlib import Path

from transformers.trainer_utils import get_last_checkpoint

from ..errors import InputError


def check_run_folder(args, results_file):
    """
    Refuse an output folder that holds something else than such a run, or has no checkpoint to resume from.

    Args:
        args (`TrainingArguments`): Gives `output_dir` and `resume_from_checkpoint`.
        results_file (`str`): The file that a finished run leaves there.

    Raises:
        InputError: saying what is wrong.
    """
    path = Path(args.output_dir)
    if path.is_file():
        raise InputError(f"--output_dir {path}: this is a file; name a folder.")
    is_run = path.is_dir() and ((path / results_file).is_file() or get_last_checkpoint(path) is not None)
    if path.is_dir() and any(path.iterdir()) and not is_run:
        raise InputError(f"--output_dir {path}: the folder holds something else; name an empty or a new one.")
    if args.resume_from_checkpoint and not checkpoint_to_resume(args):
        raise InputError(f"--resume_from_checkpoint {args.resume_from_checkpoint}: there is no such checkpoint.")


def checkpoint_to_resume(args):
    """The folder to resume from, or `None`; `--resume_from_checkpoint true` means the last one in `output_dir`."""
    asked = args.resume_from_checkpoint
    if not asked:
        return None
    if str(asked).lower() == "true":
        return get_last_checkpoint(args.output_dir) if Path(args.output_dir).is_dir() else None
    return asked if Path(asked).is_dir() else None
