import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import DataCollatorForLanguageModeling

from hyenadna_hf import HyenaDNAForCausalLM, HyenaDNATokenizer
from hyenadna_hf.data.collators import CausalCollator, ClassificationCollator, MaskedCollator, mask_bases
from hyenadna_hf.data.sequence import reverse_complement

SEQUENCES = st.lists(st.text("ACGTNacgtnRU", min_size=1, max_size=40), min_size=1, max_size=5)


def encode(tokenizer, sequences):
    return [{"input_ids": tokenizer(sequence)["input_ids"]} for sequence in sequences]


@settings(max_examples=60)
@given(SEQUENCES, st.sampled_from(["left", "right"]), st.sampled_from(["none", "sep", "cls_sep"]), st.integers(1, 9))
def test_padding_is_that_of_the_tokenizer(sequences, side, mode, multiple):
    tokenizer = HyenaDNATokenizer(padding_side=side, special_tokens_mode=mode)
    expected = tokenizer(sequences, padding=True, pad_to_multiple_of=multiple, return_tensors="pt")
    batch = CausalCollator(tokenizer, pad_to_multiple_of=multiple)(encode(tokenizer, sequences))
    for name in ("input_ids", "attention_mask"):
        torch.testing.assert_close(batch[name], expected[name], rtol=0, atol=0)
    ids = batch["input_ids"]
    counted = (batch["attention_mask"] == 1) & (ids != 11)
    counted &= batch["attention_mask"].cumsum(1) > 1  # nothing predicts the first
    assert torch.equal(batch["labels"], ids.masked_fill(~counted, -100))


@settings(max_examples=60)
@given(SEQUENCES, st.sampled_from(["none", "sep", "cls_sep"]))
def test_the_other_strand_between_special_tokens(sequences, mode):
    tokenizer = HyenaDNATokenizer(special_tokens_mode=mode)
    batch = ClassificationCollator(tokenizer, reverse_complement=1.0)(encode(tokenizer, sequences))
    expected = tokenizer([reverse_complement(sequence) for sequence in sequences], padding=True, return_tensors="pt")
    assert torch.equal(batch["input_ids"], expected["input_ids"])


def test_about_half_of_the_sequences_are_turned():
    tokenizer = HyenaDNATokenizer()
    batch = ClassificationCollator(tokenizer, reverse_complement=0.5)(encode(tokenizer, ["AAAC"] * 1000))
    turned = (batch["input_ids"] == torch.tensor([9, 10, 10, 10])).all(1)
    assert 400 < turned.sum() < 600 and (batch["input_ids"][~turned] == torch.tensor([7, 7, 7, 8])).all()


@pytest.mark.parametrize(
    "labels, dtype, shape",
    [([1, 0], torch.long, (2,)), ([0.5, 2.0], torch.float, (2,)), ([[1, 0, 0], [0, 1, 1]], torch.float, (2, 3))],
)
@pytest.mark.parametrize("name", ["label", "labels"])
def test_labels_of_classifiers(labels, dtype, shape, name):
    tokenizer = HyenaDNATokenizer()
    examples = [{**example, name: label} for example, label in zip(encode(tokenizer, ["ACG", "T"]), labels)]
    batch = ClassificationCollator(tokenizer)(examples)
    assert batch["labels"].dtype == dtype and batch["labels"].shape == shape and batch["labels"].tolist() == labels
    assert set(batch) == {"input_ids", "attention_mask", "labels"}


def test_labels_that_a_data_set_leaves_out_stay_out():
    tokenizer = HyenaDNATokenizer(special_tokens_mode="sep")
    example = {"input_ids": tokenizer("AACNT")["input_ids"], "labels": [-100, 7, 8, 11, 10, 1]}
    collator = CausalCollator(tokenizer, ignore_n=False)
    assert collator([example])["labels"].tolist() == [[-100, 7, 8, 11, 10, 1]]
    collator.reverse_complement = 1.0
    assert collator([example])["labels"].tolist() == [[-100, 11, 9, 10, -100, 1]]
    collator.ignore_n = True
    assert collator([example])["labels"].tolist() == [[-100, -100, 9, 10, -100, 1]]


