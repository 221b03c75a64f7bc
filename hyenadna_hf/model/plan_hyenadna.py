"""Which way a call is computed: decided once, at the top of a forward."""

from dataclasses import dataclass

import torch
from torch import nn
from torch.autograd import forward_ad

from .longconv_hyenadna import fft_size
from .tuning_hyenadna import TUNING, Tuning

# Modules of PyTorch in a model that nothing has rewritten; a model's own types are told to `find_observer`.
PLAIN_MODULES = frozenset({nn.Conv1d, nn.Dropout, nn.Embedding, nn.LayerNorm, nn.Linear, nn.ModuleDict, nn.ModuleList})
HOOKS = {
    "_forward_hooks": "a forward hook",
    "_forward_pre_hooks": "a forward pre-hook",
    "_backward_hooks": "a backward hook",
    "_backward_pre_hooks": "a backward pre-hook",
}
GLOBAL_HOOKS = {f"_global{name}": f"{what} on all modules" for name, what in HOOKS.items()}


@dataclass(frozen=True)
class Plan:
    """
    How a call is computed, and why. `print(model.plan(input_ids))` tells it.

    Args:
        path (`str`):
            `"transparent"`: every module is called, on whole inputs in the layout of the caller, and nothing is kept
            or overwritten. `"whole"`: the same after padding has been packed away. `"rows"`: some rows at a time,
            with a graph. `"pieces"`: a few channels or positions at a time, computed again in the backward pass.
            `"in_place"`: inference in pieces, in memory that is used again.
        reason (`str`): What decided.
        keeps_spectra (`bool`): Whether the spectra of long filters stay from one call to the next.
        low_memory (`bool`): Whether pieces keep their input alone, and not its projections.
        native (`bool`): Whether transforms are those of PyTorch, as compilers and torch.func need them.
        mixer_in_pieces (`bool`): Whether in `"pieces"` the mixers are, and not the MLPs alone.
        tuning ([`Tuning`]): Sizes of pieces and transforms.
    """

    path: str
    reason: str = "asked for"
    keeps_spectra: bool = False
    low_memory: bool = False
    native: bool = False
    mixer_in_pieces: bool = True
    tuning: Tuning = TUNING

    def __post_init__(self):
        if self.path not in ("transparent", "whole", "rows", "pieces", "in_place"):
            raise ValueError(f"path={self.path!r}: it must be transparent, whole, rows, pieces or in_place.")

    def __str__(self):
        kept = "; spectra of the long filters are kept" if self.keeps_spectra else ""
        return f"{self.path}: {self.reason}{kept}"


TRANSPARENT = Plan("transparent", "a module is called by itself", native=True)


def choose_plan(backbone, inputs, modules, cached=False, steps=False, sharded=False, tuning=TUNING):
    """
    Decide how a call is computed: the one place that does.

    Args:
        backbone (`nn.Module`): What holds all that is computed.
        inputs (`torch.Tensor` of shape `(batch, length, ...)`): Token ids or embeddings.
        modules (`frozenset[type]`): Types of the model's own modules.
        cached (`bool`): Whether there is a cache.
        steps (`bool`): Whether a cache computes the positions one by one.
        sharded (`bool`): Whether the sequence is shared by several ranks.
        tuning ([`Tuning`]): Constants.

    Returns:
        [`Plan`]
    """
    if makes_a_graph():
        return Plan("transparent", "the model is compiled, exported or traced", native=True, tuning=tuning)
    if torch._C._functorch.peek_interpreter_stack() is not None or forward_ad._current_level >= 0:
        return Plan("transparent", "a transform of torch.func, or forward-mode gradients", native=True, tuning=tuning)
    config, gradients = backbone.config, torch.is_grad_enabled()
    observer, active = find_observer(backbone, inputs, modules)
    low = config.memory == "low"
    # Attribution methods pass leaves; what prompt tuning passes has been computed from its parameters.
    if observer is None and gradients and inputs.requires_grad and inputs.is_leaf and not low:
        observer = "gradients of inputs_embeds are wanted"
    if observer is not None:
        return Plan("transparent", observer, tuning=tuning)

    rows, length = inputs.shape[:2]
    positions, on_cpu = rows * length, inputs.device.type == "cpu"
    purpose = "training" if gradients else "inference with dropout" if active else "inference"
    size = f'{purpose} of {positions:,} positions on {inputs.device.type}, memory="{config.memory}"'
    infers, alone = not gradients and not active, not (cached or sharded)
    keeps_spectra = infers and on_cpu and alone and _spectra_stay(backbone, length, tuning)
    parts = on_cpu and positions >= tuning.whole_below
    plain = infers and not (steps or sharded) and not torch.is_autocast_enabled(inputs.device.type)
    if plain and (low or parts):
        return Plan("in_place", size, keeps_spectra, tuning=tuning)
    graph = positions * config.d_model * config.n_layer
    checkpointed = active and backbone.layers[0].gradient_checkpointing
    if parts and alone and not (infers or low or checkpointed) and graph <= tuning.graph:
        return Plan("rows", size, tuning=tuning)
    if low or (on_cpu and positions >= tuning.pieces_from):
        return Plan("pieces", size, low_memory=low, mixer_in_pieces=alone, tuning=tuning)
    return Plan("whole", size, keeps_spectra, tuning=tuning)


