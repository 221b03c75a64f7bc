"""The models that HyenaDNA is compared with, by name, from scratch. Importing this registers their Auto classes."""

from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer

from ..hub.sizes import published_config
from ..model.tokenization_hyenadna import VOCABULARY, HyenaDNATokenizer
from .cnn import CNNConfig, CNNForSequenceClassification, deepsea_config
from .gpt import GPTConfig, GPTForCausalLM, GPTForSequenceClassification, tiny_gpt_config
from .kmer_tokenizer import kmer_tokenizer

K = 6
SIZE = "hyenadna-tiny-1k-seqlen"
# Those that take inputs of one length: that is their longest sequence's.
_FIXED_LENGTH = {"cnn": CNNConfig, "deepsea-cnn": deepsea_config}
_CONFIGS = {
    **_FIXED_LENGTH,
    "gpt": tiny_gpt_config,
    "hyenadna-kmer": lambda **fields: published_config(SIZE, vocab_size=len(VOCABULARY) + 4**K, **fields),
    "hyenadna-bidirectional": lambda **fields: published_config(SIZE, bidirectional=True, **fields),
}
BASELINE_NAMES = tuple(_CONFIGS)

for _config_class in (CNNConfig, GPTConfig):
    AutoConfig.register(_config_class.model_type, _config_class, exist_ok=True)
    AutoTokenizer.register(_config_class, fast_tokenizer_class=HyenaDNATokenizer, exist_ok=True)
AutoModelForCausalLM.register(GPTConfig, GPTForCausalLM, exist_ok=True)
AutoModelForSequenceClassification.register(GPTConfig, GPTForSequenceClassification, exist_ok=True)
AutoModelForSequenceClassification.register(CNNConfig, CNNForSequenceClassification, exist_ok=True)


def baseline_config(name, length=None, **fields):
    """
    The configuration of a baseline.

    Args:
        name (`str`): One of `BASELINE_NAMES`.
        length (`int`, *optional*):
            Longest input, in tokens, for the CNNs, which compute all inputs at one length; that of the published
            network by default. Raised to the shortest that they can take. The other baselines have a longest input
            of their own.
        fields: Fields of the configuration to set besides.

    Returns:
        `PretrainedConfig`

    Raises:
        ValueError: if there is no such baseline.
    """
    if name not in _CONFIGS:
        raise ValueError(f"name={name!r}: the baselines are {', '.join(BASELINE_NAMES)}.")
    make = _CONFIGS[name]
    if name in _FIXED_LENGTH and length is not None:
        fields["max_seq_len"] = max(length, make().shortest_length())
    return make(**fields)


def baseline_tokenizer(name, model_max_length=None, special_tokens_mode="none"):
    """The tokenizer of a baseline: words of 6 bases for `hyenadna-kmer`, else one token a nucleotide."""
    if name == "hyenadna-kmer":
        return kmer_tokenizer(K, model_max_length, special_tokens_mode)
    return HyenaDNATokenizer(model_max_length, special_tokens_mode=special_tokens_mode)
