import json
import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
from forked import run_script

from hyenadna_hf.pretrained import BUNDLED_CHECKPOINTS

ROOT = Path(__file__).parents[1]


def test_import_needs_only_torch_and_transformers_and_registers_all():
    script = """
import sys, json
for name in ("datasets", "pandas", "sklearn", "peft", "rich", "pysam", "accelerate"):
    sys.modules[name] = None
import hyenadna_hf, transformers
config = hyenadna_hf.HyenaDNAConfig(d_model=8, max_seq_len=20)
tasks = ("", "ForCausalLM", "ForSequenceClassification", "ForTokenClassification")
made = {
    name: type(getattr(transformers, name).from_config(config)).__name__
    for name in ("AutoModel" + task for task in tasks)
}
print(json.dumps(made))
"""
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout.splitlines()[-1]) == {
        "AutoModel": "HyenaDNAModel",
        "AutoModelForCausalLM": "HyenaDNAForCausalLM",
        "AutoModelForSequenceClassification": "HyenaDNAForSequenceClassification",
        "AutoModelForTokenClassification": "HyenaDNAForTokenClassification",
    }


def test_versions_agree():
    from importlib.metadata import version

    import hyenadna_hf

    assert version("hyenadna_hf") == hyenadna_hf.__version__


def test_the_command_and_the_module_are_the_same():
    by_interpreter = subprocess.run(
        [sys.executable, "-m", "hyenadna_hf", "fly"], capture_output=True, text=True, timeout=120
    )
    module = "import runpy\nrunpy.run_module('hyenadna_hf', run_name='__main__', alter_sys=True)\n"
    function = "import sys\nfrom hyenadna_hf.cli import main\nsys.exit(main(sys.argv[1:]))\n"
    for arguments, status in ((["--help"], 0), (["--version"], 0), ([], 0), (["fly"], 2)):
        by_module = run_script(module, *arguments)
        assert by_module.returncode == status
        by_function = run_script(function, *arguments)
        assert (by_function.returncode, by_function.stdout, by_function.stderr) == (
            by_module.returncode,
            by_module.stdout,
            by_module.stderr,
        )
    assert (by_interpreter.returncode, by_interpreter.stdout, by_interpreter.stderr) == (
        by_module.returncode,
        by_module.stdout,
        by_module.stderr,
    )
    assert "no command 'fly'; there are " in by_function.stderr and "finetune" in by_function.stderr


def test_a_missing_extra_is_named():
    script = """
import sys
sys.modules["datasets"] = None
from hyenadna_hf.cli import main
sys.exit(main(["finetune"]))
"""
    result = run_script(script)
    assert result.returncode == 2
    assert "the package datasets is missing; pip install 'hyenadna_hf[all]'" in result.stderr


@pytest.mark.slow
def test_wheel_and_sdist_have_whole_hub_folders(tmp_path):
    """Their code files are links in the repository, and files there; they load where the package is not installed."""
    pytest.importorskip("setuptools", minversion="77")
    ignored = shutil.ignore_patterns("__pycache__", "*.egg-info", "build", ".*")
    shutil.copytree(ROOT, tmp_path / "source", symlinks=True, ignore=ignored)
    script = "from setuptools import build_meta; build_meta.build_wheel('../wheel'); build_meta.build_sdist('../sdist')"
    built = subprocess.run([sys.executable, "-c", script], cwd=tmp_path / "source", capture_output=True, text=True)
    assert built.returncode == 0, built.stderr[-3000:]
    with zipfile.ZipFile(*(tmp_path / "wheel").glob("*.whl")) as wheel:
        wheel.extractall(tmp_path / "installed")
    with tarfile.open(*(tmp_path / "sdist").glob("*.tar.gz")) as sdist:
        sdist.extractall(tmp_path / "unpacked", filter="data")
    (unpacked,) = (tmp_path / "unpacked").iterdir()
    committed = BUNDLED_CHECKPOINTS["hyenadna-tiny-1k-chr20"].parent
    for root in (tmp_path / "installed", unpacked):
        for name in BUNDLED_CHECKPOINTS:
            found, expected = (
                {file.name: file.read_bytes() for file in (parent / name).iterdir() if file.is_file()}
                for parent in (root / "hyenadna_hf" / "pretrained", committed)
            )
            assert found == expected
        assert not [file for file in (root / "hyenadna_hf").rglob("*") if file.is_symlink()]
    script = """
import sys
sys.modules["hyenadna_hf"] = None
from transformers import AutoModelForCausalLM, AutoTokenizer
for folder in sys.argv[1:]:
    inputs = AutoTokenizer.from_pretrained(folder, trust_remote_code=True)("ACGT", return_tensors="pt")
    print(AutoModelForCausalLM.from_pretrained(folder, trust_remote_code=True)(**inputs).logits.shape)
"""
    folders = [
        str(root / "hyenadna_hf" / "pretrained" / "hyenadna-tiny-1k-chr20")
        for root in (unpacked, tmp_path / "installed")
    ]
    environment = {**os.environ, "HF_HOME": str(tmp_path), "HF_MODULES_CACHE": str(tmp_path / "modules")}
    ran = subprocess.run(
        [sys.executable, "-I", "-c", script, *folders], env=environment, capture_output=True, text=True
    )
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.splitlines()[-2:] == ["torch.Size([1, 4, 16])"] * 2
