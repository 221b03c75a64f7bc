import json
import shutil

import pytest
import torch
import transformers
from peft import AutoPeftModelForCausalLM, LoraConfig, get_peft_model
from reference import randomise
from safetensors.torch import load_file, save_file
from transformers import (
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    AutoTokenizer,
    BertConfig,
    BertForMaskedLM,
)

from hyenadna_hf import (
    HyenaDNAConfig,
    HyenaDNAForCausalLM,
    HyenaDNAForSequenceClassification,
    HyenaDNAForTokenClassification,
    HyenaDNATokenizer,
)
from hyenadna_hf.errors import InputError
from hyenadna_hf.loading import (
    CheckpointArguments,
    DeviceArguments,
    InferenceArguments,
    LoadingArguments,
    fingerprint,
    load_base_model,
    load_language_model,
    load_model,
    load_to_train,
    load_tokenizer,
    load_trained,
    resolve,
)
from hyenadna_hf.pretrained import BUNDLED_CHECKPOINTS
from hyenadna_hf.probing.embeddings import pooled_states
from hyenadna_hf.training.classifier import ModelArguments
from hyenadna_hf.training.pretrain import PretrainedArguments
from hyenadna_hf.training.prompting import PromptingArguments
from hyenadna_hf.training.soft_prompt import SoftPromptArguments, soft_prompt

# transformers 4 makes a tokenizer of a damaged folder, and no model of a class with a configuration of its own.
FROM_5 = pytest.mark.skipif(transformers.__version__.startswith("4."), reason="transformers 5 or later")

NAME = "hyenadna-tiny-1k-chr20"
ALL = ", ".join(BUNDLED_CHECKPOINTS)


@pytest.fixture
def folder(make_model, config, tmp_path):
    """A language model and its tokenizer, in a path with a blank."""
    folder = tmp_path / "my model"
    make_model(HyenaDNAForCausalLM, config).save_pretrained(folder)
    HyenaDNATokenizer(model_max_length=70, special_tokens_mode="sep").save_pretrained(folder)
    return folder


def test_bundled_names_folders_and_relative_paths_are_one_model(tmp_path, monkeypatch):
    shutil.copytree(BUNDLED_CHECKPOINTS[NAME], tmp_path / "a copy")
    monkeypatch.chdir(tmp_path)
    sources = (NAME, str(BUNDLED_CHECKPOINTS[NAME]), "a copy", "./a copy/", str(tmp_path / "a copy"))
    prints = {fingerprint(*load_trained(AutoModelForCausalLM, source, tokenizer=None)) for source in sources}
    assert len(prints) == 1
    assert fingerprint(*load_trained(AutoModelForCausalLM, NAME, dtype="bfloat16")) not in prints


def test_a_folder_goes_before_a_bundled_checkpoint_of_its_name(folder, monkeypatch):
    folder.rename(folder.with_name(NAME))
    monkeypatch.chdir(folder.parent)
    model, tokenizer = load_trained(AutoModelForCausalLM, NAME)
    assert model.config.d_model == 12 and tokenizer.special_tokens_mode == "sep"
    assert model.name_or_path == resolve(NAME) == str(folder.with_name(NAME))


def test_a_language_model_by_the_arguments_of_a_command(folder, tmp_path):
    HyenaDNATokenizer(model_max_length=50).save_pretrained(tmp_path / "other")
    args = InferenceArguments(model=str(folder), dtype="bfloat16", tokenizer=str(tmp_path / "other"), use_cpu=True)
    model, tokenizer = load_language_model(args)
    assert (model.dtype, model.device.type, model.training) == (torch.bfloat16, "cpu", False)
    assert tokenizer.model_max_length == 50


def test_the_class_of_a_saved_model_and_its_backbone(folder, config, tmp_path):
    assert type(load_model(None, str(folder))) is HyenaDNAForCausalLM
    assert load_model(AutoModel, str(folder)).config.d_model == 12
    HyenaDNAForSequenceClassification(config).save_pretrained(tmp_path / "classifier")
    assert type(load_model(None, str(tmp_path / "classifier"))) is HyenaDNAForSequenceClassification


