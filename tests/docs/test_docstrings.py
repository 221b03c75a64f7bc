"""The reference renders both styles of docstrings: types in the docstring, and types in the signature."""

import importlib.util
from pathlib import Path

import pytest

pytest.importorskip("griffe")  # part of the extra "docs"; .ci/run has a step for this file

EXTENSION = Path(__file__).parents[2] / "docs" / "docstrings.py"
PATHS = {"Model": "package.Model", "package.Model": "package.Model"}


@pytest.fixture(scope="module")
def markdown():
    spec = importlib.util.spec_from_file_location("docstrings", EXTENSION)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.markdown


def test_types_in_the_docstring(markdown):
    text = """Do it.

Args:
    model ([`Model`]): The model,
        on two lines.
    out, log (`str`, *optional*): Files.

Raises:
    ValueError: if it fails.
"""
    assert markdown(text, PATHS).splitlines() == [
        *("Do it.", "", "", "**Arguments**", "", ""),
        "- **model** ([`Model`][package.Model]): The model,",
        "    on two lines.",
        "- **out, log** (`str`, *optional*): Files.",
        *("", "", "**Raises**", "", ""),
        "- `ValueError`: if it fails.",
    ]


def test_types_in_the_signature(markdown):
    text = """Do it.

Args:
    model: The model, of class [`Other`].
    *args: Further files.

Returns:
    A table: one row per file.

Attributes:
    name: Its name.
"""
    lines = markdown(text, PATHS).splitlines()
    assert "- **model**: The model, of class `Other`." in lines and "- **\\*args**: Further files." in lines
    assert "A table: one row per file." in lines  # not an entry
    assert "- **name**: Its name." in lines


def test_examples_are_code(markdown):
    unfenced = 'Example:\n    >>> f("[`Model`]")\n    1\n\n    That was all.\n'
    expected = [
        "",
        "**Example**",
        "",
        "",
        "```python",
        '>>> f("[`Model`][package.Model]")',
        "1",
        "```",
        "",
        "That was all.",
    ]
    assert markdown(unfenced.replace("[`Model`]", "x"), PATHS).splitlines() == [
        line.replace("[`Model`][package.Model]", "x") for line in expected
    ]
    fenced = "Example:\n\n```python\n>>> f(1)\n2\n```\n"
    assert markdown(fenced, PATHS).count("```") == 2


def test_members_of_classes_are_rewritten(tmp_path):
    import griffe

    package = tmp_path / "package"
    package.mkdir()
    (package / "__init__.py").write_text(
        'class Model:\n    """A model."""\n\n    def run(self, x: int) -> str:\n        """Run it.\n\n        Args:\n'
        '            x: Number for a [`Model`].\n        """\n'
    )
    extensions = griffe.load_extensions(str(EXTENSION))
    loaded = griffe.load("package", search_paths=[tmp_path], extensions=extensions)
    assert "- **x**: Number for a [`Model`][package.Model]." in loaded["Model.run"].docstring.value
