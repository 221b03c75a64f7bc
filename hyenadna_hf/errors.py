"""Errors that the command line prints as one line, without a traceback, and their exit statuses."""

import errno
import os
import re


class InputError(ValueError):
    """Bad input, in one sentence that names the argument or file, its value and the remedy."""

    exit_status = 2


class WorkError(RuntimeError):
    """
    Work that failed, in one sentence.

    Args:
        message (`str`): The sentence.
        result (`dict`, *optional*): What was done all the same; `--json` prints it with the error.
    """

    exit_status = 1

    def __init__(self, message, result=None):
        super().__init__(message)
        self.result = result or {}


def system_error(error):
    """
    The error of the operating system behind an exception.

    Args:
        error (`Exception`): Libraries in Rust and C++ (safetensors, tokenizers, torch) raise exceptions of their own
            when a disk is full.

    Returns:
        `OSError`, or `None` if the exception has another cause.
    """
    if isinstance(error, OSError):
        return error
    number = re.search(r"\(os error (\d+)\)", str(error))
    if number:
        return OSError(int(number[1]), os.strerror(int(number[1])))
    if re.search("PytorchStreamWriter|inline_container.*unexpected pos", str(error)):  # which name no cause
        return OSError(errno.EIO, "the file cannot be written; check the space on the disk")
    return None
