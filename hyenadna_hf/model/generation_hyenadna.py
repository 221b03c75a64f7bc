"""Generation for the language model: inputs, cache, suppressed tokens and stop strings."""

import copy

import torch
from transformers import GenerationMixin, StoppingCriteria

from .cache_hyenadna import HyenaDNACache
from .padding_hyenadna import sequence_starts

# Special tokens of the tokenizer that are not generated: all but [SEP], at which generation stops.
SPECIAL_TOKENS = (0, 2, 3, 4, 5, 6)


class HyenaDNAGenerationMixin(GenerationMixin):
    """
    `generate` for a HyenaDNA language model.

    Unless `suppress_tokens` says otherwise, it makes any token but the special ones (except [SEP], at which it stops)
    and the spare rows of the embedding, from `config.num_tokens` on.
    """

    def prepare_inputs_for_generation(
        self,
        input_ids,
        past_key_values=None,
        attention_mask=None,
        inputs_embeds=None,
        next_sequence_length=None,
        cache_position=None,
        use_cache=None,
        logits_to_keep=0,
        **kwargs,
    ):
        """Choose what `generate` passes to `forward`; `inputs_embeds` stand for the prompt."""
        model_inputs = {
            "attention_mask": attention_mask,
            "past_key_values": past_key_values,
            "use_cache": use_cache,
            "logits_to_keep": logits_to_keep,
            **{name: kwargs[name] for name in ("output_attentions", "output_hidden_states") if name in kwargs},
        }
        if past_key_values is None and inputs_embeds is not None:
            generated = attention_mask.shape[1] - inputs_embeds.shape[1]
            embeds = self.get_input_embeddings()(input_ids[:, input_ids.shape[1] - generated :])
            return {"inputs_embeds": torch.cat([inputs_embeds, embeds], dim=1), **model_inputs}
        new = next_sequence_length
        if new is None and past_key_values is not None and cache_position is not None:  # transformers 4
            new = len(cache_position)
        if inputs_embeds is not None and past_key_values.get_seq_length() == 0:
            return {"inputs_embeds": inputs_embeds, **model_inputs}
        return {"input_ids": input_ids[:, -new:] if new else input_ids, **model_inputs}

    def _prepare_generation_config(self, *args, **kwargs):
        generation_config, model_kwargs = super()._prepare_generation_config(*args, **kwargs)
        if generation_config.suppress_tokens is None:
            spare = range(self.config.num_tokens, self.config.vocab_size)
            generation_config.suppress_tokens = [*SPECIAL_TOKENS, *spare]
        return generation_config, model_kwargs

    def _get_stopping_criteria(self, generation_config, *args, tokenizer=None, **kwargs):
        if generation_config.stop_strings is None or tokenizer is None:  # it says that it needs a tokenizer
            return super()._get_stopping_criteria(generation_config, *args, tokenizer=tokenizer, **kwargs)
        others = copy.copy(generation_config)
        others.stop_strings = None
        criteria = super()._get_stopping_criteria(others, *args, tokenizer=tokenizer, **kwargs)
        criteria.append(StopStrings(generation_config.stop_strings, tokenizer))
        return criteria

    def _prepare_cache_for_generation(
        self, generation_config, model_kwargs, generation_mode, batch_size, max_cache_length
    ):
        """Make a cache, and check that what will be in it fits. (`max_cache_length` leaves out the last new token.)"""
        mask, position_ids = model_kwargs.get("attention_mask"), model_kwargs.get("position_ids")
        fits = position_ids is not None and (mask is None or mask.shape == position_ids.shape)
        if fits and sequence_starts(position_ids, mask, position_ids) is not None:
            raise ValueError("Sequences that share a row have no cache to generate with; pass each in its own row.")
        masked = 0 if mask is None or self.config.compat_padding else int((mask == 0).sum(1).min())
        if max_cache_length - masked > self.config.max_seq_len:
            raise ValueError(
                f"This would make a sequence of {max_cache_length - masked + 1:,} tokens, but with max_seq_len="
                f"{self.config.max_seq_len:,} there can be at most {self.config.max_seq_len + 1:,}, of which the last "
                "is not read; lower max_new_tokens or max_length, or shorten the prompt."
            )
        if generation_config.cache_implementation is not None:
            raise ValueError(
                f"cache_implementation={generation_config.cache_implementation!r}: HyenaDNA has a cache of its own; "
                "leave it out."
            )
        if generation_config.use_cache and model_kwargs.get("past_key_values") is None:
            model_kwargs["past_key_values"] = HyenaDNACache(self.config)


class StopStrings(StoppingCriteria):
    """
    Stops a row when the last token completes one of some strings.

    (transformers' own criterion takes tokens apart by a text that no DNA tokenizer can write.)

    Args:
        stop_strings (`str` or `list[str]`): Read as the tokenizer reads sequences: in any case, U as T.
        tokenizer ([`PreTrainedTokenizerBase`]): Its tokens are read as they are, one after the other.

    Raises:
        ValueError: if there are none, or one of them is empty.
    """

    def __init__(self, stop_strings, tokenizer):
        stop_strings = [stop_strings] if isinstance(stop_strings, str) else list(stop_strings)
        if not stop_strings or not all(stop_strings):
            raise ValueError(f"stop_strings={stop_strings!r}: give some strings, none of them empty, or leave it out.")
        self.tokenizer = tokenizer
        self.stop_strings = ["".join(tokenizer.tokenize(text)) for text in stop_strings]
        self.longest = max(map(len, self.stop_strings))

    def __call__(self, input_ids, scores, **kwargs):
        done = [self._ends(row) for row in input_ids[:, -self.longest :].tolist()]
        return torch.tensor(done, device=input_ids.device)

    def _ends(self, row):
        tokens = [token or "" for token in self.tokenizer.convert_ids_to_tokens(row)]
        text, last = "".join(tokens), len(tokens[-1])
        # A stop string ends in the last token: not before it, or it would have stopped there.
        return any(text.find(stop, max(0, len(text) - last - len(stop) + 1)) >= 0 for stop in self.stop_strings)