@pytest.mark.parametrize(
    "source, load, origin",
    [
        ("my model", AutoModelForCausalLM, "pretrained"),
        ("my model", AutoModelForSequenceClassification, "pretrained; new: score.bias, score.weight"),
        (NAME, AutoModelForCausalLM, "pretrained"),
        ("hyenadna-tiny-1k-seqlen", AutoModelForCausalLM, "from scratch"),
        ("gpt", AutoModelForCausalLM, "from scratch"),
        ("cnn", AutoModelForSequenceClassification, "from scratch"),
        ("config only", AutoModelForSequenceClassification, "from scratch"),
    ],
)
def test_where_weights_to_train_come_from(folder, config, tmp_path, monkeypatch, source, load, origin):
    config.save_pretrained(tmp_path / "config only")
    HyenaDNATokenizer(model_max_length=70, special_tokens_mode="sep").save_pretrained(tmp_path / "config only")
    monkeypatch.chdir(tmp_path)
    model, found = load_to_train(load, source, num_labels=3)
    assert found == origin and model.config.num_labels == 3
    assert load_to_train(load, source, from_scratch=True)[1] == "from scratch"
    tokenizer = load_tokenizer(source, config=model.config, special_tokens_mode="cls_sep")
    assert tokenizer.special_tokens_mode == "cls_sep"
    tokenizer = load_tokenizer(source, config=model.config)
    assert tokenizer.special_tokens_mode == ("sep" if " " in source else "none")


def test_a_causal_checkpoint_becomes_bidirectional_without_a_change(folder, config):
    """Filters over later positions start at zero and learn. Rounding differs, since transforms have another size."""
    causal, _ = load_to_train(AutoModelForTokenClassification, str(folder), num_labels=3)
    model, origin = load_to_train(AutoModelForTokenClassification, str(folder), num_labels=3, bidirectional=True)
    assert origin == "pretrained; new: score.bias, score.weight, filters over later positions, of zeros"
    model.score.load_state_dict(causal.score.state_dict())
    ids = torch.arange(40).view(2, 20) % 5 + 7
    expected = causal.eval().double()(ids).logits
    torch.testing.assert_close(model.eval().double()(ids).logits, expected, rtol=0, atol=1e-12)
    model(ids, labels=ids % 3).loss.backward()
    for block in model.base_model.backbone.layers:
        earlier, later = (module.implicit_filter["0"].weight for module in block.mixer.filter_fns())
        torch.testing.assert_close(later, earlier, rtol=0, atol=0)
    later = {name: p.grad for name, p in model.named_parameters() if ".filter_fn_rev." in name}
    assert all(bool(grad.any()) == name.endswith("6.weight") for name, grad in later.items())
    saved = HyenaDNAForTokenClassification(HyenaDNAConfig(**{**config.to_diff_dict(), "bidirectional": True}))
    saved.save_pretrained(folder / "bidirectional")
    loaded, _ = load_to_train(AutoModelForTokenClassification, str(folder / "bidirectional"))
    torch.testing.assert_close(dict(loaded.state_dict()), dict(saved.state_dict()), rtol=0, atol=0)


@pytest.fixture
def damaged(folder, config, tmp_path):
    """Folders that cannot be loaded, by what is wrong with them."""
    names = ("weights", "config", "tokenizer", "size", "bert", "weightless", "adapter")
    for name in names:
        shutil.copytree(folder, tmp_path / name)
    (tmp_path / "weights" / "model.safetensors").write_bytes(b"no tensors")
    (tmp_path / "config" / "config.json").write_text("{")
    (tmp_path / "tokenizer" / "tokenizer.json").write_text("{")
    (tmp_path / "weightless" / "model.safetensors").unlink()
    (tmp_path / "adapter" / "adapter_config.json").write_text("{")
    values = json.loads((folder / "config.json").read_text())
    (tmp_path / "size" / "config.json").write_text(json.dumps({**values, "d_model": 16, "d_inner": 64}))
    BertConfig(architectures=["BertForMaskedLM"]).save_pretrained(tmp_path / "bert")


@pytest.mark.parametrize(
    "source, trained, to_train",
    [
        ("./absent", "./absent: cannot be loaded (", "./absent: cannot be loaded ("),
        ("no/such/model", f"There is no such folder; these ship with the package: {ALL}", "There is no such folder"),
        ("weights", "weights: cannot be loaded (", "weights: cannot be loaded ("),
        ("config", "config: cannot be loaded (", "config: cannot be loaded ("),
        ("adapter", "adapter: cannot be loaded (", "adapter: cannot be loaded ("),
        pytest.param("tokenizer", "tokenizer: cannot be loaded (", None, marks=FROM_5),
        ("size", "size: cannot be loaded (", "does not match config.json"),
        ("bert", "this is a bert model; give a HyenaDNA checkpoint", None),
        ("weightless", "weightless: it has no weights; train it first", None),
        ("gpt", "gpt: it has no weights", None),
        ("hyenadna-1m", "hyenadna-1m: it has no weights", None),
        ("cnn", "cnn: it has no weights", "cnn: cannot be loaded (Unrecognized configuration class"),
        ("hyenadna-tiny-1k-remag", "lm_head.weight and 0 other weights of HyenaDNAForCausalLM are not", None),
    ],
)
def test_one_line_says_what_cannot_be_loaded(damaged, tmp_path, monkeypatch, source, trained, to_train):
    monkeypatch.chdir(tmp_path)
    for load, message in ((load_trained, trained), (load_to_train, to_train)):
        if message is not None:
            with pytest.raises(InputError) as error:
                load(AutoModelForCausalLM, source)
            text = str(error.value)
            assert message in text and text.startswith(f"--model {source}: ") and "\n" not in text
            assert len(text) < 1200
    assert not [path for path in tmp_path.iterdir() if path.name.startswith("tmp")]


