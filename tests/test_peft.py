"""PEFT, unchanged: every method, what it trains, merging, saving, and prompts beside padding."""

import copy
import dataclasses
import json
import warnings

import peft
import pytest
import torch
import transformers
from datasets import Dataset
from forked import result_of
from hub_server import serve
from hypothesis import given, settings
from hypothesis import strategies as st
from peft import (
    AdaLoraConfig,
    IA3Config,
    LNTuningConfig,
    LoraConfig,
    PrefixTuningConfig,
    PromptEncoderConfig,
    PromptTuningConfig,
    VeraConfig,
    get_peft_model,
)
from peft.utils import constants
from reference import randomise
from transformers import (
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    DataCollatorForTokenClassification,
    DynamicCache,
    Trainer,
    TrainingArguments,
)

from hyenadna_hf import (
    HyenaDNAConfig,
    HyenaDNAForCausalLM,
    HyenaDNAForSequenceClassification,
    HyenaDNAForTokenClassification,
    HyenaDNATokenizer,
)
from hyenadna_hf.cli import main
from hyenadna_hf.errors import InputError
from hyenadna_hf.loading import load_to_train, load_trained
from hyenadna_hf.model.padding_hyenadna import pool_positions
from hyenadna_hf.training.adapters import FEEDFORWARD_LAYERS, LINEAR_LAYERS, NORMS, register_with_peft

PROMPT = 5
TASKS = {
    "CAUSAL_LM": HyenaDNAForCausalLM,
    "SEQ_CLS": HyenaDNAForSequenceClassification,
    "TOKEN_CLS": HyenaDNAForTokenClassification,
}
LINEAR = {"target_modules": list(LINEAR_LAYERS)}
ADAPTERS = {
    "lora": (LoraConfig, {**LINEAR, "init_lora_weights": False}),
    "dora": (LoraConfig, {**LINEAR, "init_lora_weights": False, "use_dora": True}),
    "ia3": (IA3Config, {**LINEAR, "feedforward_modules": list(FEEDFORWARD_LAYERS), "init_ia3_weights": False}),
    "vera": (VeraConfig, {**LINEAR, "r": 8, "init_weights": False}),
    "ln_tuning": (LNTuningConfig, {"target_modules": list(NORMS)}),
}
PROMPTS = {
    "prompt_tuning": (PromptTuningConfig, {"num_virtual_tokens": PROMPT}),
    "p_tuning": (PromptEncoderConfig, {"num_virtual_tokens": PROMPT, "encoder_hidden_size": 8}),
}
METHODS = {**ADAPTERS, **PROMPTS}
# In a method's own parameters, and in the head that PEFT trains along.
TRAINED = ("lora_", "ia3_", "vera_lambda", "ln_tuning_layers", "prompt_encoder", "score")

# PEFT's own: it asks transformers by an old name, and warns of every LayerNorm.
pytestmark = [
    pytest.mark.filterwarnings("error::FutureWarning"),
    pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning"),
    pytest.mark.filterwarnings("ignore:Unsupported layer type:UserWarning"),
]


def with_method(base, method, task):
    config_class, options = METHODS[method]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "`is_gradient_checkpointing`|Unsupported layer type")  # for @given too
        model = get_peft_model(base, config_class(task_type=task, **options)).eval()
    for name, parameter in model.named_parameters():
        if "ln_tuning_layers" in name:  # begins as a copy of the norm
            torch.nn.init.normal_(parameter, mean=1, std=0.3)
    return model


def batch(task, rows=2, length=12):
    ids = torch.randint(7, 11, (rows, length))
    labels = {"CAUSAL_LM": ids, "SEQ_CLS": torch.arange(rows) % 2, "TOKEN_CLS": ids % 2}[task]
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": labels}


