"""Transforms of torch.func, second gradients, batches of gradients and forward-mode gradients."""

from dataclasses import replace

import pytest
import torch
from plans import LOW, PIECES, ROWS, TRANSPARENT, WHOLE
from reference import randomise
from torch.autograd import forward_ad
from torch.func import functional_call, grad, jacfwd, jacrev, jvp, stack_module_state, vjp, vmap

from hyenadna_hf import HyenaDNAConfig, HyenaDNAForSequenceClassification, HyenaDNAModel
from hyenadna_hf.model.plan_hyenadna import Plan

LENGTHS = [5, 60, 300]
PLANS = [TRANSPARENT, WHOLE, ROWS, PIECES, LOW]
LONG = 16_500
both_directions = pytest.mark.parametrize("bidirectional", [False, True], ids=["causal", "bidirectional"])
of_lengths = pytest.mark.parametrize("length", LENGTHS)
with_plans = pytest.mark.parametrize("plan", PLANS, ids=["transparent", "whole", "rows", "pieces", "low"])


def model_of(model_class=HyenaDNAModel, seed=0, **kwargs):
    torch.manual_seed(seed)
    sizes = {"d_model": 6, "n_layer": 2, "filter_order": 8, "max_seq_len": 20_000, "embed_dropout": 0.0}
    return randomise(model_class(HyenaDNAConfig(**{**sizes, **kwargs}))).double().eval()


def classifier(bidirectional, **kwargs):
    return model_of(HyenaDNAForSequenceClassification, bidirectional=bidirectional, num_labels=3, **kwargs)


def some_ids(*shape):
    return torch.randint(7, 11, shape)


