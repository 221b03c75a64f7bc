"""HyenaDNA: operator -> block -> model -> heads (Nguyen, Poli, Faizi et al. 2023, arXiv:2306.15794)."""

import copy
import math
from functools import partial

import torch
from safetensors import safe_open
from torch import nn
from torch.nn import functional as F
from transformers import GenerationMixin, PreTrainedModel
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_outputs import (
    BaseModelOutputWithPast,
    CausalLMOutputWithPast,
    MaskedLMOutput,
    SequenceClassifierOutput,
    TokenClassifierOutput,
)
from transformers.modeling_utils import load_state_dict
from transformers.utils import can_return_tuple

from .blocked_hyenadna import BLOCKED_FROM, POSITIONS, TRANSFORMS, BlockedInference, has_hooks
from .cache_hyenadna import HyenaDNACache
from .configuration_hyenadna import NO_PREFIX_TUNING, HyenaDNAConfig, check_memory
from .fftconv_hyenadna import bidirectional_conv_fft, causal_conv_fft, fft_size, spectral_conv
from .filter_hyenadna import (
    PUBLISHED_CONSTANT,
    HyenaDNAFilter,
    HyenaDNAFilterLinear,
    HyenaDNAPositions,
    HyenaDNASine,
    check_published_constants,
    positional_features,
)
from .padding_hyenadna import behind_prompt, packing_for, pool_positions
from .recompute_hyenadna import Pieces
from .spectra_hyenadna import KeptSpectra

try:
    from transformers import initialization as init

    TIED_WEIGHTS_KEYS: dict | list = {"lm_head.weight": "hyena.backbone.embeddings.word_embeddings.weight"}
except ImportError:  # transformers 4
    from torch.nn import init

    TIED_WEIGHTS_KEYS = ["lm_head.weight"]


# Positions of all rows from which on training is in pieces.
RECOMPUTED_FROM = 16384


def makes_a_graph():
    """Whether the model is compiled, exported or traced."""
    return torch.compiler.is_compiling() or torch.jit.is_tracing()


def runs_in_pieces(module, positions):
    """
    Whether an input is to be computed in pieces that keep nothing for the backward pass but their input.

    On a CPU that saves time too if it is long: what is recomputed stays in the caches, what is kept is fresh memory.
    """
    if makes_a_graph() or any(map(has_hooks, module.modules())):
        return False
    on_cpu = next(module.parameters()).device.type == "cpu"
    return module.config.memory == "low" or (on_cpu and positions >= RECOMPUTED_FROM)


def long_convolutions(filters):
    """
    Functions of a signal, one a long convolution, of what [`HyenaDNAFilter`] gives.

    Args:
        filters (iterable of `tuple`): Filters and skip weights over the past, then perhaps those over the future.
    """
    (past, skips), *future = filters
    if not future:
        return [partial(causal_conv_fft, k=k, bias=skip) for k, skip in zip(past, skips)]
    ((reverses, _),) = future
    return [partial(bidirectional_conv_fft, k=k, reverse=r, bias=skip) for k, r, skip in zip(past, reverses, skips)]