def test_padding_has_no_effect_on_the_loss(make_model, config):
    tokenizer = HyenaDNATokenizer()
    model = make_model(HyenaDNAForCausalLM, config, torch.float64)
    examples = encode(tokenizer, ["ACGTTNGCAT", "GATTACA"])
    few, many = (model(**CausalCollator(tokenizer, multiple)(examples)).loss for multiple in (None, 64))
    torch.testing.assert_close(few, many)


def test_masked_labels():
    tokenizer = HyenaDNATokenizer(special_tokens_mode="cls_sep")
    examples = encode(tokenizer, ["ACGTN" * 4000, "GN" * 3000])
    batch = MaskedCollator(tokenizer)(examples)
    original = tokenizer(["ACGTN" * 4000, "GN" * 3000], padding=True, return_tensors="pt")["input_ids"]
    ids, chosen = batch["input_ids"], batch["labels"] != -100
    assert torch.equal(ids[~chosen], original[~chosen]) and torch.equal(batch["labels"][chosen], original[chosen])
    is_base = (original >= 7) & (original <= 10)
    assert not (chosen & ~is_base).any()
    assert 0.13 < chosen.sum() / is_base.sum() < 0.17
    masked, kept = (ids[chosen] == 3).float().mean(), (ids[chosen] == original[chosen]).float().mean()
    assert 0.76 < masked < 0.84 and 0.09 < kept < 0.16  # a tenth, and a quarter of the random tenth
    assert torch.isin(ids[chosen], torch.tensor([3, 7, 8, 9, 10])).all()
    assert (MaskedCollator(tokenizer, probability=0.0)(examples)["labels"] == -100).all()


@given(st.text("ACGTN", min_size=1, max_size=60), st.floats(0.001, 0.999), st.integers(0, 2**64 - 1), st.booleans())
def test_masks_are_a_function_of_the_seed(sequence, probability, seed, training):
    ids = torch.tensor(HyenaDNATokenizer(special_tokens_mode="cls_sep")(sequence)["input_ids"])
    found = mask_bases(ids, probability, seed, training)
    torch.manual_seed(seed // 2)
    again = mask_bases(ids, probability, seed, training)
    assert torch.equal(found["input_ids"], again["input_ids"]) and torch.equal(found["labels"], again["labels"])
    predicted, is_base = found["labels"] != -100, (ids >= 7) & (ids <= 10)
    assert predicted.any() == is_base.any() and not (predicted & ~is_base).any()
    assert torch.equal(found["labels"][predicted], ids[predicted])
    assert torch.equal(found["input_ids"][~predicted], ids[~predicted])
    if training:
        assert torch.isin(found["input_ids"][predicted], torch.tensor([3, 7, 8, 9, 10])).all()
    else:
        assert (found["input_ids"][predicted] == 3).all()


def test_fractions_of_masks():
    ids = torch.full((40_000,), 8)
    for training, kinds in ((True, {3: 0.8, 8: 0.125, 7: 0.025, 9: 0.025, 10: 0.025}), (False, {3: 1.0})):
        found = mask_bases(ids, 0.25, 1, training)
        predicted = found["labels"] == 8
        assert abs(predicted.float().mean() - 0.25) < 0.01
        for kind, part in kinds.items():
            assert abs((found["input_ids"][predicted] == kind).float().mean() - part) < 0.02
    assert not torch.equal(mask_bases(ids, 0.25, 1)["labels"], mask_bases(ids, 0.25, 2)["labels"])


@pytest.mark.parametrize("side", ["left", "right"])
def test_the_masks_of_transformers_leave_special_tokens_out(side):
    """Its collator predicts N as well, and replaces by any token."""
    tokenizer = HyenaDNATokenizer(padding_side=side, special_tokens_mode="cls_sep")
    sequences = ["ACGTN" * 400, "GN" * 300]
    batch = DataCollatorForLanguageModeling(tokenizer, seed=0)(encode(tokenizer, sequences))
    original = tokenizer(sequences, padding=True, return_tensors="pt")["input_ids"]
    predicted = batch["labels"] != -100
    assert set(original[predicted].tolist()) == {7, 8, 9, 10, 11}
    assert torch.equal(batch["labels"][predicted], original[predicted])
    assert 0.13 < predicted.sum() / (original >= 7).sum() < 0.17
    assert 0.75 < (batch["input_ids"][predicted] == tokenizer.mask_token_id).float().mean() < 0.85
