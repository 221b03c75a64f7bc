import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoTokenizer

from hyenadna_hf import HyenaDNATokenizer
from hyenadna_hf.baselines.kmer_tokenizer import kmer_tokenizer

WORDS = kmer_tokenizer(3)
SINGLE = HyenaDNATokenizer()


@given(st.text("ACGTNacgtnURY\n -", max_size=40))
def test_words_of_k_bases_from_the_left_and_single_bases_beside(sequence):
    """Against a loop over what single-nucleotide tokens say."""
    letters, expected = SINGLE.tokenize(sequence), []
    while letters:
        k = 3 if len(letters) >= 3 and set(letters[:3]) <= set("ACGT") else 1
        expected.append("".join(letters[:k]))
        letters = letters[k:]
    assert WORDS.tokenize(sequence) == expected


def test_ids_are_those_of_single_nucleotides_and_words_behind_them():
    assert WORDS("AAAAACTTTNAC")["input_ids"] == [12, 13, 75, 11, 7, 8]
    assert len(WORDS) == 12 + 64
    assert WORDS.decode(WORDS("ACGTTNGA")["input_ids"]) == "ACGTTNGA"
    assert kmer_tokenizer(3, special_tokens_mode="cls_sep")("AAA")["input_ids"] == [0, 12, 1]


@pytest.mark.parametrize("special_tokens_mode", ["none", "sep"])
def test_it_saves_and_loads(special_tokens_mode, tmp_path):
    tokenizer = kmer_tokenizer(3, 50, special_tokens_mode)
    tokenizer.save_pretrained(tmp_path)
    again = AutoTokenizer.from_pretrained(tmp_path)
    sequences = ["acgtacgtn", "ACU"]
    assert again(sequences, padding=True).data == tokenizer(sequences, padding=True).data
    assert again(sequences, padding=True)["attention_mask"][1][0] == 0
    assert again.model_max_length == 50 and again.pad_token_id == 4
