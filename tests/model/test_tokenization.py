import copy
import pickle

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer, PreTrainedTokenizerFast
from transformers.utils import logging

from hyenadna_hf import HyenaDNATokenizer
from hyenadna_hf.model.tokenization_hyenadna import _TableEncoding

IDS = {"[CLS]": 0, "[SEP]": 1, "[BOS]": 2, "[MASK]": 3, "[PAD]": 4, "[RESERVED]": 5, "[UNK]": 6}
IDS.update(A=7, C=8, G=9, T=10, N=11)
IUPAC = dict.fromkeys("RYSWKMBDHV", 11)
TOKENIZER = HyenaDNATokenizer()


def test_ids_are_the_published_ones():
    assert TOKENIZER.get_vocab() == IDS
    assert len(TOKENIZER) == 12
    for name in ("bos", "eos", "sep", "cls", "pad", "mask", "unk"):
        token = {"eos": "[SEP]"}.get(name, f"[{name.upper()}]")
        assert getattr(TOKENIZER, f"{name}_token_id") == IDS[token]


@given(st.text(alphabet="ACGTUNRYSWKMBDHVacgtunryswkmbdhvXZ1.-* \n\té", max_size=60))
def test_one_token_a_character_with_its_offset(text):
    expected = [{**IDS, **IUPAC, "U": 10}.get(c.upper(), 6) for c in text]
    encoding = TOKENIZER(text, return_offsets_mapping=True)
    assert encoding["input_ids"] == expected
    assert encoding["offset_mapping"] == [(i, i + 1) for i in range(len(text))]
    assert encoding["attention_mask"] == [1] * len(text)


@given(st.text(alphabet="ACGTNacgtn", max_size=200))
def test_decoding_gives_the_sequence_without_spaces(sequence):
    assert TOKENIZER.decode(TOKENIZER(sequence)["input_ids"]) == sequence.upper()


def test_special_tokens_in_text_and_in_decoding():
    ids = TOKENIZER("[BOS]AC[MASK]G[SEP]")["input_ids"]
    assert ids == [2, 7, 8, 3, 9, 1]
    assert TOKENIZER.decode(ids) == "[BOS]AC[MASK]G[SEP]"
    assert TOKENIZER.decode(ids, skip_special_tokens=True) == "ACG"
    assert set(TOKENIZER.all_special_ids) == {0, 1, 2, 3, 4, 6}


