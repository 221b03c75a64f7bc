"""Damaged FASTA, BED, VCF, GTF, GFF3 and tables are read or refused by an `InputError`; nothing else comes out."""

import gzip
import tempfile
import warnings
from io import BytesIO
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pysam
import pytest
from fuzz.damage import QUICK, THOROUGH, damage, damage_packed
from hypothesis import given

from hyenadna_hf.data.biotypes import load_biotypes
from hyenadna_hf.data.fasta import Fasta
from hyenadna_hf.data.intervals import read_bed
from hyenadna_hf.data.labelled import BUNDLED, list_classes, read_labelled
from hyenadna_hf.data.unlabelled import load_unlabelled_sequences
from hyenadna_hf.errors import InputError
from hyenadna_hf.inference.score_table import to_row
from hyenadna_hf.inference.score_variants import read_vcf, write_vcf
from hyenadna_hf.inference.variants import VariantScore

FIXTURES = Path(__file__).parents[1] / "fixtures"


def lines(file):
    return gzip.decompress(file.read_bytes()).decode().splitlines(keepends=True)


PIECE = "".join(lines(FIXTURES / "human_chr20.fa.gz")[1:21]).replace("\n", "")
FASTA = "".join(
    f">chr{name} a piece of human chromosome 20\n" + "".join(f"{PIECE[i : i + 60]}\n" for i in range(0, length, 60))
    for name, length in (("20", 1200), ("M", 500))
)
BED = "# comment\ntrack name=x\nchr20\t0\t100\ttrain\t0\t+\n20\t50\t900\tvalid\t.\t-\nMT\t1\t500\ttest\t.\t.\n"
VCF = (
    "##fileformat=VCFv4.2\n##contig=<ID=chr20>\n"
    '##INFO=<ID=AF,Number=A,Type=Float,Description="frequency">\n#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO\n'
    f"chr20\t10\trs1\t{PIECE[9]}\tA,C,*\t50\tPASS\tAF=0.1,0.2,0.3\n"
    f"chr20\t21\t.\t{PIECE[20:24]}\t{PIECE[20]}\t.\t.\t.\n"
    f"chrM\t31\trs3\t{PIECE[30]}\t<DEL>\t.\tq10\tEND=90\nchrM\t41\t.\t{PIECE[40]}\t.\t.\t.\t.\n"
)
GTF = "#!genome-build x\n" + "".join(
    f'chr20\ttest\t{feature}\t{1 + 40 * i}\t{30 + 40 * i}\t.\t{"+-"[i % 2]}\t.\tgene_id "g{i}"; gene_name "n{i}"; '
    f'gene_biotype "{("protein_coding", "snRNA")[i % 3 == 0]}";\n'
    for i in range(28)
    for feature in ("gene", "exon")
)
GFF3 = "##gff-version 3\n" + "".join(
    f"chr20\ttest\t{feature}\t{1 + 40 * i}\t{30 + 40 * i}\t.\t{'+-'[i % 2]}\t{phase}\t{attributes}\n"
    for i in range(28)
    for feature, phase, attributes in (
        ("gene", ".", f"ID=gene:g{i};Name=n%2C{i};biotype={('protein_coding', 'snRNA')[i % 3 == 0]}"),
        ("CDS", "1", f"ID=CDS:p{i};Parent=transcript:t{i}"),
    )
)
TABLE = "".join(lines(BUNDLED["splice_sites_chr20"] / "train.csv.gz")[:12])


def parquet(text):
    file = BytesIO()
    pd.read_csv(BytesIO(text.encode()), dtype=str).to_parquet(file)
    return file.getvalue()


def arrow(text, new):
    data = pa.Table.from_pandas(pd.read_csv(BytesIO(text.encode()), dtype=str))
    file = BytesIO()
    with new(file, data.schema) as content:
        content.write_table(data)
    return file.getvalue()


def json_lines(text):
    return pd.read_csv(BytesIO(text.encode()), dtype=str).to_json(orient="records", lines=True).encode()


def read_fasta(file, fasta):
    with Fasta(file) as damaged:
        for name, length in damaged.lengths.items():
            assert len(damaged.fetch(name)) == length > 0


def read_intervals(file, fasta):
    for interval in read_bed(file, fasta):
        assert len(fasta.fetch(*interval[:3])) == interval.end - interval.start > 0


