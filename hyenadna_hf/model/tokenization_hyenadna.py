"""Tokenizer of HyenaDNA: one token per nucleotide, implemented in Rust, with offsets."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NoReturn

import numpy as np
from tokenizers import Regex, Tokenizer, decoders, normalizers
from tokenizers.models import BPE
from tokenizers.processors import TemplateProcessing
from transformers import BatchEncoding, PreTrainedTokenizerFast
from transformers.tokenization_utils_base import TruncationStrategy
from transformers.utils import PaddingStrategy

# The ids are frozen, since they index the rows of every published embedding.
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

# Templates of a sequence and of a pair in each mode.
SPECIAL_TOKENS_MODES = {
    "none": ("$A", "$A $B"),
    "sep": ("$A [SEP]", "$A [SEP] $B [SEP]"),
    "cls_sep": ("[CLS] $A [SEP]", "[CLS] $A [SEP] $B [SEP]"),
}

# Arguments that transformers reads from tokenizer.json, a file written for other programs.
BACKEND_ARGUMENTS = (
    "tokenizer_file",
    "tokenizer_object",
    "post_processor",
    "vocab",
    "merges",
    "vocab_file",
    "merges_file",
)

# Arguments, besides return_tensors, of calls that the lookup table supports.
_LOOKUP_ARGUMENTS = {
    "add_special_tokens",
    "max_length",
    "padding",
    "padding_side",
    "return_attention_mask",
    "truncation",
}


class HyenaDNATokenizer(PreTrainedTokenizerFast):
    r"""
    Tokenizer with one token per nucleotide and the published ids.

    A, C, G, T and N have tokens, in upper and lower case (soft-masked sequence is read like any other). U is read as T,
    and the other IUPAC codes (R, Y, S, W, K, M, B, D, H, V) as `ambiguous_as`. Any other character, white space
    included, is [UNK]. Padding is on the left. Decoding adds no spaces between nucleotides.

    A call that requests tensors of plain sequences uses a lookup table, at the speed of memory and with the same
    tokens; offsets and the like are computed on demand. All other calls are tokenized in Rust.

    Args:
        model_max_length: Maximum sequence length of the model in tokens, used by `truncation=True`. Defaults to no
            limit.
        special_tokens_mode: Special tokens to add if `add_special_tokens` is true, as it is by default in a call.
            `"none"`: none, as in the fine-tuning of the paper. `"sep"`: `sequence [SEP]`, as in the published Hub
            tokenizer. `"cls_sep"`: `[CLS] sequence [SEP]`, as in the published Colab notebook. Saved in
            `tokenizer_config.json`. Defaults to `"none"`, and to `"sep"` with the published `tokenizer_config.json`.
        ambiguous_as: Token of the ambiguous IUPAC codes, `"N"` or `"[UNK]"`.
        padding_side: Side to pad on, `"left"` or `"right"`.
        unk_token, bos_token, eos_token, sep_token, cls_token, pad_token, mask_token: Special tokens.
        kwargs: Arguments of every fast tokenizer.

    Raises:
        ValueError: If `special_tokens_mode` or `ambiguous_as` is not one of the values listed here.

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
        model_max_length: int | None = None,
        special_tokens_mode: str | None = None,
        ambiguous_as: str = "N",
        padding_side: str = "left",
        unk_token: str = "[UNK]",
        bos_token: str = "[BOS]",
        eos_token: str = "[SEP]",
        sep_token: str = "[SEP]",
        cls_token: str = "[CLS]",
        pad_token: str = "[PAD]",
        mask_token: str = "[MASK]",
        **kwargs: Any,
    ) -> None:
        if special_tokens_mode is None:
            special_tokens_mode = "sep" if _is_published_config(kwargs) else "none"
        if special_tokens_mode not in SPECIAL_TOKENS_MODES:
            raise ValueError(
                f"special_tokens_mode={special_tokens_mode!r}: it must be one of {', '.join(SPECIAL_TOKENS_MODES)}."
            )
        if ambiguous_as not in ("N", "[UNK]"):
            raise ValueError(f"ambiguous_as={ambiguous_as!r}: it must be 'N' or '[UNK]'.")
        # The arguments alone define the backend.
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

    def __call__(self, text: Any = None, *args: Any, **kwargs: Any) -> BatchEncoding:
        if not args and self._is_in_table(text, **kwargs):
            arrays = self._look_up([text] if isinstance(text, str) else text, **kwargs)
            if arrays is not None:
                tensor_type = kwargs.pop("return_tensors")
                return _TableEncoding(arrays, tensor_type, partial(super().__call__, text, **kwargs))
        return super().__call__(text, *args, **kwargs)

    def train_new_from_iterator(self, *args: Any, **kwargs: Any) -> NoReturn:
        """Raise `ValueError`, since the tokens are the nucleotides."""
        raise ValueError(
            "HyenaDNATokenizer has one token per nucleotide, with the ids of every published embedding, so there is "
            "nothing to train. Use another tokenizer class for other tokens."
        )

    def _is_in_table(self, text: Any, return_tensors: Any = None, **kwargs: Any) -> bool:
        """Whether the lookup table supports the call."""
        texts = [text] if isinstance(text, str) else text
        return (
            return_tensors in ("pt", "np")
            and kwargs.keys() <= _LOOKUP_ARGUMENTS
            and isinstance(texts, (list, tuple))
            and len(texts) > 0
            and all(isinstance(item, str) and item and item.isascii() and "[" not in item for item in texts)
            and len(self) == len(VOCABULARY)
        )

    def _look_up(
        self, texts: Sequence[str], add_special_tokens: bool = True, padding: Any = False, truncation: Any = None,
        max_length: int | None = None, padding_side: str | None = None, return_attention_mask: bool | None = None,
        return_tensors: Any = None,
    ) -> dict[str, np.ndarray] | None:  # fmt: skip
        """Return arrays `(batch, length)` by name, or `None` if the Rust tokenizer must raise an error."""
        padding, truncation, max_length, _ = self._get_padding_truncation_strategies(
            padding=padding, truncation=truncation, max_length=max_length
        )
        template = SPECIAL_TOKENS_MODES[self.special_tokens_mode][0].split() if add_special_tokens else ["$A"]
        place = template.index("$A")
        before, after = ([VOCABULARY[token] for token in part] for part in (template[:place], template[place + 1 :]))
        rows = [np.frombuffer(text.encode("ascii"), np.uint8) for text in texts]
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


