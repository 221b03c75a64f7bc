"""Command-line parsers built from dataclasses, with defaults and examples in the help."""

import copy
import sys
from argparse import Action, ArgumentDefaultsHelpFormatter, ArgumentParser, Namespace
from dataclasses import Field
from typing import Any, NoReturn

from transformers import HfArgumentParser

from .errors import InputError

_BOOLEANS = ("yes", "true", "t", "y", "1", "no", "false", "f", "n", "0")  # as HfArgumentParser reads them


class CommandParser(HfArgumentParser):
    """
    Parse the arguments of `hyenadna COMMAND`: dataclass fields, and arguments added with `add_argument`.

    Each field becomes an option of the same name. Its metadata contains the `help`, and optionally:

    - `formerly` (`list[str]`): Deprecated names of the option. They still work, with a note on stderr.
    - `positional` (`bool`): The value, a string, used to be a positional argument. This still works, with a note on
        stderr. The field must have no default, or the default `None`.

    Args:
        command: Name of the command.
        dataclasses: Dataclasses whose fields become options.
        description: One sentence about the command.
        usage: Text after `hyenadna COMMAND` in the usage line of the help.
        examples: Example command lines, without `hyenadna COMMAND`.
        kwargs: Passed on to `argparse.ArgumentParser`.
    """

    def __init__(
        self,
        command: str,
        dataclasses: type | list[type],
        description: str,
        usage: str,
        examples: list[str],
        **kwargs: Any,
    ) -> None:
        self._present_names: dict[str, str] = {}  # by deprecated name
        self._was_positional: dict[str, bool] = {}  # whether each field that used to be positional is required
        self._noted: set[str] = set()
        super().__init__(
            dataclasses,
            prog=f"hyenadna {command}",
            usage=f"hyenadna {command} {usage}",
            description=description,
            epilog="\n".join(["examples:", *(f"  hyenadna {command} {example}".rstrip() for example in examples)]),
            formatter_class=_Help,
            **kwargs,
        )
        self.add_argument("--json", action="store_true", help="Print the result as one JSON object on stdout.")

    def _parse_dataclass_field(self, parser: ArgumentParser, field: Field[Any]) -> None:
        field, metadata = copy.copy(field), dict(field.metadata)
        for name in metadata.pop("formerly", ()):
            self._present_names |= dict.fromkeys((f"--{name}", f"--{name.replace('_', '-')}"), f"--{field.name}")
        was_positional = metadata.pop("positional", False)
        field.metadata = metadata  # type: ignore[assignment]  # HfArgumentParser passes it on to add_argument
        super()._parse_dataclass_field(parser, field)
        if was_positional:
            option = self._option_string_actions[f"--{field.name}"]
            self._was_positional[field.name], option.required = option.required, False

    def parse(self, argv: list[str]) -> tuple[Any, ...]:
        """
        Parse a command line.

        Args:
            argv: Arguments after `hyenadna COMMAND`.

        Returns:
            An instance of each dataclass, and the `Namespace` of the arguments added with `add_argument`.

        Raises:
            InputError: If an argument is unknown, missing or invalid.
        """
        try:
            *parsed, unknown = self.parse_args_into_dataclasses(argv, return_remaining_strings=True)
        except ValueError as error:  # raised by TrainingArguments
            raise InputError(" ".join(str(error).split())) from error
        if unknown:
            raise InputError(f"unknown argument {unknown[0]}; {self.prog} --help lists all arguments.")
        return tuple(parsed)

    def parse_known_args(
        self, args: list[str] | None = None, namespace: Namespace | None = None
    ) -> tuple[Namespace, list[str]]:
        """Parse like `argparse.ArgumentParser.parse_known_args`, and accept deprecated names."""
        words = self._replace_deprecated_names(sys.argv[1:] if args is None else args)
        namespace, unknown = super().parse_known_args(words, namespace)
        for name, required in self._was_positional.items():
            is_value = unknown[:1] == ["-"] or (unknown and not unknown[0].startswith("-"))
            if getattr(namespace, name) is None and is_value:
                value = unknown.pop(0)
                self._note(value, f"--{name} {value}")
                setattr(namespace, name, value)
            elif getattr(namespace, name) is None and required and not unknown:
                self.error(f"the following arguments are required: --{name}")
        return namespace, unknown

    def _replace_deprecated_names(self, words: list[str]) -> list[str]:
        present = []
        for word, following in zip(words, [*words[1:], ""]):
            option, equals, value = word.partition("=")
            if option in self._present_names:
                self._note(option, self._present_names[option])
                option = self._present_names[option]
            action = self._option_string_actions.get(option)
            if action is not None and action.const is True and not equals and following.lower() not in _BOOLEANS:
                equals, value = "=", "true"  # otherwise argparse reads a positional argument as its value
            present.append(f"{option}{equals}{value}")
        return present

    def _note(self, deprecated: str, present: str) -> None:
        if deprecated not in self._noted:
            self._noted.add(deprecated)
            print(
                f"{self.prog}: {deprecated} is now {present}; the next release will not accept the old spelling.",
                file=sys.stderr,
            )

    def error(self, message: str) -> NoReturn:
        """Raise an `InputError`, where argparse would print the usage and exit."""
        raise InputError(f"{message}; {self.prog} --help lists the arguments.")


class _Help(ArgumentDefaultsHelpFormatter):
    """Append defaults, except those that are empty or part of the help text, and keep the line breaks of examples."""

    def _get_help_string(self, action: Action) -> str | None:
        is_complete = action.default in (None, "") or "efault" in (action.help or "")
        return action.help if is_complete else super()._get_help_string(action)

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        return text if "\n" in text else super()._fill_text(text, width, indent)