@FROM_5
def test_a_tokenizer_that_cannot_be_loaded_is_named_itself(folder, damaged, tmp_path):
    with pytest.raises(InputError, match="--tokenizer .*/tokenizer: cannot be loaded"):
        load_trained(AutoModelForCausalLM, str(folder), tokenizer=str(tmp_path / "tokenizer"))
    with pytest.raises(InputError, match="--dtype float16: choose one of float32, bfloat16"):
        load_trained(AutoModelForCausalLM, str(folder), dtype="float16")


@FROM_5
def test_code_of_a_checkpoint_runs_only_where_it_is_trusted(folder, tmp_path):
    """Of a model type that only the code in the folder knows."""
    shutil.copytree(folder, tmp_path / "foreign")
    values = json.loads((folder / "config.json").read_text())
    values |= {"model_type": "foreign", "auto_map": {"AutoConfig": "code.Foreign", "AutoModelForCausalLM": "code.LM"}}
    (tmp_path / "foreign" / "config.json").write_text(json.dumps(values))
    (tmp_path / "foreign" / "code.py").write_text(
        "import pathlib\nfrom hyenadna_hf import HyenaDNAConfig, HyenaDNAForCausalLM\n"
        f"pathlib.Path({str(tmp_path / 'ran')!r}).touch()\n"
        "class Foreign(HyenaDNAConfig):\n    model_type = 'foreign'\n"
        "class LM(HyenaDNAForCausalLM):\n    config_class = Foreign\n"
    )
    with pytest.raises(InputError, match="trust_remote_code"):
        load_to_train(AutoModelForCausalLM, str(tmp_path / "foreign"))
    assert not (tmp_path / "ran").exists()
    model, origin = load_to_train(AutoModelForCausalLM, str(tmp_path / "foreign"), trust_remote_code=True)
    assert type(model).__name__ == "LM" and origin == "pretrained" and (tmp_path / "ran").exists()


def test_commands_declare_the_options_in_one_place():
    shared = {
        ModelArguments: LoadingArguments,
        PretrainedArguments: CheckpointArguments,
        PromptingArguments: (LoadingArguments, DeviceArguments),
    }
    for command, bases in shared.items():
        assert issubclass(command, bases)
        own = command.__annotations__.keys()
        assert not own & {"trust_remote_code", "tokenizer", "use_cpu", "dtype"}


@pytest.mark.filterwarnings("ignore:Could not find a config file:UserWarning")  # PEFT's, of the adapter below
def test_a_soft_prompt_on_an_adapted_model_names_the_adapter_as_its_base(tmp_path):
    config = HyenaDNAConfig(d_model=12, n_layer=1, max_seq_len=70, filter_order=16, embed_dropout=0.0)
    randomise(HyenaDNAForCausalLM(config)).save_pretrained(tmp_path / "base")
    HyenaDNATokenizer(model_max_length=70).save_pretrained(tmp_path / "base")
    base = AutoModelForCausalLM.from_pretrained(tmp_path / "base")
    lora = LoraConfig(task_type="CAUSAL_LM", target_modules=["fc1"], init_lora_weights=False)
    get_peft_model(base, lora).save_pretrained(tmp_path / "adapter")
    rows = "".join(f"{'ACGT' * (2 + i % 2)},{'ab'[i % 2]}\n" for i in range(40))
    (tmp_path / "data.csv").write_text(f"sequence,label\n{rows}")
    options = {
        "prompt_tokens": [3],
        "prompt_position": ["before"],
        "shots": [0],
        "num_train_epochs": 1,
        "use_cpu": True,
    }
    args = SoftPromptArguments(
        dataset=str(tmp_path / "data.csv"), model=str(tmp_path / "adapter"), output_dir=str(tmp_path / "out"), **options
    )
    result = soft_prompt(args)["rows"][0]
    prompt = AutoPeftModelForCausalLM.from_pretrained(tmp_path / "out" / "prompt-3-before-shots-0-seed-42").eval()
    ids = AutoTokenizer.from_pretrained(tmp_path / "base")("ACGTACGT", return_tensors="pt")["input_ids"]
    adapted = load_model(AutoModelForCausalLM, str(tmp_path / "adapter"))
    embeddings = torch.cat([prompt.get_prompt(1), adapted.get_input_embeddings()(ids)], dim=1)
    with torch.no_grad():
        expected = adapted(inputs_embeds=embeddings).logits
        found = prompt(input_ids=ids, attention_mask=torch.ones_like(ids)).logits
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    assert result["parameters"] == 3 * 12


