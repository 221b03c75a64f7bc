"""Results computed in pieces that save their inputs only: the backward pass computes everything else again."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import repeat
from typing import Any

import torch
from torch import Tensor
from torch.utils.checkpoint import get_device_states, set_device_states


@dataclass
class Pieces:
    """
    How a result is computed in pieces.

    Args:
        function: Computes a piece of the result from its position along `dim` (a `slice`), the matching piece of the
            split input (if there is one), and the other inputs.
        shape: Shape of the result.
        dtype: Data type of the result.
        dim: Dimension of the result that is split.
        size: Size of a piece; the last one may be smaller.
        split_dim: Dimension along which to split the input, as long as `dim`.
        random: Whether `function` draws random numbers, which the backward pass then draws again.
    """

    function: Callable[..., Tensor]
    shape: Sequence[int]
    dtype: torch.dtype
    dim: int
    size: int
    split_dim: int | None = None
    random: bool = False

    def __call__(
        self, split: Tensor | None, inputs: Iterable[Tensor] = (), parameters: Iterable[Tensor] = ()
    ) -> Tensor:
        """
        Compute the result, through which first and second gradients flow to all arguments.

        All pieces write to one result and add to one gradient each, since checkpointing each piece would create
        thousands of small tensors, whose fragmentation takes several times their memory.

        Args:
            split: Input that is split into pieces.
            inputs: Other inputs of every piece.
            parameters: Parameters that `function` uses without receiving them as arguments.
        """
        inputs = tuple(inputs)
        return _PiecewiseFunction.apply(self, len(inputs), split, *inputs, *parameters)

    def compute_with_graph(self, split: Tensor | None, inputs: Sequence[Tensor]) -> Tensor:
        """Compute the result with a graph through all pieces."""
        parts = zip(self.slices(), self.split_input(split))
        return torch.cat([self.function(place, *part, *inputs) for place, part in parts], self.dim)

    def slices(self) -> list[slice]:
        """List the positions of the pieces."""
        return [slice(start, start + self.size) for start in range(0, self.shape[self.dim], self.size)]

    def split_result(self, tensor: Tensor) -> Sequence[Tensor]:
        """Split the result, or its gradient, into views."""
        return tensor.split(self.size, self.dim)

    def split_input(self, tensor: Tensor | None) -> Iterable[tuple[Tensor, ...]]:
        """Return a 1-tuple with the part of the input for each piece, or empty tuples without input."""
        if tensor is None:
            return repeat(())
        return ((part,) for part in tensor.split(self.size, self.split_dim))


def needs_new_memory(gradient: Tensor) -> bool:
    """Whether a backward pass must allocate its results, as for second-order and batched gradients."""
    functorch = torch._C._functorch
    batched = functorch.is_batchedtensor(gradient) or functorch.is_legacy_batchedtensor(gradient)
    return torch.is_grad_enabled() or batched


class _PiecewiseFunction(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, pieces: Pieces, inputs: int, split: Tensor | None, *tensors: Tensor) -> Any:
        ctx.pieces, ctx.inputs = pieces, inputs
        ctx.save_for_backward(split, *tensors)
        device = next(tensor for tensor in (split, *tensors) if tensor is not None).device
        ctx.state = _ForwardState(device, pieces.random)
        result = torch.empty(pieces.shape, dtype=pieces.dtype, device=device)
        with ctx.state.autocast():
            for place, out, part in zip(pieces.slices(), pieces.split_result(result), pieces.split_input(split)):
                out.copy_(pieces.function(place, *part, *tensors[:inputs]))
        return result

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        if needs_new_memory(gradient):
            return _PiecewiseFunction._backward_with_graph(ctx, gradient)
        pieces = ctx.pieces
        split, *tensors = ctx.saved_tensors
        _, _, split_needs_grad, *needs_grad = ctx.needs_input_grad
        # Each piece has its own graph, with these leaves; parameters are leaves already.
        inputs = [tensor.detach().requires_grad_(need) for tensor, need in zip(tensors[: ctx.inputs], needs_grad)]
        leaves = [leaf for leaf, need in zip((*inputs, *tensors[ctx.inputs :]), needs_grad) if need]
        sums: list[Tensor | None] = [None] * len(leaves)
        split_grad = torch.empty_like(split) if split_needs_grad else None
        parts = zip(pieces.split_input(None if split is None else split.detach()), pieces.split_input(split_grad))
        with ctx.state.restore_rng(), ctx.state.autocast(), torch.enable_grad():
            for place, out, (part, part_grad) in zip(pieces.slices(), pieces.split_result(gradient), parts):
                for tensor in part:
                    tensor.requires_grad_(split_needs_grad)
                result = pieces.function(place, *part, *inputs)
                wrt = (*leaves, *part) if split_needs_grad else leaves
                gradients = torch.autograd.grad(result, wrt, out, allow_unused=True)
                sums = [_accumulate(total, addend) for total, addend in zip(sums, gradients)]
                for tensor in part_grad:
                    tensor.copy_(gradients[-1])
        totals = iter(None if total is None else total.to(leaf.dtype) for total, leaf in zip(sums, leaves))
        return None, None, split_grad, *(next(totals) if need else None for need in needs_grad)

    @staticmethod
    def _backward_with_graph(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        split, *tensors = ctx.saved_tensors
        needs_grad = ctx.needs_input_grad[2:]
        second_order = torch.is_grad_enabled()
        with ctx.state.restore_rng(), ctx.state.autocast(), torch.enable_grad():
            # The inputs may depend on some of the parameters: block the gradients that flow through them.
            gate, inputs = _GradientGate(), []
            for tensor, need in zip((split, *tensors[: ctx.inputs]), needs_grad):
                if second_order and need:
                    tensor = _GatedIdentity.apply(tensor, gate)
                elif tensor is not None:
                    tensor = tensor.detach().requires_grad_(need)
                inputs.append(tensor)
            result = ctx.pieces.compute_with_graph(inputs[0], inputs[1:])
            leaves = [tensor for tensor, need in zip((*inputs, *tensors[ctx.inputs :]), needs_grad) if need]
            with gate:
                grads = torch.autograd.grad(result, leaves, gradient, create_graph=second_order, allow_unused=True)
        gradients = iter(grads)
        return None, None, *(next(gradients) if need else None for need in needs_grad)


class _GradientGate:
    """Context in which no gradient passes [`_GatedIdentity`]."""

    closed = False

    def __enter__(self) -> None:
        self.closed = True

    def __exit__(self, *_: Any) -> None:
        self.closed = False


class _GatedIdentity(torch.autograd.Function):
    """Return the same tensor; block its gradient while the gate is closed."""

    @staticmethod
    def forward(ctx: Any, tensor: Tensor, gate: _GradientGate) -> Tensor:
        ctx.gate = gate
        return tensor.view_as(tensor)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, None]:
        return None if ctx.gate.closed else gradient, None


def _accumulate(total: Tensor | None, addend: Tensor | None) -> Tensor | None:
    """Add `addend` to `total` in place, in float32 or wider; both may be `None`."""
    if addend is None:
        return total
    if total is None:
        return addend.to(torch.promote_types(addend.dtype, torch.float32), copy=True)
    return total.add_(addend)


class _ForwardState:
    """Autocast and random state of a forward pass."""

    def __init__(self, device: torch.device, random: bool) -> None:
        self.device_type = device.type
        self.enabled = torch.is_autocast_enabled(device.type)
        self.dtype = torch.get_autocast_dtype(device.type)
        self.random = (torch.get_rng_state(), *get_device_states(torch.empty(0, device=device))) if random else None

    def autocast(self) -> torch.autocast:
        """Restore autocast, without its cache: weights cast without gradients must not be reused elsewhere."""
        return torch.autocast(self.device_type, self.dtype, self.enabled, cache_enabled=False)

    @contextmanager
    def restore_rng(self) -> Iterator[None]:
        """Draw the same random numbers again, and leave the generators as they were."""
        if self.random is None:
            yield
            return
        cpu_state, devices, device_states = self.random
        kind = {"device_type": self.device_type} if devices else {}
        with torch.random.fork_rng(devices, **kind):
            torch.set_rng_state(cpu_state)
            set_device_states(devices, device_states, **kind)
            yield
