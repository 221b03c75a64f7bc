"""
Convolutional classifiers of one fixed length: that of GenomicBenchmarks, and DeepSEA's.

What is saved carries this file along; it imports torch and transformers only.
"""

import torch
from torch import nn
from torch.nn import functional as F
from transformers import PretrainedConfig, PreTrainedModel
from transformers.modeling_outputs import SequenceClassifierOutput
from transformers.utils import can_return_tuple

NUCLEOTIDE_IDS = range(7, 11)  # A, C, G and T of HyenaDNA's tokenizer


class CNNConfig(PretrainedConfig):
    """
    Sizes of a [`CNNForSequenceClassification`].

    The defaults are the network of GenomicBenchmarks (Gresova et al. 2023); [`deepsea_config`] gives the other one.

    Args:
        max_seq_len (`int`, defaults to 1024):
            Longest input, in tokens. All inputs are computed at this length, on which the size of the first dense
            layer depends. At least what leaves one position behind the last pooling (57 by default).
        vocab_size (`int`, defaults to 16): Number of tokens.
        embedding_size (`int`, *optional*, defaults to 100):
            Width of the embedding of a token; `None`: A, C, G and T one-hot, and zeros for any other token.
        channels (`list[int]`, defaults to `[16, 8, 4]`): Filters of each convolution.
        kernel_size (`int`, defaults to 8): Of each convolution, in positions.
        pool_sizes (`list[int]`, defaults to `[2, 2, 2]`): Of the max pooling behind each; 1 for none.
        dropouts (`list[float]`, defaults to `[0, 0, 0]`): Behind each pooling.
        batch_norm (`bool`, defaults to `True`): Whether each convolution is followed by batch normalisation.
        dense_size (`int`, defaults to 512): Width of the dense layer before the last.
        dense_relu (`bool`, defaults to `False`): Whether a ReLU stands between these two.
        pad_token_id (`int`, defaults to 4): [PAD] of the tokenizer.
        kwargs: Fields of every transformers configuration.

    Raises:
        ValueError: if the lists are of different lengths, or `max_seq_len` is too short.
    """

    model_type = "dna-cnn"
    attribute_map = {"max_position_embeddings": "max_seq_len"}

    def __init__(
        self,
        max_seq_len=1024,
        vocab_size=16,
        embedding_size=100,
        channels=(16, 8, 4),
        kernel_size=8,
        pool_sizes=(2, 2, 2),
        dropouts=(0.0, 0.0, 0.0),
        batch_norm=True,
        dense_size=512,
        dense_relu=False,
        pad_token_id=4,
        **kwargs,
    ):
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
                f"channels={self.channels}, pool_sizes={self.pool_sizes}, dropouts={self.dropouts}: give one of each "
                "for every convolution."
            )
        if self.max_seq_len < self.shortest_length():
            raise ValueError(f"max_seq_len={max_seq_len}: it must be at least {self.shortest_length()}.")
        super().__init__(pad_token_id=pad_token_id, **kwargs)

    def shortest_length(self):
        """The least `max_seq_len` for which something is left behind the last pooling, in tokens."""
        length = 1
        for pool in reversed(self.pool_sizes):
            length = length * pool + self.kernel_size - 1
        return length

    def pooled_length(self):
        """Positions left behind the last pooling."""
        length = self.max_seq_len
        for pool in self.pool_sizes:
            length = (length - self.kernel_size + 1) // pool
        return length


def deepsea_config(max_seq_len=1000, **fields):
    """The [`CNNConfig`] of DeepSEA (Zhou and Troyanskaya 2015): 320, 480 and 960 filters over one-hot input."""
    published = {"channels": (320, 480, 960), "pool_sizes": (4, 4, 1), "dropouts": (0.2, 0.2, 0.5)}
    published.update(embedding_size=None, batch_norm=False, dense_size=925, dense_relu=True)
    return CNNConfig(max_seq_len, **{**published, **fields})


class CNNForSequenceClassification(PreTrainedModel):
    """Convolutions with ReLU and max pooling, then two dense layers, over inputs of one length."""

    config_class = CNNConfig
    main_input_name = "input_ids"
    # The loss is a mean over the batch, which the Trainer scales under gradient accumulation.
    accepts_loss_kwargs = False

    def __init__(self, config):
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

    def _init_weights(self, module):
        if hasattr(module, "reset_parameters"):  # PyTorch's own, as in the published networks
            module.reset_parameters()

    @can_return_tuple
    def forward(self, input_ids, attention_mask=None, labels=None):
        """
        Args:
            input_ids (`torch.LongTensor` of shape `(batch, length)`): Token ids.
            attention_mask (`torch.Tensor` of shape `(batch, length)`, *optional*):
                Nonzero where a position is real. Each row is read as if its masked positions were deleted; where it
                is shorter than `max_seq_len`, zeros follow it.
            labels (`torch.Tensor`, *optional*): As those of every sequence classifier, see `problem_type`.

        Returns:
            `SequenceClassifierOutput` with `logits` of shape `(batch, num_labels)`, and `loss` if there are labels.

        Raises:
            ValueError: if a row has more real positions than `max_seq_len`.
        """
        real = torch.ones_like(input_ids) if attention_mask is None else attention_mask
        hidden = self.convolutions(self._at_fixed_length(input_ids, real != 0)).flatten(1)
        hidden = self.dense(hidden)
        logits = self.score(hidden.relu() if self.config.dense_relu else hidden)
        loss = None
        if labels is not None:
            loss = self.loss_function(labels=labels, pooled_logits=logits, config=self.config)
        return SequenceClassifierOutput(loss=loss, logits=logits)

    def _at_fixed_length(self, input_ids, real):
        """What the first convolution reads, of shape `(batch, channels, max_seq_len)`."""
        longest = int(real.sum(1).max())
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
        vectors = vectors.masked_fill(~real[..., None], 0)
        order = torch.argsort(real.logical_not().to(torch.uint8), dim=1, stable=True)  # real positions first
        vectors = vectors.gather(1, order[..., None].expand_as(vectors)).transpose(1, 2)
        return F.pad(vectors, (0, self.config.max_seq_len - vectors.shape[-1]))


CNNConfig.register_for_auto_class()
CNNForSequenceClassification.register_for_auto_class("AutoModelForSequenceClassification")
