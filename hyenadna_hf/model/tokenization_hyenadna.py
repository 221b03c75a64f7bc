"""Tokenizer of HyenaDNA: one token a nucleotide, in Rust, with offsets."""

from functools import partial

import numpy as np
from tokenizers import Regex, Tokenizer, decoders, normalizers
from tokenizers.models import BPE
from tokenizers.processors import TemplateProcessing
from transformers import BatchEncoding, PreTrainedTokenizerFast
from transformers.tokenization_utils_base import TruncationStrategy
from transformers.utils import PaddingStrategy

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

# What transformers reads from a tokenizer.json, which is written for other readers.
BACKEND_ARGUMENTS = (
    "tokenizer_file",
    "tokenizer_object",
    "post_processor",
    "vocab",
    "merges",
    "vocab_file",
    "merges_file",
)

# What a call may say besides return_tensors to be answered from the table.
_LOOK_UP_ARGUMENTS = {
    "add_special_tokens",
    "max_length",
    "padding",
    "padding_side",
    "return_attention_mask",
    "truncation",
}


class HyenaDNATokenizer(PreTrainedTokenizerFast):
    r"""
    One token a nucleotide, with the published ids.

    A, C, G, T and N have tokens of their own, in either case (soft-masked sequence is read like any other). U is read
    as T. The other IUPAC codes (R, Y, S, W, K, M, B, D, H, V) are read as `ambiguous_as`. Any other character,
    white space too, is one [UNK]. Padding goes to the left. Decoding puts no spaces between nucleotides.

    A call for tensors of plain sequences is answered from a table, at the speed of memory, with the same tokens;
    offsets and the like are made when they are asked for. Everything else is done in Rust.

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
        # The backend follows from the arguments alone.
        for name in BACKEND_ARGUMENTS:
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
        self._table = token_table(ambiguous_as)

    def __call__(self, text=None, *args, **kwargs):
        if not args and self._is_in_table(text, **kwargs):
            arrays = self._look_up([text] if isinstance(text, str) else text, **kwargs)
            if arrays is not None:
                in_rust = {**kwargs, "return_tensors": None}
                return _LookedUp(arrays, kwargs["return_tensors"], partial(super().__call__, text, **in_rust))
        return super().__call__(text, *args, **kwargs)

    def train_new_from_iterator(self, *args, **kwargs):
        """Refused: the tokens are the nucleotides."""
        raise ValueError(
            "HyenaDNATokenizer has a token for each nucleotide, with the ids of every published embedding, so there is "
            "nothing to train. For other tokens take another tokenizer class."
        )

    def _is_in_table(self, text, return_tensors=None, **kwargs):
        """Whether the table has all that is asked for."""
        texts = [text] if isinstance(text, str) else text
        return (
            return_tensors in ("pt", "np")
            and kwargs.keys() <= _LOOK_UP_ARGUMENTS
            and isinstance(texts, (list, tuple))
            and len(texts) > 0
            and all(isinstance(one, str) and one and one.isascii() and "[" not in one for one in texts)
            and len(self) == len(VOCABULARY)
        )

    def _look_up(
        self, texts, add_special_tokens=True, padding=False, truncation=None, max_length=None, padding_side=None,
        return_attention_mask=None, return_tensors=None,
    ):  # fmt: skip
        """Arrays `(batch, length)` by name; `None` where Rust has the error that is due."""
        padding, truncation, max_length, _ = self._get_padding_truncation_strategies(
            padding=padding, truncation=truncation, max_length=max_length
        )
        template = SPECIAL_TOKENS_MODES[self.special_tokens_mode][0].split() if add_special_tokens else ["$A"]
        place = template.index("$A")
        before, after = ([VOCABULARY[token] for token in part] for part in (template[:place], template[place + 1 :]))
        rows = [np.frombuffer(one.encode("ascii"), np.uint8) for one in texts]
        if truncation != TruncationStrategy.DO_NOT_TRUNCATE:
            room = max_length - len(before) - len(after)
            if room < 0:
                return None
            rows = [row[:room] if self.truncation_side == "right" else row[max(0, len(row) - room) :] for row in rows]
        lengths = [len(before) + len(row) + len(after) for row in rows]
        least = {PaddingStrategy.LONGEST: max(lengths), PaddingStrategy.MAX_LENGTH: max_length}.get(padding, 0)
        width, *others = {max(length, least) for length in lengths}
        if others:
            return None
        ids, mask = np.empty((len(rows), width), np.int64), np.ones((len(rows), width), np.int64)
        for i, (row, length) in enumerate(zip(rows, lengths)):
            first = width - length if (padding_side or self.padding_side) == "left" else 0
            for pads in (slice(first), slice(first + length, None)):
                ids[i, pads], mask[i, pads] = self.pad_token_id, 0
            begin, end = first + len(before), first + length - len(after)
            ids[i, first:begin], ids[i, end : first + length] = before, after
            np.take(self._table, row, out=ids[i, begin:end], mode="clip")
            self._eventual_warn_about_too_long_sequence(range(length), max_length, True)
        return {"input_ids": ids} if return_attention_mask is False else {"input_ids": ids, "attention_mask": mask}


class _LookedUp(BatchEncoding):
    """An encoding without the offsets and the like of Rust, until they are asked for; a copy has them if they were."""

    _in_rust = _made = None

    def __init__(self, arrays, tensor_type, in_rust):
        super().__init__(arrays, tensor_type=tensor_type, n_sequences=1)
        self._in_rust = in_rust

    @property
    def _encodings(self):
        if self._made is None and self._in_rust is not None:
            self._made = self._in_rust().encodings
        return self._made

    @_encodings.setter
    def _encodings(self, encodings):
        self._made = encodings

    def __getstate__(self):
        return {"data": self.data, "encodings": self._made}


def token_table(ambiguous_as):
    """The token of each ASCII character."""
    table = np.full(128, VOCABULARY["[UNK]"])
    same = {"U": "T", **dict.fromkeys(AMBIGUITY_CODES, ambiguous_as), **{base: base for base in "ACGTN"}}
    for letter, token in same.items():
        table[[ord(letter), ord(letter.lower())]] = VOCABULARY[token]
    return table


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
