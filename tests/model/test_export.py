"""torch.export and torch.compile: one graph for every length, and the numbers of the model."""

import shutil

import pytest
import torch
from torch._dynamo.testing import CompileCounterWithBackend

from hyenadna_hf import HyenaDNAConfig, HyenaDNAForCausalLM, HyenaDNAForSequenceClassification

HEADS = [HyenaDNAForCausalLM, HyenaDNAForSequenceClassification]
# In float64: transforms of another size round otherwise.
TOLERANCE = {"rtol": 0, "atol": 1e-10}


@pytest.fixture
def config():
    return HyenaDNAConfig(d_model=12, n_layer=1, max_seq_len=300, filter_order=16, embed_dropout=0.0)


@pytest.fixture(autouse=True)
def no_graphs_of_other_tests():
    torch._dynamo.reset()


def inputs_of(length, masked):
    ids = torch.randint(7, 12, (2, length))
    if not masked:
        return {"input_ids": ids}
    mask = torch.ones_like(ids)
    mask[0, : length // 3] = 0
    return {"input_ids": ids, "attention_mask": mask}


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("model_class", HEADS)
def test_an_exported_graph_is_for_every_length(make_model, config, model_class, masked):
    model = make_model(model_class, config, torch.float64)
    example = inputs_of(33, masked)
    sizes = {0: torch.export.Dim("batch", max=64), 1: torch.export.Dim("length", min=2, max=config.max_seq_len)}
    with torch.no_grad():
        graph = torch.export.export(model, (), example, dynamic_shapes=dict.fromkeys(example, sizes)).module()
        for length in (2, 77, 300):
            inputs = inputs_of(length, masked)
            torch.testing.assert_close(graph(**inputs)[0], model(**inputs)[0], **TOLERANCE)


@pytest.mark.parametrize("model_class, masked", list(zip(HEADS, [True, False])))
def test_a_compiled_graph_is_for_all_lengths_of_one_transform(make_model, config, model_class, masked):
    """`aot_eager` does all that compilation does, but for the kernels; `fullgraph` refuses what has to stay Python."""
    model = make_model(model_class, config, torch.float64)
    counter = CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(model, fullgraph=True, dynamic=True, backend=counter)
    with torch.no_grad():
        for length in (41, 44, 48):  # transforms of 96
            inputs = inputs_of(length, masked)
            torch.testing.assert_close(compiled(**inputs)[0], model(**inputs)[0], **TOLERANCE)
    assert counter.frame_count <= 2  # the first may be for one length


def test_gradients_of_a_compiled_graph(make_model, config):
    model = make_model(HyenaDNAForSequenceClassification, config, torch.float64).train()
    inputs = {**inputs_of(33, True), "labels": torch.tensor([0, 1])}
    found = []
    for forward in (model, torch.compile(model, fullgraph=True, backend="aot_eager")):
        model.zero_grad()
        forward(**inputs).loss.backward()
        found.append([parameter.grad.clone() for parameter in model.parameters()])
    for mine, other in zip(*found):
        torch.testing.assert_close(mine, other, **TOLERANCE)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="inductor compiles its kernels with a C++ compiler")
@pytest.mark.filterwarnings("ignore:Torchinductor does not support code generation for complex operators")
def test_inductor(make_model, config):
    """The default backend, with kernels of its own, in values and gradients."""
    model = make_model(HyenaDNAForSequenceClassification, config, torch.float64).train()
    inputs = {**inputs_of(33, True), "labels": torch.tensor([0, 1])}
    found = []
    for forward in (model, torch.compile(model, fullgraph=True)):
        model.zero_grad()
        out = forward(**inputs)
        out.loss.backward()
        found.append([out.logits.detach(), *(parameter.grad.clone() for parameter in model.parameters())])
    for mine, other in zip(*found):
        torch.testing.assert_close(mine, other, **TOLERANCE)
