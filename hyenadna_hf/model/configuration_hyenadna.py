"""Configuration of HyenaDNA."""

import math

from transformers import PretrainedConfig
from transformers.utils import logging

logger = logging.get_logger(__name__)

NO_PREFIX_TUNING = (
    "Prefix tuning trains keys and values of attention, and HyenaDNA has none; use prompt tuning (PromptTuningConfig) "
    "or p-tuning (PromptEncoderConfig)."
)
CLASSIFIER_POOLINGS = ("mean", "last", "first", "max")
MEMORY = ("auto", "low", "fast")


class HyenaDNAConfig(PretrainedConfig):
    r"""
    Sizes and settings of a HyenaDNA model (Nguyen, Poli, Faizi et al. 2023, https://arxiv.org/abs/2306.15794).

    Field names are those of the published checkpoints, so their `config.json` loads as it is. The defaults are those of
    `hyenadna-tiny-1k-seqlen`. `hidden_size`, `num_hidden_layers`, `intermediate_size` and `max_position_embeddings`
    are accepted as other names of `d_model`, `n_layer`, `d_inner` and `max_seq_len`.

    Args:
        vocab_size (`int`, defaults to 12):
            Number of tokens. Rounded up to a multiple of `pad_vocab_size_multiple` and stored so: it equals the number
            of rows of the embedding. (Published configs say 12 and have 16 rows.)
        num_tokens (`int`, *optional*):
            How many of these rows belong to tokens; the others are spare and not generated. Defaults to `vocab_size`
            before rounding, and for 16 to the 12 tokens of HyenaDNA's tokenizer. `resize_token_embeddings` sets it to
            the number that it is asked for.
        d_model (`int`, defaults to 128):
            Width of the model.
        n_layer (`int`, defaults to 2):
            Number of Hyena blocks.
        d_inner (`int`, *optional*):
            Width of the MLP in each block. Defaults to `4 * d_model`.
        max_seq_len (`int`, defaults to 1026):
            Longest input, in tokens. The implicit filters are functions of position / max_seq_len: changing it in a
            trained checkpoint rescales every filter, which is why `from_pretrained` refuses to.
        hyena_order (`int`, defaults to 2):
            Order of the Hyena recurrence: `hyena_order - 1` long convolutions, `hyena_order` gates.
        short_filter_order (`int`, defaults to 3):
            Kernel size of the short depthwise convolution, in positions.
        filter_order (`int`, defaults to 64):
            Width of the sine MLP that generates the long filters.
        emb_dim (`int`, defaults to 5):
            Number of positional features fed to it: time, then (emb_dim - 1) / 2 cosines and as many sines. Odd.
        num_inner_mlps (`int`, defaults to 2):
            Number of its inner layers.
        activation_freq (`float`, defaults to 10):
            Initial frequency of its sines.
        train_freq (`bool`, defaults to `True`):
            Whether that frequency is a parameter (one vector a filter, shared by its sines).
        trained_positions (`bool`, defaults to `False`):
            Whether each filter has positional features of its own, stored as parameters, where they are else computed
            from the formula. For checkpoints that were fine-tuned so; takes `max_seq_len * emb_dim` numbers a layer.
        use_bias (`bool`, defaults to `True`):
            Whether each long convolution has a skip term `bias * input`.
        bidirectional (`bool`, defaults to `False`):
            Whether each long convolution also reads the positions to come, by filters of their own from lag 1 on (lag
            0 is that of the others). The short convolution looks back in either case. Such a model has no causal
            language-model head, but a masked one. (The published code's option of this name has other arithmetic: one
            filter, over an input shifted by half its length in a circular convolution.)
        embed_dropout (`float`, defaults to 0.1):
            Dropout on the embeddings, before the first residual.
        resid_dropout (`float`, defaults to 0.0):
            Dropout on the output of every mixer and every MLP.
        hyena_dropout (`float`, defaults to 0.0):
            Dropout inside the recurrence, on each input of a long convolution.
        layer_norm_epsilon (`float`, defaults to 1e-5):
            Epsilon of the layer norms.
        initializer_range (`float`, defaults to 0.02):
            Standard deviation of the initial weights.
        pad_vocab_size_multiple (`int`, defaults to 8):
            See `vocab_size`.
        classifier_pooling (`str`, *optional*):
            What a sequence classifier reads: the `"mean"` over the real positions, the `"last"` or `"first"` real
            position, or the `"max"` over them. Defaults to `"mean"`; in a published classifier's config, which does
            not have the field, to `"last"`. (The first position of a causal model has seen only one base.)
        classifier_bias (`bool`, *optional*):
            Whether the head `score` has a bias. Defaults to `True`; in a published classifier's config to `False`.
        classifier_dropout (`float`, defaults to 0.0):
            Dropout on what a classification head reads.
        num_prompt_tokens (`int`, defaults to 0):
            How many real positions at the front of each row a sequence classifier leaves out of its pooling. A soft
            prompt counts like any position unless its length stands here. They are read all the same.
        compat_padding (`bool`, defaults to `False`):
            Ignore `attention_mask`, so that padding is read and pooled like any token. This is how published
            classifiers were trained and run; new models have no reason to.
        memory (`str`, defaults to `"auto"`):
            How to trade memory for time; results are the same. `"auto"`: on a CPU, long inputs are computed in pieces,
            which is faster there and takes less memory, and the spectra of long filters are kept from one inference to
            the next if they are small. `"low"`: in pieces at any length and on any device, and nothing is kept.
            `"fast"`: as `"auto"`, but on a CPU spectra of any size are kept: 8 to 12 bytes a position, channel and long
            filter. `print(model.plan(input_ids))` tells what a call would do. It may be changed at any time
            (`model.config.memory = "low"`) and is not saved: each machine has its own.
        tie_word_embeddings (`bool`, defaults to `False`):
            Whether the language-model head shares the embedding's weight.
        pad_token_id, bos_token_id, eos_token_id (`int`, default to 4, 2 and 1):
            [PAD], [BOS] and [SEP] of the tokenizer.
        kwargs:
            Fields of every transformers configuration (`num_labels`, `id2label`, `problem_type`, ...).

    Raises:
        ValueError: if a field is out of its range; the message names the field, the value and the remedy.
    """

    model_type = "hyenadna"
    attribute_map = {
        "hidden_size": "d_model",
        "num_hidden_layers": "n_layer",
        "intermediate_size": "d_inner",
        "max_position_embeddings": "max_seq_len",
    }

    def __init__(
        self,
        vocab_size=12,
        d_model=128,
        n_layer=2,
        d_inner=None,
        max_seq_len=1026,
        hyena_order=2,
        short_filter_order=3,
        filter_order=64,
        emb_dim=5,
        num_inner_mlps=2,
        activation_freq=10,
        train_freq=True,
        trained_positions=False,
        use_bias=True,
        bidirectional=False,
        embed_dropout=0.1,
        resid_dropout=0.0,
        hyena_dropout=0.0,
        layer_norm_epsilon=1e-5,
        initializer_range=0.02,
        pad_vocab_size_multiple=8,
        classifier_pooling=None,
        classifier_bias=None,
        classifier_dropout=0.0,
        num_prompt_tokens=0,
        compat_padding=False,
        memory="auto",
        num_tokens=None,
        tie_word_embeddings=False,
        pad_token_id=4,
        bos_token_id=2,
        eos_token_id=1,
        **kwargs,
    ):
        d_model = kwargs.pop("hidden_size", d_model)
        n_layer = kwargs.pop("num_hidden_layers", n_layer)
        d_inner = kwargs.pop("intermediate_size", d_inner)
        max_seq_len = kwargs.pop("max_position_embeddings", max_seq_len)
        self.d_model = _integer("d_model", d_model)
        self.n_layer = _integer("n_layer", n_layer)
        self.d_inner = 4 * self.d_model if d_inner is None else _integer("d_inner", d_inner)
        self.max_seq_len = _integer("max_seq_len", max_seq_len, least=2)
        self.hyena_order = _integer("hyena_order", hyena_order, least=2)
        self.short_filter_order = _integer("short_filter_order", short_filter_order)
        self.filter_order = _integer("filter_order", filter_order)
        self.emb_dim = _integer("emb_dim", emb_dim, least=3)
        if self.emb_dim % 2 == 0:
            raise ValueError(
                f"emb_dim={emb_dim}: it counts time plus pairs of a cosine and a sine, so it must be odd; "
                f"use {emb_dim - 1} or {emb_dim + 1}."
            )
        self.num_inner_mlps = _integer("num_inner_mlps", num_inner_mlps, least=0)
        self.activation_freq = _positive("activation_freq", activation_freq)
        self.train_freq = _boolean("train_freq", train_freq)
        self.trained_positions = _boolean("trained_positions", trained_positions)
        self.use_bias = _boolean("use_bias", use_bias)
        self.bidirectional = _boolean("bidirectional", bidirectional)
        self.embed_dropout = _probability("embed_dropout", embed_dropout)
        self.resid_dropout = _probability("resid_dropout", resid_dropout)
        self.hyena_dropout = _probability("hyena_dropout", hyena_dropout)
        self.layer_norm_epsilon = _positive("layer_norm_epsilon", layer_norm_epsilon)
        self.initializer_range = _positive("initializer_range", initializer_range)
        self.pad_vocab_size_multiple = _integer("pad_vocab_size_multiple", pad_vocab_size_multiple)
        self.vocab_size = _round_up(_integer("vocab_size", vocab_size), self.pad_vocab_size_multiple)
        if num_tokens is None:
            num_tokens = 12 if vocab_size == 16 else vocab_size  # files of 16 rows, made without this field, have 12
        self.num_tokens = _integer("num_tokens", num_tokens)
        if self.num_tokens > self.vocab_size:
            raise ValueError(f"num_tokens={num_tokens}: there are no more than vocab_size={self.vocab_size} rows.")

        # A classifier's config without classifier_pooling was written by the published code, which reads the last
        # position through a head without bias.
        architectures = kwargs.get("architectures") or []
        published_classifier = classifier_pooling is None and any(
            name.endswith("ForSequenceClassification") for name in architectures
        )
        if classifier_pooling is None:
            classifier_pooling = "last" if published_classifier else "mean"
        if classifier_pooling not in CLASSIFIER_POOLINGS:
            raise ValueError(
                f"classifier_pooling={classifier_pooling!r}: it must be one of {', '.join(CLASSIFIER_POOLINGS)}."
            )
        self.classifier_pooling = classifier_pooling
        if classifier_bias is None:
            classifier_bias = not published_classifier
        self.classifier_bias = _boolean("classifier_bias", classifier_bias)
        self.classifier_dropout = _probability("classifier_dropout", classifier_dropout)
        self.num_prompt_tokens = _integer("num_prompt_tokens", num_prompt_tokens, least=0)
        self.compat_padding = _boolean("compat_padding", compat_padding)
        self.memory = check_memory(memory)

        # HyenaDNA has no heads; PEFT's prompt learning reads these fields from the stored config.
        kwargs.pop("num_attention_heads", None)
        self.num_attention_heads = 1
        kwargs.pop("num_key_value_heads", None)
        self.num_key_value_heads = NoKeysAndValues()

        filter_dropout = kwargs.pop("hyena_filter_dropout", 0.0)
        if filter_dropout:
            logger.warning_once(
                f"hyena_filter_dropout={filter_dropout} is dropped from the config: no implementation of HyenaDNA ever "
                "applied it. To regularise, use resid_dropout or hyena_dropout."
            )
        # The whole map, whichever head is saved, so that every Auto class finds its code in the folder.
        kwargs.pop("auto_map", None)
        self.auto_map = {
            "AutoConfig": "configuration_hyenadna.HyenaDNAConfig",
            "AutoTokenizer": ["tokenization_hyenadna.HyenaDNATokenizer", None],
            "AutoModel": "modeling_hyenadna.HyenaDNAModel",
            "AutoModelForCausalLM": "modeling_hyenadna.HyenaDNAForCausalLM",
            "AutoModelForMaskedLM": "modeling_hyenadna.HyenaDNAForMaskedLM",
            "AutoModelForSequenceClassification": "modeling_hyenadna.HyenaDNAForSequenceClassification",
            "AutoModelForTokenClassification": "modeling_hyenadna.HyenaDNAForTokenClassification",
        }
        super().__init__(
            pad_token_id=pad_token_id,
            bos_token_id=bos_token_id,
            eos_token_id=eos_token_id,
            tie_word_embeddings=tie_word_embeddings,
            **kwargs,
        )

    def to_dict(self):
        """The fields that are saved."""
        fields = super().to_dict()
        fields.pop("memory", None)
        return fields


class NoKeysAndValues(int):
    """
    The number of heads with keys and values: 0, which cannot be multiplied with.

    PEFT multiplies with it to size the keys and values of prefix tuning, and only there.
    """

    def __mul__(self, other):
        raise ValueError(NO_PREFIX_TUNING)

    __rmul__ = __mul__


def check_memory(memory):
    """The setting `memory`, if it is one."""
    if memory not in MEMORY:
        raise ValueError(f"memory={memory!r}: it must be one of {', '.join(MEMORY)}.")
    return memory


def _round_up(value, multiple):
    return multiple * math.ceil(value / multiple)


def _integer(name, value, least=1):
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ValueError(f"{name}={value!r}: it must be a whole number of at least {least}.")
    return value


def _positive(name, value):
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < math.inf:
        raise ValueError(f"{name}={value!r}: it must be a positive number.")
    return value


def _probability(name, value):
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < 1:
        raise ValueError(f"{name}={value!r}: it must be a probability of at least 0 and below 1.")
    return value


def _boolean(name, value):
    if not isinstance(value, bool):
        raise ValueError(f"{name}={value!r}: it must be true or false.")
    return value


__all__ = ["HyenaDNAConfig"]
