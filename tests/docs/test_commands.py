"""Command lines in the README, docs/ and the cards name commands and options that exist, in their present spelling."""

import importlib
import re
import shlex
from functools import cache
from pathlib import Path

import pytest

from hyenadna_cli import COMMANDS

ROOT = Path(__file__).parents[2]
PAGES = [
    *(ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "examples" / "README.md"),
    *sorted((ROOT / "docs").glob("*.md")),
    *sorted((ROOT / "hyenadna_hf" / "pretrained").glob("*/README.md")),
]
START = re.compile(
    r"^(?: {4})?(?:torchrun |accelerate launch |zcat .* \| )?.*?(?:hyenadna|-m hyenadna_hf) ([a-z][\w-]*)(.*)"
)
PASSED_ON = {"reproduce": "finetune"}  # further options go to the command of each cell


@cache
def options(command):
    actions = importlib.import_module(COMMANDS[command][0]).parser()._actions
    return {option for action in actions for option in action.option_strings}


def command_lines(path):
    text = re.sub(r"\\\n\s*", "", path.read_text(encoding="utf-8"))
    blocks = re.findall(r"```(?:bash|sh)\n(.*?)```", text, flags=re.DOTALL) + re.findall(r"\n\n((?: {4}.*\n)+)", text)
    for line in "\n".join(blocks).splitlines():
        found = START.match(line.split("  #")[0])
        if found:
            yield found[1], shlex.split(found[2].replace("...", ""), comments=True)


@pytest.mark.parametrize("path", PAGES, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_options_exist(path):
    for command, words in command_lines(path):
        assert command in COMMANDS, command
        known = options(command) | (options(PASSED_ON[command]) if command in PASSED_ON else set())
        own = words[: words.index("|")] if "|" in words else words
        given = {word.split("=")[0] for word in own if word.startswith("--")}
        assert given - known - {"--help"} == set(), f"hyenadna {command} {' '.join(words)}"


def test_lines_are_found():
    found = [command for path in PAGES for command, _ in command_lines(path)]
    assert len(found) > 40 and set(found) >= COMMANDS.keys() - {"data"}