def read_variants(file, fasta):
    rows = [to_row(VariantScore(variant, llr=variant.alternate and 0.5)) for variant in read_vcf(file)]
    write_vcf(file, file.with_name("scored.vcf"), iter(rows))
    assert len(list(read_vcf(file.with_name("scored.vcf")))) == len(rows)


def read_genes(file, fasta):
    data = load_biotypes(file, fasta, min_genes=3)
    for row in data["train"]:
        assert len(row["sequence"]) == row["end"] - row["start"] > 0


def read_table(file, fasta):
    tables = read_labelled(str(file))
    names = list_classes(file, tables)
    assert set(tables["train"]["label"]) == set(names)


def read_text(file, fasta):
    splits = load_unlabelled_sequences(file, validation_fraction=0.2, test_fraction=0)
    assert len(splits["validation"]) > 0 and all(map(len, splits["train"]))


def gzipped(content):
    return gzip.compress(content, mtime=0)  # with the time in it, what hypothesis draws would change by the second


def bgzip(content):
    with tempfile.NamedTemporaryFile(suffix=".gz") as file:
        with pysam.BGZFile(file.name, "wb") as packed:
            packed.write(content)
        return file.read()


# What the file is called, what is in it, what reads it, and how it may be packed.
FORMATS = [
    ("x.fa", FASTA.encode(), read_fasta, (gzipped, bgzip)),
    ("labelled.fa", FASTA.replace("chr20", "a|20").replace("chrM", "b|M").encode(), read_table, (gzipped,)),
    ("marked.fa", b"\xef\xbb\xbf" + FASTA.encode(), read_fasta, (gzipped, bgzip)),
    ("x.bed", BED.encode(), read_intervals, (gzipped, bgzip)),
    ("marked.bed", b"\xef\xbb\xbf" + BED.encode(), read_intervals, (gzipped,)),
    ("x.vcf", VCF.encode(), read_variants, (bgzip,)),
    ("x.gtf", GTF.encode(), read_genes, (gzipped,)),
    ("x.gff3", GFF3.encode(), read_genes, (gzipped,)),
    ("x.csv", TABLE.encode(), read_table, (gzipped,)),
    ("x.tsv", TABLE.replace(",", "\t").encode(), read_table, (gzipped,)),
    ("semicolons.csv", b"\xef\xbb\xbf" + TABLE.replace(",", "; ").encode(), read_table, (gzipped,)),
    ("x.jsonl", json_lines(TABLE), read_table, (gzipped,)),
    ("x.txt", "".join(f"{PIECE[i : i + 60]}\n" for i in range(0, 1200, 60)).encode(), read_text, (gzipped,)),
    ("x.arrow", arrow(TABLE, pa.ipc.new_file), read_table, ()),
    ("stream.arrow", arrow(TABLE, pa.ipc.new_stream), read_table, (gzipped,)),
    ("x.parquet", parquet(TABLE), read_table, ()),
]
CASES = [
    pytest.param(
        name + ".gz" * (pack is not None), content, read, pack, id=f"{name} {pack.__name__ if pack else 'plain'}"
    )
    for name, content, read, packs in FORMATS
    for pack in (None, *packs)
]


def fuzz(name, content, read, pack, profile, folder):
    """Read a file that is damaged in many ways."""
    (folder / "genome.fa").write_text(FASTA)

    @profile
    @given(damage_packed(content, pack) if pack else damage(content))
    def run(content):
        for old in folder.glob(f"{name}*"):  # an index, too
            old.unlink()
        (folder / name).write_bytes(content)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                read(folder / name, fasta)
            except InputError as error:
                assert name in str(error)

    with Fasta(folder / "genome.fa") as fasta:
        (folder / name).write_bytes(pack(content) if pack else content)
        read(folder / name, fasta)  # what is not damaged is read
        run()


@pytest.mark.parametrize(("name", "content", "read", "pack"), CASES)
def test_damaged_files(name, content, read, pack, tmp_path):
    fuzz(name, content, read, pack, QUICK, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "content", "read", "pack"), CASES)
def test_files_damaged_in_many_ways(name, content, read, pack, tmp_path):
    fuzz(name, content, read, pack, THOROUGH, tmp_path)
