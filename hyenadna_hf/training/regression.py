"""Scales of regression targets, which training standardises."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import nn
from transformers import PretrainedConfig, PreTrainedModel

from ..baselines.dilated_cnn import DilatedCNNConfig
from ..errors import InputError
from ..loading import has_weights, is_adapter, resolve
from ..model.configuration_hyenadna import HyenaDNAConfig

INITIAL_STD = 0.02  # of the weights of an output layer
WITH_POISSON = (HyenaDNAConfig.model_type, DilatedCNNConfig.model_type)  # models that have the Poisson loss


@dataclass(frozen=True)
class TargetScale:
    """
    Mean and standard deviation of each target, for training on standardised targets.

    After training, [`restore_outputs`] folds the scale into the output layer, so that saved models predict numbers in
    the units of the data.

    Args:
        mean: Means, shape `(targets,)`.
        std: Standard deviations, shape `(targets,)`; 1 for targets that do not vary.
    """

    mean: np.ndarray
    std: np.ndarray

    @classmethod
    def of(cls, targets: np.ndarray) -> "TargetScale":
        """Compute the scale of targets of shape `(rows, targets)`."""
        std = targets.std(0)
        return cls(targets.mean(0), np.where(std > 0, std, 1.0))

    @classmethod
    def units(cls, count: int) -> "TargetScale":
        """Build the scale that changes nothing."""
        return cls(np.zeros(count), np.ones(count))

    def standardise(self, numbers: np.ndarray) -> np.ndarray:
        """Convert numbers of shape `(rows, targets)` to mean 0 and standard deviation 1."""
        return (numbers - self.mean) / self.std

    def restore(self, numbers: np.ndarray) -> np.ndarray:
        """Convert standardised numbers of shape `(rows, targets)` to the units of the data."""
        return numbers * self.std + self.mean

    @torch.no_grad()
    def restore_outputs(self, layer: nn.Linear) -> None:
        """Change an output layer that predicts standardised numbers to predict numbers in the units of the data."""
        std, mean = self._tensors(layer)
        layer.weight.mul_(std[:, None])
        layer.bias.mul_(std).add_(mean)

    @torch.no_grad()
    def standardise_outputs(self, layer: nn.Linear) -> None:
        """Change an output layer that predicts numbers in the units of the data to predict standardised numbers."""
        std, mean = self._tensors(layer)
        layer.weight.div_(std[:, None])
        layer.bias.sub_(mean).div_(std)

    def _tensors(self, layer: nn.Linear) -> list[torch.Tensor]:
        weight = layer.weight
        return [torch.as_tensor(numbers, dtype=weight.dtype, device=weight.device) for numbers in (self.std, self.mean)]


def output_layer(model: nn.Module, targets: int) -> nn.Linear | None:
    """Return the last linear layer with this number of outputs and a bias, or `None` if there is none."""
    layers = [
        module
        for module in model.modules()
        if isinstance(module, nn.Linear) and module.out_features == targets and module.bias is not None
    ]
    return layers[-1] if layers else None


@torch.no_grad()
def start_at_rates(layer: nn.Linear, targets: np.ndarray) -> None:
    """
    Set the bias of the output layer of a Poisson regression to the logarithms of the mean counts.

    Args:
        layer: Output layer, whose exponentials are the rates.
        targets: Counts of shape `(rows, targets)`.
    """
    rates = np.log(np.maximum(targets.mean(0), 1e-8))
    layer.bias.copy_(torch.as_tensor(rates, dtype=layer.bias.dtype))


def trained_loss(source: str) -> str | None:
    """Return the loss of the regressor that a checkpoint contains; `None` for sizes, baselines and other models."""
    if not has_weights(source) or is_adapter(source):
        return None
    fields, _ = PretrainedConfig.get_config_dict(resolve(source))
    return fields.get("regression_loss", "mse") if fields.get("problem_type") == "regression" else None


def prepare_outputs(
    model: PreTrainedModel,
    loss: str,
    targets: np.ndarray,
    names: list[str],
    source: str,
    origin: str,
    is_sharded: bool = False,
) -> tuple[TargetScale, str]:
    """
    Prepare the output layer of a regressor for training.

    It starts anew, unless the weights are those of a regressor with the same loss and the same outputs.

    Args:
        model: The regressor.
        loss: `"mse"` or `"poisson"`.
        targets: Numbers of the train split, shape `(rows, targets)`.
        names: Names of the targets.
        source: Checkpoint, size or baseline that the model was loaded from.
        origin: Phrase that describes the origin of the weights.
        is_sharded: Whether weights are sharded among devices. Targets are then not standardised.

    Returns:
        The scale to standardise targets with, and the phrase, with the output layer if it starts anew.

    Raises:
        InputError: If the model has no Poisson loss, or a count is negative.
    """
    layer = output_layer(model, len(names))
    is_trained = origin == "pretrained" and trained_loss(source) == loss
    if layer is not None and not is_trained:
        nn.init.normal_(layer.weight, std=INITIAL_STD)
        nn.init.zeros_(layer.bias)
    if origin == "pretrained" and not is_trained:
        origin = "pretrained; new: output layer"
    if loss == "poisson":
        if model.config.model_type not in WITH_POISSON:
            raise InputError(
                f"--regression_loss poisson: a {model.config.model_type} model has no such loss; use mse or a HyenaDNA "
                "model."
            )
        if (targets < 0).any():
            name = names[int((targets < 0).any(0).argmax())]
            raise InputError(f"--regression_loss poisson: {name} has negative values, but counts cannot be; use mse.")
        if layer is not None and not is_trained:
            start_at_rates(layer, targets)
        return TargetScale.units(len(names)), origin
    if layer is None or is_sharded:  # the scale could not be folded into the weights
        return TargetScale.units(len(names)), origin
    scale = TargetScale.of(targets)
    if is_trained:
        scale.standardise_outputs(layer)
    return scale, origin
