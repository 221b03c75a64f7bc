"""Contigs for tests, with lower case and unknown bases, and data sets of labelled sequences."""

import random

import pandas as pd


def random_bases(length, seed, letters="ACGT"):
    return "".join(random.Random(seed).choices(letters, k=length))


REGION_CONTIG = random_bases(100, 0, "ACGTacgt") + "NN" + "ACGTTGCA" * 5
VARIANT_CONTIG = random_bases(90, 0, "ACGTacgt") + "NNNRNN" + random_bases(60, 1)


def write_composition(
    folder, sizes, prefix="", weights=((1, 4, 4, 1), (4, 1, 1, 4)), lengths=(20, 60), columns=("sequence", "label")
):
    """Write a data set that is easy, sequences rich in G and C or in A and T, as a file for each split."""
    rng = random.Random(0)
    folder.mkdir(parents=True, exist_ok=True)
    for split, size in sizes.items():
        rows = []
        for number in range(size):
            bases = rng.choices("ACGT", weights[number % 2], k=rng.randint(*lengths))
            rows.append(("".join(bases), ["GC", "AT"][number % 2]))
        pd.DataFrame(rows, columns=columns).to_csv(folder / f"{prefix}{split}.csv", index=False)
    return folder
