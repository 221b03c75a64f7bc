"""HyenaDNA: the base model and its heads (Nguyen, Poli, Faizi et al. 2023, arXiv:2306.15794)."""

import copy
import math
from collections.abc import Callable
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.modeling_outputs import (
    BaseModelOutputWithPast,
    CausalLMOutputWithPast,
    MaskedLMOutput,
    SequenceClassifierOutput,
    TokenClassifierOutput,
)
from transformers.modeling_utils import load_state_dict
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
from transformers.utils import can_return_tuple

# This file imports all others of the folder, since transformers 4 copies no others.
from .backbone_hyenadna import MODULES, HyenaDNABackbone
from .cache_hyenadna import HyenaDNACache
from .configuration_hyenadna import NO_PREFIX_TUNING, HyenaDNAConfig, check_memory
from .filter_hyenadna import (
    PUBLISHED_CONSTANT,
    HyenaDNAFilter,
    HyenaDNAPositions,
    HyenaDNASine,
    check_published_constants,
    positional_features,
)
from .generation_hyenadna import HyenaDNAGenerationMixin
from .in_place_hyenadna import InPlace  # noqa: F401
from .longconv_hyenadna import LongConvolution  # noqa: F401
from .loss_hyenadna import align_labels, predict_outputs, prediction_loss
from .operator_hyenadna import HyenaDNAOperator  # noqa: F401
from .padding_hyenadna import (
    Rows,
    check_traced_length,
    find_rows,
    find_sequence_starts,
    mask_prompt,
    pool_positions,
    shift_labels,
)
from .pieces_hyenadna import Pieces  # noqa: F401
from .plan_hyenadna import Plan, check_plan, choose_plan
from .shortconv_hyenadna import ShortConvolution  # noqa: F401
from .spectra_hyenadna import KeptSpectra  # noqa: F401
from .tuning_hyenadna import Tuning  # noqa: F401

try:
    from transformers import initialization as init

    TIED_WEIGHTS_KEYS: dict | list = {"lm_head.weight": "hyena.backbone.embeddings.word_embeddings.weight"}
except ImportError:  # transformers 4
    from torch.nn import init

    TIED_WEIGHTS_KEYS = ["lm_head.weight"]

# The Trainer looks this name up to shift labels for label smoothing, whether or not the class is registered.
MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.setdefault(HyenaDNAConfig.model_type, "HyenaDNAForCausalLM")

# Keyword arguments that collators pass to any model: those that mark joined sequences, and redundant ones. The Trainer
# passes `skip_logits` for Liger kernels, which HyenaDNA does not use.
JOINED_SEQUENCES_ARGUMENTS = ("cu_seq_lens_q", "seq_idx")
IGNORED_ARGUMENTS = ("cu_seq_lens_k", "max_length_q", "max_length_k", "skip_logits")


