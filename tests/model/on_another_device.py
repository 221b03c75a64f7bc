"""What runs where tensors of two devices may not meet; test_other_device.py runs it in a process of its own."""

import copy
from dataclasses import replace

import pytest
import torch
from other_device import ELSEWHERE, Device

from hyenadna_hf import (
    HyenaDNAForCausalLM,
    HyenaDNAForMaskedLM,
    HyenaDNAForSequenceClassification,
    HyenaDNAForTokenClassification,
    HyenaDNATokenizer,
)
from hyenadna_hf.data.fasta import Fasta
from hyenadna_hf.inference.attribution import attribute
from hyenadna_hf.inference.dependencies import dependency_map
from hyenadna_hf.inference.embed import embed
from hyenadna_hf.inference.likelihood import sequence_log_likelihood
from hyenadna_hf.inference.variant_effects import score_variant_effects
from hyenadna_hf.inference.variants import Variant


@pytest.fixture
def batch():
    """Rows with masked positions on the left and in a gap."""
    ids = torch.randint(7, 11, (3, 33))
    mask = torch.ones_like(ids)
    mask[1, :5] = mask[2, 10:14] = 0
    return {"input_ids": ids, "attention_mask": mask}


def moved(batch):
    return {name: tensor.to(ELSEWHERE) for name, tensor in batch.items()}


def test_tensors_of_two_devices_are_refused():
    with Device():
        tensor = torch.ones(3, device=ELSEWHERE)
        assert tensor.device == ELSEWHERE
        with pytest.raises(RuntimeError, match="some tensors are on elsewhere:0, others on the CPU"):
            tensor + torch.ones(3)


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("memory", ["auto", "low", "fast"])
@pytest.mark.parametrize("model_class", [HyenaDNAForCausalLM, HyenaDNAForMaskedLM])
def test_training(make_model, config, batch, model_class, memory, checkpointing):
    config.memory, config.bidirectional = memory, model_class is HyenaDNAForMaskedLM
    model = make_model(model_class, config).train()
    if checkpointing:
        getattr(model, "activation_checkpointing_enable", model.gradient_checkpointing_enable)()
    other = copy.deepcopy(model)
    batch["labels"] = batch["input_ids"].masked_fill(batch["attention_mask"] == 0, -100)
    plan = model.plan(**batch)  # a tensor of a Python class would have the transparent one
    loss = model(**batch, plan=plan).loss
    loss.backward()
    with Device():
        other.to(ELSEWHERE)
        loss_there = other(**moved(batch), plan=plan).loss
        loss_there.backward()
    torch.testing.assert_close(loss_there.on_cpu, loss)
    for expected, found in zip(model.parameters(), other.parameters()):
        largest = float(expected.grad.abs().max())
        torch.testing.assert_close(found.grad.on_cpu, expected.grad, rtol=0, atol=1e-5 * largest)


@pytest.mark.parametrize("memory", ["auto", "low", "fast"])
@pytest.mark.parametrize("model_class", [HyenaDNAForSequenceClassification, HyenaDNAForTokenClassification])
@torch.no_grad()
def test_inference(make_model, config, batch, model_class, memory):
    config.memory = memory
    model = make_model(model_class, config)
    plan = replace(model.plan(**batch), keeps_spectra=False)  # on a CPU only
    expected = model(**batch, plan=plan).logits
    with Device():
        found = model.to(ELSEWHERE)(**moved(batch), plan=plan).logits
    torch.testing.assert_close(found.on_cpu, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("arguments", [{}, {"use_cache": False}, {"num_beams": 3}])
def test_generation(make_model, config, batch, arguments):
    model = make_model(HyenaDNAForCausalLM, config)
    expected = model.generate(**batch, max_new_tokens=8, do_sample=False, **arguments)
    with Device():
        found = model.to(ELSEWHERE).generate(**moved(batch), max_new_tokens=8, do_sample=False, **arguments)
    assert torch.equal(found.on_cpu, expected)


def test_embeddings_and_likelihoods(make_model, config, monkeypatch):
    monkeypatch.setattr(torch, "inference_mode", torch.no_grad)  # that one refuses tensors of Python classes
    model, tokenizer = make_model(HyenaDNAForCausalLM, config), HyenaDNATokenizer(model_max_length=config.max_seq_len)
    sequences = ["ACGTTGCA" * 4, "GGCAN" * 20]

    def results():
        yield from embed(model, tokenizer, sequences, window=50)
        for found in sequence_log_likelihood(model, tokenizer, sequences, strands="both", window=50, stride=25):
            yield [found.log_likelihood]

    expected = list(results())
    with Device():
        model.to(ELSEWHERE)
        found = list(results())
    for one, other in zip(found, expected, strict=True):
        assert one == pytest.approx(other, rel=1e-5, abs=1e-5)


def test_effects_of_changes(make_model, config, monkeypatch, tmp_path):
    monkeypatch.setattr(torch, "inference_mode", lambda mode=True: torch.no_grad() if mode else torch.enable_grad())
    model, tokenizer = make_model(HyenaDNAForCausalLM, config), HyenaDNATokenizer(model_max_length=config.max_seq_len)
    sequence = "ACGTTGCAGGCANTTACCAG" * 3
    (tmp_path / "x.fa").write_text(f">one\n{sequence}\n")
    variants = [Variant("one", 20, "A", "G"), Variant("one", 21, "CGT", "C")]

    def results():
        with Fasta(tmp_path / "x.fa") as fasta:
            for effect in score_variant_effects(model, tokenizer, variants, fasta, window=40):
                yield list(effect.scores.values())
        yield dependency_map(model, tokenizer, sequence, 30, 35).ravel()
        for method in ("input_x_gradient", "integrated_gradients", "mutagenesis"):
            yield attribute(model, tokenizer, sequence[:20], method, references=2, steps=3)

    expected = list(results())
    with Device():
        model.to(ELSEWHERE)
        found = list(results())
    for one, other in zip(found, expected, strict=True):
        assert one == pytest.approx(other, rel=1e-3, abs=1e-3, nan_ok=True)
