"""Argument parser for the commands that work without torch."""

import argparse
from typing import NoReturn


class ArgumentError(ValueError):
    """Invalid arguments of a command; `main` prints the message in one line."""

    exit_status = 2


class Parser(argparse.ArgumentParser):
    """`argparse.ArgumentParser` that raises its errors."""

    def error(self, message: str) -> NoReturn:
        """Raise an [`ArgumentError`], where argparse would print the usage and exit."""
        raise ArgumentError(f"{message}; {self.prog} --help lists the arguments.")
