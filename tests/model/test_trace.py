"""torch.jit.trace: a graph is right for the length that it was traced with, and refuses every other."""

import io

import pytest
import torch

from hyenadna_hf import (
    HyenaDNAConfig,
    HyenaDNAForCausalLM,
    HyenaDNAForMaskedLM,
    HyenaDNAForSequenceClassification,
    HyenaDNAForTokenClassification,
    HyenaDNAModel,
)

pytestmark = [
    pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning"),
    pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning"),
]
TOLERANCE = {"rtol": 0, "atol": 1e-10}
HEADS = [
    HyenaDNAModel,
    HyenaDNAForCausalLM,
    HyenaDNAForMaskedLM,
    HyenaDNAForSequenceClassification,
    HyenaDNAForTokenClassification,
]


@pytest.fixture
def model_of(make_model):
    def build(model_class):
        bidirectional = model_class is HyenaDNAForMaskedLM
        sizes = {"d_model": 12, "n_layer": 2, "max_seq_len": 300, "filter_order": 16, "embed_dropout": 0.0}
        return make_model(model_class, HyenaDNAConfig(**sizes, bidirectional=bidirectional), torch.float64)

    return build


def inputs_of(rows, length, masked, zeros=True):
    ids = torch.randint(7, 12, (rows, length))
    if not masked:
        return (ids,)
    mask = (torch.rand(rows, length) < 0.7).long() if zeros else torch.ones_like(ids)
    return ids, mask


def output(graph, *inputs):
    [(_, value)] = graph(*inputs).items()
    return value


@pytest.mark.parametrize("gradients", [False, True])
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("model_class", HEADS)
def test_one_length_and_every_batch(model_of, model_class, masked, gradients):
    """The mask of the trace is of ones alone, and yet no mask is part of the graph."""
    model = model_of(model_class)
    with torch.set_grad_enabled(gradients):
        graph = torch.jit.trace(model, inputs_of(2, 60, masked, zeros=False), strict=False)
        for rows in (2, 1, 5):
            for zeros in (False, True):
                inputs = inputs_of(rows, 60, masked, zeros)
                torch.testing.assert_close(output(graph, *inputs), model(*inputs)[0], **TOLERANCE)
        for length in (100, 120, 59, 1):
            with pytest.raises(RuntimeError, match="traced with 60 positions"):
                graph(*inputs_of(2, length, masked))


def test_a_mask_with_zeros_is_no_part_of_the_graph_either(model_of):
    model = model_of(HyenaDNAForSequenceClassification)
    graph = torch.jit.trace(model, inputs_of(2, 60, True), strict=False)
    for zeros in (False, True):
        inputs = inputs_of(3, 60, True, zeros)
        torch.testing.assert_close(output(graph, *inputs), model(*inputs)[0], **TOLERANCE)


@torch.no_grad()
def test_saved_loaded_and_frozen(model_of):
    model = model_of(HyenaDNAForSequenceClassification)
    graph, file = torch.jit.trace(model, inputs_of(2, 60, False), strict=False), io.BytesIO()
    torch.jit.save(graph, file)
    file.seek(0)
    loaded = torch.jit.load(file)
    for other in (loaded, torch.jit.freeze(loaded)):
        for _ in range(3):  # the first calls are what it is optimised by
            inputs = inputs_of(2, 60, False)
            torch.testing.assert_close(output(other, *inputs), model(*inputs)[0], **TOLERANCE)
        with pytest.raises(RuntimeError, match="traced with 60 positions"):
            other(*inputs_of(2, 100, False))


def test_gradients_of_embeddings(model_of):
    model = model_of(HyenaDNAForCausalLM)
    embeds = torch.randn(2, 60, 12, dtype=torch.float64, requires_grad=True)
    graph = torch.jit.trace(model, example_kwarg_inputs={"inputs_embeds": embeds}, strict=False)
    other = torch.randn_like(embeds, requires_grad=True)
    mine, expected = (
        torch.autograd.grad(logits.square().sum(), other)[0]
        for logits in (graph(inputs_embeds=other)["logits"], model(inputs_embeds=other).logits)
    )
    torch.testing.assert_close(mine, expected, **TOLERANCE)
    with pytest.raises(RuntimeError, match="traced with 60 positions"):
        graph(inputs_embeds=torch.randn(2, 100, 12, dtype=torch.float64))
