"""
Soft prompts at a stated place of the input, as an adapter of PEFT: importing this module registers them.

A causal model reads from left to right, and a hidden state depends on nothing that comes later. A prompt before the
sequence can only change what the sequence is read into; a prompt after it is computed from the sequence and can ask for
what the frozen model has read.
"""

from dataclasses import dataclass, field

import peft
import torch
from peft import MODEL_TYPE_TO_PEFT_MODEL_MAPPING, PeftType, PromptEmbedding, PromptTuningConfig
from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING, PEFT_TYPE_TO_TUNER_MAPPING
from torch.nn import functional as F

from ..data.sequence import IGNORED
from ..model.configuration_hyenadna import HyenaDNAConfig
from ..model.modeling_hyenadna import JOINED_SEQUENCES_ARGUMENTS
from .prompting import POSITIONS

# In adapter_config.json; where it is not registered, PEFT refuses the adapter, or else it would put the prompt first.
PLACED_PROMPT_TUNING = "PLACED_PROMPT_TUNING"


@dataclass
class PlacedPromptConfig(PromptTuningConfig):
    """
    Prompt tuning with the prompt at a stated place of the input of a HyenaDNA model.

    It is used as PEFT's own configuration: `get_peft_model(model, PlacedPromptConfig(task_type="CAUSAL_LM",
    num_virtual_tokens=16))`. To load a saved adapter, import this module first.

    Args:
        prompt_position (`str`, defaults to `"after"`):
            `"before"` the input; `"after"` it; `"both"`: the first half before and the others after; `"spread"`: at
            equal distances, the last one after the input. The input is the real positions of a row, wherever padding
            stands; with labels of a language model, only up to the last position without a label: the answer comes
            after the prompt.
        prompt_dropout (`float`, defaults to 0): Dropout on the prompt, in training.

    Raises:
        ValueError: if an argument is invalid.
    """

    prompt_position: str = field(default="after", metadata={"help": f"Where the prompt stands: {', '.join(POSITIONS)}"})
    prompt_dropout: float = field(default=0.0, metadata={"help": "Dropout on the prompt, in training"})

    def __post_init__(self):
        super().__post_init__()
        self.peft_type = PLACED_PROMPT_TUNING
        if self.prompt_position not in POSITIONS:
            raise ValueError(f"prompt_position={self.prompt_position!r}: give one of {', '.join(POSITIONS)}.")
        if not 0 <= self.prompt_dropout < 1:
            raise ValueError(f"prompt_dropout={self.prompt_dropout}: give at least 0 and less than 1.")


