"""Real clients against a Hub over HTTP, in processes of their own: HF_ENDPOINT is read at import."""

import json
import subprocess
import sys

import pytest
import torch
from forked import COMMAND, run_script
from hub_server import serve
from huggingface_hub import ModelCard

from hyenadna_hf import HyenaDNAConfig, HyenaDNAForCausalLM, HyenaDNAForSequenceClassification, HyenaDNATokenizer
from hyenadna_hf.errors import InputError
from hyenadna_hf.hub.card import TASKS, model_card
from hyenadna_hf.hub.publish import publish
from hyenadna_hf.pretrained import BUNDLED_CHECKPOINTS

STRANGER = """
import json, sys
sys.modules["hyenadna_hf"] = None
import torch, transformers
repo_id, auto_class, revision = sys.argv[1:]
tokenizer = transformers.AutoTokenizer.from_pretrained(repo_id, trust_remote_code=True, revision=revision)
model = getattr(transformers, auto_class).from_pretrained(repo_id, trust_remote_code=True, revision=revision).eval()
assert type(model).__module__.startswith("transformers_modules.")
with torch.no_grad():
    print(json.dumps(model(**tokenizer(["ACGTNacgt", "GG"], padding=True, return_tensors="pt"))[0].tolist()))
"""


@pytest.fixture
def hub(tmp_path):
    """A Hub, and a function that runs Python against it."""
    with serve() as (hub, _):

        def run(*script, status=0):
            result = run_script(*script, folder=tmp_path)
            assert result.returncode == status, result.stderr[-3000:]
            return result

        yield hub, run


def saved(make_model, config, folder, model_class=HyenaDNAForCausalLM):
    model = make_model(model_class, config)
    model.save_pretrained(folder)
    HyenaDNATokenizer(model_max_length=config.max_seq_len).save_pretrained(folder)
    return model


def outputs(model):
    inputs = HyenaDNATokenizer()(["ACGTNacgt", "GG"], padding=True, return_tensors="pt")
    with torch.no_grad():
        return model(**inputs)[0]


@pytest.mark.slow
def test_publish_and_load_by_repository_id(make_model, config, tmp_path, hub):
    server, run = hub
    model = saved(make_model, config, tmp_path / "mine")
    (tmp_path / "mine" / "checkpoint-3").mkdir()
    (tmp_path / "mine" / "checkpoint-3" / "optimizer.pt").write_bytes(b"large")
    (tmp_path / "mine" / "training_args.bin").write_bytes(b"private")
    (tmp_path / "mine" / "__pycache__").mkdir()
    (tmp_path / "mine" / "__pycache__" / "modeling_hyenadna.cpython-311.pyc").write_bytes(b"compiled")
    before = sorted(path.name for path in (tmp_path / "mine").iterdir())
    printed = run(COMMAND, "publish", "mine", "someone/splice", "--license", "mit").stdout
    assert "Published: " in printed and "someone/splice/commit/" in printed
    files = server.repositories["someone/splice"]["main"]
    needed = {"README.md", "config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"}
    needed |= {f"{part}_hyenadna.py" for part in ("configuration", "tokenization", "longconv", "modeling")}
    assert needed <= files.keys()
    assert not [name for name in files if "checkpoint" in name or "__pycache__" in name or name == "training_args.bin"]
    card = ModelCard(files["README.md"].decode())
    assert card.data.license == "mit" and card.data.pipeline_tag == "text-generation"
    assert 'AutoModelForCausalLM.from_pretrained("someone/splice", trust_remote_code=True)' in card.text
    assert sorted(path.name for path in (tmp_path / "mine").iterdir()) == before

    result = json.loads(run(STRANGER, "someone/splice", "AutoModelForCausalLM", "main").stdout.splitlines()[-1])
    torch.testing.assert_close(torch.tensor(result), outputs(model), rtol=0, atol=1e-6)


@pytest.mark.slow
def test_a_broken_upload_is_taken_up_and_a_branch_is_made(make_model, config, tmp_path, hub):
    server, run = hub
    saved(make_model, config, tmp_path / "mine", HyenaDNAForSequenceClassification)
    server.broken.add("commit")
    command = (COMMAND, "publish", "mine", "someone/splice", "--revision", "v2")
    failed = run(*command, status=2)
    assert "the upload failed" in failed.stderr and "again to resume" in failed.stderr
    assert len(server.uploads) == 1 and not server.repositories["someone/splice"]["v2"]
    server.broken.clear()
    run(*command)
    assert len(server.uploads) == 1
    assert "model.safetensors" in server.repositories["someone/splice"]["v2"]
    assert not server.repositories["someone/splice"]["main"]
    run(STRANGER, "someone/splice", "AutoModelForSequenceClassification", "v2")