def left_padded(rows, length):
    mask = torch.ones(rows, length, dtype=torch.long)
    for row in range(rows):
        mask[row, : row * length // (2 * rows)] = 0
    return mask


def weights(model):
    return {name: parameter.detach() for name, parameter in model.named_parameters()}


def loss_of(model):
    """A function of weights, the ids of one row, its label, and a mask."""

    def loss(weights, ids, label, mask=None):
        kwargs = {"input_ids": ids[None], "attention_mask": None if mask is None else mask[None], "labels": label[None]}
        return functional_call(model, weights, kwargs=kwargs).loss

    return loss


def gradients_by_rows(model, ids, labels, mask=None):
    """Gradients of one row at a time, with a dimension of rows in front."""
    rows = []
    for row in range(len(ids)):
        model.zero_grad()
        one = slice(row, row + 1)
        model(ids[one], None if mask is None else mask[one], labels=labels[one]).loss.backward()
        rows.append({name: parameter.grad.clone() for name, parameter in model.named_parameters()})
    return {name: torch.stack([row[name] for row in rows]) for name in rows[0]}


def assert_same(found, expected, tolerance=1e-9):
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        atol = tolerance * max(float(value.abs().max()), 1e-3)
        torch.testing.assert_close(found[name], value, rtol=0, atol=atol, msg=lambda text, name=name: f"{name}: {text}")


@both_directions
@pytest.mark.parametrize("length", [*LENGTHS, pytest.param(LONG, marks=pytest.mark.slow)])
def test_grad(length, bidirectional):
    model = classifier(bidirectional)
    ids, label = some_ids(2, length), torch.tensor([2, 0])
    for mask in (None, left_padded(2, length)):
        expected = gradients_by_rows(model, ids[1:], label[1:], None if mask is None else mask[1:])
        found = grad(loss_of(model))(weights(model), ids[1], label[1], None if mask is None else mask[1])
        assert_same(found, {name: value[0] for name, value in expected.items()})


@both_directions
@of_lengths
@pytest.mark.parametrize("masked", [None, "shared", "mapped"])
def test_gradients_of_each_sample(length, bidirectional, masked):
    model = classifier(bidirectional)
    ids, labels = some_ids(3, length), torch.tensor([2, 0, 1])
    mask = None
    if masked is not None:
        mask = left_padded(3, length)
        mask = mask[1:2].expand(3, -1) if masked == "shared" else mask
    expected = gradients_by_rows(model, ids, labels, mask)
    if masked == "mapped":
        found = vmap(grad(loss_of(model)), in_dims=(None, 0, 0, 0))(weights(model), ids, labels, mask)
    else:
        shared = None if mask is None else mask[0]
        found = vmap(grad(loss_of(model)), in_dims=(None, 0, 0, None))(weights(model), ids, labels, shared)
    assert_same(found, expected)


@both_directions
@of_lengths
def test_vjp_and_jvp(length, bidirectional):
    """Against a backward pass, and against a difference along the tangent."""
    model = model_of(bidirectional=bidirectional)
    embeds, tangent, cotangent = torch.randn(3, 2, length, 6, dtype=torch.float64)
    mask = left_padded(2, length)

    def function(embeds):
        return model(inputs_embeds=embeds, attention_mask=mask)[0]

    output, pull = vjp(function, embeds)
    leaf = embeds.clone().requires_grad_()
    (expected,) = torch.autograd.grad(model(inputs_embeds=leaf, attention_mask=mask, plan=WHOLE)[0], leaf, cotangent)
    torch.testing.assert_close(pull(cotangent)[0], expected, rtol=0, atol=1e-9 * float(expected.abs().max()))
    pushed, derivative = jvp(function, (embeds,), (tangent,))
    torch.testing.assert_close(pushed, output, rtol=0, atol=1e-12)
    torch.testing.assert_close((derivative * cotangent).sum(), (expected * tangent).sum(), rtol=1e-9, atol=0)
    with forward_ad.dual_level(), torch.no_grad():
        dual = function(forward_ad.make_dual(embeds, tangent))
        torch.testing.assert_close(forward_ad.unpack_dual(dual).tangent, derivative, rtol=0, atol=1e-12)
    step = 1e-6
    with torch.no_grad():
        difference = (function(embeds + step * tangent) - function(embeds - step * tangent)) / (2 * step)
    torch.testing.assert_close(derivative, difference, rtol=0, atol=1e-6 * float(derivative.abs().max()))


@both_directions
def test_jacobians(bidirectional):
    model = model_of(bidirectional=bidirectional, n_layer=1)
    model.requires_grad_(False)
    embeds = torch.randn(9, 6, dtype=torch.float64)

    def function(embeds):
        return model(inputs_embeds=embeds[None])[0][0].sum(-1)

    expected = torch.autograd.functional.jacobian(function, embeds)
    reverse, forward = jacrev(function)(embeds), jacfwd(function)(embeds)
    for found in (reverse, forward):
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-10)
    future = torch.ones(9, 9).triu(1).bool()
    assert bool(expected.abs().amax(-1)[future].max() > 1e-9) is bidirectional
    hessian = jacfwd(jacrev(lambda embeds: function(embeds).square().sum()))(embeds).reshape(54, 54)
    torch.testing.assert_close(hessian, hessian.T, rtol=0, atol=1e-9 * float(hessian.abs().max()))
    second = torch.autograd.functional.hessian(lambda embeds: function(embeds).square().sum(), embeds)
    torch.testing.assert_close(hessian, second.reshape(54, 54), rtol=0, atol=1e-9 * float(hessian.abs().max()))


@both_directions
@of_lengths
def test_functional_call(length, bidirectional):
    """Other weights, as tensors and as parameters; kept spectra are not those of the model's own."""
    model, other = (model_of(bidirectional=bidirectional, seed=seed) for seed in (0, 1))
    ids, mask = some_ids(2, length), left_padded(2, length)
    with torch.no_grad():
        expected = other(ids, mask, plan=TRANSPARENT)[0]
        for memory in ("auto", "low", "fast"):
            model.config.memory = memory
            for of in (weights(other), dict(other.named_parameters())):
                before = model(ids, mask)[0]
                found = functional_call(model, of, (ids, mask))[0]
                torch.testing.assert_close(found, expected, rtol=0, atol=1e-9)
                assert torch.equal(model(ids, mask)[0], before)


