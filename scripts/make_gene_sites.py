"""
Make sequences of genes and labels of their splice sites, for `hyenadna finetune --task token`.

    python scripts/make_gene_sites.py --fasta human.fa --genes spliceai/annotations/grch37.txt --out FOLDER

The sequence is that of Debian's package vt-examples, as scripts/make_pretraining_data.py writes it: human chromosome
20, GRCh37, the public-domain reference genome. The positions of genes and exons are those of the Python package
spliceai 1.3.1, read as facts: 0-based and half-open.

Every gene with an intron is a sequence in the direction of transcription, with `--flank` bases on either side. The last
base of an exon before an intron is a donor, the first one after it an acceptor. FOLDER receives genes.fa.gz with an
index, sites.bed, and genes.tsv: the place of each sequence on the chromosome (0-based, half-open), strand and introns.
"""

import argparse
import csv
from pathlib import Path

import pysam

from hyenadna_hf.data.fasta import Fasta
from hyenadna_hf.data.sequence import reverse_complement


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fasta", required=True, help="genome with the chromosome")
    parser.add_argument("--genes", required=True, help="table of genes and exons")
    parser.add_argument("--chromosome", default="20", help="its name in both files (default: %(default)s)")
    parser.add_argument("--longest", type=int, default=20_000, help="bases of a gene, at most (default: %(default)s)")
    parser.add_argument("--flank", type=int, default=300, help="bases on either side (default: %(default)s)")
    parser.add_argument("--out", type=Path, required=True, help="folder to write to")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    path, table, sites = args.out / "genes.fa.gz", [], []
    with Fasta(args.fasta) as genome, pysam.BGZFile(str(path), "wb") as fasta:
        for gene in genes_of(args.genes, args.chromosome):
            exons = exons_of(gene)
            length, introns = exons[-1][1] - exons[0][0], len(exons) - 1
            if not introns or length > args.longest:
                continue
            start, end = exons[0][0] - args.flank, exons[-1][1] + args.flank
            text, found = oriented(genome.fetch(args.chromosome, start, end), start, exons, gene["STRAND"])
            name = gene["#NAME"]
            fasta.write(f">{name}\n".encode())
            for line in range(0, len(text), 60):
                fasta.write(f"{text[line : line + 60]}\n".encode())
            sites += [(name, place, place + 1, kind) for place, kind in found]
            table.append((name, args.chromosome, start, end, gene["STRAND"], introns))
    pysam.faidx(str(path))
    write_rows(args.out / "sites.bed", sites)
    write_rows(args.out / "genes.tsv", [("gene", "chromosome", "start", "end", "strand", "introns"), *table])
    bases = sum(end - start for _, _, start, end, *_ in table)
    print(f"{args.out}: {len(table):,} genes, {bases:,} bases, {len(sites):,} sites")


def genes_of(path, chromosome):
    with open(path, newline="", encoding="utf-8") as file:
        return [row for row in csv.DictReader(file, delimiter="\t") if row["CHROM"] == chromosome]


def exons_of(gene):
    starts, ends = ([int(text) for text in gene[name].split(",")[:-1]] for name in ("EXON_START", "EXON_END"))
    return list(zip(starts, ends))


def oriented(text, start, exons, strand):
    """Return the sequence in the direction of transcription, and place and kind of each site in it."""
    sites = [(end - 1 - start, "donor") for _, end in exons[:-1]]
    sites += [(first - start, "acceptor") for first, _ in exons[1:]]
    if strand == "-":
        other = {"donor": "acceptor", "acceptor": "donor"}
        text, sites = reverse_complement(text), [(len(text) - 1 - place, other[kind]) for place, kind in sites]
    return text, sorted(sites)


def write_rows(path, rows):
    path.write_text("".join("\t".join(map(str, row)) + "\n" for row in rows), encoding="utf-8")


if __name__ == "__main__":
    main()
