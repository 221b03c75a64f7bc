"""Published `-hf` folders load as they are, by the Auto classes, in silence, in every way that they are stored."""

import json
import logging
import re

import pytest
import torch
from safetensors.torch import save_file
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM, AutoTokenizer

from hyenadna_hf import HyenaDNAForCausalLM
from hyenadna_hf.hub.layouts import add_published_constants
from hyenadna_hf.hub.sizes import published_config

WITHOUT = {
    "all stored": r"$^",
    "constants not stored": r"pos_emb|modulation",
    "one frequency": r"implicit_filter\.[35]\.freq",
    "neither": r"pos_emb|modulation|implicit_filter\.[35]\.freq",
}


@pytest.fixture
def warnings_of_transformers(caplog):
    logger = logging.getLogger("transformers")
    logger.addHandler(caplog.handler)
    yield caplog
    logger.removeHandler(caplog.handler)


@pytest.mark.parametrize("weights", ["model.safetensors", "pytorch_model.bin"])
@pytest.mark.parametrize("without", WITHOUT.values(), ids=WITHOUT)
def test_they_load_in_silence(make_model, shared, tmp_path, weights, without, warnings_of_transformers):
    published = shared / "reference" / "hub_files" / "hyenadna-tiny-1k-seqlen-hf"
    for file in published.iterdir():
        (tmp_path / file.name).write_text(file.read_text())
    config = published_config("hyenadna-tiny-1k-seqlen")
    original = make_model(HyenaDNAForCausalLM, config)
    tensors = add_published_constants(config, {name: t.clone() for name, t in original.state_dict().items()})
    tensors = {name: t for name, t in tensors.items() if not re.search(without, name)}
    if weights == "model.safetensors":
        save_file(tensors, tmp_path / weights, metadata={"format": "pt"})
    else:
        torch.save(tensors, tmp_path / weights)

    warnings_of_transformers.clear()
    assert AutoConfig.from_pretrained(tmp_path).vocab_size == 16
    inputs = AutoTokenizer.from_pretrained(tmp_path)(["ACGTNACGT", "GG"], padding=True, return_tensors="pt")
    model = AutoModelForCausalLM.from_pretrained(tmp_path).eval()
    base = AutoModel.from_pretrained(tmp_path).eval()
    assert not [record for record in warnings_of_transformers.records if record.levelno >= logging.WARNING]
    with torch.no_grad():
        expected = original(**inputs)
        torch.testing.assert_close(model(**inputs).logits, expected.logits, rtol=0, atol=0)
        hidden = base(**inputs).last_hidden_state
        torch.testing.assert_close(original.lm_head(hidden), expected.logits, rtol=0, atol=1e-6)
    # Saved again, it is a folder of ours: code and configuration of this package, no constants.
    model.save_pretrained(tmp_path / "again")
    auto_map = json.loads((tmp_path / "again" / "config.json").read_text())["auto_map"]
    assert auto_map["AutoModel"] == "modeling_hyenadna.HyenaDNAModel"
    assert (tmp_path / "again" / "modeling_hyenadna.py").is_file()
