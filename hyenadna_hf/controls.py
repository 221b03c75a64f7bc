"""Controls for trained models: the same configurations with random weights."""

import copy
from collections.abc import Mapping
from typing import Any, TypeVar

import torch
from transformers import PreTrainedModel

CONTROL = "random weights"
# Fields of a configuration without effect on a model with random weights.
_OF_TRAINED = ("_name_or_path", "architectures", "auto_map", "dtype", "torch_dtype", "transformers_version")
Tokenizer = TypeVar("Tokenizer")


def with_controls(
    models: Mapping[str, tuple[Any, Tokenizer]], seed: int
) -> dict[str, tuple[PreTrainedModel, Tokenizer]]:
    """
    Add a model with random weights for each configuration among some trained models.

    Args:
        models: Models and tokenizers by name.
        seed: Seed of the weights.

    Returns:
        The models, and the controls. These are named `random weights`, followed by the name of a model in brackets if
        there are several.
    """
    controls: dict[str, tuple[str, tuple[PreTrainedModel, Tokenizer]]] = {}
    for name, (model, tokenizer) in models.items():
        fields = {key: value for key, value in model.config.to_dict().items() if key not in _OF_TRAINED}
        fields = {key: value for key, value in fields.items() if "dropout" not in key}
        controls.setdefault(repr(sorted(fields.items())), (name, (with_random_weights(model, seed), tokenizer)))
    names = [CONTROL] if len(controls) == 1 else [f"{CONTROL} ({name})" for name, _ in controls.values()]
    return {**models, **{name: pair for name, (_, pair) in zip(names, controls.values())}}


def with_random_weights(model: Any, seed: int) -> Any:
    """Return a model of the same class, configuration and data type with initial weights, in evaluation mode."""
    with torch.random.fork_rng([]):
        torch.manual_seed(seed)
        return type(model)(copy.deepcopy(model.config)).to(model.dtype).eval()
