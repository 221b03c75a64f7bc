import gzip

import pytest

from hyenadna_hf.data.annotation import Feature, features_in
from hyenadna_hf.data.fasta import Fasta
from hyenadna_hf.errors import InputError

GTF = """\
# a comment
20\tx\tgene\t11\t60\t.\t+\t.\tgene_id "G1"; gene_name "ABC";
20\tx\texon\t11\t30\t.\t+\t.\tgene_id "G1"; transcript_id "T1"; gene_name "ABC";
20\tx\texon\t11\t30\t.\t+\t.\tgene_id "G1"; transcript_id "T2"; gene_name "ABC";
20\tx\texon\t51\t60\t.\t+\t.\tgene_id "G1"; gene_name "ABC";
chrUn\tx\texon\t21\t30\t.\t+\t.\tgene_id "G3";
20\tx\texon\t21\t22\t.\t?\t.\tgene_id "G4";
"""
GFF3 = """\
##gff-version 3
20\tx\tgene\t11\t60\t.\t-\t.\tID=gene:G1;Name=ABC
##FASTA
>20
ACGT
"""
BED = "track name=motifs\nchr20\t19\t25\ttata\t0\t-\n20\t29\t30\n20\t60\t70\tfar\n21\t20\t25\tother\n"


@pytest.fixture
def fasta(tmp_path):
    (tmp_path / "genome.fa").write_text(f">chr20\n{'ACGT' * 25}\n>21\n{'ACGT' * 25}\n")
    return Fasta(tmp_path / "genome.fa")


def test_gtf(fasta, tmp_path):
    """Each once, whatever the contig is called, and whole; rows of contigs that are not in the genome are skipped."""
    with gzip.open(tmp_path / "x.gtf.gz", "wt") as file:
        file.write(GTF)
    assert features_in(tmp_path / "x.gtf.gz", fasta, "chr20", 20, 40) == [
        Feature("gene", 10, 60, "+", "ABC"),
        Feature("exon", 10, 30, "+", "ABC"),
        Feature("exon", 20, 22, ".", "G4"),
    ]


def test_gff3(fasta, tmp_path):
    (tmp_path / "x.gff").write_text(GFF3)
    assert features_in(tmp_path / "x.gff", fasta, "chr20", 20, 40) == [Feature("gene", 10, 60, "-", "ABC")]


@pytest.mark.parametrize("start, end, number", [(20, 40, 2), (25, 29, 0), (24, 30, 2), (59, 60, 0), (60, 61, 1)])
def test_bed(fasta, tmp_path, start, end, number):
    (tmp_path / "x.bed").write_text(BED)
    found = features_in(tmp_path / "x.bed", fasta, "chr20", start, end)
    features = [Feature("x", 19, 25, "-", "tata"), Feature("x", 29, 30, ".", ""), Feature("x", 60, 70, ".", "far")]
    assert found == [feature for feature in features if feature.start < end and feature.end > start]
    assert len(found) == number


@pytest.mark.parametrize(
    "content, message",
    [
        ("", "the file is empty"),
        ("# nothing\n", "the file contains no interval"),
        (GTF + "20\tx\n", "line 8: GTF and GFF3 have nine tab-separated columns"),
        (BED + "20\tx\n", "line 6: a BED line needs a sequence, a start and an end"),
    ],
)
def test_bad_files(fasta, tmp_path, content, message):
    (tmp_path / "x").write_text(content)
    with pytest.raises(InputError, match=message):
        features_in(tmp_path / "x", fasta, "chr20", 0, 10)
