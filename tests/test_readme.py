"""The README's Python snippets run as printed."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_python_snippets_run(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    snippets = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
    assert len(snippets) >= 2
    namespace = {}
    for snippet in snippets:
        exec(compile(snippet, "README.md", "exec"), namespace)
    assert namespace["hidden"].shape[:2] == namespace["batch"]["input_ids"].shape
    assert namespace["loss"].isfinite()
    assert (tmp_path / "my-hyenadna" / "modeling_hyenadna.py").is_file()
    assert "eukaryote" in capsys.readouterr().out


def test_names_in_snippets_that_want_data_exist():
    snippets = "".join(re.findall(r"```py\n(.*?)```", README, flags=re.DOTALL))
    imports = re.findall(r"^from .*$", snippets, flags=re.MULTILINE)
    assert len(imports) >= 7
    exec("\n".join(imports), {})


def test_files_in_the_tree_exist():
    tree = README.split("## The tree")[1].split("```")[1]
    names = re.findall(r"[\w.]+/|[\w-]+\.(?:py|txt|toml)", tree)
    assert len(names) > 20
    for name in set(names) - {"NAME/"}:
        assert any(
            (ROOT / folder).joinpath(name).exists() for folder in ("", "hyenadna_hf", "hyenadna_hf/model", "tests")
        )
