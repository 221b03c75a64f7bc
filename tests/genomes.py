"""Contigs for tests, with lower case and unknown bases."""

import random


def random_bases(length, seed, letters="ACGT"):
    return "".join(random.Random(seed).choices(letters, k=length))


REGION_CONTIG = random_bases(100, 0, "ACGTacgt") + "NN" + "ACGTTGCA" * 5
VARIANT_CONTIG = random_bases(90, 0, "ACGTacgt") + "NNNRNN" + random_bases(60, 1)
