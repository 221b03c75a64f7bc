"""Soft prompts at a stated place: where they stand, that padding does not matter, and all that PEFT does with them."""

import copy
import json
import warnings

import peft
import pytest
import torch
from forked import result_of, run_ranks
from hub_server import serve
from hypothesis import given, settings
from hypothesis import strategies as st
from peft import PromptTuningConfig, get_peft_model
from reference import randomise
from torch.nn import functional as F
from transformers import AutoModelForCausalLM, GPT2Config, GPT2LMHeadModel, Trainer, TrainingArguments

from hyenadna_hf import (
    HyenaDNAConfig,
    HyenaDNAForCausalLM,
    HyenaDNAForSequenceClassification,
    HyenaDNAForTokenClassification,
    HyenaDNAModel,
    HyenaDNATokenizer,
)
from hyenadna_hf.data.collators import CausalCollator
from hyenadna_hf.training.prompt_position import PlacedPromptConfig, inputs_before, placed_order
from hyenadna_hf.training.prompting import POSITIONS

PROMPT, PAD = 5, 4
TASKS = {
    "CAUSAL_LM": HyenaDNAForCausalLM,
    "SEQ_CLS": HyenaDNAForSequenceClassification,
    "TOKEN_CLS": HyenaDNAForTokenClassification,
    "FEATURE_EXTRACTION": HyenaDNAModel,
}
AUTO = {"CAUSAL_LM": "CausalLM", "SEQ_CLS": "SequenceClassification", "TOKEN_CLS": "TokenClassification"}
SIZES = {"d_model": 8, "n_layer": 2, "max_seq_len": 50, "filter_order": 8, "embed_dropout": 0.0}

pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")


def with_prompt(base, position="after", task="CAUSAL_LM", tokens=PROMPT, **options):
    config = PlacedPromptConfig(task_type=task, num_virtual_tokens=tokens, prompt_position=position, **options)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "`is_gradient_checkpointing`")  # for @given too
        return get_peft_model(base, config).eval()


