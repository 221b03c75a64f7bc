"""Which parameters decay, how fast the implicit filters learn, and Muon, for the stock Trainer."""

from typing import Any

import torch
from transformers import Trainer, TrainingArguments

FILTERS = {"filter_fn", "filter_fn_rev"}  # their modules in an operator


class WithMuon(torch.optim.Optimizer):
    """
    Muon (Jordan et al. 2024) for some weight matrices, and another optimizer for all other parameters.

    Muon's updates are made as large as AdamW's (Liu et al. 2025), so that their learning rates compare.

    Args:
        params: Parameter groups. Those with `muon=True` have the matrices.
        optimizer: Class of the other optimizer.
        lr: Learning rate of groups without one of their own.
        kwargs: Further arguments of the other optimizer.
    """

    def __init__(
        self, params: list[dict[str, Any]], optimizer: type[torch.optim.Optimizer], lr: float, **kwargs: Any
    ) -> None:
        matrices, others = ([group for group in params if group.get("muon", False) is muon] for muon in (True, False))
        self._muon = torch.optim.Muon(matrices, lr=lr, adjust_lr_fn="match_rms_adamw")
        self._other = optimizer(others, lr=lr, **kwargs)
        super().__init__([*self._muon.param_groups, *self._other.param_groups], {})

    def step(self, closure=None):
        """Update all parameters. `closure`, if given, computes the loss once more and returns it."""
        loss = None if closure is None else torch.enable_grad()(closure)()
        for part, muon in ((self._muon, True), (self._other, False)):
            # Whoever loads a state or schedules a rate knows the groups and the state of the whole.
            part.param_groups = [group for group in self.param_groups if group.get("muon", False) is muon]
            part.state = self.state
            part.step()
        return loss


def parameter_groups(
    model: torch.nn.Module,
    weight_decay: float,
    filter_learning_rate: float | None = None,
    muon_learning_rate: float | None = None,
) -> list[dict[str, Any]]:
    """
    Parameter groups for an optimizer: no weight decay for implicit filters, biases and norms.

    Decay would pull the filters, which are functions of position, towards none; the paper exempts them.

    Args:
        model: A HyenaDNA model, bare or wrapped (PEFT, DDP), or any other.
        weight_decay: For the weight matrices outside the filters.
        filter_learning_rate: For the filters; that of the optimizer by default.
        muon_learning_rate: Put the weight matrices of the blocks, all but the filters', into a group for [`WithMuon`],
            with this learning rate. Embeddings and heads are not in a block.

    Returns:
        Groups of the trainable parameters, without empty ones.
    """
    filters: list = []
    exempt: list = []
    decayed: list = []
    matrices: list = []
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            parts = name.split(".")
            in_block = any(part.isdecimal() for part in parts)  # blocks have numbers
            if not FILTERS.isdisjoint(parts):
                filters.append(parameter)
            elif muon_learning_rate is not None and in_block and parameter.ndim == 2:
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
    What a Trainer takes as `optimizer_cls_and_kwargs`: the optimizer of `args.optim` over [`parameter_groups`].

    `Trainer(model, args, optimizer_cls_and_kwargs=optimizer_cls_and_kwargs(model, args), ...)`

    Args:
        model: What the Trainer gets.
        args: Gives `optim`, `learning_rate`, `weight_decay` and the like.
        filter_learning_rate: Learning rate of the filters; `args.learning_rate` by default.
        muon_learning_rate: Update the weight matrices of the blocks by Muon, see [`WithMuon`].

    Returns:
        Class and keyword arguments.
    """
    optimizer, kwargs = Trainer.get_optimizer_cls_and_kwargs(args, model)
    kwargs["params"] = parameter_groups(model, args.weight_decay, filter_learning_rate, muon_learning_rate)
    return (optimizer, kwargs) if muon_learning_rate is None else (WithMuon, {**kwargs, "optimizer": optimizer})
