"""Nucleotide letters: which there are, and their complements."""

import re

# The IUPAC codes: the bases with U, N, and those that stand for two or three bases.
NUCLEOTIDES = "ACGTUNRYSWKMBDHV"
COMPLEMENTS = "TGCAANYRSWMKVHDB"

NOT_A_NUCLEOTIDE = re.compile(f"[^{NUCLEOTIDES}{NUCLEOTIDES.lower()}]")

_COMPLEMENT = str.maketrans(NUCLEOTIDES + NUCLEOTIDES.lower(), COMPLEMENTS + COMPLEMENTS.lower())


def reverse_complement(sequence):
    """
    The other strand of a sequence, read in its own direction.

    Args:
        sequence (`str`): IUPAC nucleotide codes in either case; U is paired with A. Other characters stay as they are.

    Returns:
        `str` of the same length; every letter in the case of the one that it pairs with.
    """
    return sequence.translate(_COMPLEMENT)[::-1]