@both_directions
@of_lengths
def test_ensembles(length, bidirectional):
    models = [model_of(bidirectional=bidirectional, seed=seed) for seed in range(3)]
    ids, mask = some_ids(2, length), left_padded(2, length)
    stacked, buffers = stack_module_state(models)
    for of in (None, mask):

        def run(parameters, buffers, ids, of=of):
            return functional_call(models[0], (parameters, buffers), (ids, of))[0]

        found = vmap(run, in_dims=(0, 0, None))(stacked, buffers, ids)
        expected = torch.stack([model(ids, of)[0] for model in models])
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-9)
        each = vmap(run)(stacked, buffers, ids.repeat(3, 1, 1))
        torch.testing.assert_close(each, expected, rtol=0, atol=1e-9)


def penalty(model, ids, **kwargs):
    """Gradients of the squared norm of the gradient of a loss by the embeddings of tokens."""
    model.zero_grad()
    names, parameters = zip(*model.named_parameters())
    hidden = model(ids, **kwargs)[0]
    table = model.get_input_embeddings().weight
    (first,) = torch.autograd.grad(hidden.square().sum() / hidden.numel(), table, create_graph=True)
    found = torch.autograd.grad(first.square().sum(), parameters, allow_unused=True)
    return {name: value for name, value in zip(names, found) if value is not None}


@both_directions
def test_gradient_penalty(bidirectional):
    """By each plan, and against second gradients in forward mode of torch.func."""
    model = model_of(bidirectional=bidirectional)
    ids = some_ids(4, 60)
    mask = left_padded(4, 60)
    expected = penalty(model, ids, attention_mask=mask, plan=TRANSPARENT)
    assert len(expected) == len(list(model.parameters()))
    for plan in PLANS[1:]:
        assert_same(penalty(model, ids, attention_mask=mask, plan=plan), expected, 1e-8)
    model.config.memory = "low"
    assert model.plan(ids).path == "pieces"
    assert_same(penalty(model, ids, attention_mask=mask), expected, 1e-8)

    table = "backbone.embeddings.word_embeddings.weight"

    def loss(of):
        return functional_call(model, of, (ids, mask))[0].square().sum() / (4 * 60 * 6)

    found = grad(lambda of: grad(loss)(of)[table].square().sum())(weights(model))
    assert_same(found, expected, 1e-8)


@both_directions
@with_plans
@pytest.mark.parametrize("shared", [False, True], ids=["", "one block twice"])
def test_gradients_with_a_graph(plan, bidirectional, shared):
    """`create_graph=True` changes no first gradient, and second ones are those of whole inputs."""
    model = model_of(bidirectional=bidirectional, hyena_order=3)
    if shared:
        model.backbone.layers[1] = model.backbone.layers[0]
    ids, mask = some_ids(2, 40), left_padded(2, 40)
    names, parameters = zip(*model.named_parameters())

    def gradients(plan, **kwargs):
        return torch.autograd.grad(model(ids, mask, plan=plan)[0].square().mean(), parameters, **kwargs)

    expected = gradients(TRANSPARENT)
    found = gradients(plan, create_graph=True)
    assert_same(dict(zip(names, found)), dict(zip(names, expected)))
    directions = [torch.randn_like(parameter) for parameter in parameters]
    products = torch.autograd.grad(found, parameters, directions)
    expected = torch.autograd.grad(gradients(TRANSPARENT, create_graph=True), parameters, directions)
    assert_same(dict(zip(names, products)), dict(zip(names, expected)), 1e-8)


@pytest.mark.slow
@pytest.mark.parametrize(
    "plan", [Plan("rows"), Plan("pieces"), Plan("pieces", low_memory=True)], ids=["rows", "pieces", "low"]
)
@both_directions
def test_gradient_penalty_of_long_sequences(bidirectional, plan):
    """In pieces as they are, prefixes among them."""
    model = model_of(bidirectional=bidirectional)
    ids = some_ids(1, LONG)
    expected = penalty(model, ids, plan=TRANSPARENT)
    assert_same(penalty(model, ids, plan=plan), expected, 1e-7)