class HyenaDNAPreTrainedModel(PreTrainedModel):
    """Base class of all HyenaDNA models: loading, saving and initialisation."""

    config_class = HyenaDNAConfig
    base_model_prefix = "hyena"
    supports_gradient_checkpointing = True
    _no_split_modules = ["HyenaDNABlock"]
    # `_load_pretrained_model` checks their values before loading.
    _keys_to_ignore_on_load_unexpected = [PUBLISHED_CONSTANT.pattern]

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: Any,
        *model_args: Any,
        config: HyenaDNAConfig | None = None,
        force_max_seq_len: bool = False,
        **kwargs: Any,
    ) -> Any:
        """
        Load a model like `PreTrainedModel.from_pretrained`, and refuse to change `max_seq_len` unless forced.

        Args:
            force_max_seq_len: Load the weights with a different `max_seq_len`. The long filters are functions of
                position / max_seq_len, so the result is a different model and needs training.

        Raises:
            ValueError: If `max_seq_len`, passed here or in `config`, differs from the stored one and is not forced.
        """
        if config is None:
            requested = kwargs.pop("max_seq_len", kwargs.pop("max_position_embeddings", None))
        else:
            requested = getattr(config, "max_seq_len", None)
        trained = cls._stored_max_seq_len(pretrained_model_name_or_path, kwargs)
        if requested is None or trained is None or requested == trained:
            return super().from_pretrained(pretrained_model_name_or_path, *model_args, config=config, **kwargs)
        if not force_max_seq_len:
            raise ValueError(
                f"max_seq_len={requested}, but {pretrained_model_name_or_path} was trained with max_seq_len={trained}. "
                "Changing it rescales every long filter, which gives another model. Shorter inputs need no change; for "
                "longer ones, use a checkpoint trained on them. To change it anyway and continue training, pass "
                "force_max_seq_len=True."
            )
        if config is not None:
            config = copy.deepcopy(config)
            config.max_seq_len = trained
        loaded = super().from_pretrained(pretrained_model_name_or_path, *model_args, config=config, **kwargs)
        model = loaded[0] if isinstance(loaded, tuple) else loaded
        model.config.max_seq_len = requested
        return loaded

    @classmethod
    def _stored_max_seq_len(cls, source: Any, kwargs: dict[str, Any]) -> int | None:
        if source is None:
            return None
        names = ("cache_dir", "force_download", "local_files_only", "token", "revision", "subfolder", "proxies")
        hub = {name: kwargs[name] for name in names if name in kwargs}
        try:
            stored, _ = cls.config_class.get_config_dict(source, **hub)
        except OSError:  # weights without a configuration; loading raises if this is an error
            return None
        return stored.get("max_seq_len")

    @classmethod
    def _load_pretrained_model(
        cls, model: PreTrainedModel, state_dict: Any, checkpoint_files: Any, *args: Any, **kwargs: Any
    ) -> Any:
        if state_dict is not None:
            check_published_constants(model.config, state_dict, state_dict.get)
        for file in checkpoint_files or () if state_dict is None else ():
            if file.endswith(".safetensors"):
                with safe_open(file, framework="pt") as tensors:
                    check_published_constants(model.config, tensors.keys(), tensors.get_tensor)
            else:
                tensors = load_state_dict(file)
                check_published_constants(model.config, tensors, tensors.get)
        return super()._load_pretrained_model(model, state_dict, checkpoint_files, *args, **kwargs)

    def _init_weights(self, module: nn.Module) -> None:
        std = self.config.initializer_range
        if isinstance(module, nn.Linear):
            if getattr(module, "closes_residual_branch", False):
                std = std / math.sqrt(2 * self.config.n_layer)
            init.normal_(module.weight, std=std)
            if module.bias is not None:
                init.zeros_(module.bias)
        elif isinstance(module, nn.Embedding):
            init.normal_(module.weight, std=std)
        elif isinstance(module, nn.LayerNorm):
            init.ones_(module.weight)
            init.zeros_(module.bias)
        elif isinstance(module, nn.Conv1d):  # PyTorch's default, as in the original
            bound = 1 / math.sqrt(self.config.short_filter_order)
            init.uniform_(module.weight, -bound, bound)
            init.uniform_(module.bias, -bound, bound)
        elif isinstance(module, HyenaDNAFilter) and module.bias is not None:
            init.normal_(module.bias)
        elif isinstance(module, HyenaDNASine) and self.config.train_freq:
            init.constant_(module.freq, self.config.activation_freq)
        elif isinstance(module, HyenaDNAPositions):
            lags = torch.arange(self.config.max_seq_len, device=module.z.device)
            _, z = positional_features(lags, self.config, module.z.dtype)
            with torch.no_grad():
                getattr(init, "copy_", torch.Tensor.copy_)(module.z, z[None])

    def get_input_embeddings(self) -> nn.Module:
        return self.base_model.backbone.embeddings.word_embeddings

    def set_input_embeddings(self, value: nn.Module) -> None:
        self.base_model.backbone.embeddings.word_embeddings = value

    def resize_token_embeddings(self, new_num_tokens: int | None = None, *args: Any, **kwargs: Any) -> nn.Module:
        embeddings = super().resize_token_embeddings(new_num_tokens, *args, **kwargs)
        if new_num_tokens is not None:
            self.config.num_tokens = new_num_tokens  # rows that pad_to_multiple_of adds are spare
        # The config rounds vocab_size up on loading: keep the new number of rows from being rounded.
        self.config.pad_vocab_size_multiple = math.gcd(self.config.vocab_size, self.config.pad_vocab_size_multiple)
        return embeddings

    def plan(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        past_key_values: HyenaDNACache | None = None,
        use_cache: bool | None = None,
        **_: Any,
    ) -> Plan:
        """
        Explain how a call with these arguments would be computed now: `print(model.plan(input_ids))`.

        The plan depends on hooks, adapters, gradients, autocast and `config.memory` at the time of the call. It can be
        passed to `forward`, as it is or with another `path` (`dataclasses.replace`).
        """
        model = self.base_model
        inputs: Any = inputs_embeds if input_ids is None else input_ids
        if past_key_values is None and use_cache:
            past_key_values = HyenaDNACache(self.config)
        mask = None if attention_mask is None else attention_mask[:, -inputs.shape[1] :]
        context = model._describe_past(past_key_values, inputs, find_rows(self.config, mask, None))
        return choose_plan(model.backbone, inputs, MODULES, **context)

    def _check_kwargs(self, kwargs: dict[str, Any], *known: str) -> None:
        """Raise `TypeError` for keyword arguments that are neither `known` nor passed to any model."""
        allowed = {*known, *JOINED_SEQUENCES_ARGUMENTS, *IGNORED_ARGUMENTS, "plan"}
        unknown = [
            name for name in kwargs if name not in allowed and not (name == "token_type_ids" and kwargs[name] is None)
        ]
        if unknown:
            raise TypeError(f"{type(self).__name__}.forward() got unexpected keyword arguments: {', '.join(unknown)}.")

    @staticmethod
    def _find_starts(
        inputs: Tensor, attention_mask: Tensor | None, position_ids: Tensor | None, kwargs: dict[str, Any]
    ) -> Tensor | None:
        """Find the starts of sequences that share a row, as [`find_sequence_starts`] does."""
        joined = {name: kwargs.get(name) for name in JOINED_SEQUENCES_ARGUMENTS}
        return find_sequence_starts(inputs, attention_mask, position_ids, **joined)