def gradients(model):
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None and p.grad.any()}


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("method", METHODS)
def test_a_method_trains_its_own_parameters_with_checkpointing_too(make_model, config, method, task):
    model = with_method(make_model(TASKS[task], config), method, task)
    inputs = batch(task)
    model(**inputs).loss.backward()
    found = gradients(model)
    expected = {name for name, p in model.named_parameters() if any(word in name for word in TRAINED)}
    unused = {name for name in expected if "original_module" in name}
    assert found.keys() == expected - unused
    assert all(p.requires_grad == (name in found) for name, p in model.named_parameters())

    model.zero_grad()
    base = model.get_base_model()
    getattr(base, "activation_checkpointing_enable", base.gradient_checkpointing_enable)()
    base.enable_input_require_grads()  # as PEFT does if a model comes with checkpointing
    model.train()
    torch.manual_seed(0)
    model(**inputs).loss.backward()
    if method != "p_tuning":  # its own dropout is on in training
        for name, gradient in gradients(model).items():
            torch.testing.assert_close(gradient, found[name], rtol=0, atol=1e-5, msg=name)


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("method", ADAPTERS)
def test_merged_equals_unmerged_and_unloaded_equals_the_base(make_model, config, method, task):
    base = make_model(TASKS[task], config)
    ids = batch(task)["input_ids"]
    plain = base(ids).logits
    model = with_method(base, method, task)
    adapted = model(input_ids=ids).logits
    assert (adapted - plain).abs().max() > 1e-3
    merged = copy.deepcopy(model).merge_and_unload()
    assert type(merged) is TASKS[task]
    torch.testing.assert_close(merged(ids).logits, adapted, rtol=0, atol=1e-5)
    with model.disable_adapter():
        torch.testing.assert_close(model(input_ids=ids).logits, plain, rtol=0, atol=1e-5)
    torch.testing.assert_close(model.unload()(ids).logits, plain, rtol=0, atol=1e-5)


@pytest.mark.parametrize("method", ADAPTERS)
def test_an_adapted_model_calls_every_module(make_model, config, method):
    """Whatever `memory` says, values and gradients are those of the modules."""
    model = with_method(make_model(HyenaDNAForCausalLM, config), method, "CAUSAL_LM")
    inputs = batch("CAUSAL_LM", length=60)
    found = []
    for memory in ("auto", "low"):
        config.memory = model.get_base_model().config.memory = memory
        assert model.plan(inputs["input_ids"]).path == "transparent"
        model.zero_grad()
        model(**inputs).loss.backward()
        with torch.no_grad():
            found.append({"": model(**inputs).logits, **gradients(model)})
    for name, value in found[0].items():
        torch.testing.assert_close(found[1][name], value, rtol=0, atol=1e-5, msg=name)


@pytest.mark.parametrize(
    "method, task",
    [*((method, "CAUSAL_LM") for method in METHODS), *((m, t) for m in ("lora", *PROMPTS) for t in list(TASKS)[1:])],
)
def test_saved_and_loaded_by_the_auto_classes(make_model, config, tmp_path, method, task):
    make_model(TASKS[task], config).save_pretrained(tmp_path / "base")
    base = TASKS[task].from_pretrained(tmp_path / "base")
    model = with_method(base, method, task)
    inputs = batch(task)
    expected = model(**inputs).logits
    model.save_pretrained(tmp_path / "adapter")
    kinds = {"CAUSAL_LM": "CausalLM", "SEQ_CLS": "SequenceClassification", "TOKEN_CLS": "TokenClassification"}
    again = getattr(peft, f"AutoPeftModelFor{kinds[task]}").from_pretrained(tmp_path / "adapter")
    torch.testing.assert_close(again.eval()(**inputs).logits, expected, rtol=0, atol=1e-5)


