"""
Convolutional classifiers with a fixed input length: the networks of GenomicBenchmarks and DeepSEA.

Saved models include this file, which therefore imports only torch and transformers.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F
from transformers import PretrainedConfig, PreTrainedModel
from transformers.modeling_outputs import SequenceClassifierOutput
from transformers.utils import can_return_tuple

NUCLEOTIDE_IDS = range(7, 11)  # A, C, G and T in HyenaDNA's tokenizer


class CNNConfig(PretrainedConfig):
    """
    Configuration of [`CNNForSequenceClassification`].

    The defaults give the network of GenomicBenchmarks (Gresova et al. 2023); see [`deepsea_config`] for DeepSEA.

    Args:
        max_seq_len: Longest input, in tokens. All inputs are padded to this length, which determines the size of the
            first dense layer. Must leave at least one position after the last pooling (57 or more by default).
        vocab_size: Number of tokens.
        embedding_size: Width of the token embeddings. With `None`, A, C, G and T are one-hot and other tokens zero.
        channels: Number of filters of each convolution.
        kernel_size: Kernel size of the convolutions, in positions.
        pool_sizes: Size of the max pooling after each convolution; 1 for no pooling.
        dropouts: Dropout probability after each pooling.
        batch_norm: Apply batch normalisation after each convolution.
        dense_size: Width of the dense layer before the output layer.
        dense_relu: Apply a ReLU between the two dense layers.
        pad_token_id: Id of [PAD].
        kwargs: Fields common to all transformers configurations.

    Raises:
        ValueError: If the lists differ in length, or `max_seq_len` is too short.
    """

    model_type = "dna-cnn"
    attribute_map = {"max_position_embeddings": "max_seq_len"}

    def __init__(
        self,
        max_seq_len: int = 1024,
        vocab_size: int = 16,
        embedding_size: int | None = 100,
        channels: Sequence[int] = (16, 8, 4),
        kernel_size: int = 8,
        pool_sizes: Sequence[int] = (2, 2, 2),
        dropouts: Sequence[float] = (0.0, 0.0, 0.0),
        batch_norm: bool = True,
        dense_size: int = 512,
        dense_relu: bool = False,
        pad_token_id: int = 4,
        **kwargs: Any,
    ) -> None:
        self.max_seq_len = max_seq_len
        self.vocab_size = vocab_size
        self.embedding_size = embedding_size
        self.channels, self.pool_sizes, self.dropouts = list(channels), list(pool_sizes), list(dropouts)
        self.kernel_size = kernel_size
        self.batch_norm = batch_norm
        self.dense_size = dense_size
        self.dense_relu = dense_relu
        if not len(self.channels) == len(self.pool_sizes) == len(self.dropouts):
            raise ValueError(
                f"channels={self.channels}, pool_sizes={self.pool_sizes}, dropouts={self.dropouts}: give one value of "
                "each for every convolution."
            )
        if self.max_seq_len < self.shortest_length():
            raise ValueError(f"max_seq_len={max_seq_len}: it must be at least {self.shortest_length()}.")
        super().__init__(pad_token_id=pad_token_id, **kwargs)

    def shortest_length(self) -> int:
        """Compute the smallest valid `max_seq_len`: it leaves one position after the last pooling."""
        length = 1
        for pool in reversed(self.pool_sizes):
            length = length * pool + self.kernel_size - 1
        return length

    def pooled_length(self) -> int:
        """Compute the number of positions after the last pooling."""
        length = self.max_seq_len
        for pool in self.pool_sizes:
            length = (length - self.kernel_size + 1) // pool
        return length


def deepsea_config(max_seq_len: int = 1000, **fields: Any) -> CNNConfig:
    """Build the [`CNNConfig`] of DeepSEA (Zhou and Troyanskaya 2015): 320, 480 and 960 filters over one-hot input."""
    published: dict[str, Any] = {"channels": (320, 480, 960), "pool_sizes": (4, 4, 1), "dropouts": (0.2, 0.2, 0.5)}
    published.update(embedding_size=None, batch_norm=False, dense_size=925, dense_relu=True)
    return CNNConfig(max_seq_len, **{**published, **fields})


class CNNForSequenceClassification(PreTrainedModel):
    """Classify sequences of a fixed length by convolutions with ReLU and max pooling, and two dense layers."""

    config_class = CNNConfig
    main_input_name = "input_ids"
    # The loss is a batch mean, so the Trainer has to scale it for gradient accumulation.
    accepts_loss_kwargs = False

    def __init__(self, config: CNNConfig) -> None:
        super().__init__(config)
        self.num_labels = config.num_labels
        width = config.embedding_size or len(NUCLEOTIDE_IDS)
        self.embedding = nn.Embedding(config.vocab_size, width) if config.embedding_size else None
        layers = []
        for channels, pool, dropout in zip(config.channels, config.pool_sizes, config.dropouts):
            layers.append(nn.Conv1d(width, channels, config.kernel_size))
            layers += [nn.BatchNorm1d(channels)] if config.batch_norm else []
            layers += [nn.ReLU(), nn.MaxPool1d(pool), nn.Dropout(dropout)]
            width = channels
        self.convolutions = nn.Sequential(*layers)
        self.dense = nn.Linear(width * config.pooled_length(), config.dense_size)
        self.score = nn.Linear(config.dense_size, config.num_labels)
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        if hasattr(module, "reset_parameters"):  # PyTorch's defaults, as in the published networks
            module.reset_parameters()

    @can_return_tuple
    def forward(
        self,
        input_ids: torch.LongTensor,
        attention_mask: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
    ) -> SequenceClassifierOutput:
        """
        Classify a batch of sequences.

        Args:
            input_ids: Token ids, shape `(batch, length)`.
            attention_mask: Nonzero at valid positions, shape `(batch, length)`. Masked positions are removed from each
                row, and the rest is padded with zeros to `max_seq_len`.
            labels: Labels for the loss, interpreted according to `config.problem_type`.

        Returns:
            `SequenceClassifierOutput` with `logits` of shape `(batch, num_labels)`, and `loss` if labels are given.

        Raises:
            ValueError: If a row has more valid positions than `max_seq_len`.
        """
        is_valid = torch.ones_like(input_ids) if attention_mask is None else attention_mask
        hidden_states = self.convolutions(self._embed(input_ids, is_valid != 0)).flatten(1)
        hidden_states = self.dense(hidden_states)
        logits = self.score(hidden_states.relu() if self.config.dense_relu else hidden_states)
        loss = None
        if labels is not None:
            loss = self.loss_function(labels=labels, pooled_logits=logits, config=self.config)
        return SequenceClassifierOutput(loss=loss, logits=logits)

    def _embed(self, input_ids: torch.Tensor, is_valid: torch.Tensor) -> torch.Tensor:
        """Return the input of the first convolution, shape `(batch, channels, max_seq_len)`."""
        longest = int(is_valid.sum(1).max())
        if longest > self.config.max_seq_len:
            raise ValueError(
                f"The input has {longest:,} positions, but this model's max_seq_len is {self.config.max_seq_len:,}. "
                f"Shorten it (truncation=True, max_length={self.config.max_seq_len})."
            )
        if self.embedding is None:
            nucleotides = torch.tensor(NUCLEOTIDE_IDS, device=input_ids.device)
            vectors = (input_ids[..., None] == nucleotides).to(self.score.weight.dtype)
        else:
            vectors = self.embedding(input_ids)
        vectors = vectors.masked_fill(~is_valid[..., None], 0)
        order = torch.argsort(is_valid.logical_not().to(torch.uint8), dim=1, stable=True)  # valid positions first
        vectors = vectors.gather(1, order[..., None].expand_as(vectors)).transpose(1, 2)
        return F.pad(vectors, (0, self.config.max_seq_len - vectors.shape[-1]))


CNNConfig.register_for_auto_class()
CNNForSequenceClassification.register_for_auto_class("AutoModelForSequenceClassification")