def check_plan(plan, inputs, cached=False, steps=False, sharded=False):
    """Raise `ValueError` if a plan that was asked for cannot be followed; the arguments are those of `choose_plan`."""
    gradients = torch.is_grad_enabled()
    if plan.path == "in_place" and (gradients or steps or sharded):
        raise ValueError(
            'plan="in_place" is for inference, and neither for single steps of a cache nor for shards: call it under '
            "torch.no_grad(), on more positions."
        )
    if plan.path == "pieces" and plan.mixer_in_pieces and (cached or sharded):
        raise ValueError("plan.mixer_in_pieces=True: pieces fill no cache and know no shards; set it to False.")
    if plan.path == "rows" and (cached or sharded):
        raise ValueError('plan="rows" is for whole sequences, without a cache or shards.')
    if plan.keeps_spectra and gradients:
        raise ValueError("plan.keeps_spectra=True: no gradient flows into kept spectra; set it to False.")
    if plan.keeps_spectra and inputs.device.type != "cpu":
        raise ValueError(f"plan.keeps_spectra=True: spectra are kept on a CPU, not {inputs.device}; set it to False.")


def makes_a_graph():
    """Whether the model is compiled, exported or traced."""
    return torch.compiler.is_compiling() or torch.jit.is_tracing()


def find_observer(backbone, inputs, modules):
    """
    Find what observes or rewrites a model, so that it must not meet pieces, packed rows or memory that is used again.

    Args:
        backbone (`nn.Module`), inputs (`torch.Tensor`), modules (`frozenset[type]`): As [`choose_plan`] takes them.

    Returns:
        `tuple`: what was found (`str`, or `None`), and whether any module is in training mode (`bool`).
    """
    if type(inputs) is not torch.Tensor and type(inputs) is not nn.Parameter:
        return f"the input is a {type(inputs).__name__}", True
    if torch._C._len_torch_dispatch_stack():
        return "a TorchDispatchMode", True
    for name, what in GLOBAL_HOOKS.items():
        if getattr(nn.modules.module, name):
            return what, True
    active, gradients = False, torch.is_grad_enabled()
    stack = [backbone]
    for module in stack:  # grows; written for speed, since every call pays for it
        state = module.__dict__
        if (
            state["_forward_hooks"]
            or state["_forward_pre_hooks"]
            or state["_backward_hooks"]
            or state["_backward_pre_hooks"]
        ):
            return f"{next(HOOKS[name] for name in HOOKS if state[name])} on {_name(backbone, module)}", True
        kind = type(module)
        if (kind not in PLAIN_MODULES and kind not in modules) or "forward" in state or "_compiled_call_impl" in state:
            return f"{_name(backbone, module)} is a {kind.__name__} with a forward of its own", True
        for parameter in state["_parameters"].values():
            if parameter is None and kind not in (nn.Linear, nn.Conv1d):  # these have biases
                continue
            if type(parameter) is not nn.Parameter:
                return f"a parameter of {_name(backbone, module)} is a {type(parameter).__name__}", True
            if gradients and parameter._backward_hooks:  # pieces would run it once each
                return f"a hook on a parameter of {_name(backbone, module)}", True
        active = active or state["training"]
        stack.extend(state["_modules"].values())
    return None, active


def _name(backbone, module):
    return next((name for name, other in backbone.named_modules() if other is module), "") or "the backbone"


def _spectra_stay(backbone, length, tuning):
    """Whether spectra of the long filters are kept: all if memory is "fast", small ones unless it is "low"."""
    config = backbone.config
    if config.memory == "low" or config.trained_positions:
        return False
    dtype = torch.promote_types(backbone.ln_f.weight.dtype, torch.float32)
    numbers = (config.hyena_order - 1) * config.d_model * (fft_size(2 * length - 1, tuning) // 2 + 1)
    return config.memory == "fast" or numbers * dtype.to_complex().itemsize <= tuning.kept_bytes
