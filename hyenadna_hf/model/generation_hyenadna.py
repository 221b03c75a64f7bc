"""Generation with the language model: inputs, cache, suppressed tokens and stop strings."""

import copy
from typing import Any

import torch
from torch import Tensor
from transformers import (
    GenerationConfig,
    GenerationMixin,
    PreTrainedTokenizerBase,
    StoppingCriteria,
    StoppingCriteriaList,
)

from .cache_hyenadna import HyenaDNACache
from .padding_hyenadna import find_sequence_starts

# Special tokens of the tokenizer that are never generated: all but [SEP], which ends generation.
SPECIAL_TOKENS = (0, 2, 3, 4, 5, 6)


class HyenaDNAGenerationMixin(GenerationMixin):
    """
    Add `generate` to a language model.

    Special tokens (except [SEP], which ends generation) and the spare rows of the embedding, from `config.num_tokens`
    on, are suppressed unless `suppress_tokens` is set.
    """

    def prepare_inputs_for_generation(
        self,
        input_ids: Tensor,
        past_key_values: HyenaDNACache | None = None,
        attention_mask: Any = None,
        inputs_embeds: Tensor | None = None,
        next_sequence_length: int | None = None,
        cache_position: Tensor | None = None,
        use_cache: bool | None = None,
        logits_to_keep: int = 0,
        **kwargs: Any,
    ) -> dict[str, Any]:
        """Select the arguments that `generate` passes to `forward`; `inputs_embeds` replace the prompt."""
        model_inputs: dict[str, Any] = {
            "attention_mask": attention_mask,
            "past_key_values": past_key_values,
            "use_cache": use_cache,
            "logits_to_keep": logits_to_keep,
            **{name: kwargs[name] for name in ("output_attentions", "output_hidden_states") if name in kwargs},
        }
        if inputs_embeds is not None:
            if past_key_values is None:
                generated = attention_mask.shape[1] - inputs_embeds.shape[1]
                embeds = self.get_input_embeddings()(input_ids[:, input_ids.shape[1] - generated :])
                return {"inputs_embeds": torch.cat([inputs_embeds, embeds], dim=1), **model_inputs}
            if past_key_values.get_seq_length() == 0:
                return {"inputs_embeds": inputs_embeds, **model_inputs}
        new = next_sequence_length
        if new is None and past_key_values is not None and cache_position is not None:  # transformers 4
            new = len(cache_position)
        return {"input_ids": input_ids[:, -new:] if new else input_ids, **model_inputs}

    def _prepare_generation_config(self, *args: Any, **kwargs: Any) -> tuple[GenerationConfig, dict[str, Any]]:
        generation_config, model_kwargs = super()._prepare_generation_config(*args, **kwargs)
        if generation_config.suppress_tokens is None:
            spare = range(self.config.num_tokens, self.config.vocab_size)
            generation_config.suppress_tokens = [*SPECIAL_TOKENS, *spare]
        return generation_config, model_kwargs

    def _get_stopping_criteria(
        self, generation_config: GenerationConfig, *args: Any, tokenizer: Any = None, **kwargs: Any
    ) -> StoppingCriteriaList:
        if generation_config.stop_strings is None or tokenizer is None:  # transformers raises without a tokenizer
            return super()._get_stopping_criteria(generation_config, *args, tokenizer=tokenizer, **kwargs)
        others = copy.copy(generation_config)
        others.stop_strings = None
        criteria = super()._get_stopping_criteria(others, *args, tokenizer=tokenizer, **kwargs)
        criteria.append(StopStrings(generation_config.stop_strings, tokenizer))
        return criteria

    def _prepare_cache_for_generation(
        self,
        generation_config: GenerationConfig,
        model_kwargs: dict[str, Any],
        generation_mode: Any,
        batch_size: int,
        max_cache_length: int,
    ) -> None:
        """Create a cache after checking that the sequence fits (`max_cache_length` excludes the last new token)."""
        mask, position_ids = model_kwargs.get("attention_mask"), model_kwargs.get("position_ids")
        fits = position_ids is not None and (mask is None or mask.shape == position_ids.shape)
        if fits and find_sequence_starts(position_ids, mask, position_ids) is not None:
            raise ValueError("Cannot generate from sequences that share a row; pass each one in a separate row.")
        masked = 0 if mask is None or self.config.compat_padding else int((mask == 0).sum(1).min())
        if max_cache_length - masked > self.config.max_seq_len:
            raise ValueError(
                f"This would generate a sequence of {max_cache_length - masked + 1:,} tokens, but with max_seq_len="
                f"{self.config.max_seq_len:,} it can have {self.config.max_seq_len + 1:,} at most, of which the last "
                "is not read; lower max_new_tokens or max_length, or shorten the prompt."
            )
        if generation_config.cache_implementation is not None:
            raise ValueError(
                f"cache_implementation={generation_config.cache_implementation!r}: HyenaDNA only supports its own "
                "cache; leave this argument out."
            )
        if generation_config.use_cache and model_kwargs.get("past_key_values") is None:
            model_kwargs["past_key_values"] = HyenaDNACache(self.config)


class StopStrings(StoppingCriteria):
    """
    Stop a row when its last token completes a stop string.

    (transformers' own criterion relies on a text that no DNA tokenizer can decode.)

    Args:
        stop_strings: Strings that are read as the tokenizer reads sequences: case-insensitive, with U as T.
        tokenizer: Tokenizer of the sequences; its tokens are compared without decoding.

    Raises:
        ValueError: If there is no stop string or one of them is empty.
    """

    def __init__(self, stop_strings: str | list[str], tokenizer: PreTrainedTokenizerBase) -> None:
        stop_strings = [stop_strings] if isinstance(stop_strings, str) else list(stop_strings)
        if not stop_strings or not all(stop_strings):
            raise ValueError(f"stop_strings={stop_strings!r}: pass one or more, none of them empty, or leave it out.")
        self.tokenizer = tokenizer
        self.stop_strings = ["".join(tokenizer.tokenize(text)) for text in stop_strings]
        self.longest = max(map(len, self.stop_strings))

    def __call__(self, input_ids: Tensor, scores: Tensor, **kwargs: Any) -> Tensor:
        done = [self._is_complete(row) for row in input_ids[:, -self.longest :].tolist()]
        return torch.tensor(done, device=input_ids.device)

    def _is_complete(self, row: list[int]) -> bool:
        tokens = [token or "" for token in self.tokenizer.convert_ids_to_tokens(row)]
        text, last = "".join(tokens), len(tokens[-1])
        # A stop string must end within the last token; had one ended before, generation would have stopped there.
        return any(text.find(stop, max(0, len(text) - last - len(stop) + 1)) >= 0 for stop in self.stop_strings)
