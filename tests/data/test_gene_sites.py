"""scripts/make_gene_sites.py: genes in the direction of transcription, with their splice sites, on a small genome."""

import subprocess
import sys
from pathlib import Path

import pytest
from genomes import random_bases

from hyenadna_hf.data.fasta import Fasta

SCRIPT = Path(__file__).parents[2] / "scripts" / "make_gene_sites.py"
# 0-based, half-open. One gene on each strand with GT and AG around its introns, one without intron, one too long.
GENES = {
    "FORWARD": ("20", "+", [(100, 150), (200, 230), (300, 340)]),
    "REVERSE": ("20", "-", [(500, 540), (600, 660)]),
    "SINGLE": ("20", "+", [(800, 850)]),
    "LONG": ("20", "-", [(700, 720), (990, 999)]),
    "OTHER": ("21", "+", [(100, 150), (200, 230)]),
}


@pytest.fixture
def files(tmp_path):
    letters = list(random_bases(1_200, 0, "CT"))
    for start, end in ((150, 200), (230, 300)):
        letters[start : start + 2], letters[end - 2 : end] = "GT", "AG"
    letters[540:542], letters[598:600] = "CT", "AC"  # an intron on the reverse strand
    (tmp_path / "genome.fa").write_text(f">20\n{''.join(letters)}\n")
    rows = ["#NAME\tCHROM\tSTRAND\tTX_START\tTX_END\tEXON_START\tEXON_END"]
    for name, (chromosome, strand, exons) in GENES.items():
        starts, ends = ("".join(f"{exon[i]}," for exon in exons) for i in (0, 1))
        rows.append(f"{name}\t{chromosome}\t{strand}\t{exons[0][0]}\t{exons[-1][1]}\t{starts}\t{ends}")
    (tmp_path / "genes.txt").write_text("\n".join(rows) + "\n")
    return tmp_path


def test_sites_are_those_of_the_introns(files):
    command = [sys.executable, SCRIPT, "--fasta", files / "genome.fa", "--genes", files / "genes.txt"]
    subprocess.run([*command, "--longest", "250", "--flank", "20", "--out", files / "out"], check=True)
    genome = Fasta(files / "out" / "genes.fa.gz")
    assert dict(genome.lengths) == {"FORWARD": 280, "REVERSE": 200}
    assert genome.fetch("FORWARD", 0, 280) == Fasta(files / "genome.fa").fetch("20", 80, 360)
    rows = [line.split("\t") for line in (files / "out" / "sites.bed").read_text().splitlines()]
    # Last bases of exons and first bases of exons, from the first base of each sequence.
    assert [(name, int(start), kind) for name, start, _, kind in rows] == [
        ("FORWARD", 149 - 80, "donor"),
        ("FORWARD", 200 - 80, "acceptor"),
        ("FORWARD", 229 - 80, "donor"),
        ("FORWARD", 300 - 80, "acceptor"),
        ("REVERSE", 679 - 600, "donor"),
        ("REVERSE", 679 - 539, "acceptor"),
    ]
    for name, start, end, kind in rows:
        assert int(end) == int(start) + 1
        after, before = genome.fetch(name, int(end), int(end) + 2), genome.fetch(name, int(start) - 2, int(start))
        assert (after if kind == "donor" else before) == {"donor": "GT", "acceptor": "AG"}[kind]
    table = [line.split("\t") for line in (files / "out" / "genes.tsv").read_text().splitlines()]
    assert table[1:] == [["FORWARD", "20", "80", "360", "+", "2"], ["REVERSE", "20", "480", "680", "-", "1"]]