@both_directions
@with_plans
def test_gradcheck(plan, bidirectional):
    """First and second gradients against differences, of embeddings and of a parameter of each kind."""
    model = model_of(bidirectional=bidirectional, d_model=2, n_layer=1, filter_order=3, num_inner_mlps=1, hyena_order=3)
    plan = replace(plan, tuning=plan.tuning._replace(channels=1, positions=3))
    embeds = torch.randn(2, 5, 2, dtype=torch.float64, requires_grad=True)
    mask = torch.ones(2, 5, dtype=torch.long)
    mask[1, :2] = 0

    def of_embeds(embeds):
        return model(inputs_embeds=embeds, attention_mask=mask, plan=plan)[0]

    assert torch.autograd.gradcheck(of_embeds, embeds, atol=1e-6)
    assert torch.autograd.gradgradcheck(of_embeds, embeds, atol=1e-5, fast_mode=True)
    mixer = model.backbone.layers[0].mixer
    layers = mixer.in_proj, mixer.short_filter, mixer.filter_fn.implicit_filter["0"], model.backbone.layers[0].mlp.fc2
    for parameter in (mixer.filter_fn.bias, *(layer.weight for layer in layers)):

        def of_parameter(parameter):
            return of_embeds(embeds.detach())

        assert torch.autograd.gradcheck(of_parameter, parameter, atol=1e-6, fast_mode=True)
        assert torch.autograd.gradgradcheck(of_parameter, parameter, atol=1e-5, fast_mode=True)


@both_directions
def test_gradcheck_of_forward_mode(bidirectional):
    """By the plan that the model chooses, over a batch of tangents as well."""
    model = model_of(bidirectional=bidirectional, d_model=2, n_layer=1, filter_order=3)
    embeds = torch.randn(1, 5, 2, dtype=torch.float64, requires_grad=True)
    for memory in ("auto", "low"):
        model.config.memory = memory
        assert torch.autograd.gradcheck(
            lambda embeds: model(inputs_embeds=embeds)[0],
            embeds,
            atol=1e-6,
            check_forward_ad=True,
            check_batched_forward_grad=True,
            check_batched_grad=True,
        )


@both_directions
@with_plans
@of_lengths
def test_batches_of_gradients(length, plan, bidirectional):
    model = model_of(bidirectional=bidirectional)
    names, parameters = zip(*model.named_parameters())
    hidden = model(some_ids(2, length), left_padded(2, length), plan=plan)[0]
    batch = torch.randn(3, *hidden.shape, dtype=torch.float64)
    found = torch.autograd.grad(hidden, parameters, batch, retain_graph=True, is_grads_batched=True)
    each = [torch.autograd.grad(hidden, parameters, one, retain_graph=True) for one in batch]
    assert_same(dict(zip(names, found)), dict(zip(names, map(torch.stack, zip(*each)))))


@pytest.mark.parametrize("memory", ["auto", "low", "fast"])
@of_lengths
def test_forward_mode_over_weights(length, memory):
    """The derivative along a direction is the gradient's part along it."""
    model = model_of(memory=memory)
    ids = some_ids(2, length)
    weight = torch.randn(2, length, 6, dtype=torch.float64)
    (model(ids, plan=WHOLE)[0] * weight).sum().backward()
    with forward_ad.dual_level():
        tangents = {name: torch.randn_like(p) for name, p in model.named_parameters()}
        duals = {name: forward_ad.make_dual(p.detach(), tangents[name]) for name, p in model.named_parameters()}
        found = forward_ad.unpack_dual((functional_call(model, duals, (ids,))[0] * weight).sum()).tangent
    expected = sum((p.grad * tangents[name]).sum() for name, p in model.named_parameters())
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=0)
