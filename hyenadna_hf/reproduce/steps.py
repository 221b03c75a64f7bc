"""Shared code of the commands that only tables run: `python -m hyenadna_hf.reproduce.NAME`."""

import sys
from collections.abc import Callable
from typing import Any

from transformers import HfArgumentParser

from ..errors import InputError


def parse(name: str, description: str | None, dataclasses: Any, argv: list[str]) -> tuple[Any, ...]:
    """
    Parse the arguments of such a command.

    Args:
        name: Name of its module.
        description: Description for `--help`.
        dataclasses: Dataclass or dataclasses whose fields are the options.
        argv: Words of the command line.

    Returns:
        An instance of each dataclass.

    Raises:
        InputError: If an argument is unknown.
    """
    parser = HfArgumentParser(dataclasses, prog=f"hyenadna_hf.reproduce.{name}", description=description)
    *parsed, unknown = parser.parse_args_into_dataclasses(argv, return_remaining_strings=True)
    if unknown:
        raise InputError(f"unknown argument {unknown[0]}; --help lists them all.")
    return tuple(parsed)


def run(name: str, main: Callable[[list[str]], Any]) -> None:
    """Run such a command with the arguments of this process; exit with status 2 and one line on an `InputError`."""
    try:
        main(sys.argv[1:])
    except InputError as error:
        print(f"hyenadna_hf.reproduce.{name}: error: {error}", file=sys.stderr)
        sys.exit(2)