def by_hand(position, prompt, tokens):
    """The list of a prompt and an input together, written out."""
    count, length = len(prompt), len(tokens)
    if position == "before":
        return prompt + tokens
    if position == "after":
        return tokens + prompt
    if position == "both":
        half = (count + 1) // 2
        return prompt[:half] + tokens + prompt[half:]
    together = []
    for number in range(count):
        together += tokens[length * number // count : length * (number + 1) // count] + prompt[number : number + 1]
    return together


def inputs_of(task, rows=2, length=12):
    ids = torch.randint(7, 11, (rows, length))
    batch = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    answers = F.pad(ids[:, -2:], (length - 2, 0), value=-100)  # two tokens to predict
    labels = {"CAUSAL_LM": answers, "SEQ_CLS": torch.arange(rows) % 2, "TOKEN_CLS": ids % 2}
    return {**batch, "labels": labels[task]} if task in labels else batch


def output(out, task):
    return out.last_hidden_state if task == "FEATURE_EXTRACTION" else out.logits


@given(st.sampled_from(POSITIONS), st.integers(1, 9), st.lists(st.booleans(), min_size=1, max_size=12), st.data())
def test_the_order_is_that_of_the_tokens_that_exist(position, count, real, data):
    labelled = data.draw(st.lists(st.booleans(), min_size=len(real), max_size=len(real)))
    labels = torch.tensor([7 if one else -100 for one in labelled])
    for given_labels in (None, labels):
        order = placed_order(
            position, count, torch.tensor([real]), None if given_labels is None else given_labels[None]
        )[0]
        assert sorted(order.tolist()) == list(range(count + len(real)))
        exists = [True] * count + real
        found = [place for place in order.tolist() if exists[place]]
        tokens = [count + place for place, one in enumerate(real) if one]
        inputs = tokens
        if given_labels is not None:
            unlabelled = [place for place in tokens if not labelled[place - count]]
            inputs = [place for place in tokens if unlabelled and place <= unlabelled[-1]]
        assert found == by_hand(position, list(range(count)), inputs) + tokens[len(inputs) :]


def test_places_are_counted_in_input_tokens():
    lengths = torch.tensor([8, 3, 0])
    counted = {position: inputs_before(position, 4, lengths).tolist() for position in POSITIONS}
    assert counted["before"] == [[0] * 4] * 3
    assert counted["after"] == [[8] * 4, [3] * 4, [0] * 4]
    assert counted["both"] == [[0, 0, 8, 8], [0, 0, 3, 3], [0] * 4]
    assert counted["spread"] == [[2, 4, 6, 8], [0, 1, 2, 3], [0] * 4]
    assert inputs_before("both", 1, lengths).tolist() == [[0], [0], [0]]


@pytest.mark.parametrize("position", POSITIONS)
@pytest.mark.parametrize("task", TASKS)
def test_a_placed_prompt_is_the_same_embeddings_put_there_by_hand(make_model, config, task, position):
    """Also their gradient, which reaches the prompt alone, and the head that PEFT trains along; in float64."""
    base = make_model(TASKS[task], config).double()
    model = with_prompt(base, position, task).double()
    batch = inputs_of(task)
    out = model(**batch)
    inputs = batch["input_ids"].shape[1] - (2 if task == "CAUSAL_LM" else 0)  # the answer comes after the prompt
    embeds = base.get_input_embeddings()(batch["input_ids"])
    prompt = model.prompt_encoder.default.embedding.weight.detach().clone().requires_grad_()
    order = by_hand(position, list(range(PROMPT)), list(range(PROMPT, PROMPT + inputs)))
    order += range(PROMPT + inputs, PROMPT + embeds.shape[1])
    together = torch.cat([prompt.expand(2, -1, -1), embeds], dim=1)[:, order]
    labels = {}
    if task in ("CAUSAL_LM", "TOKEN_CLS"):
        labels = {"labels": F.pad(batch["labels"], (PROMPT, 0), value=-100)[:, order]}
    elif task == "SEQ_CLS":
        labels = {"labels": batch["labels"]}
    expected = base(inputs_embeds=together, **labels)
    values = output(expected, task)
    if task in ("TOKEN_CLS", "FEATURE_EXTRACTION"):  # the prompt's outputs, then those of the input
        values = values[:, torch.tensor(order).argsort()]
    torch.testing.assert_close(output(out, task), values, rtol=0, atol=1e-12)
    if task == "FEATURE_EXTRACTION":
        return
    torch.testing.assert_close(out.loss, expected.loss, rtol=0, atol=1e-12)
    expected.loss.backward()
    found = prompt.grad
    model.zero_grad()
    out.loss.backward()
    reached = {name for name, parameter in model.named_parameters() if parameter.grad is not None}
    heads = {name for name in reached if "score" in name}
    assert reached - heads == {"prompt_encoder.default.embedding.weight"} and bool(heads) == (task != "CAUSAL_LM")
    torch.testing.assert_close(model.prompt_encoder.default.embedding.weight.grad, found, rtol=0, atol=1e-12)
    # In a causal model, no prediction of an earlier position depends on a prompt after it.
    assert (found.abs().max() > 1e-6) == ((task, position) != ("TOKEN_CLS", "after"))


@pytest.mark.parametrize("hyena_order", [2, 3])
@pytest.mark.parametrize(("length", "tokens"), [(300, 70), (20, 7)])
@pytest.mark.parametrize("position", ["after", "spread"])
def test_reading_the_context_first_changes_nothing(position, length, tokens, hyena_order):
    """Training computes what precedes the prompt without a graph: rows of three lengths, padded on either side."""
    torch.manual_seed(0)
    sizes = {**SIZES, "max_seq_len": 400, "hyena_order": hyena_order}
    model = with_prompt(randomise(HyenaDNAForCausalLM(HyenaDNAConfig(**sizes))), position, tokens=tokens).double()
    batch = inputs_of("CAUSAL_LM", rows=3, length=length)
    batch["labels"][:, length // 2] = batch["input_ids"][:, length // 2]  # a demonstration before the prompt
    batch["attention_mask"][1, : length // 3] = 0
    batch["attention_mask"][2, -length // 4 :] = 0
    batch["labels"][batch["attention_mask"] == 0] = -100
    weight, found = model.prompt_encoder.default.embedding.weight, []
    for options in ({}, {"return_dict": True}):  # any option asks for a single call
        out = model.train()(**batch, **options)
        found.append((out.logits, out.loss, torch.autograd.grad(out.loss, weight)[0]))
    assert found[0][0].grad_fn.name() == "CatBackward0" != found[1][0].grad_fn.name()
    for split, whole in zip(*found):
        torch.testing.assert_close(split, whole, rtol=1e-9, atol=1e-12)
    model.get_base_model().config.return_dict = False
    assert isinstance(model(**batch), tuple)


@settings(max_examples=60)
@given(
    st.sampled_from(list(TASKS)),
    st.sampled_from(POSITIONS),
    st.integers(3, 12),
    st.integers(0, 9),
    st.integers(0, 9),
    st.integers(1, 6),
)
def test_a_padded_row_is_the_row_alone(task, position, length, left, right, tokens):
    """With another, longer row beside it; values, loss and gradients, in float64."""
    torch.manual_seed(1)
    base = randomise(TASKS[task](HyenaDNAConfig(**SIZES))).double().eval()
    model = with_prompt(base, position, task, tokens).double()
    alone = inputs_of(task, rows=1, length=length)
    other = inputs_of(task, rows=1, length=left + length + right)
    fills = {"input_ids": PAD, "attention_mask": 0, "labels": -100}
    together = {}
    for name, value in alone.items():
        row = F.pad(value, (left, right), value=fills[name]) if value.dim() == 2 else value
        together[name] = torch.cat([row, other[name]])
    expected, out = model(**alone), model(**together)
    found = output(out, task)[:1]
    if task == "CAUSAL_LM":  # in the order of the input
        inputs = together["attention_mask"][:1]
        order = placed_order(position, tokens, inputs, together["labels"][:1])[0]
        exists = F.pad(inputs[0], (tokens, 0), value=1)[order] != 0
        found = found[:, exists]
        assert exists[-1] or right  # a row of any length ends with its last token, if padded on the left
    elif task != "SEQ_CLS":
        found = torch.cat([found[:, :tokens], found[:, tokens + left : tokens + left + length]], dim=1)
    torch.testing.assert_close(found, output(expected, task), rtol=0, atol=1e-10)
    weight = model.prompt_encoder.default.embedding.weight
    gradients = [
        torch.autograd.grad(output.pow(2).sum(), weight, allow_unused=True)[0]
        for output in (found, output(expected, task))
    ]
    torch.testing.assert_close(*gradients, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("position", POSITIONS)
def test_generation_with_and_without_the_cache_and_by_hand(make_model, config, position):
    base = make_model(HyenaDNAForCausalLM, config)
    model = with_prompt(base, position)
    ids = torch.tensor([[7, 8, 9, 10], [9, 7, 7, 10]])
    options = {"max_new_tokens": 9, "do_sample": False}
    cached = model.generate(ids, **options)
    torch.testing.assert_close(model.generate(input_ids=ids, use_cache=False, **options), cached)
    for row, expected in zip(ids, cached):  # one token after the other, each time from the beginning
        embeds = base.get_input_embeddings()(row)
        order = by_hand(position, list(range(PROMPT)), list(range(PROMPT, PROMPT + 4)))
        embeds = torch.cat([model.prompt_encoder.default.embedding.weight, embeds])[order]
        written = []
        for _ in range(9):
            logits = base(inputs_embeds=embeds[None]).logits[0, -1]
            logits[[0, 2, 3, 4, 5, 6, *range(base.config.num_tokens, base.config.vocab_size)]] = -torch.inf
            written.append(int(logits.argmax()))
            embeds = torch.cat([embeds, base.get_input_embeddings()(torch.tensor(written[-1:]))])
        until = written.index(1) + 1 if 1 in written else 9
        assert expected[4 : 4 + until].tolist() == written[:until]
    for pad in ((3, 0), (0, 3))[: 1 if position == "before" else 2]:  # a row must not end with padding
        padded = F.pad(ids, pad, value=PAD)
        for mask in ({"attention_mask": (padded != PAD).long()}, {}):  # transformers infers it here
            assert torch.equal(model.generate(padded, **mask, **options)[:, 7:], cached[:, 4:])
    options = {"max_length": 8, "min_length": 7, "do_sample": False, "num_beams": 2}  # of input and new tokens
    assert 7 <= model.generate(input_ids=ids, **options).shape[1] <= 8
    assert model.generate(inputs_embeds=base.get_input_embeddings()(ids), **options).shape[1] <= 8 - 4
    with model.disable_adapter():
        assert torch.equal(model.generate(input_ids=ids, **options), base.generate(ids, **options))
        assert torch.equal(model(input_ids=ids).logits, base(ids).logits)


def test_a_call_that_continues_from_a_cache_has_no_second_prompt(make_model, config):
    model = with_prompt(make_model(HyenaDNAForCausalLM, config), "both")
    ids = torch.randint(7, 11, (2, 9))
    with torch.no_grad():
        first = model(input_ids=ids[:, :6], use_cache=True)
        rest = [
            model(input_ids=ids[:, i : i + 1], attention_mask=torch.ones(2, i + 1), past_key_values=first[1]).logits
            for i in range(6, 9)
        ]
        order = by_hand("both", list(range(PROMPT)), list(range(PROMPT, PROMPT + 6)))
        embeds = torch.cat([model.get_prompt(2), model.word_embeddings(ids)], dim=1)
        embeds = embeds[:, [*order, *range(PROMPT + 6, PROMPT + 9)]]
        expected = model.get_base_model()(inputs_embeds=embeds).logits
    torch.testing.assert_close(torch.cat([first.logits, *rest], dim=1), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("task", AUTO)
@pytest.mark.parametrize("position", POSITIONS)
def test_saved_and_loaded_by_the_auto_classes(make_model, config, tmp_path, task, position):
    make_model(TASKS[task], config).save_pretrained(tmp_path / "base")
    model = with_prompt(TASKS[task].from_pretrained(tmp_path / "base"), position, task, prompt_dropout=0.1)
    model.save_pretrained(tmp_path / "adapter")
    saved = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())
    assert (saved["prompt_position"], saved["peft_type"]) == (position, "PLACED_PROMPT_TUNING")
    again = getattr(peft, f"AutoPeftModelFor{AUTO[task]}").from_pretrained(tmp_path / "adapter").eval()
    batch = inputs_of(task)
    torch.testing.assert_close(again(**batch).logits, model(**batch).logits, rtol=0, atol=1e-5)
    fresh = TASKS[task].from_pretrained(tmp_path / "base")
    torch.testing.assert_close(
        peft.PeftModel.from_pretrained(fresh, tmp_path / "adapter")(**batch).logits, model(**batch).logits
    )
    copied = copy.deepcopy(model)
    torch.testing.assert_close(copied(**batch).logits, model(**batch).logits, rtol=0, atol=0)


PUSH_AND_LOAD = """
import json, sys
import torch, peft, hyenadna_hf.training.prompt_position
from hyenadna_hf import HyenaDNAForCausalLM
base, adapter = sys.argv[1:]
model = peft.PeftModel.from_pretrained(HyenaDNAForCausalLM.from_pretrained(base), adapter)
model.push_to_hub("tester/adapter")
again = peft.AutoPeftModelForCausalLM.from_pretrained("tester/adapter").eval()
with torch.no_grad():
    print(json.dumps(again(input_ids=torch.arange(7, 11)[None]).logits.tolist()))
"""


def test_pushed_to_the_hub_and_loaded_from_there(make_model, config, tmp_path):
    make_model(HyenaDNAForCausalLM, config).save_pretrained(tmp_path / "base")
    model = with_prompt(HyenaDNAForCausalLM.from_pretrained(tmp_path / "base"))
    model.save_pretrained(tmp_path / "adapter")
    with serve():
        logits = result_of(PUSH_AND_LOAD, tmp_path / "base", tmp_path / "adapter")
    expected = model(input_ids=torch.arange(7, 11)[None]).logits
    torch.testing.assert_close(torch.tensor(logits), expected, rtol=0, atol=1e-5)


WITHOUT_REGISTRATION = """
import json, sys, peft
try:
    peft.AutoPeftModelForCausalLM.from_pretrained(sys.argv[1])
except Exception as error:
    print(json.dumps(repr(error)))
"""


def test_peft_refuses_the_adapter_where_it_is_not_registered(make_model, config, tmp_path):
    """It would put the prompt before the input."""
    make_model(HyenaDNAForCausalLM, config).save_pretrained(tmp_path / "base")
    with_prompt(HyenaDNAForCausalLM.from_pretrained(tmp_path / "base")).save_pretrained(tmp_path / "adapter")
    error = result_of(WITHOUT_REGISTRATION, tmp_path / "adapter")
    assert error == "KeyError('PLACED_PROMPT_TUNING')"
    with pytest.raises(ValueError, match="Not supported"):  # PEFT's class, and not ours
        config = PlacedPromptConfig(task_type="CAUSAL_LM", num_virtual_tokens=2, num_layers=1, token_dim=12)
        peft.PeftModelForCausalLM(AutoModelForCausalLM.from_pretrained(tmp_path / "base"), config)


@pytest.mark.parametrize("task", AUTO)
def test_prompts_of_peft_are_as_ever(make_model, config, task):
    base = make_model(TASKS[task], config)
    model = get_peft_model(base, PromptTuningConfig(task_type=task, num_virtual_tokens=PROMPT)).eval()
    batch = inputs_of(task)
    embeds = torch.cat([model.get_prompt(2), model.word_embeddings(batch["input_ids"])], dim=1)
    torch.testing.assert_close(model(**batch).logits, base(inputs_embeds=embeds).logits, rtol=0, atol=1e-6)
    placed = with_prompt(copy.deepcopy(base), "before", task)
    placed.prompt_encoder.default.embedding.weight.data = model.prompt_encoder.default.embedding.weight.data
    inputs = {name: batch[name] for name in ("input_ids", "attention_mask")}
    torch.testing.assert_close(placed(**inputs).logits, model(**inputs).logits, rtol=0, atol=1e-6)


@pytest.mark.parametrize("position", POSITIONS)
def test_recomputed_gradients_are_the_same(make_model, config, position):
    model = with_prompt(make_model(HyenaDNAForCausalLM, config), position)
    weight, batch = model.prompt_encoder.default.embedding.weight, inputs_of("CAUSAL_LM", length=40)
    model.train()(**batch).loss.backward()
    expected, weight.grad = weight.grad, None
    base = model.get_base_model()
    getattr(base, "activation_checkpointing_enable", base.gradient_checkpointing_enable)()
    model(**batch).loss.backward()
    torch.testing.assert_close(weight.grad, expected, rtol=0, atol=1e-6)


def test_only_the_prompt_is_dropped_and_only_in_training(make_model, config):
    base, seen = make_model(HyenaDNAForCausalLM, config), []
    model = with_prompt(base, "after", tokens=40, prompt_dropout=0.5)
    hook = lambda module, args, kwargs: seen.append(kwargs["inputs_embeds"].detach())  # noqa: E731
    base.register_forward_pre_hook(hook, with_kwargs=True)
    ids = torch.randint(7, 11, (2, 6))
    model.train()(input_ids=ids)
    model.eval()(input_ids=ids)
    weight = model.prompt_encoder.default.embedding.weight.detach().expand(2, -1, -1)
    kept = seen[0][:, 6:] != 0
    assert 0.3 < kept.float().mean() < 0.7
    torch.testing.assert_close(seen[0][:, 6:][kept], 2 * weight[kept])
    torch.testing.assert_close(seen[1], torch.cat([base.get_input_embeddings()(ids), weight], dim=1))
    torch.testing.assert_close(seen[0][:, :6], seen[1][:, :6])


def test_the_trainer_teaches_a_prompt_after_the_sequence_what_to_ask(make_model, config, tmp_path):
    """Rows of unequal lengths; the answer tells whether the last base is A."""
    model = with_prompt(make_model(HyenaDNAForCausalLM, config), "after")
    before = {name: parameter.clone() for name, parameter in model.named_parameters()}
    rows = []
    for i in range(64):
        ids = torch.cat([torch.randint(7, 11, (5 + i % 7,)), torch.tensor([7 if i % 2 else 9, 8 + i % 2])])
        rows.append({"input_ids": ids, "labels": torch.where(torch.arange(len(ids)) == len(ids) - 1, ids, -100)})
    arguments = TrainingArguments(
        str(tmp_path),
        max_steps=60,
        per_device_train_batch_size=16,
        learning_rate=0.1,
        report_to="none",
        logging_steps=1,
        dataloader_pin_memory=False,
        use_cpu=True,
        remove_unused_columns=False,
        save_steps=60,
    )
    collator = CausalCollator(HyenaDNATokenizer(model_max_length=70, padding_side="left"))
    trainer = Trainer(model, arguments, train_dataset=rows, data_collator=collator)
    trainer.train()
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    assert sum(losses[-5:]) < 0.7 * sum(losses[:5])
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter, before[name]) != parameter.requires_grad, name
    assert (tmp_path / "checkpoint-60" / "adapter_config.json").is_file()


TWO_PROCESSES = """
import sys, torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel
from hyenadna_hf import HyenaDNAForCausalLM
from hyenadna_hf.training.prompt_position import PlacedPromptConfig
from peft import PeftModel
dist.init_process_group("gloo")
base, adapter, batch, out = sys.argv[1:]
model = PeftModel.from_pretrained(HyenaDNAForCausalLM.from_pretrained(base), adapter)
weight = model.prompt_encoder.default.embedding.weight
weight.requires_grad_()
parallel, rank = DistributedDataParallel(model), dist.get_rank()
rows = {name: value[2 * rank : 2 * rank + 2] for name, value in torch.load(batch).items()}
parallel(**rows).loss.backward()
if rank == 0:
    torch.save(weight.grad, out)
dist.destroy_process_group()
"""


def test_two_processes_have_the_gradient_of_one(make_model, config, tmp_path):
    make_model(HyenaDNAForCausalLM, config).save_pretrained(tmp_path / "base")
    model = with_prompt(HyenaDNAForCausalLM.from_pretrained(tmp_path / "base"), "spread")
    model.save_pretrained(tmp_path / "adapter")
    batch = inputs_of("CAUSAL_LM", rows=4)
    batch = {name: F.pad(batch[name], (3, 0), value=fill) for name, fill in zip(batch, (PAD, 0, -100))}
    batch["attention_mask"][1, :5], batch["attention_mask"][3, :8] = 0, 0
    torch.save(batch, tmp_path / "batch")
    ran = run_ranks(TWO_PROCESSES, *(tmp_path / name for name in ("base", "adapter", "batch", "gradient")))
    assert ran.returncode == 0, ran.stderr[-3000:]
    model(**batch).loss.backward()
    expected = model.prompt_encoder.default.embedding.weight.grad
    torch.testing.assert_close(torch.load(tmp_path / "gradient"), expected, rtol=0, atol=1e-6)


def test_what_cannot_be_placed_is_refused(make_model, config):
    for options, message in (
        ({"prompt_position": "middle"}, "prompt_position='middle': choose one of before, after"),
        ({"prompt_dropout": 1.0}, "prompt_dropout=1.0: give a probability of at least 0"),
    ):
        with pytest.raises(ValueError, match=message):
            PlacedPromptConfig(task_type="CAUSAL_LM", num_virtual_tokens=2, **options)
    model = with_prompt(make_model(HyenaDNAForCausalLM, config))
    with pytest.raises(ValueError, match="position_ids: soft prompts do not support sequences that share a row"):
        model(input_ids=torch.tensor([[7, 8, 9, 7]]), position_ids=torch.tensor([[0, 1, 0, 1]]))
    gpt = GPT2LMHeadModel(GPT2Config(n_layer=1, n_embd=8, n_head=1, vocab_size=16, n_positions=32))
    with pytest.raises(ValueError, match="this is a gpt2 model.*use PromptTuningConfig"):
        with_prompt(gpt)
    config.num_prompt_tokens = PROMPT
    with pytest.raises(ValueError, match="num_prompt_tokens=5: this excludes the first positions from pooling"):
        with_prompt(make_model(HyenaDNAForSequenceClassification, config), "after", "SEQ_CLS")
    with_prompt(make_model(HyenaDNAForSequenceClassification, config), "before", "SEQ_CLS")
