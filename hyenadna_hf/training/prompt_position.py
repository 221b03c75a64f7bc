"""
Soft prompts at a chosen position of the input, as a PEFT adapter. Importing this module registers it.

In a causal model, a hidden state does not depend on later positions. A prompt before the sequence only shifts the
states that the sequence is read into, whereas the states of a prompt after it are computed from the sequence, so that
the prompt can query what the frozen model has read.
"""

from dataclasses import dataclass, field
from typing import Any

import peft
import torch
from peft import MODEL_TYPE_TO_PEFT_MODEL_MAPPING, PeftType, PromptEmbedding, PromptTuningConfig
from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING, PEFT_TYPE_TO_TUNER_MAPPING
from torch.nn import functional as F
from transformers.modeling_outputs import CausalLMOutputWithPast

from ..data.sequence import IGNORED
from ..model.configuration_hyenadna import HyenaDNAConfig
from ..model.modeling_hyenadna import JOINED_SEQUENCES_ARGUMENTS
from ..model.padding_hyenadna import find_rows, shift_labels
from .prompting import POSITIONS

# Type in adapter_config.json. Where it is not registered, PEFT rejects the adapter instead of misplacing the prompt.
PLACED_PROMPT_TUNING = "PLACED_PROMPT_TUNING"


@dataclass
class PlacedPromptConfig(PromptTuningConfig):
    """
    Configuration of prompt tuning with the prompt at a chosen position of the input of a HyenaDNA model.

    Use it like PEFT's own configurations: `get_peft_model(model, PlacedPromptConfig(task_type="CAUSAL_LM",
    num_virtual_tokens=16))`. To load a saved adapter, import this module first.

    Args:
        prompt_position: `"before"` the input, `"after"` it, `"both"` (the first half before it, the second half after
            it), or `"spread"` at equal distances, with the last token after the input. The input consists of the valid
            positions of a row, wherever the padding is. For a language model with labels, it ends at the last position
            without a label, so that the answer follows the prompt.
        prompt_dropout: Dropout on the prompt in training.

    Raises:
        ValueError: If an argument is invalid.
    """

    prompt_position: str = field(default="after", metadata={"help": f"Position of the prompt: {', '.join(POSITIONS)}"})
    prompt_dropout: float = field(default=0.0, metadata={"help": "Dropout on the prompt, in training"})

    def __post_init__(self) -> None:
        super().__post_init__()
        self.peft_type = PLACED_PROMPT_TUNING
        if self.prompt_position not in POSITIONS:
            raise ValueError(f"prompt_position={self.prompt_position!r}: choose one of {', '.join(POSITIONS)}.")
        if not 0 <= self.prompt_dropout < 1:
            raise ValueError(f"prompt_dropout={self.prompt_dropout}: give a probability of at least 0 and below 1.")


