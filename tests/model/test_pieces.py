"""Results made in pieces that are computed again, against the same arithmetic in one go, in float64."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from hyenadna_hf.model.pieces_hyenadna import Pieces


def tensors(length, wanted):
    shapes = {"cut": (2, 3, length), "shared": (3,), "parameter": (length, 3), "unused": (4,)}
    made = {name: torch.randn(shape, dtype=torch.float64) for name, shape in shapes.items()}
    return {name: tensor.requires_grad_(name in wanted) for name, tensor in made.items()}


def whole(cut, shared, parameter):
    return ((cut * shared[:, None]).sin() * parameter.T).transpose(1, 2)


def in_pieces(size, cut, shared, parameter, unused):
    def function(place, part, shared):
        return whole(part, shared, parameter[place])

    made = Pieces(function, (2, cut.shape[2], 3), torch.float64, 1, size, split_dim=2)
    return made(cut, [shared], [parameter, unused])


@settings(max_examples=60)
@given(
    st.integers(1, 20),
    st.integers(1, 25),
    st.sets(st.sampled_from(["cut", "shared", "parameter", "unused"]), min_size=1),
)
def test_values_and_gradients(length, size, wanted):
    torch.manual_seed(length)
    made = tensors(length, wanted)
    found = in_pieces(size, **made)
    expected = whole(*(made[name] for name in ("cut", "shared", "parameter")))
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)
    useful = sorted(wanted - {"unused"})
    if not useful:
        return
    weights = torch.randn_like(expected)
    mine, other = (torch.autograd.grad((x * weights).sum(), [made[n] for n in useful]) for x in (found, expected))
    for one, two in zip(mine, other):
        torch.testing.assert_close(one, two, rtol=0, atol=1e-12)


def test_what_is_not_used_gets_no_gradient():
    made = tensors(10, {"cut", "unused"})
    in_pieces(3, **made).sum().backward()
    assert made["cut"].grad is not None and made["unused"].grad is None


def test_random_numbers_are_drawn_once():
    """The gradient of dropout is zero where its value is; and what is drawn afterwards is the same."""
    x = torch.ones(100, requires_grad=True)
    out = Pieces(lambda _, part: F.dropout(part), (100,), torch.float32, 0, 7, split_dim=0, random=True)(x)
    state = torch.get_rng_state()
    out.sum().backward()
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(x.grad, out.detach())
    assert 20 < out.count_nonzero() < 80


def test_weights_cast_without_gradients_serve_nobody_else():
    """Autocast keeps the weights that it casts; those that the forward pass casts here have no gradient."""
    linear = torch.nn.Linear(4, 4)
    x = torch.randn(6, 4)
    with torch.autocast("cpu", torch.bfloat16):
        pieces = Pieces(lambda _, part: linear(part), (6, 4), torch.bfloat16, 0, 2, split_dim=0)
        first = pieces(x, parameters=linear.parameters())
        second = linear(x)
    torch.testing.assert_close(first, second)
    second.float().sum().backward()
    assert linear.weight.grad.abs().sum() > 0


def test_sums_are_of_float32():
    """A thousand gradients of 1 are 1000 to bfloat16 only if they are not summed in it (there 256 + 1 is 256)."""
    bias = torch.nn.Parameter(torch.zeros(1, dtype=torch.bfloat16))
    x = torch.zeros(1000, 1, dtype=torch.bfloat16)
    out = Pieces(lambda _, part: part + bias, (1000, 1), torch.bfloat16, 0, 1, split_dim=0)(x, parameters=[bias])
    out.sum().backward()
    assert bias.grad == 1000


@settings(max_examples=30)
@given(st.integers(1, 20), st.integers(1, 25), st.sets(st.sampled_from(["cut", "shared", "parameter"]), min_size=1))
def test_second_gradients_and_batches_of_gradients(length, size, wanted):
    torch.manual_seed(length)
    made = tensors(length, wanted)
    inputs = [made[name] for name in sorted(wanted)]
    found = []
    for result in (in_pieces(size, **made), whole(*(made[name] for name in ("cut", "shared", "parameter")))):
        first = torch.autograd.grad(result.square().sum(), inputs, create_graph=True)
        penalty = sum(gradient.square().sum() for gradient in first)
        second = torch.autograd.grad(penalty, inputs, retain_graph=True)
        gradients = torch.stack(
            [torch.ones_like(result), torch.linspace(0, 1, result.numel()).view_as(result).double()]
        )
        batch = torch.autograd.grad(result, inputs, gradients, is_grads_batched=True)
        found.append([*first, *second, *batch])
    for mine, expected in zip(*found):
        torch.testing.assert_close(mine, expected, rtol=1e-9, atol=1e-9)


def test_nothing_is_kept_but_what_is_given():
    made = tensors(40, {"cut", "shared", "parameter"})
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: kept.append(tensor) or tensor, lambda tensor: tensor):
        in_pieces(3, **made)
    assert {tensor.data_ptr() for tensor in kept} <= {tensor.data_ptr() for tensor in made.values()}
