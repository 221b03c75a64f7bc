"""The files under examples/: whether Accelerate reads them and trains with them, and names in them are ours."""

import json
import socket
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

EXAMPLES = Path(__file__).parents[2] / "examples"
pytestmark = pytest.mark.skipif(not EXAMPLES.is_dir(), reason="no examples/: this is an installed package")


@pytest.mark.parametrize("name, kind", [("ddp", "MULTI_GPU"), ("fsdp2", "FSDP"), ("deepspeed_zero2", "DEEPSPEED")])
def test_accelerate_reads_the_configuration(name, kind):
    from accelerate.commands.config.config_args import load_config_from_file

    assert load_config_from_file(str(EXAMPLES / f"{name}.yaml")).distributed_type == kind


def test_fsdp_wraps_our_blocks():
    from accelerate.commands.config.config_args import load_config_from_file
    from accelerate.utils import FullyShardedDataParallelPlugin

    from hyenadna_hf import HyenaDNAPreTrainedModel

    settings = load_config_from_file(str(EXAMPLES / "fsdp2.yaml")).fsdp_config
    assert [settings["fsdp_transformer_layer_cls_to_wrap"]] == list(HyenaDNAPreTrainedModel._no_split_modules)
    known = set(FullyShardedDataParallelPlugin.__dataclass_fields__)
    known |= {"version", "transformer_layer_cls_to_wrap", "offload_params"}  # names of the configuration for these
    assert {name.removeprefix("fsdp_") for name in settings} <= known


def test_deepspeed_takes_its_settings_from_the_trainer(config, tmp_path):
    from accelerate.utils.deepspeed import HfDeepSpeedConfig
    from transformers import TrainingArguments
    from transformers.integrations.deepspeed import HfTrainerDeepSpeedConfig

    from hyenadna_hf import HyenaDNAForCausalLM

    class Settings(HfTrainerDeepSpeedConfig, HfDeepSpeedConfig):
        """As the Trainer reads them, without asking whether DeepSpeed is installed."""

        def __init__(self, file):
            HfDeepSpeedConfig.__init__(self, file)
            self._dtype, self.mismatches = None, []

    args = TrainingArguments(str(tmp_path), use_cpu=True, learning_rate=3e-4, gradient_accumulation_steps=4)
    settings = Settings(str(EXAMPLES / "deepspeed_zero2.json"))
    settings.trainer_config_process(args)
    settings.trainer_config_finalize(args, HyenaDNAForCausalLM(config), 100)
    assert settings.is_zero2() and "auto" not in json.dumps(settings.config)
    assert settings.get_value("optimizer.params.lr") == 3e-4


def test_the_example_of_context_parallelism_trains(launch, tmp_path):
    data = ["--model", "hyenadna-tiny-1k-seqlen", "--length", "301", "--sequences", "4"]
    settings = ["--max_steps", "2", "--use_cpu", "--output_dir", tmp_path / "out"]
    output = launch(EXAMPLES / "context_parallel.py", 2, *data, *settings)
    assert "train_loss" in output
    assert (tmp_path / "out" / "model.safetensors").is_file()


@pytest.mark.slow
@pytest.mark.parametrize(
    "name, mode, wrapped",
    [
        ("ddp", "MULTI_CPU", "DistributedDataParallel"),
        ("fsdp2", "MULTI_CPU", "DistributedDataParallel"),  # Accelerate has FSDP on accelerators only
        ("deepspeed_zero2", "DEEPSPEED", "DeepSpeedEngine"),
    ],
)
def test_a_launched_script_ends_like_one_process(name, mode, wrapped, launch, tmp_path, monkeypatch):
    options = ["--num_processes", "2", "--main_process_port", "0"]
    if name == "deepspeed_zero2":
        pytest.importorskip("deepspeed")
        monkeypatch.setenv("DS_ACCELERATOR", "cpu")
        options[-1] = str(free_port())
    else:
        options += ["--mixed_precision", "no"]
    launch("plain.py", 1, tmp_path / "one")
    launcher = ["accelerate.commands.launch", "--config_file", EXAMPLES / f"{name}.yaml", *options]
    launch("plain.py", 2, tmp_path / "two", launcher=launcher, folder=EXAMPLES.parent, timeout=1200)
    one, two = (json.loads((tmp_path / n / "found.json").read_text()) for n in ("one", "two"))
    assert (two["mode"], two["wrapped"]) == (mode, wrapped)
    assert one["losses"][0] > one["losses"][-1]
    torch.testing.assert_close(two["losses"], one["losses"], rtol=0, atol=1e-5)
    weights = [load_file(tmp_path / n / "model.safetensors") for n in ("two", "one")]
    torch.testing.assert_close(*weights, rtol=0, atol=1e-5)


def free_port():
    """DeepSpeed does not take port 0 for any."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]