def inputs_before(position: str, prompt_tokens: int, lengths: torch.Tensor) -> torch.Tensor:
    """
    Count the input tokens before each token of a prompt.

    Args:
        position: One of `POSITIONS`.
        prompt_tokens: Length of the prompt.
        lengths: Length of each input, of shape `(batch,)`.

    Returns:
        Counts of shape `(batch, prompt_tokens)`, in ascending order.
    """
    number = torch.arange(prompt_tokens, device=lengths.device)
    lengths = lengths[:, None]
    if position == "spread":
        return lengths * (number + 1) // prompt_tokens
    comes_after = {"before": number < 0, "after": number >= 0, "both": number >= (prompt_tokens + 1) // 2}[position]
    return lengths * comes_after


def placed_order(
    position: str, prompt_tokens: int, mask: torch.Tensor, labels: torch.Tensor | None = None
) -> torch.Tensor:
    """
    Find the order of the tokens of a prompt and of a padded batch.

    Args:
        position: One of `POSITIONS`.
        prompt_tokens: Length of the prompt.
        mask: Mask of shape `(batch, length)`, nonzero at valid positions.
        labels: Labels of a language model, of shape `(batch, length)`.

    Returns:
        Source of each position, an index into the prompt followed by the row, of shape
        `(batch, prompt_tokens + length)`. Prompt and row keep their own order. Padding after the last valid position
        precedes the part of the prompt after the input, so that all rows end with the same tokens.
    """
    is_valid = mask != 0
    counts = is_valid.cumsum(1)
    lengths = counts[:, -1] if labels is None else (counts * (is_valid & (labels == IGNORED))).amax(1)
    between = 2 * inputs_before(position, prompt_tokens, lengths) + 1
    return torch.cat([between, 2 * counts], dim=1).argsort(dim=1, stable=True)


def reorder(values: torch.Tensor, order: torch.Tensor) -> torch.Tensor:
    """
    Rearrange the positions of a batch.

    Args:
        values: Tensor of shape `(batch, length, ...)`.
        order: Source of each position, of shape `(batch, length)`.
    """
    index = order.view(*order.shape, *[1] * (values.dim() - 2)).expand_as(values)
    return values.gather(1, index)


def _needs_whole_inputs(module: torch.nn.Module) -> bool:
    """Tell whether a module has hooks, or recomputes its input, which would continue a cache twice."""
    is_recomputed = module.training and getattr(module, "gradient_checkpointing", False)
    return bool(module._forward_hooks or module._forward_pre_hooks or is_recomputed)


class _PlacedPrompt:
    """Place the prompt of a [`PlacedPromptConfig`]; do what PEFT does for other configurations."""

    # Attributes of `peft.PeftModel`, with whose subclasses this class is mixed.
    peft_config: Any
    base_model: Any
    config: Any
    active_peft_config: Any
    word_embeddings: Any
    get_prompt: Any
    training: bool

    def _setup_prompt_encoder(self, adapter_name: str) -> Any:
        config = self.peft_config[adapter_name]
        if not isinstance(config, PlacedPromptConfig):
            return super()._setup_prompt_encoder(adapter_name)  # type: ignore[misc]
        model = self.base_model.config
        if model.model_type != HyenaDNAConfig.model_type:
            raise ValueError(
                f"PlacedPromptConfig: this is a {model.model_type} model, but only HyenaDNA models are supported; use "
                "PromptTuningConfig."
            )
        if getattr(model, "num_prompt_tokens", 0) and config.prompt_position != "before":
            raise ValueError(
                f"num_prompt_tokens={model.num_prompt_tokens}: this excludes the first positions from pooling, but "
                f"prompt_position={config.prompt_position!r} puts the prompt elsewhere; set it to 0."
            )
        config.peft_type = PeftType.PROMPT_TUNING  # PEFT creates the embedding for this type only
        try:
            super()._setup_prompt_encoder(adapter_name)  # type: ignore[misc]
        finally:
            config.peft_type = PLACED_PROMPT_TUNING

    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        inputs_embeds: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        **kwargs: Any,
    ) -> Any:
        """
        Call the model on the input with the prompt at its position.

        Outputs of a language model are in the order of its input, so that the last one predicts the next token. Outputs
        of the other heads are in the order of PEFT's own prompts: first those of the prompt, then those of the input.
        """
        inputs = {"input_ids": input_ids, "attention_mask": attention_mask, "inputs_embeds": inputs_embeds}
        if labels is not None:
            inputs["labels"] = labels
        if not isinstance(self.active_peft_config, PlacedPromptConfig):
            return super().forward(**inputs, **kwargs)  # type: ignore[misc]
        kwargs.pop("task_ids", None)
        cache = kwargs.get("past_key_values")
        if cache is not None and cache.get_seq_length():  # the prompt has been read
            columns = (inputs_embeds if input_ids is None else input_ids).shape[1]  # type: ignore[union-attr]
            mask = None if attention_mask is None else attention_mask[:, -columns:]
            return self.base_model(**{**inputs, "attention_mask": mask}, **kwargs)
        is_language_model = self.active_peft_config.task_type == peft.TaskType.CAUSAL_LM
        order, placed = self._place(**inputs, before_labels=is_language_model, **kwargs)
        if is_language_model:
            first = int((order < self.active_peft_config.num_virtual_tokens).int().argmax(1).min())
            reads_first = first and self._can_read_context_first(placed["inputs_embeds"], kwargs)
            return self._continue_context(first, placed, kwargs) if reads_first else self.base_model(**placed, **kwargs)
        return_dict = kwargs.pop("return_dict", None)
        if return_dict is None:
            return_dict = getattr(self.config, "return_dict", True)
        outputs = self.base_model(**placed, **kwargs, return_dict=True)
        restored = order.argsort(1)
        for name, value in outputs.items():
            if name == "hidden_states":
                outputs[name] = tuple(reorder(state, restored) for state in value)
            elif isinstance(value, torch.Tensor) and value.dim() == 3:
                outputs[name] = reorder(value, restored)
        return outputs if return_dict else outputs.to_tuple()

    def _can_read_context_first(self, inputs_embeds: torch.Tensor, kwargs: dict[str, Any]) -> bool:
        """Tell whether training may compute the positions before the prompt without a graph, in a call of their own."""
        model = self.base_model
        return (
            torch.is_grad_enabled()
            and model.config.return_dict
            and set(kwargs) <= {"num_items_in_batch"}
            and not any(parameter.requires_grad for parameter in model.parameters())
            and not any(map(_needs_whole_inputs, model.modules()))
            and model.plan(inputs_embeds=inputs_embeds).path != "transparent"  # nothing else observes whole inputs
        )

    def _continue_context(self, first: int, placed: dict[str, torch.Tensor], kwargs: dict[str, Any]) -> Any:
        """
        Call the language model on the first positions, which do not depend on the prompt, then on the others.

        Only the second call has a graph, so that a training step costs and stores less; the result is the same.

        Args:
            first: Position of the first token of the prompt in any row.
            placed: Arguments of the base model.
            kwargs: Arguments of the loss.
        """
        model, labels = self.base_model, placed.pop("labels", None)
        before, after = (
            {name: values[:, part] for name, values in placed.items()} for part in (slice(first), slice(first, None))
        )
        with torch.no_grad():
            context = model(**before, use_cache=True)
        rest = model(**after, past_key_values=context.past_key_values)
        logits, loss = torch.cat([context.logits, rest.logits], dim=1), None
        if labels is not None:
            shifted = shift_labels(labels, find_rows(model.config, placed.get("attention_mask")))
            loss = model.loss_function(logits, labels, model.config.vocab_size, shift_labels=shifted, **kwargs)
        return CausalLMOutputWithPast(loss=loss, logits=logits)

    def _place(
        self,
        input_ids: torch.Tensor | None,
        attention_mask: torch.Tensor | None,
        inputs_embeds: torch.Tensor | None,
        labels: torch.Tensor | None = None,
        before_labels: bool = False,
        **kwargs: Any,
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Return the order of prompt and input, and the arguments of the base model in this order."""
        joined = [name for name in ("position_ids", *JOINED_SEQUENCES_ARGUMENTS) if kwargs.get(name) is not None]
        if joined:
            raise ValueError(
                f"{joined[0]}: soft prompts do not support sequences that share a row; pass each one in a separate row."
            )
        config = self.active_peft_config
        embeds = self.word_embeddings(input_ids) if inputs_embeds is None else inputs_embeds
        prompt = self.get_prompt(batch_size=len(embeds)).to(embeds.dtype)
        prompt = F.dropout(prompt, config.prompt_dropout, self.training)
        mask = embeds.new_ones(embeds.shape[:2], dtype=torch.long) if attention_mask is None else attention_mask
        tokens = config.num_virtual_tokens
        order = placed_order(config.prompt_position, tokens, mask, labels if before_labels else None)
        placed = {"inputs_embeds": reorder(torch.cat([prompt, embeds], dim=1), order)}
        if attention_mask is not None:
            placed["attention_mask"] = reorder(F.pad(mask, (tokens, 0), value=1), order)
        if labels is not None:
            per_position = config.task_type != peft.TaskType.SEQ_CLS
            placed["labels"] = reorder(F.pad(labels, (tokens, 0), value=IGNORED), order) if per_position else labels
        return order, placed


class PeftModelForSequenceClassification(_PlacedPrompt, peft.PeftModelForSequenceClassification):
    """PEFT's class, with placed prompts."""


class PeftModelForTokenClassification(_PlacedPrompt, peft.PeftModelForTokenClassification):
    """PEFT's class, with placed prompts."""


class PeftModelForFeatureExtraction(_PlacedPrompt, peft.PeftModelForFeatureExtraction):
    """PEFT's class, with placed prompts."""


class PeftModelForCausalLM(_PlacedPrompt, peft.PeftModelForCausalLM):
    """PEFT's class, with placed prompts."""

    def generate(self, inputs: torch.Tensor | None = None, **kwargs: Any) -> Any:
        """Generate like the base model, after the input with the prompt at its position."""
        if self._adapters_disabled or not isinstance(self.active_peft_config, PlacedPromptConfig):
            return super().generate(*([] if inputs is None else [inputs]), **kwargs)
        input_ids = kwargs.pop("input_ids", inputs)
        mask, embeds = kwargs.pop("attention_mask", None), kwargs.pop("inputs_embeds", None)
        options = kwargs.get("generation_config") or self.base_model.generation_config
        columns = (embeds if input_ids is None else input_ids).shape[1]
        longest, shortest = kwargs.pop("max_length", None), kwargs.pop("min_length", None)
        if longest is not None:  # of input and new tokens; the prompt does not count
            kwargs.setdefault("max_new_tokens", longest - columns)
        if shortest is not None:
            kwargs.setdefault("min_new_tokens", max(shortest - columns, 0))
        pad = kwargs.get("pad_token_id", options.pad_token_id)
        if mask is None and embeds is None and pad is not None:  # as without a prompt
            mask = (input_ids != pad).long()
        _, placed = self._place(input_ids, mask, embeds, **kwargs)
        return self.base_model.generate(input_ids, **placed, **kwargs)


def register_placed_prompts() -> None:
    """Register [`PlacedPromptConfig`] with PEFT in this process."""
    PEFT_TYPE_TO_CONFIG_MAPPING[PLACED_PROMPT_TUNING] = PlacedPromptConfig
    PEFT_TYPE_TO_TUNER_MAPPING[PLACED_PROMPT_TUNING] = PromptEmbedding
    MODEL_TYPE_TO_PEFT_MODEL_MAPPING.update(
        CAUSAL_LM=PeftModelForCausalLM,
        FEATURE_EXTRACTION=PeftModelForFeatureExtraction,
        SEQ_CLS=PeftModelForSequenceClassification,
        TOKEN_CLS=PeftModelForTokenClassification,
    )


register_placed_prompts()
