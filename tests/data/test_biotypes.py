import gzip
import random
import warnings

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
    with pytest.warns(UserWarning, match=r"skipping biotypes with fewer than 4 genes: snRNA \(1\)"):
        data = load_biotypes(path, genome, min_genes=4, **FRACTIONS)
    assert data["train"].features["label"].names == ["protein_coding", "tRNA"]
    with pytest.raises(InputError, match="it has no gene of biotype 'miRNA'; choose from protein_coding, snRNA, tRNA"):
        load_biotypes(path, genome, ["miRNA", "tRNA"])
    with (
        pytest.warns(UserWarning),
        pytest.raises(InputError, match="fewer than two biotypes .none. have at least 10 genes; lower min_genes"),
    ):
        load_biotypes(path, genome)


def test_a_gtf_of_another_genome_is_known_by_its_start_codons(tmp_path, genome):
    path = write(tmp_path / "x.gtf", annotation("new"))
    bases = genome.read_text().split("\n")[1]
    (tmp_path / "other.fa").write_text(f">chr1\nA{bases[:-1]}\n")
    with pytest.raises(
        InputError, match=r"\d of 12 start codons are ATG in .*other\.fa; use the annotation of this genome"
    ):
        load_biotypes(path, tmp_path / "other.fa", min_genes=2)
    (tmp_path / "later.fa").write_text(f">chr1\n{bases[:750]}A{bases[750:]}\n")
    with pytest.warns(
        UserWarning, match=r"7 of 12 start codons are ATG .* if the annotation belongs to another release"
    ):
        load_biotypes(path, tmp_path / "later.fa", min_genes=2, **FRACTIONS)


BAD = {
    "other names": (row("chrX", "x", "gene", 1, 9, "+", "g"), "there is no sequence 'chrX'.* another genome"),
    "past the end": (row("1", "x", "gene", 1990, 2001, "+", "g"), "is outside chr1, which has 2,000 bases"),
    "position 0": (row("1", "x", "gene", 0, 9, "+", "g"), "is outside chr1"),
    "three columns": ("1\tx\tgene", "GTF and GFF3 have nine tab-separated columns"),
    "strand": (row("1", "x", "gene", 1, 9, "1", "g"), "GTF and GFF3 have nine tab-separated columns"),
    "no gene_id": ('1\tx\tgene\t1\t9\t.\t+\t.\tgene_name "x";', "the attribute gene_id is missing; add it"),
    "no ID": ("1\tx\tgene\t1\t9\t.\t+\t.\tName=x", "the attribute ID is missing; add it"),
    "no number": (row("1", "x", "gene", "²", 9, "+", "g"), "GTF and GFF3 have nine tab-separated columns"),
    "a name of another genome in GFF3": ("chr%2B\tx\tgene\t1\t9\t.\t+\t.\tID=g", r"there is no sequence 'chr\+'"),
}


@pytest.mark.parametrize("line, message", BAD.values(), ids=BAD)
def test_a_bad_line_is_named(tmp_path, genome, line, message):
    path = write(tmp_path / "x.gtf", [*annotation("new", 1), line])
    with pytest.raises(InputError, match=r"x\.gtf, line 5: .*" + message):
        load_biotypes(path, genome)


def test_bad_files_are_named(tmp_path, genome):
    with pytest.raises(InputError, match="there is no such file"):
        load_biotypes(tmp_path / "absent.gtf", genome)
    with pytest.raises(InputError, match="the file contains no gene"):
        load_biotypes(write(tmp_path / "x.gtf", ["# nothing"]), genome)
    (tmp_path / "x.gtf").write_bytes(b"1\tx\xff\n")
    with pytest.raises(InputError, match="not a readable GTF or GFF3 file"):
        load_biotypes(tmp_path / "x.gtf", genome)
    (tmp_path / "x.gtf").write_bytes(b"<html>")
    with pytest.raises(InputError, match="x.gtf: this is a web page or XML, not a GTF or GFF3 file"):
        load_biotypes(tmp_path / "x.gtf", genome)


