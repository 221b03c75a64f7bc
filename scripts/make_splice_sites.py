"""
Make the small data set that ships with the package: human splice sites of chromosome 20 (GRCh37), and decoys.

    python scripts/make_splice_sites.py --fasta 20.fa.gz --exons grch37_exons.csv.gz

The sequence is that of Debian's package vt-examples (usr/share/doc/vt/examples/ref/20.fa.gz, the public-domain
reference genome); the exons are the table of the Python package mmsplice 2.4.0 (mmsplice/models/grch37_exons.csv.gz,
MIT), which comes from Ensembl. Its intervals are 1-based, closed, and widened by the overhang on either side.

A window of `--width` bases is centred on the two bases of a site, in the direction of transcription: on the GT that
begins an intron (donor), the AG that ends it (acceptor), or a GT or AG within a gene that no listed exon has as its
border (neither). There are as many of the last as of donors and acceptors on average, half GT and half AG. Only windows
without N count. Splits are regions of the chromosome with gaps between, so that no base is in two of them.
"""

import argparse
import gzip
import random
from pathlib import Path

import pandas as pd
import pysam

from hyenadna_hf.data.sequence import reverse_complement

SPLITS = {"train": (0, 44_000_000), "validation": (44_100_000, 48_000_000), "test": (48_100_000, 63_025_520)}


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0], add_help=True)
    parser.add_argument("--fasta", required=True, help="sequence of chromosome 20, FASTA or bgzipped FASTA")
    parser.add_argument("--exons", required=True, help="exon table, CSV")
    parser.add_argument("--width", type=int, default=120, help="bases a window (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=2222, help="of the choice of decoys (default: %(default)s)")
    parser.add_argument("--out", default="hyenadna_hf/data/splice_sites_chr20", help="folder (default: %(default)s)")
    args = parser.parse_args()

    with pysam.FastxFile(args.fasta) as records:
        chromosome = next(iter(records)).sequence.upper()
    exons = pd.read_csv(args.exons)
    exons = exons[exons["Chromosome"] == "chr20"]
    sites = annotated_sites(exons)
    sites = [
        site for site in sites if dinucleotide(chromosome, *site[:2]) == {"donor": "GT", "acceptor": "AG"}[site[2]]
    ]
    sites += decoys(chromosome, exons, {site[:2] for site in sites}, len(sites) // 2, random.Random(args.seed))

    folder = Path(args.out)
    folder.mkdir(parents=True, exist_ok=True)
    for split, (first, last) in SPLITS.items():
        rows = []
        for position, strand, label in sorted(sites):
            start = position + 1 - args.width // 2
            end = start + args.width
            if first <= start and end <= last:
                window = chromosome[start:end] if strand == "+" else reverse_complement(chromosome[start:end])
                if "N" not in window:
                    rows.append((window, label, f"chr20:{start}-{end}:{strand}"))
        table = pd.DataFrame(rows, columns=["sequence", "label", "locus"])
        # A fixed time in the gzip header, so that the same data give the same file.
        with open(folder / f"{split}.csv.gz", "wb") as raw, gzip.GzipFile(fileobj=raw, mode="wb", mtime=0) as file:
            file.write(table.to_csv(index=False).encode())
        print(split, len(table), table["label"].value_counts().to_dict())


def dinucleotide(chromosome, position, strand):
    bases = chromosome[position : position + 2]
    return bases if strand == "+" else reverse_complement(bases)


def exon_interval(exon):
    """0-based, half-open, without the overhang."""
    return exon.Start - 1 + exon.left_overhang, exon.End - exon.right_overhang


def annotated_sites(exons):
    """(0-based position of the two bases on the forward strand, strand, class), each once."""
    sites = set()
    for exon in exons.itertuples():
        start, end = exon_interval(exon)
        # The table gives an overhang where an intron follows.
        if exon.left_overhang:
            sites.add((start - 2, exon.Strand, "acceptor" if exon.Strand == "+" else "donor"))
        if exon.right_overhang:
            sites.add((end, exon.Strand, "donor" if exon.Strand == "+" else "acceptor"))
    return sorted(sites)


def decoys(chromosome, exons, taken, count, rng):
    """`count` places within genes, half GT and half AG, that are no annotated site; each gene has an equal chance."""
    genes = {}
    for exon in exons.itertuples():
        start, end = exon_interval(exon)
        low, high, _ = genes.get(exon.gene_id, (start, end, None))
        genes[exon.gene_id] = (min(low, start), max(high, end), exon.Strand)
    genes = sorted(gene for gene in genes.values() if gene[1] - gene[0] > 1_000)
    wanted = {"GT": count // 2, "AG": count - count // 2}
    chosen = []
    while any(wanted.values()):
        low, high, strand = rng.choice(genes)
        position = rng.randrange(low, high - 1)
        bases = dinucleotide(chromosome, position, strand)
        if wanted.get(bases) and (position, strand) not in taken:
            wanted[bases] -= 1
            taken.add((position, strand))
            chosen.append((position, strand, "neither"))
    return chosen


if __name__ == "__main__":
    main()