WITHOUT_PACKAGE = """
import json, sys
sys.modules["hyenadna_hf"] = None  # importing it now fails
import torch, transformers, peft
base = transformers.AutoModelForCausalLM.from_pretrained(sys.argv[1], trust_remote_code=True)
assert type(base).__module__.startswith("transformers_modules.")
ids, found = torch.arange(7, 11)[None], {}
for adapter in sys.argv[2:]:
    model = peft.PeftModel.from_pretrained(base, adapter).eval()
    with torch.no_grad():
        found[adapter] = model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits.tolist()
    base = model.unload() if hasattr(model.base_model, "unload") else model.get_base_model()
try:
    peft.get_peft_model(base, peft.PrefixTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=2))
except ValueError as error:
    found["prefix"] = str(error)
print(json.dumps(found))
"""


def test_adapters_on_the_remote_code_model(make_model, config, tmp_path):
    make_model(HyenaDNAForCausalLM, config).save_pretrained(tmp_path / "base")
    HyenaDNATokenizer(model_max_length=70).save_pretrained(tmp_path / "base")
    ids, expected = torch.arange(7, 11)[None], {}
    for method in ("lora", "prompt_tuning"):
        model = with_method(HyenaDNAForCausalLM.from_pretrained(tmp_path / "base"), method, "CAUSAL_LM")
        model.save_pretrained(tmp_path / method)
        expected[method] = model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits
    folders = [tmp_path / name for name in ("base", *expected)]
    found = result_of(WITHOUT_PACKAGE, *folders)
    for method, value in expected.items():
        torch.testing.assert_close(torch.tensor(found[str(tmp_path / method)]), value, rtol=0, atol=1e-5)
    assert found["prefix"].startswith("Prefix tuning trains keys and values")


PUSH_AND_LOAD = """
import json, sys
import torch, peft
from hyenadna_hf import HyenaDNAForSequenceClassification
base, adapter = sys.argv[1:]
model = peft.PeftModel.from_pretrained(HyenaDNAForSequenceClassification.from_pretrained(base), adapter)
model.push_to_hub("tester/adapter")
again = peft.AutoPeftModelForSequenceClassification.from_pretrained("tester/adapter").eval()
ids = torch.arange(7, 11)[None]
with torch.no_grad():
    print(json.dumps(again(input_ids=ids, attention_mask=torch.ones_like(ids)).logits.tolist()))
"""


@pytest.mark.parametrize("method", ["lora", "prompt_tuning"])
def test_pushed_to_the_hub_and_loaded_from_there(make_model, config, tmp_path, method):
    make_model(HyenaDNAForSequenceClassification, config).save_pretrained(tmp_path / "base")
    base = HyenaDNAForSequenceClassification.from_pretrained(tmp_path / "base")
    model = with_method(base, method, "SEQ_CLS")
    model.save_pretrained(tmp_path / "adapter")
    with serve() as (hub, _):
        logits = result_of(PUSH_AND_LOAD, tmp_path / "base", tmp_path / "adapter")
        assert {"adapter_config.json", "adapter_model.safetensors"} <= hub.repositories["tester/adapter"]["main"].keys()
    ids = torch.arange(7, 11)[None]
    expected = model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits
    torch.testing.assert_close(torch.tensor(logits), expected, rtol=0, atol=1e-5)


