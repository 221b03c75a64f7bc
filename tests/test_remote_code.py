"""Saved folders load by the Auto classes, with and without this package."""

import json
from pathlib import Path

import pandas as pd
import pytest
import torch
import transformers
from forked import result_of
from reference import randomise

from hyenadna_hf import (
    HyenaDNAConfig,
    HyenaDNAForCausalLM,
    HyenaDNAForMaskedLM,
    HyenaDNAForSequenceClassification,
    HyenaDNAForTokenClassification,
    HyenaDNAModel,
    HyenaDNATokenizer,
)
from hyenadna_hf.cli import main
from hyenadna_hf.hub.convert import convert
from hyenadna_hf.hub.sizes import SIZE_NAMES
from hyenadna_hf.model import modeling_hyenadna
from hyenadna_hf.pretrained import BUNDLED_CHECKPOINTS

OLD = transformers.__version__.startswith("4.")

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


WITH_PACKAGE = """
import json, sys
import torch, transformers, hyenadna_hf, hyenadna_hf.baselines.named
"""


def run(script, *arguments, folder, before=WITHOUT_PACKAGE):
    """Run a script in a fresh process, which cannot import the package by default; return what it prints as JSON."""
    return result_of(before + script, *arguments, folder=folder)


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
    report = run(script, folder, ",".join(AUTO_CLASSES), folder=tmp_path)
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
    report = run(script, *(HUB_CONFIGS / name for name in SIZE_NAMES), folder=tmp_path)
    for name in SIZE_NAMES:
        stored = json.loads((HUB_CONFIGS / name / "config.json").read_text())
        module, shape, longest = report[str(HUB_CONFIGS / name)]
        assert module.startswith("transformers_modules.")
        assert shape == [1, 5, stored["d_model"]] and longest == stored["max_seq_len"]


