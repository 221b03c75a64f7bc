import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoTokenizer

from hyenadna_hf import HyenaDNATokenizer

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