def saved_adapter(folder, base_class, config, method, task, tokenizer=True):
    """A base model and a trained adapter, each in a folder; gives back the adapted model."""
    randomise(base_class(config)).save_pretrained(folder / "base")
    if tokenizer:
        HyenaDNATokenizer(model_max_length=70).save_pretrained(folder / "base")
    model = with_method(base_class.from_pretrained(folder / "base"), method, task)
    if task != "CAUSAL_LM":
        torch.nn.init.normal_(model.base_model.model.score.modules_to_save["default"].weight)
    model.save_pretrained(folder / "adapter")
    return model


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("method", ADAPTERS)
def test_the_commands_load_an_adapter_with_its_base(config, tmp_path, method, task):
    config.num_labels = 3
    model = saved_adapter(tmp_path, TASKS[task], config, method, task)
    auto_class = getattr(transformers, f"AutoModelFor{TASKS[task].__name__.removeprefix('HyenaDNAFor')}")
    loaded, tokenizer = load_trained(auto_class, str(tmp_path / "adapter"))
    inputs = tokenizer(["ACGTNACGT", "GGC"], padding=True, return_tensors="pt")
    with torch.no_grad():
        torch.testing.assert_close(loaded(**inputs).logits, model(**inputs).logits, rtol=1e-4, atol=1e-4)
        hidden = load_trained(AutoModel, str(tmp_path / "adapter"))[0](**inputs)[0]
        torch.testing.assert_close(hidden, model.get_base_model().hyena(**inputs)[0], rtol=1e-4, atol=1e-4)
    assert type(loaded) is TASKS[task] and loaded.name_or_path == str(tmp_path / "adapter")


def test_an_adapter_brings_its_own_number_of_classes_and_its_tokenizer(config, tmp_path):
    """The head is the adapter's: its base was saved as a language model, without one."""
    HyenaDNAForCausalLM(config).save_pretrained(tmp_path / "base")
    base = HyenaDNAForSequenceClassification.from_pretrained(tmp_path / "base", num_labels=5)
    with_method(base, "lora", "SEQ_CLS").save_pretrained(tmp_path / "adapter")
    HyenaDNATokenizer(model_max_length=70, special_tokens_mode="sep").save_pretrained(tmp_path / "adapter")
    model, tokenizer = load_trained(AutoModelForSequenceClassification, str(tmp_path / "adapter"))
    assert model.config.num_labels == 5 and tokenizer.special_tokens_mode == "sep"
    assert torch.equal(model.score.weight, base.score.modules_to_save["default"].weight)


def test_the_base_of_an_adapter_may_ship_with_the_package(tmp_path):
    name = "hyenadna-tiny-1k-chr20"
    model = with_method(load_trained(AutoModelForCausalLM, name)[0], "lora", "CAUSAL_LM")
    model.save_pretrained(tmp_path)
    ids = torch.randint(7, 11, (1, 20))
    for base in (model.peft_config["default"].base_model_name_or_path, name):
        adapter = json.loads((tmp_path / "adapter_config.json").read_text())
        (tmp_path / "adapter_config.json").write_text(json.dumps({**adapter, "base_model_name_or_path": base}))
        with torch.no_grad():
            found = load_trained(AutoModelForCausalLM, str(tmp_path))[0](ids).logits
            torch.testing.assert_close(found, model(ids).logits, rtol=0, atol=1e-4)


@pytest.mark.parametrize(
    "damage, message",
    [
        ({"base_model_name_or_path": "no/such/base"}, "adapter: cannot be loaded .*no/such/base"),
        ({"base_model_name_or_path": None}, "adapter_config.json names no base model"),
        ({"target_modules": ["attention"]}, "attention"),
        ({"r": 3}, "size mismatch"),
        ({"target_modules": ["in_proj", "out_proj", "fc1", "fc2", "lm_head"]}, "missing adapter keys"),
    ],
)
def test_an_adapter_that_does_not_fit_is_refused(config, tmp_path, damage, message):
    saved_adapter(tmp_path, HyenaDNAForCausalLM, config, "lora", "CAUSAL_LM")
    path = tmp_path / "adapter" / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **damage}))
    with pytest.raises(InputError, match=message):
        load_trained(AutoModelForCausalLM, str(tmp_path / "adapter"))


def test_a_soft_prompt_is_not_taken_for_a_model(config, tmp_path):
    saved_adapter(tmp_path, HyenaDNAForCausalLM, config, "prompt_tuning", "CAUSAL_LM")
    for load in (load_trained, load_to_train):
        with pytest.raises(InputError, match=f"soft prompts load only with .*; give the base model {tmp_path}/base"):
            load(AutoModelForCausalLM, str(tmp_path / "adapter"))


