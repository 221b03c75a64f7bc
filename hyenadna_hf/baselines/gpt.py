"""
GPT over nucleotides: causal attention in place of Hyena's convolutions.

The blocks are those of transformers' GPT-2, except for the meaning of a mask: each row is read as if its masked
positions were deleted. Saved models include this file, which therefore imports only torch and transformers.
"""

from typing import Any

import torch
from torch import nn
from torch.nn import functional as F
from transformers import Cache, GPT2Config, GPT2LMHeadModel, GPT2Model, GPT2PreTrainedModel
from transformers.modeling_outputs import CausalLMOutputWithCrossAttentions, SequenceClassifierOutput
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
from transformers.utils import can_return_tuple


class GPTConfig(GPT2Config):
    """GPT-2 configuration under a model type of its own; see [`tiny_gpt_config`] for the size of the HyenaDNA model."""

    model_type = "dna-gpt"


# The Trainer shifts the labels for label smoothing if the class name is in this mapping.
MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.setdefault(GPTConfig.model_type, "GPTForCausalLM")


def tiny_gpt_config(**fields: Any) -> GPTConfig:
    """Build a [`GPTConfig`] with 2 layers, width 128, 8 heads, HyenaDNA's vocabulary and up to 1,026 positions."""
    tokens = {"vocab_size": 16, "pad_token_id": 4, "bos_token_id": 2, "eos_token_id": 1}
    return GPTConfig(**{"n_positions": 1026, "n_embd": 128, "n_layer": 2, "n_head": 8, **tokens, **fields})


def compute_position_ids(attention_mask: torch.Tensor, length: int, n_positions: int) -> torch.Tensor:
    """
    Number the valid positions of each row.

    Args:
        attention_mask: Nonzero at valid positions, shape `(batch, columns)`.
        length: Number of columns in the input; earlier columns are in a cache.
        n_positions: Number of positions that the model supports.

    Returns:
        Position ids of the last `length` columns, shape `(batch, length)`.

    Raises:
        ValueError: If a row has more than `n_positions` valid positions.
    """
    positions = ((attention_mask != 0).long().cumsum(1) - 1).clamp(min=0)[:, -length:]
    if int(positions.max()) >= n_positions:
        raise ValueError(
            f"The input has {int(positions.max()) + 1:,} positions, but this model's n_positions is {n_positions:,}. "
            f"Shorten it (truncation=True, max_length={n_positions})."
        )
    return positions


class GPTForCausalLM(GPT2LMHeadModel):
    """Predict the next token at every position."""

    config_class = GPTConfig

    def forward(
        self,
        input_ids: torch.LongTensor | None = None,
        past_key_values: Cache | None = None,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.LongTensor | None = None,
        inputs_embeds: torch.Tensor | None = None,
        labels: torch.LongTensor | None = None,
        **kwargs: Any,
    ) -> CausalLMOutputWithCrossAttentions | tuple[torch.Tensor, ...]:
        """
        Run `GPT2LMHeadModel.forward`, with logits and loss independent of padding on either side.

        The loss ignores labels of -100, masked positions, and positions directly after a masked one.
        """
        inputs: Any = input_ids if inputs_embeds is None else inputs_embeds
        columns = inputs.shape[1]
        if attention_mask is not None and attention_mask.dim() == 2:
            attention_mask = (attention_mask != 0).long()
            if position_ids is None:
                position_ids = compute_position_ids(attention_mask, columns, self.config.n_positions)
            if labels is not None:
                is_valid = attention_mask[:, -columns:] != 0
                labels = labels.masked_fill(~(is_valid & F.pad(is_valid, (1, -1))), -100)
        return super().forward(
            input_ids=input_ids,
            past_key_values=past_key_values,
            attention_mask=attention_mask,
            position_ids=position_ids,
            inputs_embeds=inputs_embeds,
            labels=labels,
            **kwargs,
        )


class GPTForSequenceClassification(GPT2PreTrainedModel):
    """Classify sequences by the mean hidden state over their valid positions."""

    config_class = GPTConfig
    # The loss is a batch mean, so the Trainer has to scale it for gradient accumulation.
    accepts_loss_kwargs = False

    def __init__(self, config: GPTConfig) -> None:
        super().__init__(config)
        self.num_labels = config.num_labels
        self.transformer = GPT2Model(config)
        self.score = nn.Linear(config.n_embd, config.num_labels)
        self.post_init()

    @can_return_tuple
    def forward(
        self,
        input_ids: torch.LongTensor | None = None,
        attention_mask: torch.Tensor | None = None,
        inputs_embeds: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
    ) -> SequenceClassifierOutput:
        """
        Classify a batch of sequences.

        Args:
            input_ids: Token ids, shape `(batch, length)`.
            attention_mask: Nonzero at valid positions, shape `(batch, length)`.
            inputs_embeds: Embeddings in place of `input_ids`, shape `(batch, length, n_embd)`.
            labels: Labels for the loss, interpreted according to `config.problem_type`.

        Returns:
            `SequenceClassifierOutput` with `logits` of shape `(batch, num_labels)`, and `loss` if labels are given.

        Raises:
            ValueError: If a row has more valid positions than `n_positions`.
        """
        inputs: Any = input_ids if inputs_embeds is None else inputs_embeds
        mask = torch.ones(inputs.shape[:2], device=inputs.device) if attention_mask is None else attention_mask
        is_valid = mask != 0
        hidden_states = self.transformer(
            input_ids=input_ids,
            inputs_embeds=inputs_embeds,
            attention_mask=is_valid.long(),
            position_ids=compute_position_ids(is_valid, inputs.shape[1], self.config.n_positions),
            use_cache=False,
        ).last_hidden_state
        total = hidden_states.masked_fill(~is_valid[..., None], 0).sum(1)
        logits = self.score(total / is_valid.sum(1, keepdim=True).clamp(min=1))
        loss = None
        if labels is not None:
            loss = self.loss_function(labels=labels, pooled_logits=logits, config=self.config)
        return SequenceClassifierOutput(loss=loss, logits=logits)


GPTConfig.register_for_auto_class()
GPTForCausalLM.register_for_auto_class("AutoModelForCausalLM")
GPTForSequenceClassification.register_for_auto_class("AutoModelForSequenceClassification")
