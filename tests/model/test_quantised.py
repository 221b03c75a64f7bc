"""
Weights of eight bits, by the packages that transformers knows: what they give, and at which lengths.

These packages are not a part of the extra "test": torchao changes what every program prints that imports transformers.
"""

import pytest
import torch
from transformers import AutoModelForCausalLM, BitsAndBytesConfig, TorchAoConfig

from hyenadna_hf import HyenaDNATokenizer
from hyenadna_hf.pretrained import BUNDLED_CHECKPOINTS

pytest.importorskip("bitsandbytes", reason="pip install bitsandbytes")
quantization = pytest.importorskip("torchao.quantization", reason="pip install torchao")

FOLDER = BUNDLED_CHECKPOINTS["hyenadna-tiny-1k-chr20"]
CONFIGS = {
    "torchao": lambda: TorchAoConfig(quantization.Int8WeightOnlyConfig()),
    "bitsandbytes": lambda: BitsAndBytesConfig(load_in_8bit=True),
}


@pytest.fixture(scope="module")
def sequence():
    (one,) = HyenaDNATokenizer()(["ACGTTGCAACGGTATTCA" * 20])["input_ids"]
    return torch.tensor([one])


def loaded(name):
    return AutoModelForCausalLM.from_pretrained(
        FOLDER, quantization_config=CONFIGS[name](), device_map="cpu", dtype=torch.float32
    )


@pytest.mark.parametrize("name", CONFIGS)
def test_logits_are_near_those_of_float32(sequence, name):
    exact = AutoModelForCausalLM.from_pretrained(FOLDER)
    model = loaded(name)
    assert type(model.hyena.backbone.layers[0].mixer.in_proj.weight) is not torch.nn.Parameter
    with torch.no_grad():
        expected, found = exact(sequence, labels=sequence), model(sequence, labels=sequence)
    difference = (found.logits - expected.logits)[..., 7:11].abs().max()
    assert 0 < difference < 0.3  # of up to 15
    assert abs(found.loss - expected.loss) < 0.01


@pytest.mark.parametrize("name, tolerance", [("torchao", 1e-5), ("bitsandbytes", 0.05)])
@torch.no_grad()
def test_every_way_through_the_model(sequence, name, tolerance):
    """Whatever `memory` says, and by a cache. (bitsandbytes rounds activations, to float16 and by rows.)"""
    model = loaded(name)
    expected = model(sequence).logits
    for memory in ("auto", "low", "fast"):
        model.config.memory = memory
        plan = model.plan(sequence)
        assert plan.path == "transparent" and "in_proj" in plan.reason
        torch.testing.assert_close(model(sequence).logits, expected, rtol=0, atol=tolerance)
    first = model(sequence[:, :200], use_cache=True)
    second = model(sequence[:, 200:], past_key_values=first.past_key_values)
    found = torch.cat([first.logits, second.logits], dim=1)
    torch.testing.assert_close(found, expected, rtol=0, atol=tolerance)
