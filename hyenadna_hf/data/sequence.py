"""Nucleotide letters, their complements, and their tokens."""

import re

import numpy as np
import torch

from ..model.tokenization_hyenadna import AMBIGUITY_CODES, VOCABULARY, token_table

BASES = "ACGT"
# IUPAC codes: the bases, U, N, and the codes for two or three bases.
NUCLEOTIDES = f"{BASES}UN{AMBIGUITY_CODES}"
COMPLEMENTS = "TGCAANYRSWMKVHDB"

NOT_A_NUCLEOTIDE = re.compile(f"[^{NUCLEOTIDES}{NUCLEOTIDES.lower()}]")

IGNORED = -100  # label that losses ignore

_COMPLEMENT = str.maketrans(NUCLEOTIDES + NUCLEOTIDES.lower(), COMPLEMENTS + COMPLEMENTS.lower())

# Tokens of nucleotides, and the complement of every token (special tokens are their own).
NUCLEOTIDE_IDS = tuple(VOCABULARY[letter] for letter in f"{BASES}N")
COMPLEMENT_IDS = torch.arange(len(VOCABULARY))
COMPLEMENT_IDS[list(NUCLEOTIDE_IDS)] = torch.tensor(
    [VOCABULARY[letter] for letter in f"{BASES}N".translate(_COMPLEMENT)]
)


def normalise(sequence: str) -> str:
    """
    Normalise the spelling of a sequence for comparison: upper case, and T for U.

    Args:
        sequence: IUPAC nucleotide codes in either case. Other characters are unchanged.

    Returns:
        A string of the same length.
    """
    return sequence.upper().replace("U", "T")


def reverse_complement(sequence: str) -> str:
    """
    Reverse-complement a sequence.

    Args:
        sequence: IUPAC nucleotide codes in either case; U pairs with A. Other characters are unchanged.

    Returns:
        A string of the same length. Each letter has the case of its partner.
    """
    return sequence.translate(_COMPLEMENT)[::-1]


def shared_prefix_length(sequences: list[str]) -> int:
    """Return the number of characters with which all sequences begin."""
    first, last = min(sequences), max(sequences)  # in alphabetical order, those between share what these two do
    return next((i for i, (a, b) in enumerate(zip(first, last)) if a != b), len(first))


_TOKENS = token_table(ambiguous_as="N")
_COMPLEMENTARY_TOKENS = COMPLEMENT_IDS.numpy()[_TOKENS]


def token_ids(sequence: str, reverse_complemented: bool = False) -> np.ndarray:
    """
    Tokenize a long sequence like `HyenaDNATokenizer`, without special tokens.

    Args:
        sequence: ASCII letters.
        reverse_complemented: Tokenize the reverse complement.

    Returns:
        Token ids, type `int64`, shape `(length,)`.
    """
    letters = np.frombuffer(sequence.encode("ascii"), np.uint8)
    table = _COMPLEMENTARY_TOKENS if reverse_complemented else _TOKENS
    return table[letters[::-1] if reverse_complemented else letters]


def reverse_complement_ids(ids: torch.Tensor) -> torch.Tensor:
    """
    Reverse-complement token ids; special tokens around the nucleotides keep their positions.

    Args:
        ids: Token ids of one sequence, shape `(length,)`.

    Returns:
        Token ids, shape `(length,)`.
    """
    is_nucleotide = ids >= min(NUCLEOTIDE_IDS)
    result = ids.clone()
    result[is_nucleotide] = COMPLEMENT_IDS.to(ids.device)[ids[is_nucleotide].flip(0)]
    return result
