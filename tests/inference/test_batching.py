import torch
from hypothesis import given
from hypothesis import strategies as st

from hyenadna_hf import HyenaDNAModel
from hyenadna_hf.inference.batching import inference_of, length_bucketed


@given(st.lists(st.integers(0, 50), max_size=60), st.integers(1, 120), st.integers(1, 20))
def test_every_item_once_within_the_budget(lengths, max_tokens, window):
    items = ["A" * n for n in lengths]
    batches = list(length_bucketed(iter(items), len, max_tokens, window))
    assert sorted(pair for batch in batches for pair in batch) == list(enumerate(items))
    for batch in batches:
        assert len(batch) == 1 or len(batch) * max(len(item) for _, item in batch) <= max_tokens


def test_reads_no_further_than_the_window():
    read = []
    items = (read.append(n) or "A" for n in range(1000))
    next(length_bucketed(items, len, max_tokens=10, window=32))
    assert len(read) == 32


def test_modes_are_given_back(config):
    model = HyenaDNAModel(config).train()
    model.backbone.layers[0].eval()
    before = [module.training for module in model.modules()]
    with inference_of(model) as same:
        assert same is model
        assert not any(module.training for module in model.modules())
        assert torch.is_inference_mode_enabled()
    assert [module.training for module in model.modules()] == before