class HyenaDNAOperator(nn.Module):
    """
    The Hyena recurrence: projections, a short convolution, then gates and long convolutions in turn.

    What only a bidirectional model needs is `real`, of shape `(batch, length)`: where it is false there is no signal.
    """

    def __init__(self, config):
        super().__init__()
        width = (config.hyena_order + 1) * config.d_model
        self.config = config
        self.d_model = config.d_model
        self.in_proj = nn.Linear(config.d_model, width)
        self.short_filter = nn.Conv1d(
            width, width, config.short_filter_order, groups=width, padding=config.short_filter_order - 1
        )
        self.filter_fn = HyenaDNAFilter(config)
        self.filter_fn_rev = HyenaDNAFilter(config, skip=False) if config.bidirectional else None
        self.spectra = KeptSpectra()
        self.dropout = nn.Dropout(config.hyena_dropout)
        self.out_proj = nn.Linear(config.d_model, config.d_model)
        self.out_proj.closes_residual_branch = True

    def is_plain(self):
        """Whether the weights say all, and may be used in pieces: not those of adapters, nor quantised ones."""
        modules = [(nn.Linear, self.in_proj), (nn.Conv1d, self.short_filter)]
        modules += [(HyenaDNAFilterLinear, fn.implicit_filter[fn.last]) for fn in self.filter_fns()]
        return all(type(module) is kind and type(module.weight) is nn.Parameter for kind, module in modules)

    def filter_fns(self):
        """What gives the filters over the past, and if there are any, what gives those over the future."""
        return [self.filter_fn] if self.filter_fn_rev is None else [self.filter_fn, self.filter_fn_rev]

    def kept_spectra(self, size, dtype, device):
        """Spectra of the long filters that stay for the next call, or `None` if they are to be made anew each time."""
        if self.training or torch.is_grad_enabled() or makes_a_graph() or device.type != "cpu":
            return None
        if not KeptSpectra.pay(self.filter_fns(), size, dtype, self.config.memory):
            self.spectra.forget()
            return None
        return self.spectra.get(self.filter_fns(), size, dtype)

    def train(self, mode=True):
        if mode:
            self.spectra.forget()
        return super().train(mode)

    def _apply(self, *args, **kwargs):
        self.spectra.forget()
        return super()._apply(*args, **kwargs)

    def forward(self, u, cache=None, real=None):
        length = u.shape[1]
        in_pieces = cache is None and runs_in_pieces(self, u.shape[0] * length) and self.is_plain()
        if in_pieces:
            return self.out_proj(self._in_pieces(u, real))
        u = self.in_proj(u).transpose(1, 2)  # [B, (order+1) D, L]
        before = 0
        if cache is not None:
            u = cache.recall(u)
            before = u.shape[-1] - length
        u = self.short_filter(u)[..., before : before + length]
        streams = u.split(self.d_model, dim=1)
        if cache is None:
            convolutions = self._convolutions(length, streams[-1])
        else:
            convolutions = cache.convolutions(self.filter_fn, streams[-1])
        y = self._gated(streams, convolutions, real)
        if cache is not None:
            cache.advance()
        return self.out_proj(y.transpose(1, 2))

    def _convolutions(self, length, like):
        size = fft_size(2 * length - 1)
        spectra = self.kept_spectra(size, torch.promote_types(like.dtype, torch.float32), like.device)
        if spectra is None:
            return long_convolutions(filter_fn(length, like.device) for filter_fn in self.filter_fns())
        return [partial(spectral_conv, spectra=of_filter, size=size) for of_filter in zip(*spectra)]

    def _gated(self, streams, convolutions, real=None):
        gate, *gates, v = streams
        for x, convolve in zip(reversed(gates), convolutions):
            v = self.dropout(v * x)
            v = convolve(v if real is None else v.masked_fill(~real[:, None], 0))
        return v * gate

    def _in_pieces(self, u, real):
        """What `out_proj` reads, computed some channels at a time."""
        made_of = [filter_fn.features(u.shape[1], u.device) for filter_fn in self.filter_fns()]
        t, features = made_of[0][0], [features for _, features in made_of]
        low = self.config.memory == "low"
        projected = None if low else self._project(u, slice(None))
        dtype = self._project(u[:, :0], slice(None)).dtype if low else projected.dtype  # of autocast, if that is on
        pieces = Pieces(
            partial(self._projected_piece if low else self._piece, real=real),
            (u.shape[0], self.d_model, u.shape[1]),
            dtype,
            dim=1,
            size=TRANSFORMS,
            cut_dim=2,
            random=self.training and self.dropout.p > 0,
        )
        modules = self.in_proj, self.short_filter, *self.filter_fns()
        parameters = [parameter for module in modules for parameter in module.parameters()]
        return pieces(projected, [*([u] if low else []), t, *features], parameters).transpose(1, 2)

    def _project(self, u, channels):
        """`in_proj` of some channels: `(batch, length, d_model)` to `(batch, order + 1, channels, length)`."""
        weight = self.in_proj.weight.unflatten(0, (-1, self.d_model))[:, channels]
        bias = self.in_proj.bias.unflatten(0, (-1, self.d_model))[:, channels].reshape(1, -1, 1)
        # Each channel in one stretch of memory, as transforms need it.
        projected = torch.baddbmm(bias, weight.flatten(0, 1).expand(len(u), -1, -1), u.mT)
        return projected.unflatten(1, weight.shape[:2])

    def _projected_piece(self, channels, u, *args, real):
        """[`_piece`] of the input of the operator: nobody keeps its projections."""
        return self._piece(channels, self._project(u, channels), *args, real=real)

    def _piece(self, channels, u, t, *features, real):
        """The channels of one piece, `(batch, order + 1, channels, length)` to `(batch, channels, length)`."""
        weight = self.short_filter.weight.unflatten(0, (-1, self.d_model))[:, channels].flatten(0, 1)
        bias = self.short_filter.bias.unflatten(0, (-1, self.d_model))[:, channels].flatten()
        padding = self.short_filter.padding
        short = F.conv1d(u.flatten(1, 2), weight, bias, padding=padding, groups=len(weight))[..., : u.shape[-1]]
        convolutions = long_convolutions(
            filter_fn.piece(t, its_features, channels) for filter_fn, its_features in zip(self.filter_fns(), features)
        )
        return self._gated(short.split(u.shape[2], dim=1), convolutions, real)


