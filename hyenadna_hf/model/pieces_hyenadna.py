"""Results made in pieces that keep their inputs alone: the rest is computed again in the backward pass."""

from collections.abc import Callable, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import repeat

import torch
from torch.utils.checkpoint import get_device_states, set_device_states


@dataclass
class Pieces:
    """
    How a result is made in pieces.

    Args:
        function (`Callable`): Gives a piece of the result, of a `slice` (the places of the piece), that part of what is
            cut (unless nothing is), and the other inputs.
        shape (`Sequence[int]`), dtype (`torch.dtype`): Of the whole result.
        dim (`int`): The dimension of the result along which there are pieces.
        size (`int`): Of a piece; the last one may be smaller.
        cut_dim (`int`, *optional*): The dimension of what is cut, as long as `dim` is.
        random (`bool`, defaults to `False`): Whether `function` draws random numbers; they will be the same ones again.
    """

    function: Callable[..., torch.Tensor]
    shape: Sequence[int]
    dtype: torch.dtype
    dim: int
    size: int
    cut_dim: int | None = None
    random: bool = False

    def __call__(self, cut, inputs=(), parameters=()):
        """
        Compute the result, from which gradients flow to all arguments, second ones too.

        The pieces write to one result and add to one gradient each. Checkpoints of as many pieces would make thousands
        of small tensors, which leave holes of several times their size in the memory of a process.

        Args:
            cut (`torch.Tensor` or `None`): What is cut into pieces.
            inputs (`Sequence[torch.Tensor]`): What every piece depends on besides.
            parameters (`Iterable[torch.nn.Parameter]`): What `function` uses without being given it.

        Returns:
            `torch.Tensor`
        """
        inputs = tuple(inputs)
        return _InPieces.apply(self, len(inputs), cut, *inputs, *parameters)

    def joined(self, cut, inputs):
        """Compute the result with a graph through all pieces."""
        parts = zip(self.places(), self.of_cut(cut))
        return torch.cat([self.function(place, *part, *inputs) for place, part in parts], self.dim)

    def places(self):
        """List a slice a piece."""
        return [slice(start, start + self.size) for start in range(0, self.shape[self.dim], self.size)]

    def of_result(self, tensor):
        """List the pieces of the result, or of its gradient: views."""
        return tensor.split(self.size, self.dim)

    def of_cut(self, tensor):
        """List for each piece, in a tuple, that part of what is cut; or an empty tuple."""
        if tensor is None:
            return repeat(())
        return ((part,) for part in tensor.split(self.size, self.cut_dim))


def needs_new_memory(gradient):
    """Whether a backward pass must not write into memory of its own: for second gradients, and batches of gradients."""
    functorch = torch._C._functorch
    batched = functorch.is_batchedtensor(gradient) or functorch.is_legacy_batchedtensor(gradient)
    return torch.is_grad_enabled() or batched


