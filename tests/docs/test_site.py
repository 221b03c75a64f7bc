"""The navigation of the site has every page of docs/. Links are checked by test_readme.py and by mkdocs in .ci/run."""

from pathlib import Path

import yaml

ROOT = Path(__file__).parents[2]
GENERATED = {"index.md", "CHANGELOG.md"}  # from the root of the repository, by docs/pages.py


def files_of(entries):
    for entry in entries:
        for target in entry.values():
            if isinstance(target, list):
                yield from files_of(target)
            else:
                yield target


def test_every_page_is_in_the_navigation():
    settings = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))
    listed = list(files_of(settings["nav"]))
    assert len(listed) == len(set(listed))
    assert set(listed) == GENERATED | {path.name for path in (ROOT / "docs").glob("*.md")}
