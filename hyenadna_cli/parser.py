"""Arguments of the commands that work without torch."""

import argparse


class ArgumentError(ValueError):
    """Arguments that a command does not take; `main` prints it in one line."""

    exit_status = 2


class Parser(argparse.ArgumentParser):
    """An `argparse.ArgumentParser` that raises its errors."""

    def error(self, message):
        """Raise an [`ArgumentError`], where argparse prints the usage and ends the process."""
        raise ArgumentError(f"{message}; {self.prog} --help lists the arguments.")
