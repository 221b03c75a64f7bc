"""HyenaDNA: the model and its heads (Nguyen, Poli, Faizi et al. 2023, arXiv:2306.15794)."""

import copy
import math

import torch
from safetensors import safe_open
from torch import nn
from torch.nn import functional as F
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

# All files of this folder are named here: transformers 4 copies those alone that this one imports itself.
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
from .operator_hyenadna import HyenaDNAOperator  # noqa: F401
from .padding_hyenadna import Rows, after_prompt, pool_positions, refuse_other_lengths, rows_of, sequence_starts
from .pieces_hyenadna import Pieces  # noqa: F401
from .plan_hyenadna import check_plan, choose_plan
from .shortconv_hyenadna import ShortConvolution  # noqa: F401
from .spectra_hyenadna import KeptSpectra  # noqa: F401
from .tuning_hyenadna import Tuning  # noqa: F401

try:
    from transformers import initialization as init

    TIED_WEIGHTS_KEYS: dict | list = {"lm_head.weight": "hyena.backbone.embeddings.word_embeddings.weight"}
except ImportError:  # transformers 4
    from torch.nn import init

    TIED_WEIGHTS_KEYS = ["lm_head.weight"]

# By this name the Trainer knows that label smoothing has to shift the labels, whether or not the class is registered.
MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.setdefault(HyenaDNAConfig.model_type, "HyenaDNAForCausalLM")

# Keyword arguments that collators pass to any model: where joined sequences begin, and what says it once more. The
# Trainer passes `skip_logits` for Liger's kernels, which HyenaDNA has none of.
JOINED = ("cu_seq_lens_q", "seq_idx")
REDUNDANT = ("cu_seq_lens_k", "max_length_q", "max_length_k", "skip_logits")


