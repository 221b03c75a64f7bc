import gzip
import random
import shutil

import pytest

from hyenadna_hf.data.biotypes import load_biotypes
from hyenadna_hf.data.fasta import Fasta
from hyenadna_hf.data.sequence import reverse_complement
from hyenadna_hf.errors import InputError

FRACTIONS = {"validation_fraction": 0.25, "test_fraction": 0.25}


def row(name, source, feature, start, end, strand, gene, **more):
    attributes = " ".join(f'{key} "{value}";' for key, value in {"gene_id": gene, **more}.items())
    return "\t".join([name, source, feature, str(start), str(end), ".", strand, ".", attributes])


def annotation(kind, count=12):
    """Genes of 30 bases, 100 apart, on both strands, of two biotypes in turn."""
    rows = ["#!genome-build x"]
    for number in range(count):
        gene, start, strand = f"g{number}", 101 + 100 * number, "+-"[number % 3 == 0]
        biotype = ["tRNA", "protein_coding"][number % 2]
        if kind == "new":
            rows.append(row("1", "ensembl", "gene", start, start + 29, strand, gene, gene_biotype=biotype))
            rows.append(row("1", "ensembl", "exon", start + 5, start + 9, strand, gene, gene_biotype=biotype))
        else:
            rows.append(row("1", biotype, "exon", start + 20, start + 29, strand, gene, gene_name=gene.upper()))
            rows.append(row("1", biotype, "exon", start, start + 9, strand, gene, gene_name=gene.upper()))
        codon = start if strand == "+" else start + 27
        rows.append(row("1", biotype if kind == "old" else "x", "start_codon", codon, codon + 2, strand, gene))
    return rows


@pytest.fixture
def genome(tmp_path):
    """A genome in which each gene of `annotation` begins with ATG."""
    bases = random.Random(1).choices("ACGT", k=2000)
    for number in range(12):
        start = 100 + 100 * number
        if number % 3:
            bases[start : start + 3] = "ATG"
        else:
            bases[start + 27 : start + 30] = "CAT"
    (tmp_path / "genome.fa").write_text(">chr1\n" + "".join(bases) + "\n")
    return tmp_path / "genome.fa"


def write(path, rows, end="\n"):
    text = (end.join(rows) + end).encode()
    path.write_bytes(gzip.compress(text) if path.suffix == ".gz" else text)
    return path


@pytest.mark.parametrize("kind", ["new", "old"])
@pytest.mark.parametrize("name, end", [("x.gtf", "\n"), ("x.gtf.gz", "\r\n")])
def test_genes_of_both_kinds_of_gtf(tmp_path, genome, kind, name, end):
    data = load_biotypes(write(tmp_path / name, annotation(kind), end), genome, min_genes=2, **FRACTIONS)
    names = data["train"].features["label"].names
    assert names == ["protein_coding", "tRNA"]
    assert {split: len(rows) for split, rows in data.items()} == {"train": 6, "validation": 3, "test": 3}
    fasta = Fasta(genome)
    genes = [gene for split in data.values() for gene in split]
    assert sorted(gene["gene_id"] for gene in genes) == sorted(f"g{number}" for number in range(12))
    for gene in genes:
        number = int(gene["gene_id"][1:])
        assert (gene["name"], gene["start"], gene["end"]) == ("chr1", 100 + 100 * number, 130 + 100 * number)
        assert gene["gene_name"] == (gene["gene_id"] if kind == "new" else gene["gene_id"].upper())
        piece = fasta.fetch("chr1", gene["start"], gene["end"])
        assert gene["sequence"] == (reverse_complement(piece) if gene["strand"] == "-" else piece)
        assert gene["sequence"].startswith("ATG") and names[gene["label"]] == ["tRNA", "protein_coding"][number % 2]


def test_rare_biotypes_are_counted(tmp_path, genome):
    rows = [*annotation("new"), row("1", "x", "gene", 5, 9, "+", "rare", gene_biotype="snRNA")]
    path = write(tmp_path / "x.gtf", rows)
    with pytest.warns(UserWarning, match=r"fewer than 4 genes are left out: snRNA \(1\)"):
        data = load_biotypes(path, genome, min_genes=4, **FRACTIONS)
    assert data["train"].features["label"].names == ["protein_coding", "tRNA"]
    with pytest.raises(InputError, match="the class 'miRNA' is empty; its biotypes are protein_coding, snRNA, tRNA"):
        load_biotypes(path, genome, ["miRNA", "tRNA"])
    with (
        pytest.warns(UserWarning),
        pytest.raises(InputError, match="0 of its biotypes have 10 genes or more, two are needed"),
    ):
        load_biotypes(path, genome)