def gff3(style, count=12):
    """The genes of `annotation` as GFF3 of Ensembl, GENCODE, NCBI or SGD, with a CDS in two pieces each."""
    rows = ["##gff-version 3", "##sequence-region 1 1 2000", line("1", "region", 1, 2000, ".", ID="region:1")]
    for number in range(count):
        gene, start, strand = f"g{number}", 101 + 100 * number, "+-"[number % 3 == 0]
        biotype = ["tRNA", "protein_coding"][number % 2]
        name = f"{gene.upper()}%3B%20x%2Cy"
        feature, attributes = {
            "ensembl": (
                ["ncRNA_gene", "gene"][number % 2],
                {"biotype": biotype, "gene_id": gene, "ID": f"gene:{gene}"},
            ),
            "ensembl without gene_id": (["pseudogene", "gene"][number % 2], {"ID": f"gene:{gene}", "biotype": biotype}),
            "gencode": ("gene", {"ID": gene, "gene_id": gene, "gene_type": biotype}),
            "ncbi": ("gene", {"ID": f"gene-{gene}", "gbkey": "Gene", "gene_biotype": biotype}),
            "sgd": (["tRNA_gene", "protein_coding_gene"][number % 2], {"ID": gene}),
        }[style]
        rows.append(line("1", feature, start, start + 29, strand, **attributes, Name=name))
        rows.append(line("1", "mRNA", start, start + 29, strand, ID=f"transcript:{gene}", Parent=f"gene:{gene}"))
        rows.append(line("1", "exon", start, start + 29, strand, Parent=f"transcript:{gene}"))
        pieces = [(start, start + 11), (start + 18, start + 29)]
        for first, last in pieces if number % 2 else pieces[::-1]:
            rows.append(line("1", "CDS", first, last, strand, phase="0", ID="cds", Parent=f"transcript:{gene}"))
    return [*rows, "###", "##FASTA", ">1", "ACGT"]


def line(name, feature, start, end, strand, phase=".", **attributes):
    pairs = ";".join(f"{key}={value}" for key, value in attributes.items())
    return "\t".join([name, "x", feature, str(start), str(end), ".", strand, phase, pairs])


@pytest.mark.parametrize("style", ["ensembl", "ensembl without gene_id", "gencode", "ncbi", "sgd"])
@pytest.mark.parametrize("name, end", [("x.gff3", "\n"), ("x.gtf", "\r\n"), ("x.gff3.gz", "\n")])
def test_gff3_gives_the_same_genes(tmp_path, genome, style, name, end):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        data = load_biotypes(write(tmp_path / name, gff3(style), end), genome, min_genes=2, **FRACTIONS)
        gtf = load_biotypes(write(tmp_path / "y.gtf", annotation("new")), genome, min_genes=2, **FRACTIONS)
    assert data["train"].features["label"].names == {
        "sgd": ["protein_coding_gene", "tRNA_gene"],
    }.get(style, ["protein_coding", "tRNA"])
    for split in gtf:
        for gene, same in zip(data[split], gtf[split]):
            assert gene == {**same, "gene_name": f"{same['gene_id'].upper()}; x,y"}


def test_gff3_of_another_genome_is_known_by_its_first_codons(tmp_path, genome):
    path = write(tmp_path / "x.gff3", gff3("ncbi"))
    bases = genome.read_text().split("\n")[1]
    (tmp_path / "other.fa").write_text(f">chr1\nA{bases[:-1]}\n")
    with pytest.raises(
        InputError, match=r"\d of 12 start codons are ATG in .*other\.fa; use the annotation of this genome"
    ):
        load_biotypes(path, tmp_path / "other.fa", min_genes=2)


def test_a_genome_in_rna_letters_begins_with_the_same_codons(tmp_path, genome):
    genome.write_text(genome.read_text().replace("T", "u").replace("A", "a"))
    for name, rows in (("x.gff3", gff3("ncbi")), ("x.gtf", annotation("new"))):
        data = load_biotypes(write(tmp_path / name, rows), genome, min_genes=2, **FRACTIONS)
        assert {row["sequence"][1:3].upper() for row in data["train"]} <= {"UG", "TG"}


@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_a_byte_order_mark(tmp_path, genome, mark):
    rows = annotation("new")[1:]
    data = load_biotypes(write(tmp_path / "x.gtf", [mark + rows[0], *rows[1:]]), genome, min_genes=2, **FRACTIONS)
    assert sum(map(len, data.values())) == 12


def test_real_yeast(shared):
    folder = shared / "data" / "genomes"
    # This annotation and this sequence are of two releases: the middle of the chromosome is shifted by some bases.
    with pytest.warns(UserWarning) as noted:
        data = load_biotypes(folder / "yeast_chrI.gtf.gz", folder / "yeast_chrI.fa.gz", min_genes=4, **FRACTIONS)
    messages = [str(note.message) for note in noted]
    assert any("58 of 119 start codons are ATG" in message for message in messages)
    assert any("ncRNA (1), pseudogene (2), snoRNA (1)" in message for message in messages)
    genes = {gene["gene_name"]: gene for split in data.values() for gene in split}
    assert data["train"].features["label"].names == ["protein_coding", "tRNA"] and len(genes) > 110
    assert genes["YAL069W"]["sequence"].startswith("ATG") and len(genes["YAL069W"]["sequence"]) == 315
    assert genes["PAU8"]["strand"] == "-" and genes["PAU8"]["sequence"].startswith("ATG")


def test_damaged_gzip_is_named(tmp_path, genome):
    packed = bytearray(gzip.compress("\n".join(annotation("new")).encode()))
    packed[10] ^= 0xFF
    (tmp_path / "x.gtf.gz").write_bytes(packed)
    with pytest.raises(InputError, match=r"x.gtf.gz: the gzip file is damaged"):
        load_biotypes(tmp_path / "x.gtf.gz", genome)