def test_base_models_of_any_architecture(folder, tmp_path):
    """With the weights of the checkpoint, whatever head it was saved with."""
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=16, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8, pad_token_id=4
    )
    bert = BertForMaskedLM(config)
    bert.save_pretrained(tmp_path / "bert")
    HyenaDNATokenizer(model_max_length=70).save_pretrained(tmp_path / "bert")
    gpt, _ = load_to_train(AutoModelForCausalLM, "gpt")
    gpt.save_pretrained(tmp_path / "gpt")
    HyenaDNATokenizer(model_max_length=70).save_pretrained(tmp_path / "gpt")
    hyena = HyenaDNAForCausalLM.from_pretrained(folder)
    for source, expected in ((tmp_path / "bert", bert), (tmp_path / "gpt", gpt), (folder, hyena)):
        found, tokenizer = load_base_model(str(source))
        assert not found.training and tokenizer("ACGT")
        weights = expected.base_model.state_dict()
        for name, tensor in found.base_model.state_dict().items():
            if "pooler" not in name:  # of BERT without a head, which hidden states do not depend on
                torch.testing.assert_close(tensor, weights[name])


def test_a_base_model_needs_its_weights(folder):
    weights = load_file(folder / "model.safetensors")
    lacking = next(name for name in weights if "mixer.in_proj.weight" in name)
    save_file({name: tensor for name, tensor in weights.items() if name != lacking}, folder / "model.safetensors")
    with pytest.raises(
        InputError, match="in_proj.weight and 0 other weights of HyenaDNAModel are not in the checkpoint"
    ):
        load_base_model(str(folder))


MODELING = """
import torch
from transformers import PretrainedConfig, PreTrainedModel
from transformers.modeling_outputs import BaseModelOutput, MaskedLMOutput


class TinyConfig(PretrainedConfig):
    model_type = "tiny-remote"

    def __init__(self, hidden_size=6, vocab_size=16, **kwargs):
        super().__init__(**kwargs)
        self.hidden_size, self.vocab_size = hidden_size, vocab_size


class TinyBase(PreTrainedModel):
    config_class, base_model_prefix = TinyConfig, "tiny"

    def __init__(self, config):
        super().__init__(config)
        self.embeddings = torch.nn.Embedding(config.vocab_size, config.hidden_size)
        self.post_init()

    def forward(self, input_ids, attention_mask=None, output_hidden_states=False):
        states = self.embeddings(input_ids)
        return BaseModelOutput(states, (states,) if output_hidden_states else None)


class TinyForMaskedLM(PreTrainedModel):
    config_class, base_model_prefix = TinyConfig, "tiny"

    def __init__(self, config):
        super().__init__(config)
        self.tiny = TinyBase(config)
        self.lm_head = torch.nn.Linear(config.hidden_size, config.vocab_size)
        self.post_init()

    def forward(self, input_ids, attention_mask=None):
        return MaskedLMOutput(logits=self.lm_head(self.tiny(input_ids).last_hidden_state))
"""


def test_a_base_model_with_code_of_its_own_and_no_auto_model(tmp_path):
    """Some repositories name a class for AutoModelForMaskedLM alone."""
    folder = tmp_path / "masked_only"  # transformers caches the code under this name
    folder.mkdir()
    (folder / "modeling_tiny.py").write_text(MODELING)
    names = {"AutoConfig": "TinyConfig", "AutoModelForMaskedLM": "TinyForMaskedLM"}
    auto_map = {auto: f"modeling_tiny.{name}" for auto, name in names.items()}
    (folder / "config.json").write_text(json.dumps({"model_type": "tiny-remote", "auto_map": auto_map}))
    weights = {
        "tiny.embeddings.weight": torch.randn(16, 6),
        "lm_head.weight": torch.zeros(16, 6),
        "lm_head.bias": torch.zeros(16),
    }
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    HyenaDNATokenizer(model_max_length=70).save_pretrained(folder)
    with pytest.raises(InputError, match=r"masked_only: cannot be loaded .*trust_remote_code"):
        load_base_model(str(folder))
    model, tokenizer = load_base_model(str(folder), trust_remote_code=True)
    found = pooled_states(model, tokenizer, ["ACGT", "GG"])
    ids = [tokenizer(text)["input_ids"] for text in ("ACGT", "GG")]
    expected = torch.stack([weights["tiny.embeddings.weight"][row].mean(0) for row in ids])
    torch.testing.assert_close(torch.tensor(found[:, 0, 0]), expected)