def test_fine_tuning_starts_from_an_adapter_and_ends_in_a_whole_model(config, tmp_path):
    model = saved_adapter(tmp_path, HyenaDNAForCausalLM, config, "lora", "CAUSAL_LM")
    rows = "".join(f"{'ACGTGGTA' * 3},{'ab'[i % 2]}\n" for i in range(40))
    (tmp_path / "data.csv").write_text(f"sequence,label\n{rows}")
    options = ["--learning_rate", "0", "--max_steps", "1", "--no_baselines", "--use_cpu", "--save_strategy", "no"]
    arguments = ["--dataset", str(tmp_path / "data.csv"), "--model", str(tmp_path / "adapter"), *options]
    assert main(["finetune", *arguments, "--output_dir", str(tmp_path / "out")]) == 0
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert results["start"] == "pretrained; new: score.bias, score.weight"
    trained = HyenaDNAForSequenceClassification.from_pretrained(tmp_path / "out").eval()
    merged = model.merge_and_unload()
    ids = torch.randint(7, 11, (1, 20))
    with torch.no_grad():
        torch.testing.assert_close(trained.hyena(ids)[0], merged.hyena(ids)[0], rtol=0, atol=1e-5)
    assert not (tmp_path / "out" / "adapter_config.json").exists()


@pytest.mark.parametrize("task", TASKS)
def test_prefix_tuning_is_refused(make_model, config, task):
    model = make_model(TASKS[task], config)
    with pytest.raises(ValueError, match="Prefix tuning trains keys and values.*use prompt tuning"):
        get_peft_model(model, PrefixTuningConfig(task_type=task, num_virtual_tokens=2))


@pytest.mark.parametrize("training", [True, False])
def test_the_cache_of_another_model_is_refused_with_that_reason(make_model, config, training):
    model = make_model(HyenaDNAForCausalLM, config).train(training)
    with pytest.raises(ValueError, match="is a DynamicCache.*Prefix tuning"):
        model(torch.tensor([[7, 8]]), past_key_values=DynamicCache())


def test_what_to_adapt_is_known_to_peft(make_model, config, monkeypatch):
    for name in vars(constants).copy():
        if name.endswith("_MODULES_MAPPING"):  # put back what is registered here
            monkeypatch.setattr(constants, name, getattr(constants, name))
    register_with_peft()
    configs = {
        LoraConfig: LINEAR_LAYERS,
        IA3Config: LINEAR_LAYERS,
        VeraConfig: LINEAR_LAYERS,
        LNTuningConfig: NORMS,
    }
    for config_class, expected in configs.items():
        model = get_peft_model(make_model(HyenaDNAForCausalLM, config), config_class(task_type="CAUSAL_LM"))
        assert model.peft_config["default"].target_modules == set(expected)
    adalora = AdaLoraConfig(task_type="CAUSAL_LM", total_step=10)
    model = get_peft_model(make_model(HyenaDNAForCausalLM, config), adalora)
    assert model.peft_config["default"].target_modules == set(LINEAR_LAYERS)


@pytest.mark.parametrize("method", PROMPTS)
@pytest.mark.parametrize("task", TASKS)
def test_a_prompt_is_embeddings_before_those_of_the_sequence(make_model, config, method, task):
    base = make_model(TASKS[task], config)
    model = with_method(base, method, task)
    inputs = batch(task)
    out = model(**inputs)
    prompt = model.get_prompt(batch_size=2)
    embeds = torch.cat([prompt, base.get_input_embeddings()(inputs["input_ids"])], dim=1)
    expected = base(inputs_embeds=embeds)
    torch.testing.assert_close(out.logits, expected.logits, rtol=0, atol=1e-6)
    if task != "SEQ_CLS":  # every position sees the whole prompt
        other = base(inputs_embeds=torch.cat([prompt + torch.eye(PROMPT, config.d_model), embeds[:, PROMPT:]], dim=1))
        assert ((other.logits - expected.logits)[:, PROMPT:].abs().amax(-1) > 1e-6).all()
    if task == "TOKEN_CLS":
        scored = expected.logits[:, PROMPT:].flatten(0, 1)
        loss = torch.nn.functional.cross_entropy(scored, inputs["labels"].flatten())
        torch.testing.assert_close(out.loss, loss, rtol=0, atol=1e-6)


