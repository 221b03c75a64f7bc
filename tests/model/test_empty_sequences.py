"""A sequence without positions: refused alone, in words, and computed in a batch."""

import pytest
import torch
from plans import IN_PLACE, PIECES, ROWS, TRANSPARENT, WHOLE

from hyenadna_hf import (
    HyenaDNAForCausalLM,
    HyenaDNAForMaskedLM,
    HyenaDNAForSequenceClassification,
    HyenaDNAForTokenClassification,
    HyenaDNAModel,
    HyenaDNATokenizer,
)

HEADS = [
    HyenaDNAModel,
    HyenaDNAForCausalLM,
    HyenaDNAForMaskedLM,
    HyenaDNAForSequenceClassification,
    HyenaDNAForTokenClassification,
]
TOKENIZER = HyenaDNATokenizer()


@pytest.mark.parametrize("model_class", HEADS)
def test_alone(model_of, model_class):
    model = model_of(model_class)
    for dtype in (torch.long, torch.float32):  # the latter is what torch.tensor([[]]) has
        for inputs in (TOKENIZER("", return_tensors="pt"), TOKENIZER([""], padding=True, return_tensors="pt")):
            with pytest.raises(ValueError, match="no positions; leave empty sequences out"):
                model(**{name: value.to(dtype) for name, value in inputs.items()})
    with pytest.raises(ValueError, match="no positions"):
        model(inputs_embeds=torch.zeros(2, 0, 12))


@pytest.mark.parametrize("use_cache", [True, False])
def test_as_a_prompt(model_of, use_cache):
    model = model_of(HyenaDNAForCausalLM)
    with pytest.raises(ValueError, match="no positions"):
        model.generate(**TOKENIZER("", return_tensors="pt"), max_new_tokens=3, use_cache=use_cache)
    with pytest.raises(ValueError, match="no positions"):
        model.generate(torch.tensor([[]]), max_new_tokens=3, use_cache=use_cache)


@pytest.mark.parametrize("plan", [TRANSPARENT, WHOLE, ROWS, PIECES, IN_PLACE], ids=str)
@pytest.mark.parametrize("model_class", HEADS)
def test_in_a_batch(model_of, model_class, plan):
    model = model_of(model_class)
    inputs = TOKENIZER(["", "ACGTA", ""], padding=True, return_tensors="pt")
    with torch.no_grad():
        together = model(**inputs, plan=plan)[0]
        alone = model(**TOKENIZER("ACGTA", return_tensors="pt"))[0]
    assert together.isfinite().all()
    torch.testing.assert_close(together[1:2], alone, rtol=0, atol=1e-5)


@pytest.mark.parametrize("model_class", HEADS[1:])
def test_losses_and_gradients_of_a_batch(model_of, model_class):
    model = model_of(model_class).train()
    inputs = TOKENIZER(["", "ACGTA"], padding=True, return_tensors="pt")
    labels = inputs["input_ids"] % 2
    if model_class is HyenaDNAForSequenceClassification:
        labels = labels[:, 0]
    model(**inputs, labels=labels).loss.backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())
    assert model.get_input_embeddings().weight.grad[7].any()


@torch.no_grad()
def test_a_prompt_of_a_batch(model_of):
    model = model_of(HyenaDNAForCausalLM)
    options = {"max_new_tokens": 5, "do_sample": False, "eos_token_id": None}
    together = model.generate(**TOKENIZER(["", "ACGTA"], padding=True, return_tensors="pt"), **options)
    alone = model.generate(**TOKENIZER("ACGTA", return_tensors="pt"), **options)
    assert torch.equal(together[1:], alone) and together.shape == (2, 10)
