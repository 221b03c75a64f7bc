"""Nucleotide letters: which there are, their complements, and their tokens."""

import re

import numpy as np
import torch

from ..model.tokenization_hyenadna import AMBIGUITY_CODES, VOCABULARY, token_table

BASES = "ACGT"
# The IUPAC codes: the bases with U, N, and those that stand for two or three bases.
NUCLEOTIDES = f"{BASES}UN{AMBIGUITY_CODES}"
COMPLEMENTS = "TGCAANYRSWMKVHDB"

NOT_A_NUCLEOTIDE = re.compile(f"[^{NUCLEOTIDES}{NUCLEOTIDES.lower()}]")

IGNORED = -100  # label that no loss counts

_COMPLEMENT = str.maketrans(NUCLEOTIDES + NUCLEOTIDES.lower(), COMPLEMENTS + COMPLEMENTS.lower())

# Tokens that stand for nucleotides, and that of the complement of each token (special ones stay what they are).
NUCLEOTIDE_IDS = tuple(VOCABULARY[letter] for letter in f"{BASES}N")
COMPLEMENT_IDS = torch.arange(len(VOCABULARY))
COMPLEMENT_IDS[list(NUCLEOTIDE_IDS)] = torch.tensor(
    [VOCABULARY[letter] for letter in f"{BASES}N".translate(_COMPLEMENT)]
)


def normalised(sequence: str) -> str:
    """
    The spelling by which sequences are compared: upper case, and T for U.

    Args:
        sequence: IUPAC nucleotide codes in either case. Other characters stay as they are.

    Returns:
        `str` of the same length.
    """
    return sequence.upper().replace("U", "T")


def reverse_complement(sequence: str) -> str:
    """
    The other strand of a sequence, read in its own direction.

    Args:
        sequence: IUPAC nucleotide codes in either case; U is paired with A. Other characters stay as they are.

    Returns:
        `str` of the same length; every letter in the case of the one that it pairs with.
    """
    return sequence.translate(_COMPLEMENT)[::-1]


_TOKENS = token_table(ambiguous_as="N")
_COMPLEMENTARY_TOKENS = COMPLEMENT_IDS.numpy()[_TOKENS]


def token_ids(sequence: str, reverse_complemented: bool = False) -> np.ndarray:
    """
    The token ids that `HyenaDNATokenizer` gives, without special tokens, for long sequences.

    Args:
        sequence: ASCII letters.
        reverse_complemented: Read the other strand.

    Returns:
        `np.ndarray` of `int64`, of shape `(length,)`.
    """
    letters = np.frombuffer(sequence.encode("ascii"), np.uint8)
    table = _COMPLEMENTARY_TOKENS if reverse_complemented else _TOKENS
    return table[letters[::-1] if reverse_complemented else letters]


def reverse_complement_ids(ids: torch.Tensor) -> torch.Tensor:
    """
    The token ids of the other strand; special tokens around the nucleotides stay in their places.

    Args:
        ids: Of one sequence, shape `(length,)`.

    Returns:
        `torch.LongTensor` of shape `(length,)`.
    """
    is_nucleotide = ids >= min(NUCLEOTIDE_IDS)
    other = ids.clone()
    other[is_nucleotide] = COMPLEMENT_IDS.to(ids.device)[ids[is_nucleotide].flip(0)]
    return other
