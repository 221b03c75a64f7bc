"""Tokenizer of non-overlapping k-mers, for the ablation of single-nucleotide tokens."""

from itertools import product

from tokenizers import Regex, Tokenizer, decoders, pre_tokenizers
from tokenizers.models import WordLevel
from transformers import PreTrainedTokenizerFast

from ..data.sequence import BASES
from ..model.tokenization_hyenadna import VOCABULARY, HyenaDNATokenizer


def kmer_tokenizer(
    k: int = 6, model_max_length: int | None = None, special_tokens_mode: str = "none"
) -> PreTrainedTokenizerFast:
    """
    Build a tokenizer that splits sequences into non-overlapping words of k nucleotides, from the left.

    N, and bases that fill no word (up to k - 1 at the end or before an N), are one token each, with the ids of
    [`HyenaDNATokenizer`]. The words AA...A to TT...T follow, in alphabetical order. Case, U, ambiguity codes, special
    tokens and the padding side are treated as in [`HyenaDNATokenizer`]. Saved tokenizers load with `AutoTokenizer` and
    need no custom code.

    Args:
        k: Length of a word, in bases.
        model_max_length: Longest sequence of the model, in tokens.
        special_tokens_mode: Special tokens to add, as in [`HyenaDNATokenizer`].
    """
    single = HyenaDNATokenizer(special_tokens_mode=special_tokens_mode)
    words = ("".join(word) for word in product(BASES, repeat=k))
    vocabulary = {**VOCABULARY, **{word: len(VOCABULARY) + i for i, word in enumerate(words)}}
    backend = Tokenizer(WordLevel(vocabulary, unk_token="[UNK]"))
    backend.normalizer = single.backend_tokenizer.normalizer
    backend.pre_tokenizer = pre_tokenizers.Split(Regex(f"[{BASES}]{{{k}}}|(?m:.)"), "isolated")
    backend.post_processor = single.backend_tokenizer.post_processor
    backend.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        model_max_length=model_max_length,
        padding_side=single.padding_side,
        clean_up_tokenization_spaces=False,
        model_input_names=single.model_input_names,
        **single.special_tokens_map,
    )
