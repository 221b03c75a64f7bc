"""Phrases that read like a translation, with what to write instead. Spelling is checked by codespell in .ci/run."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PHRASES = {
    r"\b(goes|went|go) on\b": "resumes, continues",
    r"\bwill not do\b": "is invalid",
    r"\bcarr(y|ies|ied) (its|their) code\b": "includes the code",
    r"\bwhich there are not\b": "has none",
    r"\bordinary citizen\b": "first-class",
    r"\bthreads at once\b": "thread-safe",
    r"\bsomething else than\b": "other than",
    r"\bto be had\b": "available",
    r"\b(same|other) door\b": "same command",
    r"\bbehind (a|an|the|it|padding|what)\b": "after",
    r"\btells what\b": "describes, shows",
    r"\bsays? all\b": "is complete",
}
DOCSTRINGS = {
    r'"""\s*(What|Of|As)\b': "a verb first",
    r"\): (Of|As)\b": "a noun with its article",
}

PAGES = [
    *(ROOT / name for name in ("README.md", "CHANGELOG.md", "CONTRIBUTING.md", "mkdocs.yml")),
    *sorted((ROOT / "docs").glob("*")),
    *sorted((ROOT / "examples").glob("*.md")),
    *sorted((ROOT / "hub_configs").glob("*/README.md")),
    *sorted((ROOT / ".github").rglob("*.*")),
]


def slips(path, phrases):
    """List the phrases in a file, each with its line and what to write."""
    lines = path.read_text(encoding="utf-8").splitlines()
    return [
        f"{path.relative_to(ROOT)}:{number}: {match[0]!r}; write {better!r}"
        for number, line in enumerate(lines, start=1)
        for phrase, better in phrases.items()
        for match in re.finditer(phrase, line, flags=re.IGNORECASE)
    ]


@pytest.mark.parametrize("path", [path for path in PAGES if path.suffix != ".png"], ids=lambda path: path.name)
def test_pages_have_none(path):
    assert slips(path, PHRASES | DOCSTRINGS) == []


def test_the_package_has_none():
    files = [*ROOT.glob("hyenadna_cli/*.py"), *ROOT.glob("hyenadna_hf/*.py"), *ROOT.glob("hyenadna_hf/*/*.py")]
    assert [slip for path in files for slip in slips(path, PHRASES | DOCSTRINGS)] == []
