"""What is particular to `bidirectional=True`: masks, pieces, the masked language model, and what is refused."""

from dataclasses import replace

import pytest
import reference
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from plans import IN_PLACE, LOW, PIECES, ROWS, TRANSPARENT, WHOLE
from transformers import AutoModelForMaskedLM, Trainer, TrainingArguments, set_seed

from hyenadna_hf import (
    HyenaDNAConfig,
    HyenaDNAForCausalLM,
    HyenaDNAForMaskedLM,
    HyenaDNAForSequenceClassification,
    HyenaDNAForTokenClassification,
    HyenaDNAModel,
    HyenaDNATokenizer,
)
from hyenadna_hf.data.collators import MaskedCollator
from hyenadna_hf.training.optimizer import parameter_groups

SIZES = {"d_model": 8, "n_layer": 2, "max_seq_len": 300, "filter_order": 8, "embed_dropout": 0.0, "num_labels": 3}


def build(model_class=HyenaDNAModel, **overrides):
    torch.manual_seed(1)
    config = HyenaDNAConfig(bidirectional=True, **{**SIZES, **overrides})
    return reference.randomise(model_class(config)).double().eval()


def masked_ids(rows, length, seed):
    generator = torch.Generator().manual_seed(seed)
    mask = torch.rand(rows, length, generator=generator) < 0.7
    mask[:, -1] = True
    return torch.randint(0, 16, (rows, length), generator=generator), mask


def test_both_sides_are_seen_and_a_causal_model_sees_one():
    ids = torch.randint(7, 11, (1, 21))
    for bidirectional in (True, False):
        torch.manual_seed(1)
        model = reference.randomise(HyenaDNAModel(HyenaDNAConfig(**SIZES, bidirectional=bidirectional))).eval()
        embeds = model.get_input_embeddings()(ids).detach().requires_grad_()
        model(inputs_embeds=embeds).last_hidden_state[0, 10].sum().backward()
        seen = embeds.grad[0].abs().sum(-1) > 1e-4
        assert seen[:11].all() and (seen[11:].all() if bidirectional else not seen[11:].any())


@settings(max_examples=30)
@given(st.integers(1, 4), st.integers(1, 60), st.integers(2, 3), st.integers(0, 999))
def test_a_masked_position_does_not_exist(rows, length, order, seed):
    """Hidden states against the float64 reference on the row without its masked positions."""
    model = build(hyena_order=order)
    ids, mask = masked_ids(rows, length, seed)
    parameters = reference.parameters(model)
    with torch.no_grad():
        together = model(ids, attention_mask=mask.long(), output_hidden_states=True).hidden_states
        for i, (row, real) in enumerate(zip(ids, mask)):
            alone = reference.hidden_states(parameters, model.config, row[real])
            for mine, expected in zip(together, alone, strict=True):
                torch.testing.assert_close(mine[i, real], expected, rtol=0, atol=1e-9)
                assert not mine[i, ~real].any()


@settings(max_examples=15)
@given(st.integers(1, 3), st.integers(1, 40), st.integers(0, 999))
def test_gradients_under_masks(rows, length, seed):
    model = build(HyenaDNAForTokenClassification)
    ids, mask = masked_ids(rows, length, seed)
    together = model(ids, attention_mask=mask, labels=ids % 3).loss * mask.sum()
    alone = sum(model(row[real][None], labels=row[real][None] % 3).loss * real.sum() for row, real in zip(ids, mask))
    for mine, expected in zip(*(torch.autograd.grad(loss, list(model.parameters())) for loss in (together, alone))):
        torch.testing.assert_close(mine, expected, rtol=0, atol=1e-6 * max(1.0, float(expected.abs().max())))


@pytest.mark.parametrize("order, short", [(2, 3), (3, 4), (2, 1)])
@pytest.mark.parametrize("length", [1, 2, 3, 29, 257])
@torch.no_grad()
def test_inference_in_place(length, order, short):
    model = build(hyena_order=order, short_filter_order=short, use_bias=order != 3)
    ids, mask = masked_ids(2, length, seed=3)
    for attention_mask in (None, mask):
        expected = model(ids, attention_mask, output_hidden_states=True, plan=TRANSPARENT).hidden_states
        for plan in (WHOLE, IN_PLACE, replace(IN_PLACE, keeps_spectra=True)):
            found = model(ids, attention_mask, output_hidden_states=True, plan=plan).hidden_states
            for mine, other in zip(found, expected, strict=True):
                torch.testing.assert_close(mine, other, rtol=0, atol=1e-9)


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("order", [2, 3])
@pytest.mark.parametrize("length", [1, 2, 8, 65, 258])
def test_training_in_pieces(length, order, checkpointing):
    ids, mask = masked_ids(2, length, seed=5)
    results = []
    for plan in (TRANSPARENT, ROWS, PIECES, LOW):
        model = build(hyena_order=order).train()
        if checkpointing and plan is not TRANSPARENT:
            # In transformers 4 the second name is the first one. Reentrant checkpoints free the graph that rows share.
            enable = getattr(model, "activation_checkpointing_enable", model.gradient_checkpointing_enable)
            enable({"use_reentrant": plan is not ROWS})
        hidden = model(ids, mask, plan=plan).last_hidden_state
        hidden.square().sum().backward()
        results.append([hidden.detach(), *(parameter.grad for parameter in model.parameters())])
    for expected, *found in zip(*results, strict=True):
        for mine in found:
            torch.testing.assert_close(mine, expected, rtol=1e-8, atol=1e-8)