class _InPieces(torch.autograd.Function):
    @staticmethod
    def forward(ctx, pieces, inputs, cut, *tensors):
        ctx.pieces, ctx.inputs = pieces, inputs
        ctx.save_for_backward(cut, *tensors)
        device = next(tensor for tensor in (cut, *tensors) if tensor is not None).device
        ctx.state = _State(device, pieces.random)
        result = torch.empty(pieces.shape, dtype=pieces.dtype, device=device)
        with ctx.state.autocast():
            for place, out, part in zip(pieces.places(), pieces.of_result(result), pieces.of_cut(cut)):
                out.copy_(pieces.function(place, *part, *tensors[:inputs]))
        return result

    @staticmethod
    def backward(ctx, gradient):
        if needs_new_memory(gradient):
            return _InPieces._with_graph(ctx, gradient)
        pieces = ctx.pieces
        cut, *tensors = ctx.saved_tensors
        _, _, cut_wanted, *wanted = ctx.needs_input_grad
        # Each piece has a graph of its own, with these as its leaves; parameters are leaves already.
        inputs = [tensor.detach().requires_grad_(want) for tensor, want in zip(tensors[: ctx.inputs], wanted)]
        leaves = [leaf for leaf, want in zip((*inputs, *tensors[ctx.inputs :]), wanted) if want]
        sums = [None] * len(leaves)
        of_cut = torch.empty_like(cut) if cut_wanted else None
        parts = zip(pieces.of_cut(None if cut is None else cut.detach()), pieces.of_cut(of_cut))
        with ctx.state.again(), ctx.state.autocast(), torch.enable_grad():
            for place, out, (part, of_part) in zip(pieces.places(), pieces.of_result(gradient), parts):
                for tensor in part:
                    tensor.requires_grad_(cut_wanted)
                result = pieces.function(place, *part, *inputs)
                wrt = (*leaves, *part) if cut_wanted else leaves
                found = torch.autograd.grad(result, wrt, out, allow_unused=True)
                sums = [_added(total, more) for total, more in zip(sums, found)]
                for tensor in of_part:
                    tensor.copy_(found[-1])
        gradients = iter(None if total is None else total.to(leaf.dtype) for total, leaf in zip(sums, leaves))
        return None, None, of_cut, *(next(gradients) if want else None for want in wanted)

    @staticmethod
    def _with_graph(ctx, gradient):
        cut, *tensors = ctx.saved_tensors
        wanted = ctx.needs_input_grad[2:]
        again = torch.is_grad_enabled()
        with ctx.state.again(), ctx.state.autocast(), torch.enable_grad():
            # What these were made of may be among the parameters: its gradient through them is not asked for here.
            door, given = _Door(), []
            for tensor, want in zip((cut, *tensors[: ctx.inputs]), wanted):
                if again and want:
                    tensor = _Behind.apply(tensor, door)
                elif tensor is not None:
                    tensor = tensor.detach().requires_grad_(want)
                given.append(tensor)
            result = ctx.pieces.joined(given[0], given[1:])
            leaves = [tensor for tensor, want in zip((*given, *tensors[ctx.inputs :]), wanted) if want]
            with door:
                found = iter(torch.autograd.grad(result, leaves, gradient, create_graph=again, allow_unused=True))
        return None, None, *(next(found) if want else None for want in wanted)


class _Door:
    """Closed in a `with`."""

    closed = False

    def __enter__(self):
        self.closed = True

    def __exit__(self, *_):
        self.closed = False


class _Behind(torch.autograd.Function):
    """The same tensor; no gradient comes to it while a door is closed."""

    @staticmethod
    def forward(ctx, tensor, door):
        ctx.door = door
        return tensor.view_as(tensor)

    @staticmethod
    def backward(ctx, gradient):
        return None if ctx.door.closed else gradient, None


def _added(total, more):
    """Add, in float32 or wider; both may be `None`. Only `total` is changed."""
    if more is None:
        return total
    if total is None:
        return more.to(torch.promote_types(more.dtype, torch.float32), copy=True)
    return total.add_(more)


class _State:
    """What a computation depends on besides its arguments."""

    def __init__(self, device, random):
        self.device_type = device.type
        self.enabled = torch.is_autocast_enabled(device.type)
        self.dtype = torch.get_autocast_dtype(device.type)
        self.random = (torch.get_rng_state(), *get_device_states(torch.empty(0, device=device))) if random else None

    def autocast(self):
        """As it was. It keeps no cast weights: those made without gradients must serve nobody else."""
        return torch.autocast(self.device_type, self.dtype, self.enabled, cache_enabled=False)

    @contextmanager
    def again(self):
        """The same random numbers, and afterwards as if none had been drawn."""
        if self.random is None:
            yield
            return
        on_cpu, devices, on_devices = self.random
        kind = {"device_type": self.device_type} if devices else {}
        with torch.random.fork_rng(devices, **kind):
            torch.set_rng_state(on_cpu)
            set_device_states(devices, on_devices, **kind)
            yield