class HyenaDNAMLP(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.fc1 = nn.Linear(config.d_model, config.d_inner)
        self.fc2 = nn.Linear(config.d_inner, config.d_model)
        self.fc2.closes_residual_branch = True

    def forward(self, x):
        return self.fc2(F.gelu(self.fc1(x), approximate="tanh"))


class HyenaDNABlock(GradientCheckpointingLayer):
    """Pre-norm mixer and MLP; the residual stays in float32 whatever the dtype of the weights."""

    def __init__(self, config):
        super().__init__()
        self.config = config
        self.mixer = HyenaDNAOperator(config)
        self.norm1 = nn.LayerNorm(config.d_model, eps=config.layer_norm_epsilon)
        self.mlp = HyenaDNAMLP(config)
        self.norm2 = nn.LayerNorm(config.d_model, eps=config.layer_norm_epsilon)
        self.dropout = nn.Dropout(config.resid_dropout)

    def forward(self, hidden, cache=None, real=None):
        hidden = hidden + self.dropout(self.mixer(self.norm1(hidden.to(self.norm1.weight.dtype)), cache, real))
        if runs_in_pieces(self, hidden.shape[0] * hidden.shape[1]):
            random = self.training and self.dropout.p > 0
            add_mlp = Pieces(lambda _, piece: self._add_mlp(piece), hidden.shape, hidden.dtype, 1, POSITIONS, 1, random)
            return add_mlp(hidden, parameters=(*self.norm2.parameters(), *self.mlp.parameters()))
        return self._add_mlp(hidden)

    def _add_mlp(self, hidden):
        return hidden + self.dropout(self.mlp(self.norm2(hidden.to(self.norm2.weight.dtype))))


class HyenaDNAEmbeddings(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.word_embeddings = nn.Embedding(config.vocab_size, config.d_model)

    def forward(self, input_ids):
        return self.word_embeddings(input_ids)


class HyenaDNABackbone(nn.Module):
    """Embeddings, blocks and the final norm, over rows without padding, or with `real` for a bidirectional model."""

    def __init__(self, config):
        super().__init__()
        self.config = config
        self.embeddings = HyenaDNAEmbeddings(config)
        self.dropout = nn.Dropout(config.embed_dropout)
        self.layers = nn.ModuleList(HyenaDNABlock(config) for _ in range(config.n_layer))
        self.ln_f = nn.LayerNorm(config.d_model, eps=config.layer_norm_epsilon)

    def forward(self, inputs_embeds, cache=None, output_hidden_states=False, overwrite=False, real=None):
        check_memory(self.config.memory)  # it may have been changed since
        hidden = self.dropout(inputs_embeds)
        hidden = hidden.to(torch.promote_types(hidden.dtype, torch.float32))
        hidden_states = []
        blocked = None
        if self._runs_blocked(hidden, cache):
            if not overwrite and hidden.data_ptr() == inputs_embeds.data_ptr():
                hidden = hidden.clone()
            blocked = BlockedInference(hidden, real, cache)
        for layer, its_cache in zip(self.layers, cache.layers if cache is not None else [None] * len(self.layers)):
            if output_hidden_states:
                hidden_states.append(hidden if blocked is None else hidden.clone())
            if blocked is None:
                hidden = layer(hidden, its_cache, real)
            else:
                blocked.run(layer, its_cache)
        del blocked  # and its work space
        hidden = self.ln_f(hidden.to(self.ln_f.weight.dtype))
        return hidden, (*hidden_states, hidden) if output_hidden_states else None

    def _runs_blocked(self, hidden, cache):
        """Whether this is plain inference, and long enough for it to pay."""
        if self.training or torch.is_grad_enabled() or (cache is not None and cache.layers[0].length > 0):
            return False
        if makes_a_graph() or torch.is_autocast_enabled(hidden.device.type):
            return False
        positions = hidden.shape[0] * hidden.shape[1]
        return self.config.memory == "low" or (hidden.device.type == "cpu" and positions >= BLOCKED_FROM)


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
            _, z = positional_features(self.config.max_seq_len, self.config, module.z.device, module.z.dtype)
            with torch.no_grad():
                getattr(init, "copy_", torch.Tensor.copy_)(module.z, z[None])

    def get_input_embeddings(self):
        return self.base_model.backbone.embeddings.word_embeddings

    def set_input_embeddings(self, value):
        self.base_model.backbone.embeddings.word_embeddings = value

    def resize_token_embeddings(self, *args, **kwargs):
        embeddings = super().resize_token_embeddings(*args, **kwargs)
        # The config rounds vocab_size up on loading: make that a no-op for the new number of rows.
        self.config.pad_vocab_size_multiple = math.gcd(self.config.vocab_size, self.config.pad_vocab_size_multiple)
        return embeddings


class HyenaDNAModel(HyenaDNAPreTrainedModel):
    """The bare model: hidden states for every position."""

    # A base model has no head to put these into.
    _keys_to_ignore_on_load_unexpected = [PUBLISHED_CONSTANT.pattern, r"^lm_head\.", r"^score\."]

    def __init__(self, config):
        super().__init__(config)
        self.backbone = HyenaDNABackbone(config)
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
            return_dict (`bool`, *optional*): Return a `ModelOutput` (default) or a tuple.

        Returns:
            `BaseModelOutputWithPast` with `last_hidden_state` of shape `(batch, length, d_model)` and, if asked for,
            `past_key_values` and `hidden_states`: `n_layer + 1` tensors of that shape, namely the embeddings, the
            output of each block but the last, and `last_hidden_state`.

        Raises:
            ValueError: if not exactly one of `input_ids` and `inputs_embeds` is given, if the shapes do not fit, if a
                row has more real positions than `max_seq_len`, or if a cache is wanted while training.
        """
        if (input_ids is None) == (inputs_embeds is None):
            raise ValueError("Give either input_ids or inputs_embeds, and not both.")
        if output_attentions:
            raise ValueError("output_attentions=True: HyenaDNA has no attention; leave it out.")
        if output_hidden_states is None:
            output_hidden_states = self.config.output_hidden_states
        inputs = inputs_embeds if input_ids is None else input_ids
        cache = self._cache_for(past_key_values, use_cache)
        columns = inputs.shape[1]
        if attention_mask is not None:
            if cache is not None and attention_mask.shape == (inputs.shape[0], cache.seen + columns):
                attention_mask = attention_mask[:, cache.seen :]
            if attention_mask.shape != inputs.shape[:2]:
                raise ValueError(
                    f"attention_mask has shape {tuple(attention_mask.shape)}, but the input is of (batch, length) = "
                    f"{tuple(inputs.shape[:2])}; give one number a position."
                )
        packing = packing_for(self.config, attention_mask)
        if packing is not None:
            inputs = packing.pack(inputs)
        self.check_length(inputs.shape[1])
        if cache is not None:
            cache.begin(columns, inputs.shape[1], inputs.shape[0], None if packing is None else packing.real)
        embeds = self.backbone.embeddings(inputs) if inputs_embeds is None else inputs
        # A causal model never sees what is packed behind the real positions.
        real = packing.real if packing is not None and self.config.bidirectional else None
        last, hidden_states = self.backbone(embeds, cache, output_hidden_states, inputs_embeds is None, real)
        if packing is not None:
            last = packing.unpack(last)
            if hidden_states is not None:
                hidden_states = (*map(packing.unpack, hidden_states[:-1]), last)
        return BaseModelOutputWithPast(last_hidden_state=last, past_key_values=cache, hidden_states=hidden_states)

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


# The special tokens but [SEP], and the rows of the embedding that belong to no token.
NOT_GENERATED = (0, 2, 3, 4, 5, 6, 12, 13, 14, 15)


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


class HyenaDNAForCausalLM(HyenaDNALanguageModel, GenerationMixin):
    """
    The language model: logits of the next nucleotide at every position. Refuses a bidirectional configuration.

    `generate` carries a [`HyenaDNACache`] from base to base. Unless `suppress_tokens` says otherwise, it makes
    nucleotides, N and [SEP] (at which it stops), and no other special token.
    """

    _is_stateful = True  # no assisted generation: the cache cannot be shortened

    def __init__(self, config):
        if config.bidirectional:
            raise ValueError(
                "bidirectional=True: such a model sees the next nucleotide, so it can neither be trained to predict it "
                "nor generate. Take HyenaDNAForMaskedLM (AutoModelForMaskedLM), or bidirectional=False."
            )
        super().__init__(config)

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
        """What `generate` passes to `forward`; `inputs_embeds` stand for the prompt."""
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
            generation_config.suppress_tokens = list(NOT_GENERATED)
        return generation_config, model_kwargs

    def _prepare_cache_for_generation(
        self, generation_config, model_kwargs, generation_mode, batch_size, max_cache_length
    ):
        """A cache, and the check that what will be in it fits. (`max_cache_length` leaves out the last new token.)"""
        mask = model_kwargs.get("attention_mask")
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
        outputs = self.hyena(
            input_ids=input_ids,
            attention_mask=attention_mask,
            inputs_embeds=inputs_embeds,
            past_key_values=past_key_values,
            use_cache=use_cache,
            output_attentions=output_attentions,
            output_hidden_states=output_hidden_states,
            return_dict=True,
        )
        logits = self.lm_head(outputs.last_hidden_state[:, -logits_to_keep:])
        loss = None
        if labels is not None:
            if attention_mask is not None:
                attention_mask = attention_mask[:, -labels.shape[1] :]
            scored, packing = logits, packing_for(self.config, attention_mask)
            if packing is not None:
                scored, labels = packing.pack(logits), packing.pack(labels, fill=-100)
                if kwargs.get("shift_labels") is not None:
                    kwargs["shift_labels"] = packing.pack(kwargs["shift_labels"], fill=-100)
            loss = self.loss_function(logits=scored, labels=labels, vocab_size=self.config.vocab_size, **kwargs)
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
        outputs = self.hyena(
            input_ids=input_ids,
            attention_mask=attention_mask,
            inputs_embeds=inputs_embeds,
            output_attentions=output_attentions,
            output_hidden_states=output_hidden_states,
            return_dict=True,
        )
        logits = self.lm_head(outputs.last_hidden_state)
        loss = None
        if labels is not None:
            if attention_mask is not None and not self.config.compat_padding:
                labels = labels.masked_fill(attention_mask == 0, -100)
            loss = self.loss_function(logits=logits, labels=labels, vocab_size=self.config.vocab_size, **kwargs)
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
        outputs = self.hyena(
            input_ids=input_ids,
            attention_mask=attention_mask,
            inputs_embeds=inputs_embeds,
            output_attentions=output_attentions,
            output_hidden_states=output_hidden_states,
            return_dict=True,
        )
        hidden = outputs.last_hidden_state
        if attention_mask is None or self.config.compat_padding:
            real = hidden.new_ones(hidden.shape[:2], dtype=torch.bool)
        else:
            real = attention_mask != 0
        real = behind_prompt(real, self.config.num_prompt_tokens)
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
        outputs = self.hyena(
            input_ids=input_ids,
            attention_mask=attention_mask,
            inputs_embeds=inputs_embeds,
            output_attentions=output_attentions,
            output_hidden_states=output_hidden_states,
            return_dict=True,
        )
        logits = self.score(self.dropout(outputs.last_hidden_state))
        loss = None
        if labels is not None:
            if inputs_embeds is not None and labels.shape[1] < logits.shape[1]:
                labels = F.pad(labels, (logits.shape[1] - labels.shape[1], 0), value=-100)
            if attention_mask is not None and not self.config.compat_padding:
                labels = labels.masked_fill(attention_mask == 0, -100)
            loss = self.loss_function(logits, labels, self.config, **kwargs)
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
