"""Parameter groups with weight decay and learning rates for HyenaDNA, and Muon, for the stock Trainer."""

from collections.abc import Callable
from typing import Any

import torch
from transformers import Trainer, TrainingArguments

from ..processes import has_fast_bfloat16

FILTERS = {"filter_fn", "filter_fn_rev"}  # modules of an operator
MUON_RATIO = 2.0  # learning rate of Muon in fine-tuning, relative to that of AdamW; see benchmarks/finetune_ablation.py
MOMENTUM = 0.95
NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)  # coefficients of Jordan et al., for the steepest slope at 0


def orthogonalise(matrix: torch.Tensor) -> torch.Tensor:
    """
    Replace the singular values of a matrix by values near 1, in five Newton-Schulz iterations (Jordan et al. 2024).

    They compute in bfloat16 like `torch.optim.Muon` where that is fast, otherwise in float32: a product in bfloat16
    takes 30 to 100 times as long on a CPU without it.
    """
    is_on_cpu = matrix.device.type == "cpu"
    flat = matrix.to(torch.bfloat16 if has_fast_bfloat16(use_cpu=is_on_cpu) else torch.float32)
    if len(flat) > flat.shape[1]:
        flat = flat.T
    flat = flat / flat.norm().clamp(min=1e-7)
    linear, cubic, quintic = NEWTON_SCHULZ
    for _ in range(5):
        gram = flat @ flat.T
        flat = torch.addmm(flat, torch.addmm(gram, gram, gram, beta=cubic, alpha=quintic), flat, beta=linear)
    return flat.T if len(matrix) > matrix.shape[1] else flat


class WithMuon(torch.optim.Optimizer):
    """
    Muon (Jordan et al. 2024) for some weight matrices, and another optimizer for all other parameters.

    Muon's updates are scaled to the size of AdamW's (Liu et al. 2025), so that their learning rates are comparable.
    This is `torch.optim.Muon` with `adjust_lr_fn="match_rms_adamw"`, and is fast on every CPU ([`orthogonalise`]).

    Args:
        params: Parameter groups. Those with `muon=True` contain the matrices.
        optimizer: Class of the other optimizer.
        lr: Learning rate of groups that set none.
        kwargs: Further arguments of the other optimizer.
    """

    def __init__(
        self, params: list[dict[str, Any]], optimizer: type[torch.optim.Optimizer], lr: float, **kwargs: Any
    ) -> None:
        matrices, others = ([group for group in params if group.get("muon", False) is muon] for muon in (True, False))
        self._other = optimizer(others, lr=lr, **kwargs)
        # The Trainer logs the learning rate of the first group.
        super().__init__([*self._other.param_groups, *matrices], {"lr": lr, "weight_decay": 0.0})

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Update all parameters. `closure`, if given, recomputes the loss and returns it."""
        loss = None if closure is None else torch.enable_grad()(closure)()
        # Schedulers and loaded states act on the groups and the state of this optimizer.
        self._other.param_groups = [group for group in self.param_groups if not group.get("muon", False)]
        self._other.state = self.state
        self._other.step()
        for group in self.param_groups:
            if group.get("muon", False):
                self._update_matrices(group)
        return loss

    @torch.no_grad()
    def _update_matrices(self, group: dict[str, Any]) -> None:
        rate, decay = group["lr"], group["weight_decay"]
        for matrix in group["params"]:
            if matrix.grad is None:
                continue
            state = self.state[matrix]
            if "momentum_buffer" not in state:
                state["momentum_buffer"] = torch.zeros_like(matrix.grad)
            momentum = state["momentum_buffer"].lerp_(matrix.grad, 1 - MOMENTUM)
            update = orthogonalise(matrix.grad.lerp(momentum, MOMENTUM))
            matrix.mul_(1 - rate * decay)
            matrix.add_(update, alpha=-0.2 * rate * max(matrix.shape) ** 0.5)


def parameter_groups(
    model: torch.nn.Module,
    weight_decay: float,
    filter_learning_rate: float | None = None,
    muon_learning_rate: float | None = None,
) -> list[dict[str, Any]]:
    """
    Build parameter groups for an optimizer, without weight decay for implicit filters, biases and norms.

    Filters are functions of the position, which weight decay would shrink to zero; the paper exempts them.

    Args:
        model: A HyenaDNA model, plain or wrapped (PEFT, DDP), or any other model.
        weight_decay: Weight decay of the weight matrices outside the filters.
        filter_learning_rate: Learning rate of the filters. Defaults to that of the optimizer.
        muon_learning_rate: Put the weight matrices of the blocks, except those of the filters, into a group for
            [`WithMuon`] with this learning rate, unless it is 0. Embeddings and heads are not part of a block.

    Returns:
        Non-empty groups of the trainable parameters.
    """
    filters: list[torch.nn.Parameter] = []
    exempt: list[torch.nn.Parameter] = []
    decayed: list[torch.nn.Parameter] = []
    matrices: list[torch.nn.Parameter] = []
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            parts = name.split(".")
            is_in_block = any(part.isdecimal() for part in parts)  # blocks have numbers
            if not FILTERS.isdisjoint(parts):
                filters.append(parameter)
            elif muon_learning_rate and is_in_block and parameter.ndim == 2:
                matrices.append(parameter)
            else:
                (decayed if parameter.ndim > 1 else exempt).append(parameter)
    rate = {} if filter_learning_rate is None else {"lr": filter_learning_rate}
    groups = [
        {"params": decayed, "weight_decay": weight_decay},
        {"params": exempt, "weight_decay": 0.0},
        {"params": filters, "weight_decay": 0.0, **rate},
        {"params": matrices, "weight_decay": weight_decay, "lr": muon_learning_rate, "muon": True},
    ]
    return [group for group in groups if group["params"]]


def optimizer_cls_and_kwargs(
    model: torch.nn.Module,
    args: TrainingArguments,
    filter_learning_rate: float | None = None,
    muon_learning_rate: float | None = None,
) -> tuple[type, dict[str, Any]]:
    """
    Build the argument `optimizer_cls_and_kwargs` of a Trainer: the optimizer of `args.optim` over [`parameter_groups`].

    `Trainer(model, args, optimizer_cls_and_kwargs=optimizer_cls_and_kwargs(model, args), ...)`

    Args:
        model: Model of the Trainer.
        args: Arguments of the Trainer (`optim`, `learning_rate`, `weight_decay`, ...).
        filter_learning_rate: Learning rate of the filters. Defaults to `args.learning_rate`.
        muon_learning_rate: Update the weight matrices of the blocks, unless they are frozen, with Muon (see
            [`WithMuon`]).

    Returns:
        Class and keyword arguments of the optimizer.
    """
    optimizer, kwargs = Trainer.get_optimizer_cls_and_kwargs(args, model)
    kwargs["params"] = parameter_groups(model, args.weight_decay, filter_learning_rate, muon_learning_rate)
    if not any(group.get("muon", False) for group in kwargs["params"]):
        return optimizer, kwargs
    return WithMuon, {**kwargs, "optimizer": optimizer}