class HyenaDNAModel(HyenaDNAPreTrainedModel):
    """The base model, which outputs hidden states for every position."""

    # Heads of checkpoints, which the base model lacks.
    _keys_to_ignore_on_load_unexpected = [PUBLISHED_CONSTANT.pattern, r"^lm_head\.", r"^score\."]

    def __init__(self, config: HyenaDNAConfig) -> None:
        super().__init__(config)
        self.backbone = HyenaDNABackbone(config)
        self.sharding: Any = None  # the context on other ranks, while `context_parallel` shards sequences
        self.post_init()

    @can_return_tuple
    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        past_key_values: HyenaDNACache | None = None,
        use_cache: bool | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        position_ids: Tensor | None = None,
        plan: Plan | None = None,
        **kwargs: Any,
    ) -> BaseModelOutputWithPast:
        """
        Compute hidden states.

        Args:
            input_ids: Token ids of shape `(batch, length)`.
            attention_mask: Mask of shape `(batch, length)` and any dtype, nonzero at valid positions. Masked positions
                output zeros, and all others are computed as if the masked ones were deleted from their row. Without a
                mask, every position is valid, [PAD] included. With `past_key_values`, the mask may also cover the
                positions seen before, as in `generate`; only its end is read.
            inputs_embeds: Embeddings of shape `(batch, length, d_model)`, instead of `input_ids`.
            past_key_values: Cache returned by an earlier call, which the input continues. It is updated in place.
            use_cache: Whether to return `past_key_values`, without gradients: up to `hyena_order * d_model` numbers per
                position and block. Defaults to whether `past_key_values` is given.
            output_attentions: Must not be true, since HyenaDNA has no attention.
            output_hidden_states: Whether to return the hidden states of all blocks.
            position_ids: Positions of shape `(batch, length)`. Another sequence of the row begins wherever they restart
                at 0, as `DataCollatorWithFlattening` joins them, and is computed as if it were alone. HyenaDNA has no
                position embeddings and ignores them otherwise.
            plan: How to compute, instead of the plan that [`~HyenaDNAModel.plan`] chooses.
            cu_seq_lens_q: Starts of all sequences of a single row and the end of the last one, of shape
                `(sequences + 1,)`, instead of `position_ids`.
            seq_idx: Number of the sequence of each position, of shape `(batch, length)`, instead of `position_ids`.
            return_dict: Whether to return a `ModelOutput` (default) or a tuple.

        Returns:
            `last_hidden_state` of shape `(batch, length, d_model)` and, if requested, `past_key_values` and
            `hidden_states`: `n_layer + 1` tensors of that shape, namely the embeddings, the output of each block but
            the last, and `last_hidden_state`.

        Raises:
            ValueError: If not exactly one of `input_ids` and `inputs_embeds` is given, shapes do not match, the input
                is empty, a row has more valid positions than `max_seq_len`, or a cache is requested in training or for
                sequences that share a row.
            TypeError: If a keyword argument is unknown.
        """
        self._check_kwargs(kwargs)
        check_memory(self.config.memory)  # it may have been changed
        if (input_ids is None) == (inputs_embeds is None):
            raise ValueError("Pass exactly one of input_ids and inputs_embeds.")
        if output_attentions:
            raise ValueError("output_attentions=True: HyenaDNA has no attention; leave it out.")
        if output_hidden_states is None:
            output_hidden_states = self.config.output_hidden_states
        inputs: Tensor = inputs_embeds if input_ids is None else input_ids
        if inputs.dim() != (2 if inputs_embeds is None else 3):
            raise ValueError(
                f"The input has shape {tuple(inputs.shape)}; input_ids must have shape (batch, length), and "
                "inputs_embeds (batch, length, d_model)."
            )
        columns = inputs.shape[1]
        if inputs.numel() == 0:
            raise ValueError(f"The input, of shape {tuple(inputs.shape)}, has no positions; leave empty sequences out.")
        cache = self._prepare_cache(past_key_values, use_cache)
        if attention_mask is not None:
            if cache is not None and attention_mask.shape == (inputs.shape[0], cache.seen + columns):
                attention_mask = attention_mask[:, cache.seen :]
            if attention_mask.shape != inputs.shape[:2]:
                raise ValueError(
                    f"attention_mask has shape {tuple(attention_mask.shape)}, but (batch, length) of the input is "
                    f"{tuple(inputs.shape[:2])}; pass one value per position."
                )
        starts = self._find_starts(inputs, attention_mask, position_ids, kwargs)
        if starts is not None and (cache is not None or self.sharding is not None):
            raise ValueError(
                "Sequences that share a row support neither a cache nor shards; pass each one in a separate row."
            )
        rows = find_rows(self.config, attention_mask, starts)
        context = self._describe_past(cache, inputs, rows)
        if plan is None:
            plan = choose_plan(self.backbone, inputs, MODULES, **context)
        else:
            check_plan(plan, inputs, **context)
        valid = rows.valid
        self.check_length(columns if valid is None else valid.shape[1])
        if cache is not None:
            count, width = inputs.shape[:2] if valid is None else valid.shape
            cache.begin(columns, width, count, valid, context["steps"])
        embeds = self.backbone.embeddings(input_ids) if inputs_embeds is None else inputs_embeds
        if torch.jit.is_tracing():
            embeds = check_traced_length(embeds)
        # Masked positions neither influence the result nor get gradients.
        restore: Callable[[Tensor], Tensor]
        if plan.path == "transparent":
            embeds, rows_to_compute, restore = rows.clear(embeds), rows, rows.clear
        else:  # a causal model never sees what is packed after the valid positions
            rows_to_compute = Rows(valid if self.config.bidirectional or cache is not None else None)
            embeds, restore = rows.pack(embeds), rows.unpack
        if self.sharding is None:
            past = None if cache is None else cache.layers
        else:
            past, embeds = [self.sharding] * self.config.n_layer, self.sharding.clear(embeds)
        overwrite = embeds is not inputs_embeds
        last, states = self.backbone(embeds, plan, past, rows_to_compute, output_hidden_states, overwrite)
        last = restore(last)
        if states is not None:
            states = (*map(restore, states[:-1]), last)
        return BaseModelOutputWithPast(last_hidden_state=last, past_key_values=cache, hidden_states=states)

    def _describe_past(self, cache: Any, inputs: Tensor, rows: Rows) -> dict[str, Any]:
        """Describe the context of a call to `choose_plan`."""
        cached = isinstance(cache, HyenaDNACache)
        needs_graph = torch.is_grad_enabled() and inputs.requires_grad
        steps = cached and not needs_graph and cache.computes_steps(inputs.shape[1], rows.valid)
        return {"cached": cached, "steps": steps, "sharded": self.sharding is not None}

    def check_length(self, positions: int) -> None:
        """Raise `ValueError` if a row of `positions` valid positions exceeds `max_seq_len`."""
        if positions > self.config.max_seq_len:
            raise ValueError(
                f"The input has {positions:,} positions, but this model's max_seq_len is "
                f"{self.config.max_seq_len:,}. Shorten it (truncation=True, max_length={self.config.max_seq_len}) or "
                "use a checkpoint for longer sequences."
            )

    def _prepare_cache(self, past_key_values: HyenaDNACache | None, use_cache: bool | None) -> HyenaDNACache | None:
        if past_key_values is None and not use_cache:
            return None
        if not isinstance(past_key_values, HyenaDNACache | None):
            raise ValueError(
                f"past_key_values is a {type(past_key_values).__name__}, but this model's state is a HyenaDNACache; "
                f"pass the one that an earlier call with use_cache=True returned. {NO_PREFIX_TUNING}"
            )
        if self.config.bidirectional:
            raise ValueError(
                "use_cache=True and past_key_values: a bidirectional model has no state to continue from, since every "
                "position depends on later ones; leave them out."
            )
        replays = self.backbone.layers[0].gradient_checkpointing
        if self.training and torch.is_grad_enabled() and (replays or any(p.requires_grad for p in self.parameters())):
            raise ValueError(
                "use_cache=True and past_key_values: no gradient flows into a cache, and gradient checkpointing would "
                "read it twice. Leave them out, freeze the model (model.requires_grad_(False)) without checkpointing, "
                "or call model.eval() or torch.no_grad() first."
            )
        return HyenaDNACache(self.config) if past_key_values is None else past_key_values


