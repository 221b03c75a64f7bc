"""`hyenadna completion`: print a static shell script, so that pressing TAB does not start Python."""

import argparse
import importlib
from typing import Any

from .parser import Parser

SHELLS = ("bash", "zsh", "tcsh")


def parser() -> Parser:
    """Build the argument parser of `hyenadna completion`."""
    parser = Parser(
        prog="hyenadna completion",
        description="Print a script that completes commands, arguments and file names in a shell.",
        epilog="Example, for bash: hyenadna completion bash > ~/.local/share/bash-completion/completions/hyenadna",
    )
    parser.add_argument("shell", choices=SHELLS, help="which shell the script is for")
    return parser


def main(argv: list[str]) -> dict[str, Any]:
    """Run `hyenadna completion` with the arguments `argv`."""
    script = completion(parser().parse_args(argv).shell)
    print(script)
    return {"script": script}


def completion(shell: str) -> str:
    """
    Generate the completion script of `hyenadna` for a shell, with shtab.

    Args:
        shell: One of `SHELLS`.
    """
    import shtab

    from . import COMMANDS

    hyenadna = argparse.ArgumentParser(prog="hyenadna")
    hyenadna.add_argument("--version", action="store_true", help="print the version")
    commands = hyenadna.add_subparsers(dest="command")
    for name, (module, help_) in COMMANDS.items():
        arguments = importlib.import_module(module).parser()
        for action in arguments._actions:
            if action.nargs != 0 and not action.choices:  # 0: a flag
                action.complete = shtab.FILE
        commands.add_parser(name, help=help_, parents=[arguments], add_help=False)
    return shtab.complete(hyenadna, shell)
