"""Markdown of docstrings that are written as in transformers: sections of arguments, and [`Class`] as a link."""

import re

from griffe import Extension

SECTION = re.compile(r"(Args|Returns|Raises|Yields|Attributes|Example|Examples):\s*(.*)")
LINK = re.compile(r"\[`(~)?([\w.]+)`\](?!\[|\()")
# `name (`type`, defaults to 1): text`, or `Error: text` under Raises.
ENTRY = re.compile(r"([\w*, ]+?)( \(.*?\)(?:, \w+ \(.*?\))*)?:(?: (.*))?$")
TITLES = {"Args": "Arguments"}


class Docstrings(Extension):
    """Rewrites the docstrings of a package when all of it is read."""

    def on_package(self, *, pkg, **kwargs):
        """Called by griffe."""
        objects = list(walk(pkg))
        paths = {}
        for thing in objects:
            if thing.docstring is not None and (thing.is_class or thing.is_function):  # what the reference shows
                paths.setdefault(thing.name, thing.path)
                paths[thing.path] = thing.path
        for thing in objects:
            if thing.docstring is not None:
                thing.docstring.value = markdown(thing.docstring.value, paths)


def walk(thing):
    """An object of griffe and all that is defined in it."""
    yield thing
    for member in thing.members.values():
        if not member.is_alias:
            yield from walk(member)


def markdown(text, paths):
    """
    Markdown of a docstring.

    Args:
        text (`str`): The docstring.
        paths (`dict[str, str]`): Where names are defined, by name and by path; other names are no links.

    Returns:
        `str`
    """

    def link(match):
        shown = match[2].rpartition(".")[2] if match[1] else match[2]
        path = paths.get(match[2])
        return f"[`{shown}`][{path}]" if path else f"`{shown}`"

    result, section = [], None
    for line in LINK.sub(link, text).splitlines():
        started = SECTION.fullmatch(line)
        if started:
            section = started[1]
            result += ["", f"**{TITLES.get(section, section)}**", "", started[2]]
        elif line and not line.startswith(" "):
            section = None
            result.append(line)
        elif section is None:
            result.append(line)
        else:
            result.append(_entry(line.removeprefix("    "), section))
    return "\n".join(result)


def _entry(line, section):
    """A line of a section: the beginning of an entry of a list, or what belongs to one."""
    entry = ENTRY.fullmatch(line) if section in ("Args", "Raises", "Attributes") else None
    if entry is None or line.startswith(" "):
        return line
    name = f"`{entry[1]}`" if section == "Raises" else f"**{entry[1]}**"
    return f"- {name}{entry[2] or ''}: {entry[3] or ''}".rstrip()