class HyenaDNAPreTrainedModel(PreTrainedModel):
    """Loading, saving and initialisation, common to all HyenaDNA models."""

    config_class = HyenaDNAConfig
    base_model_prefix = "hyena"
    supports_gradient_checkpointing = True
    _no_split_modules = ["HyenaDNABlock"]
    # Checked by value before loading: see `_load_pretrained_model`.
    _keys_to_ignore_on_load_unexpected = [PUBLISHED_CONSTANT.pattern]

    @classmethod
    def from_pretrained(
        cls, pretrained_model_name_or_path, *model_args, config=None, force_max_seq_len=False, **kwargs
    ):
        """
        As `PreTrainedModel.from_pretrained`, but it refuses to change `max_seq_len`.

        Args:
            force_max_seq_len (`bool`, defaults to `False`):
                Load the weights although the requested `max_seq_len` is not the one they were trained with. The long
                filters are functions of position / max_seq_len, so the result is another model and needs training.

        Raises:
            ValueError: if `max_seq_len`, here or in `config`, differs from the stored one and is not forced.
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
                "longer ones take a checkpoint made for them; to change it all the same and train on, pass "
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
    def _stored_max_seq_len(cls, source, kwargs):
        if source is None:
            return None
        hub = ("cache_dir", "force_download", "local_files_only", "token", "revision", "subfolder", "proxies")
        hub = {name: kwargs[name] for name in hub if name in kwargs}
        try:
            stored, _ = cls.config_class.get_config_dict(source, **hub)
        except OSError:  # weights without a configuration; if that is wrong, loading says so
            return None
        return stored.get("max_seq_len")

    @classmethod
    def _load_pretrained_model(cls, model, state_dict, checkpoint_files, *args, **kwargs):
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

    def _init_weights(self, module):
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
        elif isinstance(module, nn.Conv1d):  # PyTorch's own, as in the original
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

    def get_input_embeddings(self):
        return self.base_model.backbone.embeddings.word_embeddings

    def set_input_embeddings(self, value):
        self.base_model.backbone.embeddings.word_embeddings = value

    def resize_token_embeddings(self, new_num_tokens=None, *args, **kwargs):
        embeddings = super().resize_token_embeddings(new_num_tokens, *args, **kwargs)
        if new_num_tokens is not None:
            self.config.num_tokens = new_num_tokens  # rows that pad_to_multiple_of adds are spare
        # The config rounds vocab_size up on loading: make that a no-op for the new number of rows.
        self.config.pad_vocab_size_multiple = math.gcd(self.config.vocab_size, self.config.pad_vocab_size_multiple)
        return embeddings

    def plan(self, input_ids=None, attention_mask=None, inputs_embeds=None, past_key_values=None, use_cache=None, **_):
        """
        Tell how such a call would be computed now, and why: `print(model.plan(input_ids))`.

        The arguments are those of the call; hooks, adapters, gradients, autocast and `config.memory` count as they are.

        Returns:
            [`Plan`]. It may be passed to the call, as it is or with another `path` (`dataclasses.replace`).
        """
        model = self.base_model
        inputs = inputs_embeds if input_ids is None else input_ids
        if past_key_values is None and use_cache:
            past_key_values = HyenaDNACache(self.config)
        mask = None if attention_mask is None else attention_mask[:, -inputs.shape[1] :]
        valid = rows_of(self.config, mask, None).valid
        return choose_plan(model.backbone, inputs, MODULES, **model._past(past_key_values, inputs, valid))

    def _check_kwargs(self, kwargs, *known):
        """Raise `TypeError` for keyword arguments that are neither `known` nor passed to any model."""
        known = {*known, *JOINED, *REDUNDANT, "plan"}
        unknown = [
            name for name in kwargs if name not in known and not (name == "token_type_ids" and kwargs[name] is None)
        ]
        if unknown:
            raise TypeError(f"{type(self).__name__}.forward() got unexpected keyword arguments: {', '.join(unknown)}.")

    @staticmethod
    def _starts(inputs, attention_mask, position_ids, kwargs):
        """Find where sequences begin that share a row, as [`sequence_starts`] does."""
        joined = {name: kwargs.get(name) for name in JOINED}
        return sequence_starts(inputs, attention_mask, position_ids, **joined)


class HyenaDNAModel(HyenaDNAPreTrainedModel):
    """The bare model: hidden states for every position."""

    # A base model has no head to put these into.
    _keys_to_ignore_on_load_unexpected = [PUBLISHED_CONSTANT.pattern, r"^lm_head\.", r"^score\."]

    def __init__(self, config):
        super().__init__(config)
        self.backbone = HyenaDNABackbone(config)
        self.sharding = None  # while `context_parallel` shards sequences: what came before, on other ranks
        self.post_init()

    @can_return_tuple
    def forward(
        self,
        input_ids=None,
        attention_mask=None,
        inputs_embeds=None,
        past_key_values=None,
        use_cache=None,
        output_attentions=None,
        output_hidden_states=None,
        position_ids=None,
        plan=None,
        **kwargs,
    ):
        """
        Args:
            input_ids (`torch.LongTensor` of shape `(batch, length)`, *optional*): Token ids.
            attention_mask (`torch.Tensor` of shape `(batch, length)`, *optional*):
                Nonzero where a position is real, in any dtype. A masked position does not exist: the others are
                computed as if it were deleted from its row, and its own outputs are zeros. Without a mask every
                position is real, [PAD] too. With `past_key_values` it may also cover the positions seen before, as
                `generate` passes it; only its end is read.
            inputs_embeds (`torch.Tensor` of shape `(batch, length, d_model)`, *optional*):
                Embeddings, in place of `input_ids`.
            past_key_values ([`HyenaDNACache`], *optional*):
                What an earlier call returned: the input continues where that one ended. It is changed in place.
            use_cache (`bool`, *optional*):
                Return `past_key_values` to continue from, without gradients. Defaults to whether they are given. They
                take `hyena_order * d_model` numbers a position and block at most.
            output_attentions (`bool`, *optional*): Must not be true: there is no attention.
            output_hidden_states (`bool`, *optional*): Also return the hidden states.
            position_ids (`torch.LongTensor` of shape `(batch, length)`, *optional*):
                Where they start again at 0, another sequence begins in the row, as `DataCollatorWithFlattening` joins
                them; each is computed as if it were alone. HyenaDNA has no position embeddings: they have no other use.
            plan ([`Plan`], *optional*): How to compute, in place of what [`~HyenaDNAModel.plan`] chooses.
            cu_seq_lens_q (`torch.Tensor` of shape `(sequences + 1,)`, *optional*), seq_idx (of the shape of input_ids):
                Other ways to say where sequences begin that share a row.
            return_dict (`bool`, *optional*): Return a `ModelOutput` (default) or a tuple.

        Returns:
            `BaseModelOutputWithPast` with `last_hidden_state` of shape `(batch, length, d_model)` and, if asked for,
            `past_key_values` and `hidden_states`: `n_layer + 1` tensors of that shape, namely the embeddings, the
            output of each block but the last, and `last_hidden_state`.

        Raises:
            ValueError: if not exactly one of `input_ids` and `inputs_embeds` is given, if the shapes do not fit, if the
                input is empty, if a row has more real positions than `max_seq_len`, or if a cache is wanted while
                training or for sequences that share a row.
            TypeError: for an unknown keyword argument.
        """
        self._check_kwargs(kwargs)
        check_memory(self.config.memory)  # it may have been changed since
        if (input_ids is None) == (inputs_embeds is None):
            raise ValueError("Give either input_ids or inputs_embeds, and not both.")
        if output_attentions:
            raise ValueError("output_attentions=True: HyenaDNA has no attention; leave it out.")
        if output_hidden_states is None:
            output_hidden_states = self.config.output_hidden_states
        inputs = inputs_embeds if input_ids is None else input_ids
        if inputs.dim() != (2 if inputs_embeds is None else 3):
            raise ValueError(
                f"The input has shape {tuple(inputs.shape)}; give (batch, length), and for inputs_embeds "
                "(batch, length, d_model)."
            )
        columns = inputs.shape[1]
        if inputs.numel() == 0:
            raise ValueError(f"The input, of shape {tuple(inputs.shape)}, has no positions; leave empty sequences out.")
        cache = self._cache_for(past_key_values, use_cache)
        if attention_mask is not None:
            if cache is not None and attention_mask.shape == (inputs.shape[0], cache.seen + columns):
                attention_mask = attention_mask[:, cache.seen :]
            if attention_mask.shape != inputs.shape[:2]:
                raise ValueError(
                    f"attention_mask has shape {tuple(attention_mask.shape)}, but the input is of (batch, length) = "
                    f"{tuple(inputs.shape[:2])}; give one number a position."
                )
        starts = self._starts(inputs, attention_mask, position_ids, kwargs)
        if starts is not None and (cache is not None or self.sharding is not None):
            raise ValueError(
                "Sequences that share a row have neither a cache nor shards; pass each in a row of its own."
            )
        rows = rows_of(self.config, attention_mask, starts)
        valid = rows.valid
        if plan is None:
            plan = choose_plan(self.backbone, inputs, MODULES, **self._past(cache, inputs, valid))
        else:
            check_plan(plan, inputs, **self._past(cache, inputs, valid))
        self.check_length(columns if valid is None else valid.shape[1])
        if cache is not None:
            count, width = inputs.shape[:2] if valid is None else valid.shape
            cache.begin(columns, width, count, valid)
        embeds = self.backbone.embeddings(input_ids) if inputs_embeds is None else inputs_embeds
        if torch.jit.is_tracing():
            embeds = refuse_other_lengths(embeds)
        # Nothing comes from what stands at masked positions, and no gradient goes there.
        if plan.path == "transparent":
            embeds, to_compute, restore = rows.clear(embeds), rows, rows.clear
        else:  # a causal model never sees what is packed after the valid positions
            to_compute = Rows(valid if self.config.bidirectional or cache is not None else None)
            embeds, restore = rows.pack(embeds), rows.unpack
        if self.sharding is None:
            past = None if cache is None else cache.layers
        else:
            past, embeds = [self.sharding] * self.config.n_layer, self.sharding.clear(embeds)
        overwrite = embeds is not inputs_embeds
        last, states = self.backbone(embeds, plan, past, to_compute, output_hidden_states, overwrite)
        last = restore(last)
        if states is not None:
            states = (*map(restore, states[:-1]), last)
        return BaseModelOutputWithPast(last_hidden_state=last, past_key_values=cache, hidden_states=states)

    def _past(self, cache, inputs, valid):
        """Tell `choose_plan` what came before."""
        cached = isinstance(cache, HyenaDNACache)
        steps = cached and cache.is_stepping(inputs.shape[1], valid)
        return {"cached": cached, "steps": steps, "sharded": self.sharding is not None}

    def check_length(self, positions):
        """Raise `ValueError` if a row of so many real positions is more than this model reads."""
        if positions > self.config.max_seq_len:
            raise ValueError(
                f"The input has {positions:,} positions, but this model's max_seq_len is "
                f"{self.config.max_seq_len:,}. Shorten it (truncation=True, max_length={self.config.max_seq_len}) or "
                "take a checkpoint made for longer sequences."
            )

    def _cache_for(self, past_key_values, use_cache):
        if past_key_values is None and not use_cache:
            return None
        if not isinstance(past_key_values, HyenaDNACache | None):
            raise ValueError(
                f"past_key_values is a {type(past_key_values).__name__}, but this model's state is a HyenaDNACache; "
                f"pass what an earlier call with use_cache=True returned. {NO_PREFIX_TUNING}"
            )
        if self.config.bidirectional:
            raise ValueError(
                "use_cache=True and past_key_values: a bidirectional model has no state to continue from, for every "
                "position depends on those to come; leave them out."
            )
        if self.training and torch.is_grad_enabled():
            raise ValueError(
                "use_cache=True and past_key_values are for inference: no gradient flows into a cache. Leave them out, "
                "or call model.eval() or torch.no_grad() first."
            )
        return HyenaDNACache(self.config) if past_key_values is None else past_key_values


class HyenaDNALanguageModel(HyenaDNAPreTrainedModel):
    """What the causal and the masked language model have in common: a head with logits of every token."""

    _tied_weights_keys = TIED_WEIGHTS_KEYS

    def __init__(self, config):
        super().__init__(config)
        self.hyena = HyenaDNAModel(config)
        self.lm_head = nn.Linear(config.d_model, config.vocab_size, bias=False)
        self.post_init()

    def get_output_embeddings(self):
        return self.lm_head

    def set_output_embeddings(self, new_embeddings):
        self.lm_head = new_embeddings


class HyenaDNAForCausalLM(HyenaDNALanguageModel, HyenaDNAGenerationMixin):
    """
    The language model: logits of the next nucleotide at every position. Refuses a bidirectional configuration.

    `generate` carries a [`HyenaDNACache`] from base to base: see [`HyenaDNAGenerationMixin`].
    """

    _is_stateful = True  # no assisted generation: the cache cannot be shortened

    def __init__(self, config):
        if config.bidirectional:
            raise ValueError(
                "bidirectional=True: such a model sees the next nucleotide, so it can neither be trained to predict it "
                "nor generate. Take HyenaDNAForMaskedLM (AutoModelForMaskedLM), or bidirectional=False."
            )
        super().__init__(config)

    @can_return_tuple
    def forward(
        self,
        input_ids=None,
        attention_mask=None,
        inputs_embeds=None,
        past_key_values=None,
        use_cache=None,
        labels=None,
        logits_to_keep=0,
        output_attentions=None,
        output_hidden_states=None,
        position_ids=None,
        **kwargs,
    ):
        """
        Args:
            labels (`torch.LongTensor` of shape `(batch, length)`, *optional*):
                The tokens themselves: position t is scored on the label of the next real position. -100 is ignored,
                and so are masked positions.
            logits_to_keep (`int`, defaults to 0):
                Give logits of so many last positions only; 0 for all. Not with labels.
            kwargs:
                For the loss, as `num_items_in_batch` of the Trainer, or `shift_labels` of the shape of `labels`: what
                to score each position on, in place of the label of the next one.

        The other arguments are those of [`HyenaDNAModel.forward`].

        Returns:
            `CausalLMOutputWithPast` with `logits` of shape `(batch, length, vocab_size)` (zeros at masked positions),
            and `loss` if there are labels.
        """
        if labels is not None and logits_to_keep:
            raise ValueError(f"logits_to_keep={logits_to_keep}: the loss needs all logits; leave it or labels out.")
        self._check_kwargs(kwargs, "num_items_in_batch", "shift_labels")
        for_loss = {name: kwargs.pop(name) for name in ("num_items_in_batch", "shift_labels") if name in kwargs}
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
            starts = self._starts(labels, attention_mask, position_ids, kwargs)
            rows = rows_of(self.config, attention_mask, starts)
            shifted = for_loss.pop("shift_labels", None)
            if shifted is None:
                shifted = rows.unpack(F.pad(rows.pack(labels, -100)[:, 1:], (0, 1), value=-100), -100)
            shifted = rows.clear(shifted, -100)
            loss = self.loss_function(logits, labels, self.config.vocab_size, shift_labels=shifted, **for_loss)
        return CausalLMOutputWithPast(
            loss=loss, logits=logits, past_key_values=outputs.past_key_values, hidden_states=outputs.hidden_states
        )


class HyenaDNAForMaskedLM(HyenaDNALanguageModel):
    """
    The masked language model: logits of the token at every position itself. Refuses a causal configuration.

    (Its head and that of a causal language model have the same name, and other meanings.)
    """

    def __init__(self, config):
        if not config.bidirectional:
            raise ValueError(
                "bidirectional=False: a masked language model reads both sides of a position. Set bidirectional=True, "
                "or take HyenaDNAForCausalLM (AutoModelForCausalLM)."
            )
        super().__init__(config)

    @can_return_tuple
    def forward(
        self,
        input_ids=None,
        attention_mask=None,
        inputs_embeds=None,
        labels=None,
        output_attentions=None,
        output_hidden_states=None,
        position_ids=None,
        **kwargs,
    ):
        """
        Args:
            labels (`torch.LongTensor` of shape `(batch, length)`, *optional*):
                The tokens that were there before masking. -100 is ignored, and so are masked positions.
            kwargs: For the loss, as `num_items_in_batch` of the Trainer.

        The other arguments are those of [`HyenaDNAModel.forward`].

        Returns:
            `MaskedLMOutput` with `logits` of shape `(batch, length, vocab_size)` (zeros at positions that
            `attention_mask` excludes), and `loss` if there are labels.
        """
        self._check_kwargs(kwargs, "num_items_in_batch")
        for_loss = {"num_items_in_batch": kwargs.pop("num_items_in_batch", None)}
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
            loss = self.loss_function(logits, labels, self.config.vocab_size, **for_loss)
        return MaskedLMOutput(loss=loss, logits=logits, hidden_states=outputs.hidden_states)


class HyenaDNAForSequenceClassification(HyenaDNAPreTrainedModel):
    """One prediction a sequence, from pooled hidden states: see `classifier_pooling` in the config."""

    # The loss is a mean over the batch, which the Trainer scales under gradient accumulation.
    accepts_loss_kwargs = False
    pool_positions = staticmethod(pool_positions)  # a model whose sequences are sharded has its own

    def __init__(self, config):
        super().__init__(config)
        self.num_labels = config.num_labels
        self.hyena = HyenaDNAModel(config)
        self.dropout = nn.Dropout(config.classifier_dropout)
        self.score = nn.Linear(config.d_model, config.num_labels, bias=config.classifier_bias)
        self.post_init()

    @can_return_tuple
    def forward(
        self,
        input_ids=None,
        attention_mask=None,
        inputs_embeds=None,
        labels=None,
        output_attentions=None,
        output_hidden_states=None,
        position_ids=None,
        **kwargs,
    ):
        """
        Args:
            labels (`torch.Tensor`, *optional*):
                Of shape `(batch,)` and integer for single-label classification, of shape `(batch, num_labels)` and
                float for multi-label classification (0 or 1) and regression (of shape `(batch,)` with one label).
                `config.problem_type` chooses; where it is not set, it is inferred from the labels.

        The other arguments are those of [`HyenaDNAModel.forward`].

        Returns:
            `SequenceClassifierOutput` with `logits` of shape `(batch, num_labels)`, and `loss` if there are labels.
        """
        self._check_kwargs(kwargs)
        inputs = input_ids if inputs_embeds is None else inputs_embeds
        fits = inputs is not None and (attention_mask is None or attention_mask.shape == inputs.shape[:2])
        if fits and self._starts(inputs, attention_mask, position_ids, kwargs) is not None:
            raise ValueError(
                "Sequences that share a row: a sequence classifier has one prediction a row; pass each in a row of its "
                "own (DataCollatorWithPadding in place of DataCollatorWithFlattening)."
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
            real = hidden.new_ones(hidden.shape[:2], dtype=torch.bool)
        else:
            real = attention_mask != 0
        real = after_prompt(real, self.config.num_prompt_tokens)
        pooled = self.pool_positions(hidden, real, self.config.classifier_pooling)
        logits = self.score(self.dropout(pooled))
        loss = None
        if labels is not None:
            loss = self.loss_function(labels=labels, pooled_logits=logits, config=self.config)
        return SequenceClassifierOutput(loss=loss, logits=logits, hidden_states=outputs.hidden_states)


class HyenaDNAForTokenClassification(HyenaDNAPreTrainedModel):
    """
    One prediction a position.

    Each sees its own position and what stands before it; with `bidirectional=True` what stands behind it, too.
    """

    def __init__(self, config):
        super().__init__(config)
        self.num_labels = config.num_labels
        self.hyena = HyenaDNAModel(config)
        self.dropout = nn.Dropout(config.classifier_dropout)
        self.score = nn.Linear(config.d_model, config.num_labels, bias=config.classifier_bias)
        self.post_init()

    @can_return_tuple
    def forward(
        self,
        input_ids=None,
        attention_mask=None,
        inputs_embeds=None,
        labels=None,
        output_attentions=None,
        output_hidden_states=None,
        position_ids=None,
        **kwargs,
    ):
        """
        Args:
            labels (`torch.LongTensor` of shape `(batch, length)`, *optional*):
                The class of each position. -100 is ignored, and so are masked positions. With `inputs_embeds` there
                may be fewer than positions, for the last ones: PEFT puts a soft prompt before the others.
            kwargs: For the loss, as `num_items_in_batch` of the Trainer.

        The other arguments are those of [`HyenaDNAModel.forward`].

        Returns:
            `TokenClassifierOutput` with `logits` of shape `(batch, length, num_labels)`, and `loss` given labels.
        """
        self._check_kwargs(kwargs, "num_items_in_batch")
        for_loss = {"num_items_in_batch": kwargs.pop("num_items_in_batch", None)}
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
        logits = self.score(self.dropout(outputs.last_hidden_state))
        loss = None
        if labels is not None:
            if inputs_embeds is not None and labels.shape[1] < logits.shape[1]:
                labels = F.pad(labels, (logits.shape[1] - labels.shape[1], 0), value=-100)
            if attention_mask is not None and not self.config.compat_padding:
                labels = labels.masked_fill(attention_mask == 0, -100)
            loss = self.loss_function(logits, labels, self.config, **for_loss)
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
