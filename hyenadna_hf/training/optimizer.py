"""Which parameters decay and how fast the implicit filters learn, for the stock Trainer."""

from typing import Any

import torch
from transformers import Trainer, TrainingArguments

FILTERS = {"filter_fn", "filter_fn_rev"}  # their modules in an operator


def parameter_groups(
    model: torch.nn.Module, weight_decay: float, filter_learning_rate: float | None = None
) -> list[dict[str, Any]]:
    """
    Parameter groups for an optimizer: no weight decay for implicit filters, biases and norms.

    Decay would pull the filters, which are functions of position, towards none; the paper exempts them.

    Args:
        model (`torch.nn.Module`): A HyenaDNA model, bare or wrapped (PEFT, DDP), or any other.
        weight_decay (`float`): For the weight matrices outside the filters.
        filter_learning_rate (`float`, *optional*): For the filters; that of the optimizer by default.

    Returns:
        `list[dict]`: groups of the trainable parameters, without empty ones.
    """
    filters: list = []
    exempt: list = []
    decayed: list = []
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            of_filter = not FILTERS.isdisjoint(name.split("."))
            group = filters if of_filter else decayed if parameter.ndim > 1 else exempt
            group.append(parameter)
    rate = {} if filter_learning_rate is None else {"lr": filter_learning_rate}
    groups = [
        {"params": decayed, "weight_decay": weight_decay},
        {"params": exempt, "weight_decay": 0.0},
        {"params": filters, "weight_decay": 0.0, **rate},
    ]
    return [group for group in groups if group["params"]]


def optimizer_cls_and_kwargs(
    model: torch.nn.Module, args: TrainingArguments, filter_learning_rate: float | None = None
) -> tuple[type, dict[str, Any]]:
    """
    What a Trainer takes as `optimizer_cls_and_kwargs`: the optimizer of `args.optim` over [`parameter_groups`].

    `Trainer(model, args, optimizer_cls_and_kwargs=optimizer_cls_and_kwargs(model, args), ...)`

    Args:
        model (`torch.nn.Module`): What the Trainer gets.
        args (`TrainingArguments`): Gives `optim`, `learning_rate`, `weight_decay` and the like.
        filter_learning_rate (`float`, *optional*): Learning rate of the filters; `args.learning_rate` by default.

    Returns:
        `tuple`: class and keyword arguments.
    """
    optimizer, kwargs = Trainer.get_optimizer_cls_and_kwargs(args, model)
    return optimizer, {**kwargs, "params": parameter_groups(model, args.weight_decay, filter_learning_rate)}
