"""What we save loads by the Auto classes where this package is not installed."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from hyenadna_hf import (
    HyenaDNAForCausalLM,
    HyenaDNAForSequenceClassification,
    HyenaDNAForTokenClassification,
    HyenaDNAModel,
    HyenaDNATokenizer,
)
from hyenadna_hf.hub.sizes import SIZE_NAMES

HUB_CONFIGS = Path(__file__).parents[1] / "hub_configs"
AUTO_CLASSES = {
    "AutoModel": HyenaDNAModel,
    "AutoModelForCausalLM": HyenaDNAForCausalLM,
    "AutoModelForSequenceClassification": HyenaDNAForSequenceClassification,
    "AutoModelForTokenClassification": HyenaDNAForTokenClassification,
}
WITHOUT_PACKAGE = """
import json, sys
sys.modules["hyenadna_hf"] = None  # importing it now fails
import torch, transformers
"""


def run(script, cache, *arguments):
    """Run a script in a fresh process that cannot import the package, and return what it prints as JSON."""
    environment = {
        **os.environ,
        "HF_HOME": str(cache),
        "HF_MODULES_CACHE": str(cache / "modules"),
        "HF_HUB_OFFLINE": "1",
    }
    result = subprocess.run(
        [sys.executable, "-c", WITHOUT_PACKAGE + script, *map(str, arguments)],
        env=environment,
        cwd=cache,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout.splitlines()[-1])


@pytest.mark.parametrize("saved", AUTO_CLASSES)
def test_every_auto_class_loads_from_whichever_head_was_saved(make_model, config, tmp_path, saved):
    model = make_model(AUTO_CLASSES[saved], config)
    folder = tmp_path / "checkpoint"
    model.save_pretrained(folder)
    HyenaDNATokenizer(model_max_length=70).save_pretrained(folder)
    script = """
folder, auto_classes = sys.argv[1], sys.argv[2].split(",")
tokenizer = transformers.AutoTokenizer.from_pretrained(folder, trust_remote_code=True)
config = transformers.AutoConfig.from_pretrained(folder, trust_remote_code=True)
inputs = tokenizer(["ACGTacgtN", "GGC"], padding=True, return_tensors="pt")
report = {"ids": inputs["input_ids"].tolist(), "config": type(config).__module__, "outputs": {}}
for name in auto_classes:
    model = getattr(transformers, name).from_pretrained(folder, trust_remote_code=True).eval()
    with torch.no_grad():
        report["outputs"][name] = model(**inputs)[0].tolist()
    again = folder + "-" + name
    model.save_pretrained(again)
    tokenizer.save_pretrained(again)
    twice = getattr(transformers, name).from_pretrained(again, trust_remote_code=True).eval()
    with torch.no_grad():
        assert torch.equal(twice(**inputs)[0], model(**inputs)[0])
print(json.dumps(report))
"""
    report = run(script, tmp_path, folder, ",".join(AUTO_CLASSES))
    assert report["config"].startswith("transformers_modules.")
    inputs = HyenaDNATokenizer()(["ACGTacgtN", "GGC"], padding=True, return_tensors="pt")
    assert report["ids"] == inputs["input_ids"].tolist()
    assert report["outputs"].keys() == AUTO_CLASSES.keys()
    with torch.no_grad():
        torch.testing.assert_close(torch.tensor(report["outputs"][saved]), model(**inputs)[0], rtol=0, atol=1e-5)


def test_every_hub_config_makes_a_model(tmp_path):
    assert sorted(path.name for path in HUB_CONFIGS.iterdir() if path.is_dir()) == sorted(SIZE_NAMES)
    script = """
report = {}
for folder in sys.argv[1:]:
    config = transformers.AutoConfig.from_pretrained(folder, trust_remote_code=True)
    model = transformers.AutoModel.from_config(config, trust_remote_code=True)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder, trust_remote_code=True)
    hidden = model(**tokenizer("ACGTN", return_tensors="pt")).last_hidden_state
    report[folder] = [type(model).__module__, list(hidden.shape), tokenizer.model_max_length]
print(json.dumps(report))
"""
    report = run(script, tmp_path, *(HUB_CONFIGS / name for name in SIZE_NAMES))
    for name in SIZE_NAMES:
        stored = json.loads((HUB_CONFIGS / name / "config.json").read_text())
        module, shape, longest = report[str(HUB_CONFIGS / name)]
        assert module.startswith("transformers_modules.")
        assert shape == [1, 5, stored["d_model"]] and longest == stored["max_seq_len"]
