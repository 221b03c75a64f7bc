"""
A GPT over nucleotides: causal attention in place of Hyena's convolutions.

The blocks are those of transformers' GPT-2. What differs is what a mask means: each row is read as if its masked
positions were deleted. What is saved carries this file along; it imports torch and transformers only.
"""

import torch
from torch import nn
from torch.nn import functional as F
from transformers import GPT2Config, GPT2LMHeadModel, GPT2Model, GPT2PreTrainedModel
from transformers.modeling_outputs import SequenceClassifierOutput
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
from transformers.utils import can_return_tuple


class GPTConfig(GPT2Config):
    """That of GPT-2, with its fields and defaults; [`tiny_gpt_config`] gives the size of hyenadna-tiny-1k-seqlen."""

    model_type = "dna-gpt"


# By this name the Trainer knows that label smoothing has to shift the labels, whether or not the class is registered.
MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.setdefault(GPTConfig.model_type, "GPTForCausalLM")


def tiny_gpt_config(**fields):
    """The [`GPTConfig`] of 2 layers of width 128 with 8 heads, over HyenaDNA's tokens, for up to 1,026 of them."""
    tokens = {"vocab_size": 16, "pad_token_id": 4, "bos_token_id": 2, "eos_token_id": 1}
    return GPTConfig(**{"n_positions": 1026, "n_embd": 128, "n_layer": 2, "n_head": 8, **tokens, **fields})


def position_ids_of(attention_mask, length, longest):
    """
    The number of each of the last `length` columns among the real positions of its row.

    Args:
        attention_mask (`torch.Tensor` of shape `(batch, columns)`): Nonzero where a position is real.
        length (`int`): Columns of the input; those before are in a cache.
        longest (`int`): How many positions there can be.

    Returns:
        `torch.LongTensor` of shape `(batch, length)`.

    Raises:
        ValueError: if a row has more than `longest`.
    """
    positions = ((attention_mask != 0).long().cumsum(1) - 1).clamp(min=0)[:, -length:]
    if int(positions.max()) >= longest:
        raise ValueError(
            f"The input has {int(positions.max()) + 1:,} positions, but this model's n_positions is {longest:,}. "
            f"Shorten it (truncation=True, max_length={longest})."
        )
    return positions


class GPTForCausalLM(GPT2LMHeadModel):
    """The language model: logits of the next token at every position."""

    config_class = GPTConfig

    def forward(
        self,
        input_ids=None,
        past_key_values=None,
        attention_mask=None,
        position_ids=None,
        inputs_embeds=None,
        labels=None,
        **kwargs,
    ):
        """
        As that of `GPT2LMHeadModel`, but that padding, on either side, changes neither logits nor loss.

        In the labels, -100, masked positions, and a position right behind a masked one are left out.
        """
        columns = (input_ids if inputs_embeds is None else inputs_embeds).shape[1]
        if attention_mask is not None and attention_mask.dim() == 2:
            attention_mask = (attention_mask != 0).long()
            if position_ids is None:
                position_ids = position_ids_of(attention_mask, columns, self.config.n_positions)
            if labels is not None:
                real = attention_mask[:, -columns:] != 0
                labels = labels.masked_fill(~(real & F.pad(real, (1, -1))), -100)
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
    """One prediction a sequence, from the mean of the hidden states over the real positions."""

    config_class = GPTConfig
    # The loss is a mean over the batch, which the Trainer scales under gradient accumulation.
    accepts_loss_kwargs = False

    def __init__(self, config):
        super().__init__(config)
        self.num_labels = config.num_labels
        self.transformer = GPT2Model(config)
        self.score = nn.Linear(config.n_embd, config.num_labels)
        self.post_init()

    @can_return_tuple
    def forward(self, input_ids=None, attention_mask=None, inputs_embeds=None, labels=None):
        """
        Args:
            input_ids (`torch.LongTensor` of shape `(batch, length)`, *optional*): Token ids.
            attention_mask (`torch.Tensor` of shape `(batch, length)`, *optional*): Nonzero where a position is real.
            inputs_embeds (`torch.Tensor` of shape `(batch, length, n_embd)`, *optional*): In place of `input_ids`.
            labels (`torch.Tensor`, *optional*): As those of every sequence classifier, see `problem_type`.

        Returns:
            `SequenceClassifierOutput` with `logits` of shape `(batch, num_labels)`, and `loss` if there are labels.

        Raises:
            ValueError: if a row has more real positions than `n_positions`.
        """
        inputs = input_ids if inputs_embeds is None else inputs_embeds
        real = torch.ones(inputs.shape[:2], device=inputs.device) if attention_mask is None else attention_mask
        real = real != 0
        hidden = self.transformer(
            input_ids=input_ids,
            inputs_embeds=inputs_embeds,
            attention_mask=real.long(),
            position_ids=position_ids_of(real, inputs.shape[1], self.config.n_positions),
            use_cache=False,
        ).last_hidden_state
        pooled = hidden.masked_fill(~real[..., None], 0).sum(1) / real.sum(1, keepdim=True).clamp(min=1)
        logits = self.score(pooled)
        loss = None
        if labels is not None:
            loss = self.loss_function(labels=labels, pooled_logits=logits, config=self.config)
        return SequenceClassifierOutput(loss=loss, logits=logits)


GPTConfig.register_for_auto_class()
GPTForCausalLM.register_for_auto_class("AutoModelForCausalLM")
GPTForSequenceClassification.register_for_auto_class("AutoModelForSequenceClassification")