class HyenaDNALanguageModel(HyenaDNAPreTrainedModel):
    """Base class of the causal and the masked language model, with a head that outputs logits of every token."""

    _tied_weights_keys = TIED_WEIGHTS_KEYS

    def __init__(self, config: HyenaDNAConfig) -> None:
        super().__init__(config)
        self.hyena = HyenaDNAModel(config)
        self.lm_head = nn.Linear(config.d_model, config.vocab_size, bias=False)
        self.post_init()

    def get_output_embeddings(self) -> nn.Module:
        return self.lm_head

    def set_output_embeddings(self, new_embeddings: nn.Module) -> None:
        self.lm_head = new_embeddings


class HyenaDNAForCausalLM(HyenaDNALanguageModel, HyenaDNAGenerationMixin):
    """
    Language model with logits of the next nucleotide at every position. Rejects a bidirectional configuration.

    `generate` keeps its state in a [`HyenaDNACache`]: see [`HyenaDNAGenerationMixin`].
    """

    _is_stateful = True  # no assisted generation: the cache cannot be shortened

    def __init__(self, config: HyenaDNAConfig) -> None:
        if config.bidirectional:
            raise ValueError(
                "bidirectional=True: the model sees the next nucleotide, so it can neither be trained to predict it "
                "nor generate. Use HyenaDNAForMaskedLM (AutoModelForMaskedLM), or bidirectional=False."
            )
        super().__init__(config)

    @can_return_tuple
    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        past_key_values: HyenaDNACache | None = None,
        use_cache: bool | None = None,
        labels: Tensor | None = None,
        logits_to_keep: int = 0,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        position_ids: Tensor | None = None,
        **kwargs: Any,
    ) -> CausalLMOutputWithPast:
        """
        Compute logits of the next token, and the loss if `labels` are given.

        The arguments not listed here are those of [`HyenaDNAModel.forward`].

        Args:
            labels: The input tokens, of shape `(batch, length)`: each position is scored on the label of the next valid
                one. -100 and masked positions are ignored.
            logits_to_keep: Number of last positions to compute logits for; 0 for all. Not supported with `labels`.
            kwargs: Arguments of the loss: `num_items_in_batch`, as passed by the Trainer, or `shift_labels`, the label
                that each position is scored on, instead of that of the next position.

        Returns:
            `logits` of shape `(batch, length, vocab_size)`, zeros at masked positions, and `loss`.
        """
        if labels is not None and logits_to_keep:
            raise ValueError(f"logits_to_keep={logits_to_keep}: the loss needs all logits; leave it or labels out.")
        self._check_kwargs(kwargs, "num_items_in_batch", "shift_labels")
        loss_kwargs = {name: kwargs.pop(name) for name in ("num_items_in_batch", "shift_labels") if name in kwargs}
        outputs = self.hyena(
            input_ids=input_ids,
            attention_mask=attention_mask,
            inputs_embeds=inputs_embeds,
            past_key_values=past_key_values,
            use_cache=use_cache,
            output_attentions=output_attentions,
            output_hidden_states=output_hidden_states,
            position_ids=position_ids,
            return_dict=True,
            **kwargs,
        )
        logits = self.lm_head(outputs.last_hidden_state[:, -logits_to_keep:])
        loss = None
        if labels is not None:
            if attention_mask is not None:
                attention_mask = attention_mask[:, -labels.shape[1] :]
            starts = self._find_starts(labels, attention_mask, position_ids, kwargs)
            rows = find_rows(self.config, attention_mask, starts)
            shifted = loss_kwargs.pop("shift_labels", None)
            shifted = shift_labels(labels, rows) if shifted is None else rows.clear(shifted, -100)
            loss = self.loss_function(logits, labels, self.config.vocab_size, shift_labels=shifted, **loss_kwargs)
        return CausalLMOutputWithPast(
            loss=loss, logits=logits, past_key_values=outputs.past_key_values, hidden_states=outputs.hidden_states
        )


