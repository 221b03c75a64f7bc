import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hyenadna_hf import HyenaDNAForCausalLM, HyenaDNATokenizer
from hyenadna_hf.data.collators import CausalCollator, ClassificationCollator, MaskedCollator
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
