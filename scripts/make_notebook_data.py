"""
Make notebooks/data: a piece of five genomes, and variants at splice sites and at decoys in the human one.

    python scripts/make_notebook_data.py FOLDER

FOLDER holds the pieces that PIECES names, bgzipped; notebooks/data/README.md says where they come from. Splice sites
and decoys are those of the bundled set splice_sites_chr20. Each variant turns the G of the two bases in the middle of
its window (GT of a donor, AG of an acceptor, either of a decoy) into A, in the direction of transcription.
"""

import argparse
import re
from pathlib import Path

import pandas as pd
import pysam

import hyenadna_hf.data
from hyenadna_hf.data.fasta import Fasta
from hyenadna_hf.data.sequence import reverse_complement

LENGTH = 200_000
HUMAN_STARTS = 30_000_000  # where the file of human sequence starts on chromosome 20, from 0

# Species: file, name of the piece, where it starts in the file, from 0.
PIECES = {
    "ecoli": ("ecoli_536_0-3M.fa.gz", "NC_008253.1_from_1000001", 1_000_000),
    "fly": ("fly_chr2R_5M-8M.fa.gz", "chr2R_from_6000001", 1_000_000),
    "human": ("human_chr20_30M-33M.fa.gz", "chr20_from_31600001", 1_600_000),
    "worm": ("worm_chrI_0-1M.fa.gz", "chrI_from_400001", 400_000),
    "yeast": ("yeast_chrI.fa.gz", "chrI_from_10001", 10_000),
}
OUT = Path("notebooks/data")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    args = parser.parse_args()
    (OUT / "genomes").mkdir(parents=True, exist_ok=True)
    for species, (file, name, start) in PIECES.items():
        with Fasta(args.folder / file) as genome:
            (whole,) = genome.lengths
            sequence = genome.fetch(whole, start, start + LENGTH).upper()
        path = OUT / "genomes" / f"{species}.fa.gz"
        with pysam.BGZFile(str(path), "wb") as out:
            out.write(f">{name}\n".encode())
            for line in range(0, LENGTH, 60):
                out.write(f"{sequence[line : line + 60]}\n".encode())
        Fasta(path).fetch(name)  # makes the index
    write_variants(OUT / "splice_sites.vcf", OUT / "genomes" / "human.fa.gz")


def write_variants(path, fasta):
    folder = Path(hyenadna_hf.data.__file__).parent / "splice_sites_chr20"
    sites = pd.concat([pd.read_csv(file) for file in sorted(folder.glob("*.csv.gz"))])
    sites[["start", "end", "strand"]] = [re.search(r":(\d+)-(\d+):(.)", locus).groups() for locus in sites["locus"]]
    _, name, offset = PIECES["human"]
    rows = []
    with Fasta(fasta) as genome:
        for sequence, label, start, end, strand in sites[["sequence", "label", "start", "end", "strand"]].values:
            start, end = (int(position) - HUMAN_STARTS - offset for position in (start, end))
            if start >= 0 and end <= LENGTH:
                window = genome.fetch(name, start, end)
                assert sequence == (window if strand == "+" else reverse_complement(window))
                middle = len(sequence) // 2 - 1
                found = middle + sequence[middle : middle + 2].index("G")
                position = start + found if strand == "+" else end - 1 - found
                alleles = "GA" if strand == "+" else "CT"
                rows.append((position + 1, *alleles, label, strand))
    with open(path, "w", encoding="utf-8") as out:
        out.write(f"##fileformat=VCFv4.2\n##contig=<ID={name},length={LENGTH}>\n")
        out.write('##INFO=<ID=SITE,Number=1,Type=String,Description="donor, acceptor, or neither (a decoy)">\n')
        out.write('##INFO=<ID=STRAND,Number=1,Type=String,Description="strand of the gene">\n')
        out.write("#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO\n")
        for number, (position, reference, alternate, label, strand) in enumerate(sorted(rows), start=1):
            info = f"SITE={label};STRAND={strand}"
            out.write(f"{name}\t{position}\tsite{number}\t{reference}\t{alternate}\t.\t.\t{info}\n")


if __name__ == "__main__":
    main()
