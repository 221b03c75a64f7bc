import gc
import os
from pathlib import Path

# Libraries read it when they are imported. No test asks the Hub, and those of its absence would wait for retries.
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import pytest
import torch
from genomes import write_composition
from hypothesis import settings
from models import save_untrained
from reference import randomise
from transformers import set_seed

from hyenadna_hf import HyenaDNAConfig, HyenaDNAForMaskedLM

# Training commands choose bfloat16 where a machine is faster so; tolerances here are those of float32.
os.environ["ACCELERATE_MIXED_PRECISION"] = "no"

settings.register_profile("any_machine", deadline=None)  # a busy machine is no fault
settings.load_profile("any_machine")

FIXTURES = Path(__file__).parent / "fixtures"
SHARED = Path(os.environ.get("HYENADNA_SHARED", Path(__file__).parents[2] / "shared"))


def pytest_collection_finish():
    """Imported libraries are a million objects, and Accelerate collects garbage after each training."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def seed():
    set_seed(0)


@pytest.fixture(autouse=True)
def nothing_stays_compiled(monkeypatch):
    """`TrainingArguments(torch_compile=True)` sets variables by which later Trainers compile too, and miss hooks."""
    for name in ("BACKEND", "MODE"):
        monkeypatch.setenv(f"ACCELERATE_DYNAMO_{name}", "")  # so that it is restored
        monkeypatch.delenv(f"ACCELERATE_DYNAMO_{name}")


@pytest.fixture
def config():
    """Small sizes, an odd width, every kind of dropout off."""
    return HyenaDNAConfig(d_model=12, n_layer=2, max_seq_len=70, filter_order=16, embed_dropout=0.0)


@pytest.fixture
def make_model():
    """Builds a model of a class in eval mode, with weights that make every part of it matter."""

    def make(model_class, config, dtype=torch.float32):
        return randomise(model_class(config)).to(dtype).eval()

    return make


@pytest.fixture
def model_of(make_model, config):
    """Builds a small model of any class; the masked language model is bidirectional."""

    def build(model_class):
        config.bidirectional = model_class is HyenaDNAForMaskedLM
        return make_model(model_class, config)

    return build


@pytest.fixture
def composition(tmp_path):
    """A data set that is easy: sequences rich in G and C or in A and T, of varied length."""
    return write_composition(tmp_path / "composition", {"train": 160, "dev": 20, "test": 40})


@pytest.fixture
def untrained(tmp_path):
    """A folder with a small configuration and a tokenizer, but no weights."""
    return save_untrained(tmp_path / "untrained")


@pytest.fixture
def fixtures():
    return FIXTURES


@pytest.fixture
def shared():
    """Real data that does not belong to the project; tests that need it are skipped where it is absent."""
    if not SHARED.is_dir():
        pytest.skip(f"no folder {SHARED}; set HYENADNA_SHARED")
    return SHARED
