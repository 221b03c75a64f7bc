"""Captum's attributions of padded batches: those of each row alone, where its tokens stand."""

import pytest
import torch
from reference import randomise

from hyenadna_hf import HyenaDNAConfig, HyenaDNAForSequenceClassification

captum = pytest.importorskip("captum")
attr = pytest.importorskip("captum.attr")

PAD, N = 4, 11
SIDES = ["left", "right", "none"]
pytestmark = [pytest.mark.parametrize("length", [60, 400]), pytest.mark.parametrize("side", SIDES)]


@pytest.fixture(scope="module", params=["auto", "low"])
def model(request):
    torch.manual_seed(0)
    config = HyenaDNAConfig(
        d_model=10, n_layer=2, filter_order=8, max_seq_len=500, embed_dropout=0.0, num_labels=3, memory=request.param
    )
    return randomise(HyenaDNAForSequenceClassification(config)).double().eval()


def batch(length, side):
    """Three rows of ids and their mask."""
    ids = torch.randint(7, 11, (3, length))
    if side == "none":
        return ids, torch.ones_like(ids)
    for row, pads in enumerate((0, 9, length // 2)):
        ids[row, :pads] = PAD
        if side == "right":
            ids[row] = ids[row].roll(-pads)
    return ids, (ids != PAD).long()


def assert_equal_to_rows_alone(attribute, ids, mask, zero_at_pads=True):
    """`attribute` maps ids and their mask to a tensor `(batch, length, ...)`."""
    found = attribute(ids, mask)
    assert found.shape[:2] == ids.shape and found.abs().max() > 0
    for row, real in enumerate(mask == 1):
        alone = attribute(ids[row : row + 1, real], None)[0]
        torch.testing.assert_close(found[row, real], alone, rtol=0, atol=1e-9 * float(alone.abs().max()))
        assert not zero_at_pads or not found[row, ~real].any()


def test_integrated_gradients_of_the_embedding_layer(model, length, side):
    def attribute(ids, mask):
        layer = attr.LayerIntegratedGradients(
            lambda ids, mask: model(ids, mask).logits, model.hyena.backbone.embeddings.word_embeddings
        )
        return layer.attribute(ids, torch.full_like(ids, N), target=1, additional_forward_args=(mask,), n_steps=4)

    assert_equal_to_rows_alone(attribute, *batch(length, side))


def test_integrated_gradients_sum_to_the_difference(model, length, side):
    """Completeness, which no padding changes."""
    ids, mask = batch(length, side)
    layer = attr.LayerIntegratedGradients(lambda ids, mask: model(ids, mask).logits, model.hyena.backbone.embeddings)
    baseline = ids.where(mask == 0, N)
    found = layer.attribute(ids, baseline, target=1, additional_forward_args=(mask,), n_steps=60).sum((1, 2))
    with torch.no_grad():
        difference = (model(ids, mask).logits - model(baseline, mask).logits)[:, 1]
    assert (found - difference).abs().max() < 0.02 * max(1, difference.abs().max())


def test_integrated_gradients_of_embeddings(model, length, side):
    def attribute(ids, mask):
        embeds = model.get_input_embeddings()(ids).detach()
        method = attr.IntegratedGradients(
            lambda embeds, mask: model(inputs_embeds=embeds, attention_mask=mask).logits[:, 1]
        )
        return method.attribute(embeds, additional_forward_args=(mask,), n_steps=4)

    assert_equal_to_rows_alone(attribute, *batch(length, side))


@pytest.mark.parametrize("to_input", [False, True])
@pytest.mark.parametrize("name", ["", "norm1", "mlp", "mixer.in_proj"])
@pytest.mark.parametrize("gradients", [False, True])
def test_activations(model, length, side, name, to_input, gradients):
    """Of a block (`""`) and its parts."""
    layer = model.hyena.backbone.layers[1].get_submodule(name)
    method = attr.LayerActivation(lambda ids, mask: model(ids, mask).logits, layer)

    def attribute(ids, mask):
        with torch.set_grad_enabled(gradients):
            found = method.attribute(ids, additional_forward_args=(mask,), attribute_to_layer_input=to_input)
        return found[0] if isinstance(found, tuple) else found

    assert_equal_to_rows_alone(attribute, *batch(length, side), zero_at_pads=False)
