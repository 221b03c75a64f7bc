"""
Tell species apart by mean embeddings of frozen models: accuracy of linear models by length of the windows.

    python scripts/make_pretraining_data.py genomes/
    python benchmarks/embedding_species.py genomes/ --out benchmarks/results/species_lengths

FOLDER holds a FASTA file per species, named after it (human.fa, fly_chr2R.fa.gz). Of the longest sequence of each, the
first three quarters give training windows and the last quarter test windows. The linear models are logistic regressions
on standardised embeddings and, for comparison, on 6-mer counts of the same windows. The picture shows the test windows
of the greatest length and the first seed.
"""

import argparse
import random
from pathlib import Path

import numpy as np
from report import spread, write_table
from transformers import AutoModel

from hyenadna_hf.baselines.kmer import kmer_classifier
from hyenadna_hf.data.fasta import Fasta, fasta_files, fasta_stem
from hyenadna_hf.inference.embed import embed
from hyenadna_hf.loading import load_trained
from hyenadna_hf.reproduce.probe import PROBES, plot_embeddings

TRAIN_SHARE = 0.75


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--model", default="hyenadna-tiny-16k-genomes")
    parser.add_argument("--layer", type=int, default=-1)
    parser.add_argument("--lengths", type=int, nargs="+", default=[1024, 4096, 16384], help="bases in a window")
    parser.add_argument("--train", type=int, default=30, help="training windows per species (default: %(default)s)")
    parser.add_argument("--test", type=int, default=15, help="test windows per species (default: %(default)s)")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--out", type=Path, required=True, help="table and picture to write, without ending")
    args = parser.parse_args()

    model, tokenizer = load_trained(AutoModel, args.model)
    rows = []
    for length in args.lengths:
        accuracies = {}
        for seed in args.seeds:
            (train, labels), (test, truth) = draw_splits(args, length, random.Random(seed))
            accuracies.setdefault("majority class", []).append(max(np.mean(truth == name) for name in set(truth)))
            predicted = kmer_classifier(6).fit(train, labels).predict(test)
            accuracies.setdefault("6-mer counts", []).append(np.mean(predicted == truth))
            embedded = [np.stack(list(embed(model, tokenizer, part, layer=args.layer))) for part in (train, test)]
            predicted = PROBES["linear"]().fit(embedded[0], labels).predict(embedded[1])
            accuracies.setdefault(Path(args.model).name, []).append(np.mean(predicted == truth))
            if (length, seed) == (max(args.lengths), args.seeds[0]):
                title = f"mean embeddings of test windows of {length:,} bases"
                plot_embeddings(embedded[1], truth, args.out.with_suffix(".png"), seed, title)
        row = {"bases": length, "species": len(set(truth)), "training windows": len(train), "test windows": len(test)}
        rows.append({**row, **{name: spread(values, 3) for name, values in accuracies.items()}})
    write_table(rows, args.out)


def draw_splits(args, length, rng):
    """Draw training and test windows of every species, each with an array of their labels."""
    splits = {"train": ([], []), "test": ([], [])}
    for path in fasta_files(args.folder):
        with Fasta(path) as genome:
            for split, (windows, labels) in splits.items():
                drawn = draw_windows(genome, split, getattr(args, split), length, rng)
                windows += drawn
                labels += [fasta_stem(path).partition("_")[0]] * len(drawn)
    return [(windows, np.array(labels)) for windows, labels in splits.values()]


def draw_windows(genome, split, count, length, rng):
    """Draw windows without N at random positions of one split of the longest sequence of a genome."""
    name = max(genome.lengths, key=genome.lengths.get)
    border = int(TRAIN_SHARE * genome.lengths[name])
    first, end = (0, border) if split == "train" else (border, genome.lengths[name])
    windows = []
    while len(windows) < count:
        start = rng.randrange(first, end - length + 1)
        window = genome.fetch(name, start, start + length).upper()
        if "N" not in window:
            windows.append(window)
    return windows


if __name__ == "__main__":
    main()
