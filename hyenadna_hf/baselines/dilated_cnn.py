"""
Dilated convolutional network with one prediction per base: the network of SpliceAI.

Saved models include this file, which therefore imports only torch and transformers.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F
from transformers import PretrainedConfig, PreTrainedModel
from transformers.modeling_outputs import TokenClassifierOutput
from transformers.utils import can_return_tuple

NUCLEOTIDE_IDS = range(7, 11)  # A, C, G and T in HyenaDNA's tokenizer
IGNORED = -100  # label that losses ignore
BLOCKS = 4  # residual blocks in a stage
# Kernel size and dilation of the convolutions of each stage; the first one, two, three or four make the four networks.
PUBLISHED_STAGES = ((11, 1), (11, 4), (21, 10), (41, 25))


class DilatedCNNConfig(PretrainedConfig):
    """
    Configuration of [`DilatedCNNForTokenClassification`].

    The defaults give SpliceAI-10k (Jaganathan et al. 2019, doi:10.1016/j.cell.2018.12.015); see [`spliceai_config`] for
    the smaller networks.

    Args:
        channels: Number of filters of each convolution.
        stages: Kernel size, an odd number of positions, and dilation of each stage of four residual blocks.
        regression_loss: Loss for `problem_type="regression"`: `"mse"`, or `"poisson"`, with which outputs are rates.
        pad_token_id: Id of [PAD].
        kwargs: Fields common to all transformers configurations.

    Raises:
        ValueError: If a kernel size is even, or the loss is unknown.
    """

    model_type = "dna-dilated-cnn"

    def __init__(
        self,
        channels: int = 32,
        stages: Sequence[Sequence[int]] = PUBLISHED_STAGES,
        regression_loss: str = "mse",
        pad_token_id: int = 4,
        **kwargs: Any,
    ) -> None:
        self.channels = channels
        self.stages = [list(stage) for stage in stages]
        self.regression_loss = regression_loss
        if any(kernel_size % 2 == 0 for kernel_size, _ in self.stages):
            raise ValueError(f"stages={self.stages}: kernel sizes must be odd.")
        if regression_loss not in ("mse", "poisson"):
            raise ValueError(f"regression_loss={regression_loss!r}: choose mse or poisson.")
        super().__init__(pad_token_id=pad_token_id, **kwargs)

    def receptive_field(self) -> int:
        """Compute the number of positions that a prediction depends on, half of them on either side of its own."""
        return 1 + 2 * BLOCKS * sum((kernel_size - 1) * dilation for kernel_size, dilation in self.stages)


def spliceai_config(length: int | None = None, **fields: Any) -> DilatedCNNConfig:
    """
    Build the [`DilatedCNNConfig`] of one of the four networks of SpliceAI.

    Args:
        length: Number of bases to read: the smallest network whose receptive field is at least as long, or otherwise
            the largest. The fields are of 81, 401, 2,001 and 10,001 bases. Defaults to the largest.
        fields: Further configuration fields to set.
    """
    for count in range(1, len(PUBLISHED_STAGES)):
        config = DilatedCNNConfig(stages=PUBLISHED_STAGES[:count], **fields)
        if length is not None and config.receptive_field() >= length:
            return config
    return DilatedCNNConfig(**fields)


class ResidualBlock(nn.Module):
    """Two convolutions, each after batch normalisation and ReLU, and a residual connection."""

    def __init__(self, channels: int, kernel_size: int, dilation: int) -> None:
        super().__init__()
        self.norms = nn.ModuleList(nn.BatchNorm1d(channels) for _ in range(2))
        self.convolutions = nn.ModuleList(
            nn.Conv1d(channels, channels, kernel_size, padding="same", dilation=dilation) for _ in range(2)
        )

    def forward(self, hidden_states: torch.Tensor, is_valid: torch.Tensor) -> torch.Tensor:
        """Convolve `hidden_states` of shape `(batch, channels, length)`; invalid positions read as zero."""
        residual = hidden_states
        for norm, convolution in zip(self.norms, self.convolutions):
            hidden_states = convolution(norm(hidden_states).relu() * is_valid)
        return residual + hidden_states


class DilatedCNNForTokenClassification(PreTrainedModel):
    """
    Classifier or regressor with one prediction per position, of dilated convolutions.

    It reads inputs of any length. Beyond their ends, and at padding on either side, it reads zeros.
    """

    config_class = DilatedCNNConfig
    main_input_name = "input_ids"
    # The loss is a batch mean, so the Trainer has to scale it for gradient accumulation.
    accepts_loss_kwargs = False

    def __init__(self, config: DilatedCNNConfig) -> None:
        super().__init__(config)
        self.num_labels, channels = config.num_labels, config.channels
        self.input = nn.Conv1d(len(NUCLEOTIDE_IDS), channels, 1)
        self.stages = nn.ModuleList(
            nn.ModuleList(ResidualBlock(channels, *stage) for _ in range(BLOCKS)) for stage in config.stages
        )
        self.skips = nn.ModuleList(nn.Conv1d(channels, channels, 1) for _ in range(1 + len(config.stages)))
        self.score = nn.Linear(channels, config.num_labels)
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        if hasattr(module, "reset_parameters"):  # PyTorch's defaults
            module.reset_parameters()

    @can_return_tuple
    def forward(
        self,
        input_ids: torch.LongTensor,
        attention_mask: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
    ) -> TokenClassifierOutput:
        """
        Compute the prediction for each position, and the loss if labels are given.

        Args:
            input_ids: Token ids, shape `(batch, length)`. Tokens other than A, C, G and T read as zeros.
            attention_mask: Nonzero at valid positions, shape `(batch, length)`.
            labels: Integers of shape `(batch, length)` for single-label classification, otherwise floats of shape
                `(batch, length, num_labels)`. -100 is ignored.

        Returns:
            `TokenClassifierOutput` with `logits` of shape `(batch, length, num_labels)`, which for regression are the
            predicted numbers, and `loss` if labels are given.
        """
        nucleotides = torch.tensor(NUCLEOTIDE_IDS, device=input_ids.device)
        letters = (input_ids[:, None] == nucleotides[:, None]).to(self.score.weight.dtype)
        is_valid = torch.ones_like(input_ids) if attention_mask is None else attention_mask
        is_valid = (is_valid != 0)[:, None].to(letters.dtype)
        hidden_states = self.input(letters * is_valid)
        total = self.skips[0](hidden_states)
        for blocks, skip in zip(self.stages, self.skips[1:]):
            for block in blocks:
                hidden_states = block(hidden_states, is_valid)
            total = total + skip(hidden_states)
        logits = self.score(total.transpose(1, 2))
        if self._is_poisson():
            logits = logits.exp()
        loss = None if labels is None else self._loss(logits.float(), labels)
        return TokenClassifierOutput(loss=loss, logits=logits)

    def _is_poisson(self) -> bool:
        return self.config.problem_type == "regression" and self.config.regression_loss == "poisson"

    def _loss(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Compute the mean loss of the labels that are not ignored."""
        is_used = labels != IGNORED
        logits, labels = logits[is_used], labels[is_used]
        if self.config.problem_type == "single_label_classification":
            return F.cross_entropy(logits, labels)
        if self.config.problem_type == "multi_label_classification":
            return F.binary_cross_entropy_with_logits(logits, labels.to(logits.dtype))
        if self._is_poisson():
            return F.poisson_nll_loss(logits, labels.to(logits.dtype), log_input=False)
        return F.mse_loss(logits, labels.to(logits.dtype))


DilatedCNNConfig.register_for_auto_class()
DilatedCNNForTokenClassification.register_for_auto_class("AutoModelForTokenClassification")
