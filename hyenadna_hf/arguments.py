"""Command lines: arguments from dataclasses, with help that tells defaults and examples."""

import copy
import sys
from argparse import ArgumentDefaultsHelpFormatter

from transformers import HfArgumentParser

from .errors import InputError

_BOOLEANS = ("yes", "true", "t", "y", "1", "no", "false", "f", "n", "0")  # what HfArgumentParser reads as one


class CommandParser(HfArgumentParser):
    """
    The arguments of `hyenadna COMMAND`: the fields of dataclasses, and what `add_argument` adds.

    A field becomes an option of its name. Its metadata has the `help`, and may have:

    - `formerly` (`list[str]`): Names that the option had. They still work, with a note on stderr.
    - `positional` (`bool`): The value, a string, was given without an option. That still works, with a note on stderr.
        The field has no default, or the default `None`.

    Args:
        command (`str`): Its name.
        dataclasses (`type` or `list[type]`): Their fields become options.
        description (`str`): A sentence on the command.
        usage (`str`): The words after `hyenadna COMMAND` in the first line of the help.
        examples (`list[str]`): Command lines, without `hyenadna COMMAND`.
        kwargs: Passed to `argparse.ArgumentParser`.
    """

    def __init__(self, command, dataclasses, description, usage, examples, **kwargs):
        self._current = {}  # the present spelling of each former one
        self._positional = {}  # for each field whose value was positional: is it required?
        self._noted = set()
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

    def _parse_dataclass_field(self, parser, field):
        field, metadata = copy.copy(field), dict(field.metadata)
        for name in metadata.pop("formerly", ()):
            self._current |= dict.fromkeys((f"--{name}", f"--{name.replace('_', '-')}"), f"--{field.name}")
        positional = metadata.pop("positional", False)
        field.metadata = metadata
        super()._parse_dataclass_field(parser, field)
        if positional:
            option = self._option_string_actions[f"--{field.name}"]
            self._positional[field.name], option.required = option.required, False

    def parse(self, argv):
        """
        Parse a command line.

        Args:
            argv (`list[str]`): The words after `hyenadna COMMAND`.

        Returns:
            `tuple`: an instance of each dataclass, and the `Namespace` of what `add_argument` added.

        Raises:
            InputError: if an argument is unknown, missing or invalid.
        """
        try:
            *parsed, unknown = self.parse_args_into_dataclasses(argv, return_remaining_strings=True)
        except ValueError as error:  # of TrainingArguments
            raise InputError(" ".join(str(error).split())) from error
        if unknown:
            raise InputError(f"unknown argument {unknown[0]}; {self.prog} --help lists them all.")
        return tuple(parsed)

    def parse_known_args(self, args=None, namespace=None):
        """As `argparse.ArgumentParser.parse_known_args`, with former spellings."""
        words = self._in_present_spelling(sys.argv[1:] if args is None else args)
        namespace, unknown = super().parse_known_args(words, namespace)
        for name, required in self._positional.items():
            bare = unknown[:1] == ["-"] or (unknown and not unknown[0].startswith("-"))
            if getattr(namespace, name) is None and bare:
                value = unknown.pop(0)
                self._note(value, f"--{name} {value}")
                setattr(namespace, name, value)
            elif getattr(namespace, name) is None and required and not unknown:
                self.error(f"the following arguments are required: --{name}")
        return namespace, unknown

    def _in_present_spelling(self, words):
        present = []
        for word, following in zip(words, [*words[1:], ""]):
            option, equals, value = word.partition("=")
            if option in self._current:
                self._note(option, self._current[option])
                option = self._current[option]
            action = self._option_string_actions.get(option)
            if action is not None and action.const is True and not equals and following.lower() not in _BOOLEANS:
                equals, value = "=", "true"  # or else argparse would take a positional argument for its value
            present.append(f"{option}{equals}{value}")
        return present

    def _note(self, former, present):
        if former not in self._noted:
            self._noted.add(former)
            print(
                f"{self.prog}: {former} is now {present}; the old spelling will go in the next release.",
                file=sys.stderr,
            )

    def error(self, message):
        """Raise an `InputError`, where argparse prints the usage and ends the process."""
        raise InputError(f"{message}; {self.prog} --help lists the arguments.")


class _Help(ArgumentDefaultsHelpFormatter):
    """Tells defaults, unless there is none or the help has it in words; leaves the lines of examples as they are."""

    def _get_help_string(self, action):
        in_words = action.default in (None, "") or "efault" in (action.help or "")
        return action.help if in_words else super()._get_help_string(action)

    def _fill_text(self, text, width, indent):
        return text if "\n" in text else super()._fill_text(text, width, indent)
