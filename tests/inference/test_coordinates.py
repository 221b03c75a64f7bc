"""Tables of different commands join by their coordinates, without a change."""

import pandas as pd
import pytest
from genomes import random_bases

from hyenadna_cli import main
from hyenadna_hf import HyenaDNAForSequenceClassification

CONTIG = random_bases(300, 0)
VARIANTS = [("chr20", at + 1, CONTIG[at], base) for at in range(100, 130) for base in "ACGT".replace(CONTIG[at], "")]


@pytest.fixture(scope="module")
def folder(tmp_path_factory, save_model):
    folder = tmp_path_factory.mktemp("coordinates")
    save_model(folder / "model")
    save_model(folder / "classifier", HyenaDNAForSequenceClassification, problem_type="regression", num_labels=1)
    (folder / "genome.fa").write_text(f">chr20\n{CONTIG}\n")
    header = "##fileformat=VCFv4.2\n##contig=<ID=chr20>\n#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO\n"
    rows = (f"{chrom}\t{pos}\t.\t{ref}\t{alt}\t.\t.\t.\n" for chrom, pos, ref, alt in VARIANTS)
    (folder / "in.vcf").write_text(header + "".join(rows))
    table = pd.DataFrame(VARIANTS, columns=["chrom", "pos", "ref", "alt"])
    table.assign(label=table.index % 2).to_csv(folder / "in.csv", index=False)
    # The other name of the contig; tables have the one of the FASTA file.
    (folder / "in.bed").write_text("20\t10\t40\tone\t0\t+\n20\t5\t45\ttwo\t0\t-\n20\t10\t40\tthree\t0\t-\n")
    return folder


def run(folder, command, model, out, *options):
    paths = [str(folder / word) if (folder / word).exists() else word for word in options]
    common = ["--model", str(folder / model), "--fasta", str(folder / "genome.fa"), "--out", str(out), "--use_cpu"]
    assert main([command, *common, *paths]) == 0
    return out


def test_variants(folder, tmp_path):
    window = ["--window", "40"]
    scores = run(folder, "score-variants", "model", tmp_path / "scores.tsv", "--vcf", "in.vcf", *window)
    changes = run(folder, "mutagenesis", "model", tmp_path / "changes.tsv", "--region", "20:101-130", *window)
    options = ["--table", "in.csv", "--score", "llr", "--bootstrap", "0", "--no_control", *window]
    evaluated = run(folder, "evaluate-variants", "model", tmp_path / "evaluated", *options) / "scores.parquet"
    tables = [pd.read_csv(scores, sep="\t"), pd.read_csv(changes, sep="\t"), pd.read_parquet(evaluated)]
    keys = ["chrom", "pos", "ref", "alt"]
    for table in tables:
        assert list(table[keys].itertuples(index=False, name=None)) == VARIANTS
    joined = tables[0].merge(tables[1], on=keys, suffixes=("", "_changes"))
    joined = joined.merge(tables[2], on=keys, suffixes=("", "_evaluated"))
    assert len(joined) == len(VARIANTS)
    for name in ("llr_changes", "llr_evaluated"):
        assert joined[name].to_numpy() == pytest.approx(joined["llr"].to_numpy(), abs=1e-4)


def test_intervals(folder, tmp_path):
    embedded = run(folder, "embed", "model", tmp_path / "embedded.parquet", "--bed", "in.bed")
    predicted = run(folder, "predict", "classifier", tmp_path / "predicted.tsv", "--input", "in.bed")
    tables = [pd.read_parquet(embedded), pd.read_csv(predicted, sep="\t")]
    keys = ["chrom", "start", "end", "strand"]
    for table in tables:
        expected = [("chr20", 10, 40, "+"), ("chr20", 5, 45, "-"), ("chr20", 10, 40, "-")]
        assert list(table[keys].itertuples(index=False, name=None)) == expected
    joined = tables[0].merge(tables[1], on=keys)
    assert list(joined["name_x"]) == list(joined["name_y"]) == ["one", "two", "three"]
