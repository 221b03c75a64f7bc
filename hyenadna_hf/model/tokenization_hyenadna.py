"""Tokenizer of HyenaDNA: one token a nucleotide, in Rust, with offsets."""

from tokenizers import Regex, Tokenizer, decoders, normalizers
from tokenizers.models import BPE
from tokenizers.processors import TemplateProcessing
from transformers import PreTrainedTokenizerFast

# The ids are frozen: they are the rows of every published embedding.
VOCABULARY = {
    "[CLS]": 0,
    "[SEP]": 1,
    "[BOS]": 2,
    "[MASK]": 3,
    "[PAD]": 4,
    "[RESERVED]": 5,
    "[UNK]": 6,
    "A": 7,
    "C": 8,
    "G": 9,
    "T": 10,
    "N": 11,
}

# IUPAC codes that stand for more than one nucleotide.
AMBIGUITY_CODES = "RYSWKMBDHV"

# What each mode puts around a sequence, and around a pair.
SPECIAL_TOKENS_MODES = {
    "none": ("$A", "$A $B"),
    "sep": ("$A [SEP]", "$A [SEP] $B [SEP]"),
    "cls_sep": ("[CLS] $A [SEP]", "[CLS] $A [SEP] $B [SEP]"),
}


class HyenaDNATokenizer(PreTrainedTokenizerFast):
    r"""
    One token a nucleotide, with the published ids.

    A, C, G, T and N have tokens of their own, in either case (soft-masked sequence is read like any other). U is read
    as T. The other IUPAC codes (R, Y, S, W, K, M, B, D, H, V) are read as `ambiguous_as`. Any other character,
    white space too, is one [UNK]. Padding goes to the left. Decoding puts no spaces between nucleotides.

    Args:
        model_max_length (`int`, *optional*):
            Longest sequence of the model, in tokens; used by `truncation=True`. Without limit by default.
        special_tokens_mode (`str`, defaults to `"none"`):
            What surrounds a sequence when `add_special_tokens` is true (the default of a tokenizer call):
            `"none"`: nothing, as in the paper's fine-tuning; `"sep"`: `sequence [SEP]`, as the published Hub
            tokenizer, and the default for its `tokenizer_config.json`; `"cls_sep"`: `[CLS] sequence [SEP]`, as the
            published colab tokenizer. Saved in `tokenizer_config.json`.
        ambiguous_as (`str`, defaults to `"N"`):
            Token of the ambiguous IUPAC codes: `"N"` or `"[UNK]"`.
        padding_side (`str`, defaults to `"left"`): Side to pad on.
        kwargs: Arguments of every fast tokenizer.

    Raises:
        ValueError: if `special_tokens_mode` or `ambiguous_as` is none of those named here.

    Example:

    ```python
    >>> tokenizer = HyenaDNATokenizer()
    >>> tokenizer("ACGTN acgu")["input_ids"]
    [7, 8, 9, 10, 11, 6, 7, 8, 9, 10]
    ```
    """

    model_input_names = ["input_ids", "attention_mask"]
    slow_tokenizer_class = None

    def __init__(
        self,
        model_max_length=None,
        special_tokens_mode=None,
        ambiguous_as="N",
        padding_side="left",
        unk_token="[UNK]",
        bos_token="[BOS]",
        eos_token="[SEP]",
        sep_token="[SEP]",
        cls_token="[CLS]",
        pad_token="[PAD]",
        mask_token="[MASK]",
        **kwargs,
    ):
        if special_tokens_mode is None:
            special_tokens_mode = "sep" if _is_published_config(kwargs) else "none"
        if special_tokens_mode not in SPECIAL_TOKENS_MODES:
            raise ValueError(
                f"special_tokens_mode={special_tokens_mode!r}: it must be one of {', '.join(SPECIAL_TOKENS_MODES)}."
            )
        if ambiguous_as not in ("N", "[UNK]"):
            raise ValueError(f"ambiguous_as={ambiguous_as!r}: it must be 'N' or '[UNK]'.")
        # The backend follows from the arguments alone; a tokenizer.json is written for other readers.
        for name in ("tokenizer_file", "tokenizer_object", "vocab", "merges", "vocab_file", "merges_file"):
            kwargs.pop(name, None)
        kwargs["clean_up_tokenization_spaces"] = False
        super().__init__(
            tokenizer_object=_build_backend(special_tokens_mode, ambiguous_as),
            model_max_length=model_max_length,
            special_tokens_mode=special_tokens_mode,
            ambiguous_as=ambiguous_as,
            padding_side=padding_side,
            unk_token=unk_token,
            bos_token=bos_token,
            eos_token=eos_token,
            sep_token=sep_token,
            cls_token=cls_token,
            pad_token=pad_token,
            mask_token=mask_token,
            **kwargs,
        )
        self.special_tokens_mode = special_tokens_mode
        self.ambiguous_as = ambiguous_as


def _is_published_config(kwargs):
    auto_map = kwargs.get("auto_map") or {}
    return "tokenization_hyena." in str(auto_map.get("AutoTokenizer"))


def _build_backend(special_tokens_mode, ambiguous_as):
    # BPE without merges: one token a character, and one [UNK] for each unknown one.
    backend = Tokenizer(BPE(VOCABULARY, merges=[], unk_token="[UNK]", fuse_unk=False))
    rules = [normalizers.Replace(nucleotide.lower(), nucleotide) for nucleotide in "ACGTN"]
    rules.append(normalizers.Replace(Regex("[Uu]"), "T"))
    if ambiguous_as == "N":
        rules.append(normalizers.Replace(Regex(f"[{AMBIGUITY_CODES}{AMBIGUITY_CODES.lower()}]"), "N"))
    backend.normalizer = normalizers.Sequence(rules)
    backend.decoder = decoders.Fuse()
    single, pair = SPECIAL_TOKENS_MODES[special_tokens_mode]
    backend.post_processor = TemplateProcessing(
        single=single,
        pair=pair,
        special_tokens=[(token, VOCABULARY[token]) for token in ("[CLS]", "[SEP]")],
    )
    return backend


__all__ = ["HyenaDNATokenizer"]
