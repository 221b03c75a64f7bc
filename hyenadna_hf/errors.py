"""Errors that the command line prints in one line, without a traceback, with their exit statuses."""

import errno
import os
import re
from typing import Any


def shorten_list(names: list[str], shown: int) -> str:
    """Join names for a message, and count those after the first `shown`."""
    return ", ".join(names[:shown]) + (f" and {len(names) - shown:,} more" if len(names) > shown else "")


class InputError(ValueError):
    """Invalid input. The message is one sentence that names the argument or file, its value and the remedy."""

    exit_status = 2


class WorkError(RuntimeError):
    """
    Failure of valid work.

    Args:
        message: One sentence.
        result: Partial result, which `--json` prints with the error.
    """

    exit_status = 1

    def __init__(self, message: str, result: dict[str, Any] | None = None) -> None:
        super().__init__(message)
        self.result = result or {}


def system_error(error: Exception) -> OSError | None:
    """
    Find the operating system error that caused an exception.

    Args:
        error: Any exception. Libraries in Rust and C++ (safetensors, tokenizers, torch) raise their own types when,
            for example, the disk is full.

    Returns:
        The `OSError`, or `None` if the exception has another cause.
    """
    if isinstance(error, OSError):
        return error
    number = re.search(r"\(os error (\d+)\)", str(error))
    if number:
        return OSError(int(number[1]), os.strerror(int(number[1])))
    if re.search("PytorchStreamWriter|inline_container.*unexpected pos", str(error)):  # these state no cause
        return OSError(errno.EIO, "the file cannot be written; check the free disk space")
    return None