class _TableEncoding(BatchEncoding):
    """Encoding from the lookup table, which computes offsets and the like in Rust when first accessed."""

    _encode: Callable[[], BatchEncoding] | None = None
    _computed: Any = None

    def __init__(self, arrays: dict[str, np.ndarray], tensor_type: str, encode: Callable[[], BatchEncoding]) -> None:
        super().__init__(arrays, tensor_type=tensor_type, n_sequences=1)
        self._encode = encode

    @property
    def _encodings(self) -> Any:
        if self._computed is None and self._encode is not None:
            self._computed = self._encode().encodings
        return self._computed

    @_encodings.setter
    def _encodings(self, encodings: Any) -> None:
        self._computed = encodings

    def __getstate__(self) -> dict[str, Any]:
        return {"data": self.data, "encodings": self._computed}


def token_table(ambiguous_as: str) -> np.ndarray:
    """Return an array with the token id of each ASCII character."""
    table = np.full(128, VOCABULARY["[UNK]"])
    tokens = {"U": "T", **dict.fromkeys(AMBIGUITY_CODES, ambiguous_as), **{base: base for base in "ACGTN"}}
    for letter, token in tokens.items():
        table[[ord(letter), ord(letter.lower())]] = VOCABULARY[token]
    return table


def _is_published_config(kwargs: dict[str, Any]) -> bool:
    auto_map = kwargs.get("auto_map") or {}
    return "tokenization_hyena." in str(auto_map.get("AutoTokenizer"))


def _build_backend(special_tokens_mode: str, ambiguous_as: str) -> Tokenizer:
    # BPE without merges: one token per character, and one [UNK] per unknown character.
    backend = Tokenizer(BPE(VOCABULARY, merges=[], unk_token="[UNK]", fuse_unk=False))
    rules = [normalizers.Replace(nucleotide.lower(), nucleotide) for nucleotide in "ACGTN"]
    rules.append(normalizers.Replace(Regex("[Uu]"), "T"))
    if ambiguous_as == "N":
        rules.append(normalizers.Replace(Regex(f"[{AMBIGUITY_CODES}{AMBIGUITY_CODES.lower()}]"), "N"))
    backend.normalizer = normalizers.Sequence(rules)
    backend.decoder = decoders.Fuse()
    single, pair = SPECIAL_TOKENS_MODES[special_tokens_mode]
    backend.post_processor = TemplateProcessing(
        single=single, pair=pair, special_tokens=[(token, VOCABULARY[token]) for token in ("[CLS]", "[SEP]")]
    )
    return backend


__all__ = ["HyenaDNATokenizer"]