def inputs_before(position, prompt_tokens, lengths):
    """
    Count the input tokens before each token of a prompt.

    Args:
        position (`str`): One of `POSITIONS`.
        prompt_tokens (`int`): Length of the prompt.
        lengths (`torch.LongTensor` of shape `(batch,)`): Tokens of each input.

    Returns:
        `torch.LongTensor` of shape `(batch, prompt_tokens)`, in ascending order.
    """
    number = torch.arange(prompt_tokens, device=lengths.device)
    lengths = lengths[:, None]
    if position == "spread":
        return lengths * (number + 1) // prompt_tokens
    comes_after = {"before": number < 0, "after": number >= 0, "both": number >= (prompt_tokens + 1) // 2}[position]
    return lengths * comes_after


def placed_order(position, prompt_tokens, mask, labels=None):
    """
    Find the order in which a prompt and a padded batch stand together.

    Args:
        position (`str`): One of `POSITIONS`.
        prompt_tokens (`int`): Length of the prompt.
        mask (`torch.Tensor` of shape `(batch, length)`): Nonzero where a position is real.
        labels (`torch.LongTensor` of shape `(batch, length)`, *optional*): Labels of a language model.

    Returns:
        `torch.LongTensor` of shape `(batch, prompt_tokens + length)`: where each position comes from, in the prompt
        followed by the batch. Both keep their own order. Padding after the last real position stands before what
        comes after the input, so that rows end alike.
    """
    real = mask != 0
    so_far = real.cumsum(1)
    lengths = so_far[:, -1] if labels is None else (so_far * (real & (labels == IGNORED))).amax(1)
    between = 2 * inputs_before(position, prompt_tokens, lengths) + 1
    return torch.cat([between, 2 * so_far], dim=1).argsort(dim=1, stable=True)


def in_order(values, order):
    """
    Rearrange the positions of a batch.

    Args:
        values (`torch.Tensor` of shape `(batch, length, ...)`): What to rearrange.
        order (`torch.LongTensor` of shape `(batch, length)`): Where each position comes from.

    Returns:
        `torch.Tensor` of the shape of `values`.
    """
    index = order.view(*order.shape, *[1] * (values.dim() - 2)).expand_as(values)
    return values.gather(1, index)


class _PlacedPrompt:
    """Places the prompt of a [`PlacedPromptConfig`]; with other configurations, nothing differs from PEFT."""

    def _setup_prompt_encoder(self, adapter_name):
        config = self.peft_config[adapter_name]
        if not isinstance(config, PlacedPromptConfig):
            return super()._setup_prompt_encoder(adapter_name)
        model = self.base_model.config
        if model.model_type != HyenaDNAConfig.model_type:
            raise ValueError(
                f"PlacedPromptConfig: this is a {model.model_type} model, but the exact masks of HyenaDNA are needed; "
                "use PromptTuningConfig."
            )
        if getattr(model, "num_prompt_tokens", 0) and config.prompt_position != "before":
            raise ValueError(
                f"num_prompt_tokens={model.num_prompt_tokens} leaves the first positions out of the pooling, but the "
                f"prompt stands elsewhere (prompt_position={config.prompt_position!r}); set it to 0."
            )
        config.peft_type = PeftType.PROMPT_TUNING  # or else PEFT makes no embedding
        try:
            super()._setup_prompt_encoder(adapter_name)
        finally:
            config.peft_type = PLACED_PROMPT_TUNING

    def forward(self, input_ids=None, attention_mask=None, inputs_embeds=None, labels=None, **kwargs):
        """
        Call the model on the input with the prompt in its place.

        Outputs of a language model stand in the order of its input, so that the last one predicts what follows. Those
        of the other heads stand as with PEFT's own prompts: the prompt's, then those of the input.
        """
        inputs = {"input_ids": input_ids, "attention_mask": attention_mask, "inputs_embeds": inputs_embeds}
        if labels is not None:
            inputs["labels"] = labels
        if not isinstance(self.active_peft_config, PlacedPromptConfig):
            return super().forward(**inputs, **kwargs)
        kwargs.pop("task_ids", None)
        cache = kwargs.get("past_key_values")
        if cache is not None and cache.get_seq_length():  # the prompt has been read
            columns = (inputs_embeds if input_ids is None else input_ids).shape[1]
            mask = None if attention_mask is None else attention_mask[:, -columns:]
            return self.base_model(**{**inputs, "attention_mask": mask}, **kwargs)
        is_language_model = self.active_peft_config.task_type == peft.TaskType.CAUSAL_LM
        order, placed = self._placed(**inputs, before_labels=is_language_model, **kwargs)
        if is_language_model:
            return self.base_model(**placed, **kwargs)
        return_dict = kwargs.pop("return_dict", None)
        if return_dict is None:
            return_dict = getattr(self.config, "return_dict", True)
        outputs = self.base_model(**placed, **kwargs, return_dict=True)
        restored = order.argsort(1)
        for name, value in outputs.items():
            if name == "hidden_states":
                outputs[name] = tuple(in_order(state, restored) for state in value)
            elif isinstance(value, torch.Tensor) and value.dim() == 3:
                outputs[name] = in_order(value, restored)
        return outputs if return_dict else outputs.to_tuple()

    def _placed(self, input_ids, attention_mask, inputs_embeds, labels=None, before_labels=False, **kwargs):
        """The order of prompt and input, and the arguments of the base model that stand in it."""
        joined = [name for name in ("position_ids", *JOINED_SEQUENCES_ARGUMENTS) if kwargs.get(name) is not None]
        if joined:
            raise ValueError(
                f"{joined[0]}: a soft prompt has one place in a row, which sequences that share a row do not have; "
                "pass each in a row of its own."
            )
        config = self.active_peft_config
        embeds = self.word_embeddings(input_ids) if inputs_embeds is None else inputs_embeds
        prompt = self.get_prompt(batch_size=len(embeds)).to(embeds.dtype)
        prompt = F.dropout(prompt, config.prompt_dropout, self.training)
        mask = embeds.new_ones(embeds.shape[:2], dtype=torch.long) if attention_mask is None else attention_mask
        tokens = config.num_virtual_tokens
        order = placed_order(config.prompt_position, tokens, mask, labels if before_labels else None)
        placed = {"inputs_embeds": in_order(torch.cat([prompt, embeds], dim=1), order)}
        if attention_mask is not None:
            placed["attention_mask"] = in_order(F.pad(mask, (tokens, 0), value=1), order)
        if labels is not None:
            per_position = config.task_type != peft.TaskType.SEQ_CLS
            placed["labels"] = in_order(F.pad(labels, (tokens, 0), value=IGNORED), order) if per_position else labels
        return order, placed


class PeftModelForSequenceClassification(_PlacedPrompt, peft.PeftModelForSequenceClassification):
    """PEFT's own, which places the prompts of a [`PlacedPromptConfig`]."""


class PeftModelForTokenClassification(_PlacedPrompt, peft.PeftModelForTokenClassification):
    """PEFT's own, which places the prompts of a [`PlacedPromptConfig`]."""


class PeftModelForFeatureExtraction(_PlacedPrompt, peft.PeftModelForFeatureExtraction):
    """PEFT's own, which places the prompts of a [`PlacedPromptConfig`]."""


class PeftModelForCausalLM(_PlacedPrompt, peft.PeftModelForCausalLM):
    """PEFT's own, which places the prompts of a [`PlacedPromptConfig`]."""

    def generate(self, inputs=None, **kwargs):
        """Generate after the input with the prompt in its place, as `generate` of the base model does."""
        if self._adapters_disabled or not isinstance(self.active_peft_config, PlacedPromptConfig):
            return super().generate(*([] if inputs is None else [inputs]), **kwargs)
        input_ids = kwargs.pop("input_ids", inputs)
        mask, embeds = kwargs.pop("attention_mask", None), kwargs.pop("inputs_embeds", None)
        options = kwargs.get("generation_config") or self.base_model.generation_config
        columns = (embeds if input_ids is None else input_ids).shape[1]
        most, least = kwargs.pop("max_length", None), kwargs.pop("min_length", None)
        if most is not None:  # of input and new tokens; the prompt does not count
            kwargs.setdefault("max_new_tokens", most - columns)
        if least is not None:
            kwargs.setdefault("min_new_tokens", max(least - columns, 0))
        pad = kwargs.get("pad_token_id", options.pad_token_id)
        if mask is None and embeds is None and pad is not None:  # as without a prompt
            mask = (input_ids != pad).long()
        _, placed = self._placed(input_ids, mask, embeds, **kwargs)
        return self.base_model.generate(input_ids, **placed, **kwargs)


def register_placed_prompts():
    """Let PEFT make and load adapters of [`PlacedPromptConfig`], for the running process."""
    PEFT_TYPE_TO_CONFIG_MAPPING[PLACED_PROMPT_TUNING] = PlacedPromptConfig
    PEFT_TYPE_TO_TUNER_MAPPING[PLACED_PROMPT_TUNING] = PromptEmbedding
    MODEL_TYPE_TO_PEFT_MODEL_MAPPING.update(
        CAUSAL_LM=PeftModelForCausalLM,
        FEATURE_EXTRACTION=PeftModelForFeatureExtraction,
        SEQ_CLS=PeftModelForSequenceClassification,
        TOKEN_CLS=PeftModelForTokenClassification,
    )


register_placed_prompts()