CLASSIFIERS = ("AutoModelForSequenceClassification", "AutoModelForTokenClassification")
CAUSAL = ("AutoModel", "AutoModelForCausalLM", *CLASSIFIERS)
MASKED = ("AutoModel", "AutoModelForMaskedLM", *CLASSIFIERS)
# The Auto classes that fit each folder that a command or the repository has; the one that it was saved by first.
FOLDERS = {
    "finetuned": (CLASSIFIERS[0], *CAUSAL),
    "finetuned cnn": CLASSIFIERS[:1],
    "finetuned gpt": CLASSIFIERS[:1],
    "finetuned hyenadna-kmer": (CLASSIFIERS[0], *CAUSAL),
    "finetuned hyenadna-bidirectional": (CLASSIFIERS[0], *MASKED),
    "pretrained": ("AutoModelForCausalLM", *CAUSAL),
    "pretrained hyenadna-bidirectional": ("AutoModelForMaskedLM", *MASKED),
    "pretrained gpt": CAUSAL[1:2],
    "converted HyenaDNAForCausalLM": ("AutoModelForCausalLM", *CAUSAL),
    "converted HyenaDNAForMaskedLM": ("AutoModelForMaskedLM", *MASKED),
    "converted HyenaDNAForSequenceClassification": (CLASSIFIERS[0], *CAUSAL),
    "converted HyenaDNAForTokenClassification": (CLASSIFIERS[1], *CAUSAL),
    "converted HyenaDNAModel": ("AutoModel", *CAUSAL),
    "hyenadna-tiny-1k-chr20": ("AutoModelForCausalLM", *CAUSAL),
    "hyenadna-tiny-16k-genomes": ("AutoModelForCausalLM", *CAUSAL),
    "hyenadna-tiny-1k-human": ("AutoModelForCausalLM", *CAUSAL),
    "hyenadna-tiny-1k-remag": (CLASSIFIERS[0], *CAUSAL),
}
LOAD = """
folders, ways = json.loads(sys.argv[1]), json.loads(sys.argv[2])
report = {}
for folder, names in folders.items():
    for trust_remote_code in ways:
        how = {"trust_remote_code": trust_remote_code}
        inputs = transformers.AutoTokenizer.from_pretrained(folder, **how)("ACGTTGCA" * 8, return_tensors="pt")
        config = transformers.AutoConfig.from_pretrained(folder, **how)
        for name in names:
            auto_class = getattr(transformers, name)
            model, loading = auto_class.from_pretrained(folder, output_loading_info=True, **how)
            assert isinstance(model.config, type(config))
            if name == names[0]:
                assert not any(loading.values()), (folder, loading)
                with torch.no_grad():
                    value = model.eval()(**inputs)[0].double().abs().sum().item()
                report.setdefault(folder, []).append([type(model).__module__, value])
print(json.dumps(report))
"""


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Folders of every kind, in a path with blanks and dots."""
    root = tmp_path_factory.mktemp("made") / "folders v1.0 of mine"
    root.mkdir()
    rows = [("ACGTTGCA" * 8 + "ACGTN"[i % 5], "ab"[i % 2]) for i in range(40)]
    pd.DataFrame(rows, columns=["sequence", "label"]).to_csv(root / "data.csv", index=False)
    (root / "genome.fa").write_text(f">a\n{'ACGGTTGCA' * 300}\n")
    sizes = {"d_model": 12, "n_layer": 1, "filter_order": 16, "max_seq_len": 70, "num_labels": 3}
    HyenaDNAConfig(**sizes).save_pretrained(root / "small")
    HyenaDNATokenizer(model_max_length=70).save_pretrained(root / "small")
    short = ["--max_steps", "1", "--save_strategy", "no", "--use_cpu", "--disable_tqdm", "true"]
    for name in FOLDERS:
        out = str(root / name)
        command, _, model = name.partition(" ")
        if command == "finetuned":
            options = ["--dataset", str(root / "data.csv"), "--model", model or str(root / "small"), "--no_baselines"]
            assert main(["finetune", "--output_dir", out, *options, *short]) == 0
        elif command == "pretrained":
            options = ["--fasta", str(root / "genome.fa"), "--model", model or str(root / "small"), "--window", "60"]
            options += ["--objective", "mlm" if FOLDERS[name] == ("AutoModelForMaskedLM", *MASKED) else "clm"]
            assert main(["pretrain", "--output_dir", out, *options, *short]) == 0
        elif command == "converted":
            model_class = {**AUTO_CLASSES, "AutoModelForMaskedLM": HyenaDNAForMaskedLM}[FOLDERS[name][0]]
            config = HyenaDNAConfig(**sizes, bidirectional=model_class is HyenaDNAForMaskedLM)
            randomise(model_class(config)).save_pretrained(root / f"source of {name}")
            convert(root / f"source of {name}", out)
        else:
            (root / name).symlink_to(BUNDLED_CHECKPOINTS[name])
    return root


def test_every_folder_loads_by_every_auto_class_with_and_without_the_package(made):
    """Those that are absolute paths, and relative ones as a user types them."""
    folders = {str(made / name) if i % 2 else f"./{name}/": names for i, (name, names) in enumerate(FOLDERS.items())}
    with_package = run(LOAD, json.dumps(folders), "[true, false]", before=WITH_PACKAGE, folder=made)
    without = run(LOAD, json.dumps(folders), "[true]", folder=made)
    assert with_package.keys() == without.keys() == folders.keys()
    for folder, (expected, *others) in with_package.items():
        # Where code is trusted, transformers 4 takes that of the folder, although the package is there.
        assert expected[0].startswith("transformers_modules." if OLD else "hyenadna_hf.")
        assert without[folder][0][0].startswith("transformers_modules.")
        for _, value in (*others, *without[folder]):
            assert value == pytest.approx(expected[1], rel=1e-5)


@pytest.mark.parametrize("auto_class", CLASSIFIERS)
def test_losses_of_every_problem_type_without_the_package(tmp_path, auto_class):
    """Classes, several labels, squared error and rates, per sequence and per position."""
    shape = (2, 3) if auto_class == CLASSIFIERS[0] else (2, 8, 3)
    cases = {
        "single_label_classification": {},
        "multi_label_classification": {},
        "regression": {},
        "poisson": {"problem_type": "regression", "regression_loss": "poisson"},
    }
    expected, inputs = {}, {"input_ids": torch.arange(7, 11).repeat(2, 2), "attention_mask": torch.ones(2, 8).long()}
    for name, fields in cases.items():
        fields = {"problem_type": name, **fields}
        config = HyenaDNAConfig(d_model=12, n_layer=1, filter_order=16, max_seq_len=20, num_labels=3, **fields)
        model = randomise(AUTO_CLASSES[auto_class](config)).eval()
        model.save_pretrained(tmp_path / name)
        labels = torch.ones(shape[:-1]).long() if name.startswith("single") else torch.ones(shape)
        labels.view(-1)[0] = -100
        expected[name] = model(**inputs, labels=labels).loss.item()
    script = f"""
