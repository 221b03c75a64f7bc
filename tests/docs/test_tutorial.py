"""The tutorial runs as printed, up to a published model on a Hub of this machine."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from hub_server import serve

ROOT = Path(__file__).parents[2]
BLOCKS = re.findall(
    r"```(bash|python)\n(.*?)```", (ROOT / "docs" / "tutorial.md").read_text(encoding="utf-8"), re.DOTALL
)
COMMAND = f'hyenadna() {{ "{sys.executable}" -m hyenadna_hf "$@"; }}\n'


@pytest.mark.slow
def test_it_runs(tmp_path):
    shutil.copytree(
        ROOT / "hyenadna_hf" / "data" / "splice_sites_chr20", tmp_path / "hyenadna_hf/data/splice_sites_chr20"
    )
    (tmp_path / "tests/fixtures").mkdir(parents=True)
    shutil.copy(ROOT / "tests" / "fixtures" / "human_chr20.fa.gz", tmp_path / "tests/fixtures")
    printed = []
    with serve() as (hub, url):
        environment = {k: v for k, v in os.environ.items() if not k.startswith(("HF_", "HUGGING"))}
        environment |= {"HF_ENDPOINT": url, "HF_TOKEN": "hf_test", "HF_HOME": str(tmp_path / "home")}
        environment |= {"HF_HUB_DISABLE_XET": "1", "NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1"}
        # The copy of the package's data must not hide the package.
        environment["PYTHONPATH"] = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
        environment["PYTHONSAFEPATH"] = "1"
        for language, block in BLOCKS:
            command = ["bash", "-euc", COMMAND + block] if language == "bash" else [sys.executable, "-c", block]
            result = subprocess.run(
                command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=600, encoding="utf-8"
            )
            assert result.returncode == 0, result.stderr[-3000:]
            printed.append(result.stdout)
        published = hub.repositories["me/splice-model"]["main"]
    info, trained, classified, _embedded, adapted, alone, uploaded = printed
    assert "12,857" in info and "accuracy" in trained and "trainable params" in adapted
    assert re.search(r"'label': '(donor|acceptor|neither)'", classified)
    assert (tmp_path / "windows.parquet").is_file()
    assert alone.startswith("transformers_modules.")
    assert "me/splice-model" in uploaded and {"model.safetensors", "modeling_hyenadna.py"} <= published.keys()
