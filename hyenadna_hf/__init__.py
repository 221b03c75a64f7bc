"""
HyenaDNA for Hugging Face transformers.

Importing this package registers its classes, so that `AutoModel.from_pretrained(...)` and the other Auto classes load
HyenaDNA without `trust_remote_code`. Saved checkpoints include their code and also load without this package.
"""

from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    AutoTokenizer,
)

from .model.cache_hyenadna import HyenaDNACache
from .model.configuration_hyenadna import HyenaDNAConfig
from .model.modeling_hyenadna import (
    HyenaDNAForCausalLM,
    HyenaDNAForMaskedLM,
    HyenaDNAForSequenceClassification,
    HyenaDNAForTokenClassification,
    HyenaDNAModel,
    HyenaDNAPreTrainedModel,
)
from .model.tokenization_hyenadna import HyenaDNATokenizer

__version__ = "0.2.0"

# exist_ok: another package may have claimed the model type.
AutoConfig.register("hyenadna", HyenaDNAConfig, exist_ok=True)
AutoTokenizer.register(HyenaDNAConfig, fast_tokenizer_class=HyenaDNATokenizer, exist_ok=True)
for _auto_class, _model_class in (
    (AutoModel, HyenaDNAModel),
    (AutoModelForCausalLM, HyenaDNAForCausalLM),
    (AutoModelForMaskedLM, HyenaDNAForMaskedLM),
    (AutoModelForSequenceClassification, HyenaDNAForSequenceClassification),
    (AutoModelForTokenClassification, HyenaDNAForTokenClassification),
):
    _auto_class.register(HyenaDNAConfig, _model_class, exist_ok=True)
    _model_class.register_for_auto_class(_auto_class.__name__)
HyenaDNAConfig.register_for_auto_class()
HyenaDNATokenizer.register_for_auto_class()

__all__ = [
    "HyenaDNACache",
    "HyenaDNAConfig",
    "HyenaDNAForCausalLM",
    "HyenaDNAForMaskedLM",
    "HyenaDNAForSequenceClassification",
    "HyenaDNAForTokenClassification",
    "HyenaDNAModel",
    "HyenaDNAPreTrainedModel",
    "HyenaDNATokenizer",
    "__version__",
]