@pytest.mark.parametrize(
    "mode, single, pair",
    [("none", [7, 8], [7, 8, 9]), ("sep", [7, 8, 1], [7, 8, 1, 9, 1]), ("cls_sep", [0, 7, 8, 1], [0, 7, 8, 1, 9, 1])],
)
def test_modes_of_special_tokens_are_saved(tmp_path, mode, single, pair):
    HyenaDNATokenizer(model_max_length=10, special_tokens_mode=mode, ambiguous_as="[UNK]").save_pretrained(tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    assert isinstance(tokenizer, HyenaDNATokenizer)
    assert tokenizer("ac")["input_ids"] == single
    assert tokenizer("ac", "g")["input_ids"] == pair
    assert tokenizer("ac", add_special_tokens=False)["input_ids"] == [7, 8]
    assert tokenizer("R")["input_ids"][-2 if mode != "none" else -1] == 6
    assert len(tokenizer("ACGT" * 9, truncation=True)["input_ids"]) == tokenizer.model_max_length == 10


def test_padding_is_on_the_left():
    batch = TOKENIZER(["ACG", "T"], padding=True)
    assert batch["input_ids"] == [[7, 8, 9], [4, 4, 10]]
    assert batch["attention_mask"] == [[1, 1, 1], [0, 0, 1]]


def test_added_tokens_survive_a_round_trip(tmp_path):
    tokenizer = HyenaDNATokenizer()
    tokenizer.add_tokens(["X"])
    tokenizer.save_pretrained(tmp_path)
    assert AutoTokenizer.from_pretrained(tmp_path)("AX")["input_ids"] == [7, 12]


def test_published_folders_keep_their_behaviour(shared):
    for folder in sorted((shared / "reference" / "hub_files").iterdir()):
        tokenizer = AutoTokenizer.from_pretrained(folder)
        assert isinstance(tokenizer, HyenaDNATokenizer)
        assert tokenizer("ACGTN")["input_ids"] == [7, 8, 9, 10, 11, 1]
        assert tokenizer.padding_side == "left" and tokenizer.model_max_length > 1000


@pytest.mark.parametrize("argument", [{"special_tokens_mode": "eos"}, {"ambiguous_as": "A"}])
def test_bad_arguments_are_named(argument):
    with pytest.raises(ValueError, match=next(iter(argument))):
        HyenaDNATokenizer(**argument)


MODES = [{}, {"special_tokens_mode": "sep"}, {"special_tokens_mode": "cls_sep"}, {"ambiguous_as": "[UNK]"}]


@settings(max_examples=150)
@given(
    st.lists(st.text("ACGTUNacgtunRYKMryk -.*x", min_size=1, max_size=40), min_size=1, max_size=5),
    st.sampled_from(MODES),
    st.fixed_dictionaries(
        {"return_tensors": st.sampled_from(["pt", "np"])},
        optional={
            "add_special_tokens": st.booleans(),
            "padding": st.sampled_from([True, False, "longest", "max_length"]),
            "truncation": st.sampled_from([True, False, None, "longest_first"]),
            "max_length": st.integers(2, 50),
            "padding_side": st.sampled_from(["left", "right"]),
            "return_attention_mask": st.booleans(),
        },
    ),
    st.sampled_from(["left", "right"]),
)
def test_the_table_gives_what_rust_gives(texts, mode, arguments, truncation_side):
    tokenizer = HyenaDNATokenizer(model_max_length=45, truncation_side=truncation_side, **mode)
    for text in (texts, texts[0], tuple(texts)):
        try:
            expected = PreTrainedTokenizerFast.__call__(tokenizer, text, **arguments)
        except ValueError:
            with pytest.raises(ValueError):
                tokenizer(text, **arguments)
            continue
        found = tokenizer(text, **arguments)
        ragged = expected["input_ids"].dtype == object  # NumPy's way, where PyTorch has an error
        assert isinstance(found, _TableEncoding) != ragged
        if ragged:
            continue
        assert found.keys() == expected.keys()
        for name in expected:
            assert type(found[name]) is type(expected[name]) and found[name].dtype == expected[name].dtype
            assert found[name].tolist() == expected[name].tolist()
        assert [found.tokens(i) for i in range(len(expected.encodings))] == [e.tokens for e in expected.encodings]
        assert found.is_fast and found.char_to_token(0, 0) == expected.char_to_token(0, 0)


@pytest.mark.parametrize("text, arguments", [
    ("ACGT", {"return_offsets_mapping": True}),
    ("ACGT", {"text_pair": "ACG"}),
    ("ACGT", {"pad_to_multiple_of": 8, "padding": True}),
    ("[CLS]ACGT[SEP]", {}),
    ("ACGT\u00e9", {}),
    ([["A", "C"]], {"is_split_into_words": True}),
])  # fmt: skip
def test_what_the_table_does_not_have_is_done_in_rust(text, arguments):
    tokenizer = HyenaDNATokenizer()
    arguments = {"return_tensors": "pt", **arguments}
    expected = PreTrainedTokenizerFast.__call__(tokenizer, text, **arguments)
    found = tokenizer(text, **arguments)
    assert found["input_ids"].tolist() == expected["input_ids"].tolist() and found.keys() == expected.keys()


def test_added_tokens_are_found():
    tokenizer = HyenaDNATokenizer()
    tokenizer.add_tokens(["CG"])
    assert tokenizer("ACGT", return_tensors="np")["input_ids"].tolist() == [[7, 12, 10]]


def test_an_answer_of_the_table_can_be_pickled_and_moved():
    encoding = HyenaDNATokenizer()(["ACGT", "AC"], padding=True, return_tensors="pt")
    for other in (pickle.loads(pickle.dumps(encoding)), copy.deepcopy(encoding), encoding.to("cpu")):
        assert other["input_ids"].tolist() == [[7, 8, 9, 10], [4, 4, 7, 8]]
    assert encoding.tokens(1) == ["[PAD]", "[PAD]", "A", "C"]
    assert pickle.loads(pickle.dumps(encoding)).tokens(1) == ["[PAD]", "[PAD]", "A", "C"]


def test_warns_of_sequences_that_are_too_long_for_the_model(caplog):
    logging.enable_propagation()
    HyenaDNATokenizer(model_max_length=10)("ACGT" * 4, return_tensors="pt")
    logging.disable_propagation()
    assert "longer than the specified maximum sequence length" in caplog.text


@pytest.mark.parametrize("saved", ["none", "sep", "cls_sep"])
@pytest.mark.parametrize("wanted", ["none", "sep", "cls_sep"])
def test_another_mode_can_be_asked_for_on_loading(tmp_path, saved, wanted):
    HyenaDNATokenizer(special_tokens_mode=saved).save_pretrained(tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path, special_tokens_mode=wanted)
    expected = {"none": [7, 8], "sep": [7, 8, 1], "cls_sep": [0, 7, 8, 1]}[wanted]
    assert tokenizer("AC")["input_ids"] == expected
    assert tokenizer("AC", return_tensors="np")["input_ids"].tolist() == [expected]


def test_there_is_nothing_to_train():
    with pytest.raises(ValueError, match="nothing to train"):
        HyenaDNATokenizer().train_new_from_iterator(["ACGT"], 100)
