"""Baselines by name, with random weights. Importing this module registers their Auto classes."""

from typing import Any

from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    AutoTokenizer,
    PretrainedConfig,
    PreTrainedTokenizerBase,
)

from ..hub.sizes import published_config
from ..model.tokenization_hyenadna import VOCABULARY, HyenaDNATokenizer
from .cnn import CNNConfig, CNNForSequenceClassification, deepsea_config
from .dilated_cnn import DilatedCNNConfig, DilatedCNNForTokenClassification, spliceai_config
from .gpt import GPTConfig, GPTForCausalLM, GPTForSequenceClassification, tiny_gpt_config
from .kmer_tokenizer import kmer_tokenizer

K = 6
SIZE = "hyenadna-tiny-1k-seqlen"
# Models with a fixed input length.
_FIXED_LENGTH = {"cnn": CNNConfig, "deepsea-cnn": deepsea_config}
_CONFIGS = {
    **_FIXED_LENGTH,
    "gpt": tiny_gpt_config,
    "hyenadna-kmer": lambda **fields: published_config(SIZE, vocab_size=len(VOCABULARY) + 4**K, **fields),
    "hyenadna-bidirectional": lambda **fields: published_config(SIZE, bidirectional=True, **fields),
}
BASELINE_NAMES = tuple(_CONFIGS)
# Models with one prediction per base that have the name of a model of whole sequences.
_PER_BASE: dict[str, Any] = {"cnn": spliceai_config}

for _config_class in (CNNConfig, DilatedCNNConfig, GPTConfig):
    AutoConfig.register(_config_class.model_type, _config_class, exist_ok=True)
    AutoTokenizer.register(_config_class, fast_tokenizer_class=HyenaDNATokenizer, exist_ok=True)
AutoModelForCausalLM.register(GPTConfig, GPTForCausalLM, exist_ok=True)
AutoModelForSequenceClassification.register(GPTConfig, GPTForSequenceClassification, exist_ok=True)
AutoModelForSequenceClassification.register(CNNConfig, CNNForSequenceClassification, exist_ok=True)
AutoModelForTokenClassification.register(DilatedCNNConfig, DilatedCNNForTokenClassification, exist_ok=True)


def baseline_config(name: str, length: int | None = None, per_base: bool = False, **fields: Any) -> PretrainedConfig:
    """
    Build the configuration of a baseline.

    Args:
        name: One of `BASELINE_NAMES`.
        length: Longest input of the CNNs, in tokens, raised to the shortest length that they support. Defaults to
            that of the published network. Ignored by the other baselines.
        per_base: Whether the model makes one prediction per base. `cnn` is then the dilated network of SpliceAI whose
            receptive field is at least `length`, and reads inputs of any length.
        fields: Further configuration fields to set.

    Raises:
        ValueError: If `name` is unknown.
    """
    if name not in _CONFIGS:
        raise ValueError(f"name={name!r}: the baselines are {', '.join(BASELINE_NAMES)}.")
    if per_base and name in _PER_BASE:
        return _PER_BASE[name](length, **fields)
    make: Any = _CONFIGS[name]
    if name in _FIXED_LENGTH and length is not None:
        fields["max_seq_len"] = max(length, make().shortest_length())
    return make(**fields)


def baseline_tokenizer(
    name: str, model_max_length: int | None = None, special_tokens_mode: str = "none"
) -> PreTrainedTokenizerBase:
    """Build the tokenizer of a baseline: words of 6 bases for `hyenadna-kmer`, otherwise one token per nucleotide."""
    if name == "hyenadna-kmer":
        return kmer_tokenizer(K, model_max_length, special_tokens_mode)
    return HyenaDNATokenizer(model_max_length, special_tokens_mode=special_tokens_mode)
