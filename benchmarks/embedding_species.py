"""
Mean embeddings of windows of five genomes: a picture (t-SNE), and how well a linear model tells the species apart.

    python benchmarks/embedding_species.py FOLDER [--model MODEL] [--out benchmarks/embedding_species.png]

FOLDER holds a FASTA file a species, named by it up to the first `_` (human_chr20.fa.gz). The first three quarters of
each give training windows and the last quarter held-out ones, so that no held-out base was seen in training. The linear
model is a logistic regression on standardised embeddings; it is compared with one on 6-mer counts of the same windows.
"""

import argparse
import random
from pathlib import Path

import numpy as np
from transformers import AutoModel

from hyenadna_hf.baselines.kmer import kmer_classifier
from hyenadna_hf.data.fasta import Fasta
from hyenadna_hf.inference.embed import embed
from hyenadna_hf.loading import load_trained
from hyenadna_hf.reproduce.probe import PROBES, plot_embeddings

TRAIN_SHARE = 0.75


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--model", default="hyenadna-tiny-1k-remag")
    parser.add_argument("--layer", type=int, default=-1)
    parser.add_argument("--length", type=int, default=1000, help="bases in a window (default: %(default)s)")
    parser.add_argument("--train", type=int, default=300, help="training windows a species (default: %(default)s)")
    parser.add_argument("--test", type=int, default=100, help="held-out windows a species (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".png"))
    args = parser.parse_args()

    rng = random.Random(args.seed)
    model, tokenizer = load_trained(AutoModel, args.model)
    splits = {"train": ([], []), "test": ([], [])}
    for path in sorted(args.folder.glob("*.fa.gz")):
        species = path.name.partition("_")[0]
        with Fasta(path) as genome:
            for split, (windows, labels) in splits.items():
                drawn = draw_windows(genome, split, getattr(args, split), args.length, rng)
                windows += drawn
                labels += [species] * len(drawn)
    embedded = {
        split: np.stack(list(embed(model, tokenizer, windows, layer=args.layer)))
        for split, (windows, _) in splits.items()
    }
    probe = PROBES["linear"]().fit(embedded["train"], splits["train"][1])
    kmers = kmer_classifier(6).fit(*splits["train"])
    truth = np.array(splits["test"][1])
    names = sorted(set(truth))
    print(f"{len(embedded['train']):,} training and {len(truth):,} held-out windows of {args.length:,} bases")
    predicted = probe.predict(embedded["test"])
    accuracies = {
        "majority class": max(np.mean(truth == name) for name in names),
        "6-mer counts, linear": np.mean(kmers.predict(splits["test"][0]) == truth),
        f"{Path(args.model).name}, linear": np.mean(predicted == truth),
        **{f"  of which {name}": np.mean(predicted[truth == name] == name) for name in names},
    }
    for name, accuracy in accuracies.items():
        print(f"{name:<34}{accuracy:.3f}")

    title = f"mean embeddings of held-out windows of {args.length:,} bases"
    plot_embeddings(embedded["test"], truth, args.out, args.seed, title)


def draw_windows(genome, split, count, length, rng):
    """Windows without N at random places of the part of a genome's longest sequence that belongs to a split."""
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
