"""The Python snippets of the README and of docs/ run as printed."""

import re
import shutil
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = {path.name: path.read_text(encoding="utf-8") for path in sorted((ROOT / "docs").glob("*.md"))}
TEXTS = {"README.md": README, **PAGES}
FOLDERS = {
    "benchmarks",
    "docs",
    "examples",
    "hub_configs",
    "hyenadna_cli",
    "hyenadna_hf",
    "notebooks",
    "scripts",
    "tests",
}
CONTINUED = [name for name, text in PAGES.items() if "(../README.md#in-ten-lines-each)" in text]  # with its names


def snippets(text, language="python"):
    return re.findall(rf"```{language}\n(.*?)```", text, flags=re.DOTALL)


def run(name, namespace):
    for snippet in snippets(TEXTS[name]):
        exec(compile(snippet, name, "exec"), namespace)


def test_it_is_short():
    assert len(README.splitlines()) <= 160


def test_python_snippets_run(tmp_path, monkeypatch, capsys, fixtures):
    monkeypatch.chdir(tmp_path)
    shutil.copy(fixtures / "human_chr20.fa.gz", tmp_path)
    namespace = {}
    run("README.md", namespace)
    assert namespace["trainer"].state.global_step == 5
    assert namespace["generated"].shape[1] == namespace["prompt"]["input_ids"].shape[1] + 64
    assert len(namespace["variants"]) == 3
    assert [vector.shape for vector in namespace["vectors"]] == [(namespace["language_model"].config.d_model,)] * 2
    assert not namespace["prompted"].base_model.hyena.backbone.layers[0].mlp.fc1.weight.requires_grad
    printed = capsys.readouterr().out
    assert "eukaryote" in printed and re.search(r"\[-?\d\.\d+, -?\d\.\d+, -?\d\.\d+\]", printed)  # three ratios
    assert len(CONTINUED) >= 6
    for name in CONTINUED:
        run(name, dict(namespace))


@pytest.mark.parametrize("name", [name for name, text in TEXTS.items() if "\nfrom " in text])
def test_names_in_snippets_exist(name):
    """Including snippets that need other data or several processes."""
    imports = re.findall(r"^from .*$", "".join(snippets(TEXTS[name], "py(?:thon)?")), flags=re.MULTILINE)
    exec("\n".join(imports), {})


def test_there_are_six_snippets_of_at_most_ten_lines():
    section = README.split("## In ten lines each")[1].split("\n## ")[0]
    lengths = [len(re.findall(r"^.", snippet, flags=re.MULTILINE)) for snippet in snippets(section)]  # not empty ones
    assert len(lengths) == 6 and max(lengths) <= 10


@pytest.mark.parametrize("name", TEXTS)
def test_links_lead_somewhere(name):
    folder = ROOT if name == "README.md" else ROOT / "docs"
    for target in re.findall(r"\]\((?!https?:|#)([^)#]+)", TEXTS[name]):
        assert (folder / target).exists(), target


def test_the_tree_names_every_folder_and_no_other():
    tree = README.split("## The tree")[1].split("```")[1]
    named = {path: set(re.findall(r"(\w+)/", " ".join(lines))) for path, lines in by_indentation(tree).items()}
    packages = {path.parent.name for path in (ROOT / "hyenadna_hf").glob("*/__init__.py")}
    assert named == {"": FOLDERS, "  ": packages}
    assert all((ROOT / name).is_dir() for name in FOLDERS)


def by_indentation(text):
    found = {}
    for line in text.strip().splitlines():
        names = re.match(r"( *)((?:\w+/ *)+)", line)
        found.setdefault(names[1], []).append(names[2])
    return found