@pytest.mark.slow
def test_push_to_hub_of_model_tokenizer_and_trainer(make_model, config, tmp_path, hub):
    _, run = hub
    model = saved(make_model, config, tmp_path / "mine", HyenaDNAForSequenceClassification)
    script = """
import hyenadna_hf
from datasets import Dataset
from transformers import AutoModelForSequenceClassification, AutoTokenizer, Trainer, TrainingArguments
model, tokenizer = AutoModelForSequenceClassification.from_pretrained("mine"), AutoTokenizer.from_pretrained("mine")
model.push_to_hub("someone/plain")
tokenizer.push_to_hub("someone/plain")
arguments = TrainingArguments("run", hub_model_id="someone/trained", max_steps=1, learning_rate=0.0, report_to="none")
data = Dataset.from_list([{**tokenizer("ACGT"), "labels": 1}] * 8)
trainer = Trainer(model, arguments, train_dataset=data, processing_class=tokenizer)
trainer.train()
trainer.push_to_hub()
"""
    run(script)
    for repo_id in ("someone/plain", "someone/trained"):
        printed = run(STRANGER, repo_id, "AutoModelForSequenceClassification", "main").stdout
        torch.testing.assert_close(
            torch.tensor(json.loads(printed.splitlines()[-1])), outputs(model), rtol=0, atol=1e-6
        )


@pytest.fixture
def loading_is_forked(monkeypatch):
    """Loads the folder in a process that need not import everything; the tests of uploads load it unchanged."""

    def run(words, cwd, env, **_):
        assert words[:2] == [sys.executable, "-c"]
        return run_script(*words[2:], folder=cwd, environment=env)

    monkeypatch.setattr(subprocess, "run", run)


@pytest.mark.parametrize(
    "damage, message",
    [
        (lambda folder: (folder / "config.json").unlink(), "no config.json"),
        (lambda folder: (folder / "config.json").write_text("{}"), "names no architecture"),
        (lambda folder: (folder / "tokenizer_config.json").unlink(), "contains no tokenizer"),
        (lambda folder: (folder / "model.safetensors").unlink(), "does not load without this package"),
        (lambda folder: (folder / "model.safetensors").write_bytes(b"x" * 99), "does not load without this package"),
        (lambda folder: (folder / "modeling_hyenadna.py").write_text("import hyenadna_hf"), "does not load"),
        (lambda folder: (folder / "README.md").write_text("---\na: [\n---\n"), "front matter is not valid"),
    ],
)
def test_what_does_not_load_is_not_published(make_model, config, tmp_path, hub, loading_is_forked, damage, message):
    saved(make_model, config, tmp_path / "mine")
    damage(tmp_path / "mine")
    with pytest.raises(InputError, match=message):
        publish(tmp_path / "mine", "someone/splice")
    assert not hub[0].repositories


def test_a_bad_repository_name_is_named(tmp_path):
    with pytest.raises(InputError, match=r"some\.\.one//x: not a valid repository name"):
        publish(BUNDLED_CHECKPOINTS["hyenadna-tiny-1k-remag"], "some..one//x")


@pytest.mark.parametrize("architecture", TASKS)
def test_cards_have_valid_front_matter_and_snippets_that_run(make_model, architecture, tmp_path, monkeypatch):
    import hyenadna_hf

    monkeypatch.chdir(tmp_path)
    config = HyenaDNAConfig(d_model=8, max_seq_len=20, bidirectional=architecture == "HyenaDNAForMaskedLM")
    saved(make_model, config, tmp_path / "mine", getattr(hyenadna_hf, architecture))
    results = {"dataset": "gue/prom_300_tata", "test": {"model": {"accuracy": 0.75, "mcc": 0.5}}}
    text = model_card("mine", "mine", "A note.", "mit", ["someone/set"], "someone/base", results)
    card = ModelCard(text)
    assert (card.data.license, card.data.datasets, card.data.base_model) == ("mit", ["someone/set"], "someone/base")
    assert {result.metric_type: result.metric_value for result in card.data.eval_results} == {
        "accuracy": 0.75,
        "mcc": 0.5,
    }
    namespace = {}
    exec(text.split("```python\n")[1].split("```")[0], namespace)
    assert type(namespace["model"]).__name__ == architecture and namespace["outputs"][0].isfinite().all()