class HyenaDNAForMaskedLM(HyenaDNALanguageModel):
    """
    Masked language model with logits of the token at every position. Rejects a causal configuration.

    (Its head has the same name as that of the causal language model, but a different meaning.)
    """

    def __init__(self, config: HyenaDNAConfig) -> None:
        if not config.bidirectional:
            raise ValueError(
                "bidirectional=False: a masked language model reads both sides of a position. Set bidirectional=True, "
                "or use HyenaDNAForCausalLM (AutoModelForCausalLM)."
            )
        super().__init__(config)

    @can_return_tuple
    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        position_ids: Tensor | None = None,
        **kwargs: Any,
    ) -> MaskedLMOutput:
        """
        Compute logits of the token at each position, and the loss if `labels` are given.

        The arguments not listed here are those of [`HyenaDNAModel.forward`].

        Args:
            labels: The tokens before masking, of shape `(batch, length)`. -100 and masked positions are ignored.
            kwargs: Arguments of the loss: `num_items_in_batch`, as passed by the Trainer.

        Returns:
            `logits` of shape `(batch, length, vocab_size)`, zeros at positions that `attention_mask` excludes, and
            `loss`.
        """
        self._check_kwargs(kwargs, "num_items_in_batch")
        loss_kwargs = {"num_items_in_batch": kwargs.pop("num_items_in_batch", None)}
        outputs = self.hyena(
            input_ids=input_ids,
            attention_mask=attention_mask,
            inputs_embeds=inputs_embeds,
            output_attentions=output_attentions,
            output_hidden_states=output_hidden_states,
            position_ids=position_ids,
            return_dict=True,
            **kwargs,
        )
        logits = self.lm_head(outputs.last_hidden_state)
        loss = None
        if labels is not None:
            if attention_mask is not None and not self.config.compat_padding:
                labels = labels.masked_fill(attention_mask == 0, -100)
            loss = self.loss_function(logits, labels, self.config.vocab_size, **loss_kwargs)
        return MaskedLMOutput(loss=loss, logits=logits, hidden_states=outputs.hidden_states)


