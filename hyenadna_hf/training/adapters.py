"""Default target modules of PEFT methods for HyenaDNA."""

from collections.abc import Sequence
from types import ModuleType

from ..model.configuration_hyenadna import HyenaDNAConfig

# The linear layers of a block: projections of the mixer, then the MLP.
LINEAR_LAYERS = ("in_proj", "out_proj", "fc1", "fc2")
# IA3 scales the inputs of these layers, and the outputs of the others.
FEEDFORWARD_LAYERS = ("fc2",)
NORMS = ("norm1", "norm2", "ln_f")


def register_with_peft() -> None:
    """
    Register HyenaDNA's default target modules with PEFT, for `LoraConfig(task_type="SEQ_CLS")` and the like.

    LoRA (with DoRA), AdaLoRA, VeRA and IA3 target the four linear layers of each block, LN-tuning all norms. PEFT
    offers only its global tables for this, so the registration is valid in the running process. Without it, name the
    layers, as in `LoraConfig(target_modules=list(LINEAR_LAYERS))`. Saved adapters contain their target modules.
    """
    from peft.utils import constants

    for method in ("LORA", "ADALORA", "VERA", "IA3"):
        _register(constants, f"{method}_TARGET", LINEAR_LAYERS)
    _register(constants, "IA3_FEEDFORWARD", FEEDFORWARD_LAYERS)
    _register(constants, "LNTUNING_TARGET", NORMS)


def _register(constants: ModuleType, kind: str, layers: Sequence[str]) -> None:
    mapping = getattr(constants, f"TRANSFORMERS_MODELS_TO_{kind}_MODULES_MAPPING")
    mapping[HyenaDNAConfig.model_type] = list(layers)
