"""What PEFT adapts in HyenaDNA, by method."""

from ..model.configuration_hyenadna import HyenaDNAConfig

# The linear layers of a block: projections of the mixer, then the MLP.
LINEAR_LAYERS = ("in_proj", "out_proj", "fc1", "fc2")
# IA3 scales the input of these, and the output of the others.
FEEDFORWARD_LAYERS = ("fc2",)
NORMS = ("norm1", "norm2", "ln_f")


def register_with_peft() -> None:
    """
    Tell PEFT what to adapt in HyenaDNA where a configuration does not say: `LoraConfig(task_type="SEQ_CLS")`.

    LoRA (with DoRA), AdaLoRA, VeRA and IA3 take the four linear layers of each block, LN-tuning all norms. PEFT has no
    other door for this than its tables, so it holds for the running process; elsewhere name the layers, as in
    `LoraConfig(target_modules=list(LINEAR_LAYERS))`. What a saved adapter adapts stands in its own configuration.
    """
    from peft.utils import constants

    for method in ("LORA", "ADALORA", "VERA", "IA3"):
        _register(constants, f"{method}_TARGET", LINEAR_LAYERS)
    _register(constants, "IA3_FEEDFORWARD", FEEDFORWARD_LAYERS)
    _register(constants, "LNTUNING_TARGET", NORMS)


def _register(constants, kind, layers) -> None:
    mapping = getattr(constants, f"TRANSFORMERS_MODELS_TO_{kind}_MODULES_MAPPING")
    mapping[HyenaDNAConfig.model_type] = list(layers)
