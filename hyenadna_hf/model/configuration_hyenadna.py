"""Configuration of HyenaDNA."""

import math
from typing import Any, NoReturn

from transformers import PretrainedConfig
from transformers.utils import logging

logger = logging.get_logger(__name__)

NO_PREFIX_TUNING = (
    "Prefix tuning trains keys and values of attention, which HyenaDNA does not have; use prompt tuning "
    "(PromptTuningConfig) or p-tuning (PromptEncoderConfig)."
)
CLASSIFIER_POOLINGS = ("mean", "last", "first", "max")
REGRESSION_LOSSES = ("mse", "poisson")
MEMORY = ("auto", "low", "fast")


class HyenaDNAConfig(PretrainedConfig):
    r"""
    Configuration of a HyenaDNA model (Nguyen, Poli, Faizi et al. 2023, https://arxiv.org/abs/2306.15794).

    Field names are those of the published checkpoints, whose `config.json` loads unchanged, and the defaults are those
    of `hyenadna-tiny-1k-seqlen`. `hidden_size`, `num_hidden_layers`, `intermediate_size` and `max_position_embeddings`
    are aliases of `d_model`, `n_layer`, `d_inner` and `max_seq_len`.

    Args:
        vocab_size: Number of rows of the embedding, rounded up to a multiple of `pad_vocab_size_multiple`. (Published
            configs contain 12; their weights have 16 rows.)
        d_model: Width of the model.
        n_layer: Number of Hyena blocks.
        d_inner: Width of the MLP in each block. Defaults to `4 * d_model`.
        max_seq_len: Maximum input length in tokens. The implicit filters are functions of position / max_seq_len:
            changing it in a trained checkpoint rescales every filter, and `from_pretrained` refuses to do so.
        hyena_order: Order of the Hyena recurrence, which has `hyena_order - 1` long convolutions and `hyena_order`
            gates.
        short_filter_order: Kernel size of the short depthwise convolution, in positions.
        filter_order: Width of the sine MLP that generates the long filters.
        emb_dim: Number of positional features that this MLP reads: time, then (emb_dim - 1) / 2 cosines and as many
            sines. Odd.
        num_inner_mlps: Number of inner layers of the MLP.
        activation_freq: Initial frequency of its sines.
        train_freq: Whether this frequency is trained, as one vector per filter that all its sines share.
        trained_positions: Whether each filter stores its positional features as parameters, `max_seq_len * emb_dim`
            numbers per layer, instead of computing them. For checkpoints that were fine-tuned in this way.
        use_bias: Whether each long convolution has a skip term `bias * input`.
        bidirectional: Whether each long convolution also reads later positions, with separate filters from lag 1 on.
            The short convolution always looks back. Such a model has a masked language-model head instead of a causal
            one. (The option of this name in the published code differs: it applies one filter to an input shifted by
            half its length, in a circular convolution.)
        embed_dropout: Dropout on the embeddings, before the first residual.
        resid_dropout: Dropout on the output of every mixer and every MLP.
        hyena_dropout: Dropout inside the recurrence, on the input of each long convolution.
        layer_norm_epsilon: Epsilon of the layer norms.
        initializer_range: Standard deviation of the initial weights.
        pad_vocab_size_multiple: See `vocab_size`.
        classifier_pooling: How a sequence classifier pools hidden states: `"mean"` or `"max"` over the valid positions,
            or the `"last"` or `"first"` valid one (in a causal model, the first has seen a single base). Defaults to
            `"mean"`, and to `"last"` in the config of a published classifier, which lacks this field.
        classifier_bias: Whether the head `score` has a bias. Defaults to `True`, and to `False` in the config of a
            published classifier.
        classifier_dropout: Dropout on the input of a classification head.
        regression_loss: Loss of a head with `problem_type="regression"`: `"mse"`, the squared error, or `"poisson"` for
            counts, whose head predicts the rates of Poisson distributions: the exponentials of its linear layer.
        num_prompt_tokens: Number of valid positions at the start of each row that a sequence classifier excludes from
            pooling, for the length of a soft prompt. The model reads them nevertheless.
        compat_padding: Whether to ignore `attention_mask` and read and pool padding like any token, as published
            classifiers were trained and run. New models have no use for it.
        memory: How to trade memory for time, with the same results. `"auto"`: on a CPU, compute long inputs in pieces,
            which is faster and takes less memory, and keep the spectra of long filters between inference calls if they
            are small. `"low"`: compute in pieces at any length and on any device, and keep nothing. `"fast"`: like
            `"auto"`, but on a CPU keep spectra of any size: 8 to 12 bytes per position, channel and long filter.
            `print(model.plan(input_ids))` shows the effect on a call. It can be changed at any time
            (`model.config.memory = "low"`) and is not saved, since it depends on the machine.
        num_tokens: Number of rows of the embedding that belong to tokens; the others are spare and never generated.
            Defaults to `vocab_size` before rounding, and for 16 to the 12 tokens of HyenaDNA's tokenizer.
            `resize_token_embeddings` sets it to the number requested.
        tie_word_embeddings: Whether the language-model head shares the weight of the embedding.
        pad_token_id, bos_token_id, eos_token_id: Ids of [PAD], [BOS] and [SEP].
        kwargs: Fields of every transformers configuration (`num_labels`, `id2label`, `problem_type`, ...).

    Raises:
        ValueError: If a field is out of range; the message names the field, its value and the remedy.
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
        vocab_size: int = 12,
        d_model: int = 128,
        n_layer: int = 2,
        d_inner: int | None = None,
        max_seq_len: int = 1026,
        hyena_order: int = 2,
        short_filter_order: int = 3,
        filter_order: int = 64,
        emb_dim: int = 5,
        num_inner_mlps: int = 2,
        activation_freq: float = 10,
        train_freq: bool = True,
        trained_positions: bool = False,
        use_bias: bool = True,
        bidirectional: bool = False,
        embed_dropout: float = 0.1,
        resid_dropout: float = 0.0,
        hyena_dropout: float = 0.0,
        layer_norm_epsilon: float = 1e-5,
        initializer_range: float = 0.02,
        pad_vocab_size_multiple: int = 8,
        classifier_pooling: str | None = None,
        classifier_bias: bool | None = None,
        classifier_dropout: float = 0.0,
        regression_loss: str = "mse",
        num_prompt_tokens: int = 0,
        compat_padding: bool = False,
        memory: str = "auto",
        num_tokens: int | None = None,
        tie_word_embeddings: bool = False,
        pad_token_id: int | None = 4,
        bos_token_id: int | None = 2,
        eos_token_id: int | None = 1,
        **kwargs: Any,
    ) -> None:
        d_model = kwargs.pop("hidden_size", d_model)
        n_layer = kwargs.pop("num_hidden_layers", n_layer)
        d_inner = kwargs.pop("intermediate_size", d_inner)
        max_seq_len = kwargs.pop("max_position_embeddings", max_seq_len)
        self.d_model = _check_integer("d_model", d_model)
        self.n_layer = _check_integer("n_layer", n_layer)
        self.d_inner = 4 * self.d_model if d_inner is None else _check_integer("d_inner", d_inner)
        self.max_seq_len = _check_integer("max_seq_len", max_seq_len, least=2)
        self.hyena_order = _check_integer("hyena_order", hyena_order, least=2)
        self.short_filter_order = _check_integer("short_filter_order", short_filter_order)
        self.filter_order = _check_integer("filter_order", filter_order)
        self.emb_dim = _check_integer("emb_dim", emb_dim, least=3)
        if self.emb_dim % 2 == 0:
            raise ValueError(
                f"emb_dim={emb_dim}: it counts time plus pairs of a cosine and a sine, so it must be odd; "
                f"use {emb_dim - 1} or {emb_dim + 1}."
            )
        self.num_inner_mlps = _check_integer("num_inner_mlps", num_inner_mlps, least=0)
        self.activation_freq = _check_positive("activation_freq", activation_freq)
        self.train_freq = _check_boolean("train_freq", train_freq)
        self.trained_positions = _check_boolean("trained_positions", trained_positions)
        self.use_bias = _check_boolean("use_bias", use_bias)
        self.bidirectional = _check_boolean("bidirectional", bidirectional)
        self.embed_dropout = _check_probability("embed_dropout", embed_dropout)
        self.resid_dropout = _check_probability("resid_dropout", resid_dropout)
        self.hyena_dropout = _check_probability("hyena_dropout", hyena_dropout)
        self.layer_norm_epsilon = _check_positive("layer_norm_epsilon", layer_norm_epsilon)
        self.initializer_range = _check_positive("initializer_range", initializer_range)
        self.pad_vocab_size_multiple = _check_integer("pad_vocab_size_multiple", pad_vocab_size_multiple)
        self.vocab_size = _round_up(_check_integer("vocab_size", vocab_size), self.pad_vocab_size_multiple)
        if num_tokens is None:
            num_tokens = 12 if vocab_size == 16 else vocab_size  # configs of 16 rows without this field have 12
        self.num_tokens = _check_integer("num_tokens", num_tokens)
        if self.num_tokens > self.vocab_size:
            raise ValueError(f"num_tokens={num_tokens}: it must be at most vocab_size={self.vocab_size}.")

        # The published code has no classifier_pooling: it reads the last position, by a head without bias.
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
        self.classifier_bias = _check_boolean("classifier_bias", classifier_bias)
        self.classifier_dropout = _check_probability("classifier_dropout", classifier_dropout)
        if regression_loss not in REGRESSION_LOSSES:
            raise ValueError(f"regression_loss={regression_loss!r}: it must be one of {', '.join(REGRESSION_LOSSES)}.")
        self.regression_loss = regression_loss
        self.num_prompt_tokens = _check_integer("num_prompt_tokens", num_prompt_tokens, least=0)
        self.compat_padding = _check_boolean("compat_padding", compat_padding)
        self.memory = check_memory(memory)

        # HyenaDNA has no attention heads; PEFT's prompt learning reads these fields from the stored config.
        kwargs.pop("num_attention_heads", None)
        self.num_attention_heads = 1
        kwargs.pop("num_key_value_heads", None)
        self.num_key_value_heads = NoKeysAndValues()

        filter_dropout = kwargs.pop("hyena_filter_dropout", 0.0)
        if filter_dropout:
            logger.warning_once(
                f"hyena_filter_dropout={filter_dropout} is removed from the config, since no implementation of "
                "HyenaDNA ever applied it. To regularise, use resid_dropout or hyena_dropout."
            )
        # The whole map, whichever head is saved, lets every Auto class find its code in the folder.
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

    def to_dict(self) -> dict[str, Any]:
        """Return the fields to save."""
        fields = super().to_dict()
        fields.pop("memory", None)
        return fields


class NoKeysAndValues(int):
    """
    Number of heads with keys and values: 0, which cannot be multiplied.

    PEFT multiplies by it only to size the keys and values of prefix tuning.
    """

    def __mul__(self, other: Any) -> NoReturn:
        raise ValueError(NO_PREFIX_TUNING)

    __rmul__ = __mul__


def check_memory(memory: str) -> str:
    """Return the setting `memory` if it is valid."""
    if memory not in MEMORY:
        raise ValueError(f"memory={memory!r}: it must be one of {', '.join(MEMORY)}.")
    return memory


def _round_up(value: int, multiple: int) -> int:
    return multiple * math.ceil(value / multiple)


def _check_integer(name: str, value: Any, least: int = 1) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ValueError(f"{name}={value!r}: it must be a whole number of at least {least}.")
    return value


def _check_positive(name: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < math.inf:
        raise ValueError(f"{name}={value!r}: it must be a positive number.")
    return value


def _check_probability(name: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < 1:
        raise ValueError(f"{name}={value!r}: it must be a probability of at least 0 and below 1.")
    return value


def _check_boolean(name: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise ValueError(f"{name}={value!r}: it must be true or false.")
    return value


__all__ = ["HyenaDNAConfig"]
