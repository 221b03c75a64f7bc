"""Choice of how a call is computed, made once at the top of `forward`."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad

from .longconv_hyenadna import fft_size
from .tuning_hyenadna import TUNING, Tuning

# PyTorch modules of an unmodified model; `find_observer` receives the model's own types as an argument.
PLAIN_MODULES = frozenset({nn.Conv1d, nn.Dropout, nn.Embedding, nn.LayerNorm, nn.Linear, nn.ModuleDict, nn.ModuleList})
HOOKS = {
    "_forward_hooks": "a forward hook",
    "_forward_pre_hooks": "a forward pre-hook",
    "_backward_hooks": "a backward hook",
    "_backward_pre_hooks": "a backward pre-hook",
}
GLOBAL_HOOKS = {f"_global{name}": f"{hook} on all modules" for name, hook in HOOKS.items()}


@dataclass(frozen=True)
class Plan:
    """
    How a call is computed, and why. Shown by `print(model.plan(input_ids))`.

    Args:
        path: `"transparent"`: call every module on whole inputs in the caller's layout; keep and overwrite nothing.
            `"whole"`: the same, with padding packed away. `"rows"`: some rows at a time, with a graph. `"pieces"`: some
            channels or positions at a time, computed again in the backward pass. `"in_place"`: inference in pieces, in
            reused memory.
        reason: Why this path was chosen.
        keeps_spectra: Whether to keep the spectra of long filters between calls.
        low_memory: Whether pieces save their inputs only, without the projections.
        native: Whether to call PyTorch's transforms directly, as compilers and torch.func require.
        mixer_in_pieces: Whether `"pieces"` applies to mixers and MLPs, rather than to MLPs alone.
        tuning: Sizes of pieces and transforms.
    """

    path: str
    reason: str = "requested"
    keeps_spectra: bool = False
    low_memory: bool = False
    native: bool = False
    mixer_in_pieces: bool = True
    tuning: Tuning = TUNING

    def __post_init__(self) -> None:
        if self.path not in ("transparent", "whole", "rows", "pieces", "in_place"):
            raise ValueError(f"path={self.path!r}: it must be transparent, whole, rows, pieces or in_place.")

    def __str__(self) -> str:
        kept = "; spectra of the long filters are kept" if self.keeps_spectra else ""
        return f"{self.path}: {self.reason}{kept}"


TRANSPARENT = Plan("transparent", "a module is called by itself", native=True)


def choose_plan(
    backbone: nn.Module,
    inputs: Tensor,
    modules: frozenset[type],
    cached: bool = False,
    steps: bool = False,
    sharded: bool = False,
    tuning: Tuning = TUNING,
) -> Plan:
    """
    Choose how to compute a call. No other place decides this.

    Args:
        backbone: The [`HyenaDNABackbone`] to call.
        inputs: Token ids or embeddings of shape `(batch, length, ...)`.
        modules: Types of the model's own modules.
        cached: Whether there is a cache.
        steps: Whether a cache computes the positions one by one.
        sharded: Whether each sequence is split over several ranks.
        tuning: Constants.
    """
    if is_building_graph():
        return Plan("transparent", "the model is compiled, exported or traced", native=True, tuning=tuning)
    if torch._C._functorch.peek_interpreter_stack() is not None or forward_ad._current_level >= 0:
        return Plan("transparent", "a transform of torch.func, or forward-mode gradients", native=True, tuning=tuning)
    config, gradients = backbone.config, torch.is_grad_enabled()
    observer, active = find_observer(backbone, inputs, modules)
    low = config.memory == "low"
    # Attribution methods pass leaves; the embeddings of prompt tuning are computed from its parameters.
    if observer is None and gradients and inputs.requires_grad and inputs.is_leaf and not low:
        observer = "gradients of inputs_embeds are required"
    if observer is not None:
        return Plan("transparent", observer, tuning=tuning)

    rows, length = inputs.shape[:2]
    positions, on_cpu = rows * length, inputs.device.type == "cpu"
    purpose = "training" if gradients else "inference with dropout" if active else "inference"
    size = f'{purpose} of {positions:,} positions on {inputs.device.type}, memory="{config.memory}"'
    is_inference, is_standalone = not gradients and not active, not (cached or sharded)
    keeps_spectra = is_inference and on_cpu and is_standalone and _keeps_spectra(backbone, length, tuning)
    is_long = on_cpu and positions >= tuning.whole_below
    fits_in_place = is_inference and not (steps or sharded or torch.is_autocast_enabled(inputs.device.type))
    if fits_in_place and (low or is_long):
        return Plan("in_place", size, keeps_spectra, tuning=tuning)
    graph = positions * config.d_model * config.n_layer
    checkpointed = active and backbone.layers[0].gradient_checkpointing
    if is_long and is_standalone and not (is_inference or low or checkpointed) and graph <= tuning.graph:
        return Plan("rows", size, tuning=tuning)
    if low or (on_cpu and positions >= tuning.pieces_from):
        return Plan("pieces", size, low_memory=low, mixer_in_pieces=is_standalone, tuning=tuning)
    return Plan("whole", size, keeps_spectra, tuning=tuning)


def check_plan(plan: Plan, inputs: Tensor, cached: bool = False, steps: bool = False, sharded: bool = False) -> None:
    """Raise `ValueError` if a requested plan does not fit the call; the arguments are those of [`choose_plan`]."""
    gradients = torch.is_grad_enabled()
    if plan.path == "in_place" and (gradients or steps or sharded):
        raise ValueError(
            'plan="in_place" is for inference, but not for single steps of a cache or for shards; call the model under '
            "torch.no_grad(), on more positions."
        )
    if plan.path == "pieces" and plan.mixer_in_pieces and (cached or sharded):
        raise ValueError("plan.mixer_in_pieces=True: pieces support neither a cache nor shards; set it to False.")
    if plan.path == "rows" and (cached or sharded):
        raise ValueError('plan="rows" is for whole sequences, without a cache or shards.')
    if plan.keeps_spectra and gradients:
        raise ValueError("plan.keeps_spectra=True: no gradient flows into kept spectra; set it to False.")
    if plan.keeps_spectra and inputs.device.type != "cpu":
        raise ValueError(f"plan.keeps_spectra=True: spectra are kept on a CPU, not {inputs.device}; set it to False.")


def is_building_graph() -> bool:
    """Whether the model is being compiled, exported or traced."""
    return torch.compiler.is_compiling() or torch.jit.is_tracing()


def find_observer(backbone: nn.Module, inputs: Tensor, modules: frozenset[type]) -> tuple[str | None, bool]:
    """
    Find anything that observes or rewrites the model, and so rules out pieces, packed rows and reused memory.

    The arguments are those of [`choose_plan`].

    Returns:
        A description of the observer, or `None`, and whether any module is in training mode.
    """
    if type(inputs) is not Tensor and type(inputs) is not nn.Parameter:
        return f"the input is a {type(inputs).__name__}", True
    if torch._C._len_torch_dispatch_stack():
        return "a TorchDispatchMode", True
    for name, hook in GLOBAL_HOOKS.items():
        if getattr(nn.modules.module, name):
            return hook, True
    active, gradients = False, torch.is_grad_enabled()
    stack = [backbone]
    for module in stack:  # grows; written for speed, since it runs in every call
        state = module.__dict__
        if (
            state["_forward_hooks"]
            or state["_forward_pre_hooks"]
            or state["_backward_hooks"]
            or state["_backward_pre_hooks"]
        ):
            hook = next(HOOKS[name] for name in HOOKS if state[name])
            return f"{hook} on {_module_name(backbone, module)}", True
        kind = type(module)
        if (kind not in PLAIN_MODULES and kind not in modules) or "forward" in state or "_compiled_call_impl" in state:
            return f"{_module_name(backbone, module)} is a {kind.__name__} with its own forward", True
        for parameter in state["_parameters"].values():
            if parameter is None and kind not in (nn.Linear, nn.Conv1d):  # these have biases
                continue
            if type(parameter) is not nn.Parameter:
                return f"a parameter of {_module_name(backbone, module)} is a {type(parameter).__name__}", True
            if gradients and parameter._backward_hooks:  # each piece would run it
                return f"a hook on a parameter of {_module_name(backbone, module)}", True
        active = active or state["training"]
        stack.extend(state["_modules"].values())
    return None, active


def _module_name(backbone: nn.Module, module: nn.Module) -> str:
    return next((name for name, other in backbone.named_modules() if other is module), "") or "the backbone"


def _keeps_spectra(backbone: nn.Module, length: int, tuning: Tuning) -> bool:
    """Whether to keep spectra of the long filters: all of them if memory is "fast", small ones if it is "auto"."""
    config = backbone.config
    if config.memory == "low" or config.trained_positions:
        return False
    dtype = torch.promote_types(backbone.ln_f.weight.dtype, torch.float32)
    numbers = (config.hyena_order - 1) * config.d_model * (fft_size(2 * length - 1, tuning) // 2 + 1)
    return config.memory == "fast" or numbers * dtype.to_complex().itemsize <= tuning.kept_bytes
