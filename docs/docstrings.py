"""
An extension of griffe that turns docstrings into Markdown: Google-style sections, and [`Class`] as a link.

Types may stand in signatures (`name: Description.`) or in docstrings (`name (`int`): Description.`).
"""

import re

from griffe import Extension

SECTION = re.compile(
    r"(Args|Arguments|Attributes|Example|Examples|Note|Notes|Raises|References|Returns|Warns|Warning|Yields):\s*(.*)"
)
WITH_ENTRIES = ("Args", "Arguments", "Attributes", "Raises", "Warns")
LINK = re.compile(r"\[`(~)?([\w.]+)`\](?!\[|\()")
# `name (`type`, defaults to 1): text` or `name: text`, and `Error: text` under Raises.
ENTRY = re.compile(r"([\w*, ]+?)( \(.*?\)(?:, \w+ \(.*?\))*)?:(?: (.*))?$")
TITLES = {"Args": "Arguments"}
FENCED = re.compile(r"(```.*?```)", re.DOTALL)
EXAMPLE = re.compile(r"^( *)>>> .*(?:\n\1\S.*)*", re.MULTILINE)  # up to an empty line


class Docstrings(Extension):
    """Rewrites the docstrings of a package."""

    def on_package(self, *, pkg, **kwargs):
        """Rewrite all docstrings; griffe calls this when it has read the package."""
        objects = list(walk(pkg))
        paths = {}
        for thing in objects:
            if thing.docstring is not None and (
                thing.is_class or thing.is_function
            ):  # others have no place in the reference
                paths.setdefault(thing.name, thing.path)
                paths[thing.path] = thing.path
        for thing in objects:
            if thing.docstring is not None:
                thing.docstring.value = markdown(thing.docstring.value, paths)


def walk(thing):
    """Yield an object of griffe and everything defined in it."""
    yield thing
    for member in thing.members.values():
        if not member.is_alias:
            yield from walk(member)


def markdown(text, paths):
    """
    Convert a docstring to Markdown.

    Args:
        text (`str`): The docstring.
        paths (`dict[str, str]`): Paths of classes and functions, by name and by path; other names are not linked.

    Returns:
        `str`
    """

    def link(match):
        shown = match[2].rpartition(".")[2] if match[1] else match[2]
        path = paths.get(match[2])
        return f"[`{shown}`][{path}]" if path else f"`{shown}`"

    result, section = [], None
    for line in LINK.sub(link, _fence_examples(text)).splitlines():
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


def _fence_examples(text):
    """Put fences around interactive examples that have none."""
    prose_and_code = FENCED.split(text)
    prose_and_code[::2] = [EXAMPLE.sub(r"\1```python\n\g<0>\n\1```", prose) for prose in prose_and_code[::2]]
    return "".join(prose_and_code)


def _entry(line, section):
    """Convert a line of a section: the start of a list entry, or its continuation."""
    entry = ENTRY.fullmatch(line) if section in WITH_ENTRIES else None
    if entry is None or line.startswith(" "):
        return line
    name = f"`{entry[1]}`" if section in ("Raises", "Warns") else f"**{entry[1].replace('*', chr(92) + '*')}**"
    return f"- {name}{entry[2] or ''}: {entry[3] or ''}".rstrip()