class HyenaDNAForSequenceClassification(HyenaDNAPreTrainedModel):
    """
    Classifier or regressor with one prediction per sequence, from hidden states pooled by `config.classifier_pooling`.
    """

    # The loss is a mean over the batch, which the Trainer scales for gradient accumulation.
    accepts_loss_kwargs = False
    pool_positions = staticmethod(pool_positions)  # replaced in a model whose sequences are sharded

    def __init__(self, config: HyenaDNAConfig) -> None:
        super().__init__(config)
        self.num_labels = config.num_labels
        self.hyena = HyenaDNAModel(config)
        self.dropout = nn.Dropout(config.classifier_dropout)
        self.score = nn.Linear(config.d_model, config.num_labels, bias=config.classifier_bias)
        self.loss_function = prediction_loss
        self.post_init()

    @can_return_tuple
    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        position_ids: Tensor | None = None,
        **kwargs: Any,
    ) -> SequenceClassifierOutput:
        """
        Compute the prediction for each sequence, and the loss if `labels` are given.

        The arguments not listed here are those of [`HyenaDNAModel.forward`].

        Args:
            labels: Integers of shape `(batch,)` for single-label classification; floats of shape `(batch, num_labels)`
                for multi-label classification (0 or 1) and regression (or `(batch,)` with one label). -100 is ignored.
                See [`prediction_loss`] for the problem types.

        Returns:
            `logits` of shape `(batch, num_labels)`, which for regression are the predicted numbers, and `loss`.
        """
        self._check_kwargs(kwargs)
        inputs = input_ids if inputs_embeds is None else inputs_embeds
        has_shape = inputs is not None and (attention_mask is None or attention_mask.shape == inputs.shape[:2])
        if has_shape and self._find_starts(inputs, attention_mask, position_ids, kwargs) is not None:
            raise ValueError(
                "Sequences that share a row: a sequence classifier makes one prediction per row; pass each one in a "
                "separate row (DataCollatorWithPadding instead of DataCollatorWithFlattening)."
            )
        outputs = self.hyena(
            input_ids=input_ids,
            attention_mask=attention_mask,
            inputs_embeds=inputs_embeds,
            output_attentions=output_attentions,
            output_hidden_states=output_hidden_states,
            position_ids=position_ids,
            return_dict=True,
            **kwargs,
        )
        hidden = outputs.last_hidden_state
        if attention_mask is None or self.config.compat_padding:
            valid = hidden.new_ones(hidden.shape[:2], dtype=torch.bool)
        else:
            valid = attention_mask != 0
        valid = mask_prompt(valid, self.config.num_prompt_tokens)
        pooled = self.pool_positions(hidden, valid, self.config.classifier_pooling)
        logits = predict_outputs(self.score(self.dropout(pooled)), self.config)
        loss = None if labels is None else self.loss_function(logits, labels, self.config)
        return SequenceClassifierOutput(loss=loss, logits=logits, hidden_states=outputs.hidden_states)