def test_a_gtf_of_another_genome_is_known_by_its_start_codons(tmp_path, genome):
    path = write(tmp_path / "x.gtf", annotation("new"))
    bases = genome.read_text().split("\n")[1]
    (tmp_path / "other.fa").write_text(f">chr1\nA{bases[:-1]}\n")
    with pytest.raises(
        InputError, match=r"of 12 start codons \d are ATG in .*other\.fa; .* of another genome or release"
    ):
        load_biotypes(path, tmp_path / "other.fa", min_genes=2)
    (tmp_path / "later.fa").write_text(f">chr1\n{bases[:750]}A{bases[750:]}\n")
    with pytest.warns(UserWarning, match=r"of 12 start codons 7 are ATG .* is the annotation that of another release"):
        load_biotypes(path, tmp_path / "later.fa", min_genes=2, **FRACTIONS)


BAD = {
    "other names": (row("chrX", "x", "gene", 1, 9, "+", "g"), "there is no sequence 'chrX'.* another genome"),
    "past the end": (row("1", "x", "gene", 1990, 2001, "+", "g"), "is no piece of chr1, which has 2,000 bases"),
    "position 0": (row("1", "x", "gene", 0, 9, "+", "g"), "is no piece of chr1"),
    "three columns": ("1\tx\tgene", "GTF has nine columns"),
    "strand": (row("1", "x", "gene", 1, 9, "1", "g"), "GTF has nine columns"),
    "GFF3": ("1\tx\tgene\t1\t9\t.\t+\t.\tID=gene:g", "no gene_id among the attributes; is this GFF3"),
}


@pytest.mark.parametrize("line, message", BAD.values(), ids=BAD)
def test_a_bad_line_is_named(tmp_path, genome, line, message):
    path = write(tmp_path / "x.gtf", [*annotation("new", 1), line])
    with pytest.raises(InputError, match=r"x\.gtf, line 5: .*" + message):
        load_biotypes(path, genome)


def test_bad_files_are_named(tmp_path, genome):
    with pytest.raises(InputError, match="there is no such file"):
        load_biotypes(tmp_path / "absent.gtf", genome)
    with pytest.raises(InputError, match="not one gene in it"):
        load_biotypes(write(tmp_path / "x.gtf", ["# nothing"]), genome)
    shutil.copy(tmp_path / "x.gtf", tmp_path / "x.gtf.gz")
    with pytest.raises(InputError, match="not a readable GTF file"):
        load_biotypes(tmp_path / "x.gtf.gz", genome)


def test_real_yeast(shared):
    folder = shared / "data" / "genomes"
    # This annotation and this sequence are of two releases: the middle of the chromosome is shifted by some bases.
    with pytest.warns(UserWarning) as noted:
        data = load_biotypes(folder / "yeast_chrI.gtf.gz", folder / "yeast_chrI.fa.gz", min_genes=4, **FRACTIONS)
    messages = [str(note.message) for note in noted]
    assert any("of 119 start codons 58 are ATG" in message for message in messages)
    assert any("ncRNA (1), pseudogene (2), snoRNA (1)" in message for message in messages)
    genes = {gene["gene_name"]: gene for split in data.values() for gene in split}
    assert data["train"].features["label"].names == ["protein_coding", "tRNA"] and len(genes) > 110
    assert genes["YAL069W"]["sequence"].startswith("ATG") and len(genes["YAL069W"]["sequence"]) == 315
    assert genes["PAU8"]["strand"] == "-" and genes["PAU8"]["sequence"].startswith("ATG")


def test_damaged_gzip_is_named(tmp_path, genome):
    packed = bytearray(gzip.compress("\n".join(annotation("new")).encode()))
    packed[10] ^= 0xFF
    (tmp_path / "x.gtf.gz").write_bytes(packed)
    with pytest.raises(InputError, match=r"x.gtf.gz: this is not a readable GTF file"):
        load_biotypes(tmp_path / "x.gtf.gz", genome)
