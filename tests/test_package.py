import json
import subprocess
import sys


def test_import_needs_only_torch_and_transformers_and_registers_all():
    script = """
import sys, json
for name in ("datasets", "pandas", "sklearn", "peft", "evaluate", "rich", "pysam", "accelerate"):
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
    def run(*command):
        return subprocess.run(command, capture_output=True, text=True, timeout=120)

    for arguments, status in ((["--help"], 0), (["--version"], 0), (["fly"], 2), ([], 0)):
        by_module = run(sys.executable, "-m", "hyenadna_hf", *arguments)
        assert by_module.returncode == status
        script = "import sys; from hyenadna_hf.cli import main; sys.exit(main(sys.argv[1:]))"
        by_function = run(sys.executable, "-c", script, *arguments)
        assert (by_function.returncode, by_function.stdout, by_function.stderr) == (
            by_module.returncode,
            by_module.stdout,
            by_module.stderr,
        )
    assert "no command 'fly'; there are finetune" in by_function.stderr or "finetune" in by_function.stdout


def test_a_missing_extra_is_named():
    script = """
import sys
sys.modules["datasets"] = None
from hyenadna_hf.cli import main
sys.exit(main(["finetune"]))
"""
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120)
    assert result.returncode == 2
    assert "the package datasets is missing; pip install 'hyenadna_hf[all]'" in result.stderr