class HyenaDNAForTokenClassification(HyenaDNAPreTrainedModel):
    """
    Classifier or regressor with one prediction per position.

    Each prediction depends on its own and all earlier positions; with `bidirectional=True`, on later ones as well.
    """

    def __init__(self, config: HyenaDNAConfig) -> None:
        super().__init__(config)
        self.num_labels = config.num_labels
        self.hyena = HyenaDNAModel(config)
        self.dropout = nn.Dropout(config.classifier_dropout)
        self.score = nn.Linear(config.d_model, config.num_labels, bias=config.classifier_bias)
        self.loss_function = prediction_loss
        self.post_init()

    @can_return_tuple
    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        position_ids: Tensor | None = None,
        **kwargs: Any,
    ) -> TokenClassifierOutput:
        """
        Compute the prediction for each position, and the loss if `labels` are given.

        The arguments not listed here are those of [`HyenaDNAModel.forward`].

        Args:
            labels: Integers of shape `(batch, length)` for single-label classification; floats of shape
                `(batch, length, num_labels)` for multi-label classification (0 or 1) and regression (or `(batch,
                length)` with one label). -100 and masked positions are ignored. See [`prediction_loss`] for the problem
                types. With `inputs_embeds`, fewer labels apply to the last positions, since PEFT prepends a soft
                prompt.
            kwargs: Arguments of the loss: `num_items_in_batch`, as passed by the Trainer.

        Returns:
            `logits` of shape `(batch, length, num_labels)`, which for regression are the predicted numbers, and `loss`.
        """
        self._check_kwargs(kwargs, "num_items_in_batch")
        loss_kwargs = {"num_items_in_batch": kwargs.pop("num_items_in_batch", None)}
        outputs = self.hyena(
            input_ids=input_ids,
            attention_mask=attention_mask,
            inputs_embeds=inputs_embeds,
            output_attentions=output_attentions,
            output_hidden_states=output_hidden_states,
            position_ids=position_ids,
            return_dict=True,
            **kwargs,
        )
        logits = predict_outputs(self.score(self.dropout(outputs.last_hidden_state)), self.config)
        loss = None
        if labels is not None:
            length = labels.shape[1] if inputs_embeds is None else logits.shape[1]
            labels = align_labels(labels, length, None if self.config.compat_padding else attention_mask)
            loss = self.loss_function(logits, labels, self.config, **loss_kwargs)
        return TokenClassifierOutput(loss=loss, logits=logits, hidden_states=outputs.hidden_states)


__all__ = [
    "HyenaDNACache",
    "HyenaDNAForCausalLM",
    "HyenaDNAForMaskedLM",
    "HyenaDNAForSequenceClassification",
    "HyenaDNAForTokenClassification",
    "HyenaDNAModel",
    "HyenaDNAPreTrainedModel",
]