def test_labels_must_fit_where_no_prompt_can_be(make_model, config):
    model = make_model(HyenaDNAForTokenClassification, config)
    with pytest.raises((ValueError, RuntimeError)):
        model(torch.tensor([[7, 8, 9]]), labels=torch.tensor([[0, 1]]))


@pytest.mark.parametrize("pooling", ["mean", "max", "first", "last"])
@pytest.mark.parametrize("compat_padding", [False, True])
def test_a_prompt_of_known_length_is_left_out_of_the_pooling(make_model, config, pooling, compat_padding):
    config.classifier_pooling, config.compat_padding = pooling, compat_padding
    base = make_model(HyenaDNAForSequenceClassification, config)
    model = with_method(base, "prompt_tuning", "SEQ_CLS")
    inputs = batch("SEQ_CLS")
    counted = model(**inputs).logits
    base.config.num_prompt_tokens = PROMPT
    left_out = model(**inputs).logits
    embeds = torch.cat([model.get_prompt(2), model.word_embeddings(inputs["input_ids"])], dim=1)
    hidden = base.base_model(inputs_embeds=embeds).last_hidden_state[:, PROMPT:]
    pooled = pool_positions(hidden, torch.ones(hidden.shape[:2], dtype=torch.bool), pooling)
    score = getattr(base.score, "modules_to_save", {"default": base.score})["default"]
    torch.testing.assert_close(left_out, score(pooled), rtol=0, atol=1e-6)
    assert ((counted - left_out).abs().max() < 1e-6) == (pooling == "last")


def test_the_length_of_a_prompt_is_given_again_on_loading(make_model, config, tmp_path):
    make_model(HyenaDNAForSequenceClassification, config).save_pretrained(tmp_path / "base")
    base = HyenaDNAForSequenceClassification.from_pretrained(tmp_path / "base", num_prompt_tokens=PROMPT)
    model = with_method(base, "prompt_tuning", "SEQ_CLS")
    model.save_pretrained(tmp_path / "adapter")
    inputs, load = batch("SEQ_CLS"), peft.AutoPeftModelForSequenceClassification.from_pretrained
    again, without = load(tmp_path / "adapter", num_prompt_tokens=PROMPT), load(tmp_path / "adapter")
    expected = model(**inputs).logits
    torch.testing.assert_close(again.eval()(**inputs).logits, expected, rtol=0, atol=1e-5)
    assert (without.eval()(**inputs).logits - expected).abs().max() > 1e-3


SIZES = {"d_model": 8, "n_layer": 2, "max_seq_len": 50, "filter_order": 8, "embed_dropout": 0.0}


