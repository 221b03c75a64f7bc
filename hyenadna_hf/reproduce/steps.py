"""What commands that only tables run have in common: `python -m hyenadna_hf.reproduce.NAME`."""

import sys

from transformers import HfArgumentParser

from ..errors import InputError


def parse(name, description, dataclasses, argv):
    """
    Parse the arguments of such a command.

    Args:
        name (`str`): Its module.
        description (`str`): Of the module.
        dataclasses (`type` or `tuple[type]`): Their fields are the options.
        argv (`list[str]`): The words of the command line.

    Returns:
        `tuple`: an instance of each of `dataclasses`.

    Raises:
        InputError: if an argument is unknown.
    """
    parser = HfArgumentParser(dataclasses, prog=f"hyenadna_hf.reproduce.{name}", description=description)
    *parsed, unknown = parser.parse_args_into_dataclasses(argv, return_remaining_strings=True)
    if unknown:
        raise InputError(f"unknown argument {unknown[0]}; --help lists them all.")
    return tuple(parsed)


def run(name, main):
    """Run such a command with the arguments of this process. An `InputError` is one line, with exit status 2."""
    try:
        main(sys.argv[1:])
    except InputError as error:
        print(f"hyenadna_hf.reproduce.{name}: error: {error}", file=sys.stderr)
        sys.exit(2)
