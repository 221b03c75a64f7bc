"""A keyword argument that means nothing is an error; those of collators, the Trainer and PEFT pass."""

import pytest
import torch
from peft import PromptTuningConfig, get_peft_model
from transformers import pipeline

from hyenadna_hf import (
    HyenaDNAForCausalLM,
    HyenaDNAForMaskedLM,
    HyenaDNAForSequenceClassification,
    HyenaDNAForTokenClassification,
    HyenaDNAModel,
    HyenaDNATokenizer,
)

TOKEN_LOSSES = [HyenaDNAForCausalLM, HyenaDNAForMaskedLM, HyenaDNAForTokenClassification]
HEADS = [HyenaDNAModel, HyenaDNAForSequenceClassification, *TOKEN_LOSSES]
IDS = torch.tensor([[7, 8, 9, 10, 11, 7]])


@pytest.mark.parametrize("arguments", [
    {"attenton_mask": torch.ones(1, 6)}, {"foo": 1}, {"foo": None}, {"position_id": None}, {"label": IDS},
    {"head_mask": torch.ones(2)}, {"cache_position": torch.arange(6)}, {"token_type_ids": torch.zeros_like(IDS)},
], ids=str)  # fmt: skip
@pytest.mark.parametrize("model_class", HEADS)
def test_unknown_ones_are_named(model_of, model_class, arguments):
    [name] = arguments
    with pytest.raises(TypeError, match=rf"{model_class.__name__}\.forward\(\).*unexpected keyword.* {name}\.$"):
        model_of(model_class)(IDS, **arguments)


def test_all_of_them_are_named(model_of):
    with pytest.raises(TypeError, match="foo, bar"):
        model_of(HyenaDNAForCausalLM)(IDS, foo=1, position_ids=None, bar=None)


def test_labels_are_for_heads_and_counts_for_losses_of_tokens(model_of):
    with pytest.raises(TypeError, match="labels"):
        model_of(HyenaDNAModel)(IDS, labels=IDS)
    for model_class in (HyenaDNAModel, HyenaDNAForSequenceClassification):
        with pytest.raises(TypeError, match="num_items_in_batch"):
            model_of(model_class)(IDS, num_items_in_batch=3)


@pytest.mark.parametrize("model_class", HEADS)
def test_those_of_collators_change_nothing_for_one_sequence(model_of, model_class):
    model = model_of(model_class)
    edges = torch.tensor([0, 6], dtype=torch.int32)
    out = model(
        IDS, position_ids=torch.arange(6)[None], seq_idx=torch.zeros(1, 6, dtype=torch.int32), cu_seq_lens_q=edges,
        cu_seq_lens_k=edges, max_length_q=6, max_length_k=6, token_type_ids=None, output_attentions=False,
        return_dict=True,
    )  # fmt: skip
    assert torch.equal(out[0], model(IDS)[0])


@pytest.mark.parametrize("model_class", TOKEN_LOSSES)
def test_the_count_of_the_trainer(model_of, model_class):
    model = model_of(model_class)
    labels = IDS % 2
    total = model(IDS, labels=labels).loss * (5 if model_class is HyenaDNAForCausalLM else 6)
    for count in (12, torch.tensor(12)):
        torch.testing.assert_close(model(IDS, labels=labels, num_items_in_batch=count).loss, total / 12)
    torch.testing.assert_close(model(IDS, labels=labels, num_items_in_batch=None).loss, model(IDS, labels=labels).loss)


@pytest.mark.parametrize("model_class, task", [
    (HyenaDNAForCausalLM, "CAUSAL_LM"),
    (HyenaDNAForSequenceClassification, "SEQ_CLS"),
    (HyenaDNAForTokenClassification, "TOKEN_CLS"),
])  # fmt: skip
def test_prompt_tuning(model_of, model_class, task):
    model = get_peft_model(model_of(model_class), PromptTuningConfig(task_type=task, num_virtual_tokens=3))
    labels = torch.tensor([1]) if task == "SEQ_CLS" else IDS % 2
    for mask in (None, torch.tensor([[0, 1, 1, 1, 1, 1]])):
        out = model(input_ids=IDS, attention_mask=mask, labels=labels)
        assert out.loss.isfinite()
        [prompt] = torch.autograd.grad(out.loss, [p for p in model.parameters() if p.requires_grad][:1])
        assert prompt.any()
    with pytest.raises(TypeError, match="foo"):
        model(input_ids=IDS, foo=1)


@pytest.mark.parametrize("task, model_class", [
    ("text-generation", HyenaDNAForCausalLM),
    ("text-classification", HyenaDNAForSequenceClassification),
    ("token-classification", HyenaDNAForTokenClassification),
    ("fill-mask", HyenaDNAForMaskedLM),
    ("feature-extraction", HyenaDNAModel),
])  # fmt: skip
def test_pipelines(model_of, task, model_class):
    run = pipeline(task, model=model_of(model_class), tokenizer=HyenaDNATokenizer())
    options = {"max_new_tokens": 3} if task == "text-generation" else {}
    assert run("AC[MASK]TA" if task == "fill-mask" else "ACGTA", **options)