@settings(max_examples=40)
@given(
    st.sampled_from(list(TASKS)),
    st.sampled_from(list(PROMPTS)),
    st.integers(1, 12),
    st.integers(0, 9),
    st.integers(0, 9),
    st.sampled_from([0, PROMPT]),
)
def test_a_padded_row_with_a_prompt_is_the_row_alone(task, method, length, left, right, left_out):
    """PEFT's mask for a left-padded row has a gap: prompt, padding, sequence."""
    torch.manual_seed(1)
    base = randomise(TASKS[task](HyenaDNAConfig(**SIZES, num_prompt_tokens=left_out))).double().eval()
    model = with_method(base, method, task).double()
    inputs = batch(task, rows=1, length=length)
    alone = model(**inputs)
    fills = {"input_ids": 4, "attention_mask": 0, "labels": -100}
    padded = {
        name: torch.nn.functional.pad(value, (left, right), value=fills[name]) if value.dim() == 2 else value
        for name, value in inputs.items()
    }
    together = model(**padded)
    logits = together.logits
    if task != "SEQ_CLS":
        logits = torch.cat([logits[:, :PROMPT], logits[:, PROMPT + left : PROMPT + left + length]], dim=1)
    torch.testing.assert_close(logits, alone.logits, rtol=0, atol=1e-10)
    loss = {"rtol": 0, "atol": 1e-5}  # transformers computes it in float32
    torch.testing.assert_close(together.loss, alone.loss, **loss)
    found = []
    for out in (alone, together):
        model.zero_grad()
        out.loss.backward()
        found.append(gradients(model))
    assert found[0].keys() == found[1].keys()
    for name, gradient in found[0].items():
        torch.testing.assert_close(found[1][name], gradient, **loss, msg=name)


@pytest.mark.parametrize("method", PROMPTS)
def test_generation_behind_a_prompt_with_and_without_the_cache(make_model, config, method):
    model = with_method(make_model(HyenaDNAForCausalLM, config), method, "CAUSAL_LM")
    ids = torch.tensor([[4, 4, 7, 8, 9, 10], [7, 8, 9, 10, 7, 7]])
    options = {"attention_mask": (ids != 4).long(), "max_new_tokens": 12, "do_sample": False, "suppress_tokens": [1]}
    cached = model.generate(input_ids=ids, use_cache=True, **options)
    torch.testing.assert_close(model.generate(input_ids=ids, use_cache=False, **options), cached)
    alone = model.generate(input_ids=ids[:1, 2:], **{**options, "attention_mask": torch.ones(1, 4)})
    assert alone[0].tolist() == cached[0, 2:].tolist()


@pytest.mark.parametrize(
    "method, task", [("prompt_tuning", "TOKEN_CLS"), ("p_tuning", "CAUSAL_LM"), ("vera", "SEQ_CLS")]
)
def test_the_trainer_trains_them_with_gradient_checkpointing(make_model, config, tmp_path, method, task):
    torch.manual_seed(0)
    model = with_method(make_model(TASKS[task], config), method, task)
    before = {name: p.clone() for name, p in model.named_parameters()}
    rows = []
    for i in range(16):
        ids = ([7, 8, 9] if i % 2 else [10, 10, 9]) * (3 + i % 3)
        labels = {"CAUSAL_LM": ids, "SEQ_CLS": i % 2, "TOKEN_CLS": [int(t == 9) for t in ids]}[task]
        rows.append({"input_ids": ids, "attention_mask": [1] * len(ids), "labels": labels})
    old_name = "activation_checkpointing" not in {field.name for field in dataclasses.fields(TrainingArguments)}
    checkpointing = "gradient_checkpointing" if old_name else "activation_checkpointing"
    arguments = TrainingArguments(
        str(tmp_path),
        max_steps=30,
        per_device_train_batch_size=8,
        learning_rate=0.05,
        # Reentrant checkpoints, the default of transformers 4, see no gradient behind frozen embeddings.
        **{checkpointing: True, f"{checkpointing}_kwargs": {"use_reentrant": False}},
        report_to="none",
        save_strategy="no",
        logging_steps=1,
        dataloader_pin_memory=False,
        use_cpu=True,
    )
    tokenizer = HyenaDNATokenizer(model_max_length=70)
    collator = None if task == "SEQ_CLS" else DataCollatorForTokenClassification(tokenizer)
    trainer = Trainer(
        model, arguments, train_dataset=Dataset.from_list(rows), data_collator=collator, processing_class=tokenizer
    )
    trainer.train()
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    assert sum(losses[-3:]) < 0.9 * sum(losses[:3])
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter, before[name]) != parameter.requires_grad, name
