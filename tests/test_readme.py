"""The Python snippets of the README and of docs/ run as printed."""

import re
import shutil
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = {path.name: path.read_text(encoding="utf-8") for path in sorted((ROOT / "docs").glob("*.md"))}
TEXTS = {"README.md": README, **PAGES}
CONTINUED = [name for name, text in PAGES.items() if "(../README.md#in-ten-lines-each)" in text]  # with its names


def snippets(text, language="python"):
    return re.findall(rf"```{language}\n(.*?)```", text, flags=re.DOTALL)


def run(name, namespace):
    for snippet in snippets(TEXTS[name]):
        exec(compile(snippet, name, "exec"), namespace)


def test_python_snippets_run(tmp_path, monkeypatch, capsys, fixtures):
    monkeypatch.chdir(tmp_path)
    shutil.copy(fixtures / "human_chr20.fa.gz", tmp_path)
    namespace = {}
    run("README.md", namespace)
    assert namespace["hidden"].shape[:2] == namespace["batch"]["input_ids"].shape
    assert namespace["loss"].isfinite()
    assert namespace["trainer"].state.global_step == 5
    assert len(namespace["variants"]) == 3 and namespace["found"].llr
    assert (tmp_path / "my-hyenadna" / "modeling_hyenadna.py").is_file()
    assert "eukaryote" in capsys.readouterr().out
    assert len(CONTINUED) >= 4
    for name in CONTINUED:
        run(name, dict(namespace))


@pytest.mark.parametrize("name", [name for name, text in TEXTS.items() if "\nfrom " in text])
def test_names_in_snippets_exist(name):
    """Also in those that want other data or several processes."""
    imports = re.findall(r"^from .*$", "".join(snippets(TEXTS[name], "py(?:thon)?")), flags=re.MULTILINE)
    exec("\n".join(imports), {})


def test_snippets_have_at_most_ten_lines():
    section = README.split("## In ten lines each")[1].split("\n## ")[0]
    for snippet in snippets(section):
        assert len([line for line in snippet.splitlines() if line]) <= 10


@pytest.mark.parametrize("name", TEXTS)
def test_links_lead_somewhere(name):
    folder = ROOT if name == "README.md" else ROOT / "docs"
    for target in re.findall(r"\]\((?!https?:|#)([^)#]+)", TEXTS[name]):
        assert (folder / target).exists(), target


def test_files_in_the_tree_exist():
    tree = README.split("## The tree")[1].split("```")[1]
    names = re.findall(r"[\w.]+/|[\w-]+\.(?:py|txt|toml)", tree)
    assert len(names) > 20
    for name in set(names) - {"NAME/"}:
        assert any(
            (ROOT / folder).joinpath(name).exists() for folder in ("", "hyenadna_hf", "hyenadna_hf/model", "tests")
        )