inputs = {{"input_ids": torch.arange(7, 11).repeat(2, 2), "attention_mask": torch.ones(2, 8).long()}}
losses = {{}}
for name in {list(cases)}:
    labels = torch.ones({shape[:-1]}).long() if name.startswith("single") else torch.ones({shape})
    labels.view(-1)[0] = -100
    model = transformers.{auto_class}.from_pretrained(name, trust_remote_code=True).eval()
    assert type(model).__module__.startswith("transformers_modules.")
    losses[name] = model(**inputs, labels=labels).loss.item()
print(json.dumps(losses))
"""
    assert run(script, tmp_path / "cache", folder=tmp_path) == pytest.approx(expected, rel=1e-5)


def test_trained_soft_prompts_load_without_the_package(made, tmp_path):
    out = tmp_path / "soft prompts"
    options = ["--dataset", str(made / "data.csv"), "--model", "hyenadna-tiny-1k-chr20", "--use_cpu"]
    options += ["--prompt_tokens", "2", "--shots", "0", "--num_train_epochs", "1", "--limit", "8"]
    options += ["--prompt_position", "before"]  # PEFT's own
    assert main(["soft-prompt", "--output_dir", str(out), *options]) == 0
    script = """
from peft import AutoPeftModelForCausalLM
model = AutoPeftModelForCausalLM.from_pretrained("prompt-2-before-shots-0-seed-42", trust_remote_code=True).eval()
ids = torch.arange(7, 11)[None]
with torch.no_grad():
    logits = model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits
print(json.dumps([type(model.get_base_model()).__module__, list(logits.shape)]))
"""
    module, shape = run(script, folder=out)
    assert module.startswith("transformers_modules.") and shape == [1, 6, 16]


@pytest.mark.parametrize(
    "name, before", [("chr20", WITHOUT_PACKAGE), pytest.param("remag", WITH_PACKAGE, marks=pytest.mark.slow)]
)
def test_a_stock_fine_tuning_script_starts_from_a_bundled_folder(tmp_path, name, before):
    script = (Path(__file__).parent / "stock_finetuning.py").read_text()
    module, loss = run(
        script, BUNDLED_CHECKPOINTS[f"hyenadna-tiny-1k-{name}"], "out put", folder=tmp_path, before=before
    )
    assert module.startswith("transformers_modules." if before is WITHOUT_PACKAGE else "hyenadna_hf.")
    assert loss < 0.3  # two repeats, easy to tell apart
    assert (tmp_path / "out put" / "modeling_hyenadna.py").is_file()


def test_bundled_folders_have_the_code_of_the_package():
    code = {file.name: file.read_text() for file in Path(modeling_hyenadna.__file__).parent.glob("*_hyenadna.py")}
    for folder in BUNDLED_CHECKPOINTS.values():
        assert {file.name: file.read_text() for file in folder.glob("*.py")} == code
        for name in ("config.json", "tokenizer_config.json"):
            for entry in json.loads((folder / name).read_text())["auto_map"].values():
                module, _, _ = (entry[0] if isinstance(entry, list) else entry).partition(".")
                assert f"{module}.py" in code
