"""Command lines: arguments from dataclasses, with help that tells defaults and examples."""

from argparse import ArgumentDefaultsHelpFormatter

from transformers import HfArgumentParser

from .errors import InputError


class CommandParser(HfArgumentParser):
    """
    The arguments of `hyenadna COMMAND`: the fields of dataclasses, and what `add_argument` adds.

    Args:
        command (`str`): Its name.
        dataclasses (`type` or `list[type]`): Their fields become options; a field's metadata has its `help`.
        description (`str`): What the command does.
        usage (`str`): What stands behind `hyenadna COMMAND` in the first line of the help.
        examples (`list[str]`): Command lines, without `hyenadna COMMAND`.
        kwargs: As those of `argparse.ArgumentParser`.
    """

    def __init__(self, command, dataclasses, description, usage, examples, **kwargs):
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

    def parse(self, argv):
        """
        Parse a command line.

        Args:
            argv (`list[str]`): What stands behind `hyenadna COMMAND`.

        Returns:
            `tuple`: an instance of each dataclass, and the `Namespace` of what `add_argument` added.

        Raises:
            InputError: if there is an argument that the command does not have, or a dataclass refuses a value.
        """
        try:
            *parsed, unknown = self.parse_args_into_dataclasses(argv, return_remaining_strings=True)
        except ValueError as error:  # of TrainingArguments
            raise InputError(" ".join(str(error).split())) from error
        if unknown:
            raise InputError(f"unknown argument {unknown[0]}; {self.prog} --help lists them all.")
        return tuple(parsed)


class _Help(ArgumentDefaultsHelpFormatter):
    """Tells defaults, unless there is none or the help has it in words; leaves the lines of examples as they are."""

    def _get_help_string(self, action):
        in_words = action.default in (None, "") or "efault" in (action.help or "")
        return action.help if in_words else super()._get_help_string(action)

    def _fill_text(self, text, width, indent):
        return text if "\n" in text else super()._fill_text(text, width, indent)