def test_long_inputs_in_float32():
    """The pieces as they are, at a length beyond both limits, with padding."""
    torch.manual_seed(1)
    model = HyenaDNAModel(HyenaDNAConfig(bidirectional=True, d_model=32, max_seq_len=20_000, embed_dropout=0.0)).eval()
    ids, mask = torch.randint(7, 11, (2, 9001)), torch.ones(2, 9001)
    mask[0, :4000] = 0
    with torch.no_grad():
        in_place = model(ids, mask).last_hidden_state
        alone = model(ids[:1, 4000:]).last_hidden_state
    in_pieces = model(ids, mask).last_hidden_state
    torch.testing.assert_close(in_place[:1, 4000:], alone, rtol=0, atol=1e-4)
    torch.testing.assert_close(in_place, in_pieces, rtol=0, atol=1e-4)


class TestMaskedLanguageModel:
    def test_loss_is_that_of_the_masked_positions(self):
        model = build(HyenaDNAForMaskedLM)
        ids, mask = masked_ids(3, 40, seed=1)
        labels = ids.masked_fill(torch.rand(3, 40) < 0.7, -100)
        scored = (labels != -100) & mask
        output = model(ids, mask, labels=labels)
        expected = torch.nn.functional.cross_entropy(output.logits[scored], labels[scored])
        torch.testing.assert_close(output.loss.double(), expected, rtol=0, atol=1e-6)

    def test_it_learns_what_only_the_other_side_tells(self, tmp_path):
        """A or C, and the same base again four positions later: what tells the first one stands behind it."""
        set_seed(0)
        base = torch.randint(7, 9, (128, 1))
        unknown = torch.full_like(base, 11)
        rows = torch.cat([unknown, base, unknown, unknown, unknown, base], dim=1)
        model = HyenaDNAForMaskedLM(HyenaDNAConfig(bidirectional=True, **{**SIZES, "d_model": 32, "n_layer": 1}))
        arguments = TrainingArguments(
            str(tmp_path), max_steps=100, per_device_train_batch_size=32, learning_rate=5e-3, report_to="none",
            save_strategy="no", disable_tqdm=True, dataloader_pin_memory=False,
        )  # fmt: skip
        collator = MaskedCollator(HyenaDNATokenizer(), probability=0.3)
        Trainer(model, arguments, train_dataset=[{"input_ids": row} for row in rows], data_collator=collator).train()
        masked = rows.clone()
        masked[:, 1] = 3
        with torch.no_grad():
            predicted = model.eval()(masked).logits[:, 1].argmax(-1)
        assert (predicted == rows[:, 1]).all()

    def test_saved_and_loaded(self, tmp_path):
        model = build(HyenaDNAForMaskedLM).float()
        model.save_pretrained(tmp_path)
        ids = torch.randint(7, 11, (1, 20))
        again = AutoModelForMaskedLM.from_pretrained(tmp_path).eval()
        classifier = HyenaDNAForSequenceClassification.from_pretrained(tmp_path).eval()
        with torch.no_grad():
            assert torch.equal(again(ids).logits, model(ids).logits)
            assert torch.equal(classifier.hyena(ids)[0], model.hyena(ids)[0])

    def test_loaded_from_a_model_without_its_head(self, tmp_path):
        """The head is new, or shares the weights of the embedding."""
        ids = torch.randint(7, 11, (1, 20))
        for model_class, tied in ((HyenaDNAModel, False), (HyenaDNAForSequenceClassification, True)):
            saved = build(model_class, tie_word_embeddings=tied).float()
            saved.save_pretrained(tmp_path / str(tied))
            model, loading = AutoModelForMaskedLM.from_pretrained(tmp_path / str(tied), output_loading_info=True)
            assert set(loading["missing_keys"]) == (set() if tied else {"lm_head.weight"})
            with torch.no_grad():
                head = saved.get_input_embeddings().weight if tied else model.lm_head.weight
                expected = saved.base_model(ids).last_hidden_state @ head.T
                torch.testing.assert_close(model.eval()(ids).logits, expected)


def test_what_has_no_meaning_is_refused():
    ids = torch.randint(7, 11, (1, 20))
    with pytest.raises(ValueError, match="Use HyenaDNAForMaskedLM"):
        HyenaDNAForCausalLM(HyenaDNAConfig(bidirectional=True, **SIZES))
    with pytest.raises(ValueError, match="Set bidirectional=True"):
        HyenaDNAForMaskedLM(HyenaDNAConfig(**SIZES))
    with pytest.raises(ValueError, match="a bidirectional model has no state"):
        build()(ids, use_cache=True)
    with pytest.raises(ValueError, match="bidirectional='yes'"):
        HyenaDNAConfig(bidirectional="yes")


def test_filters_over_the_future_do_not_decay():
    model = build()
    _, _, filters = parameter_groups(model, weight_decay=0.1)
    names = {name for name, parameter in model.named_parameters() if any(parameter is p for p in filters["params"])}
    assert names == {name for name, _ in model.named_parameters() if ".filter_fn." in name or ".filter_fn_rev." in name}
    assert filters["weight_decay"] == 0
