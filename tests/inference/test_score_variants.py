import gzip
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pysam
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import randomise
from transformers import AutoModelForCausalLM, AutoTokenizer

import hyenadna_hf
from hyenadna_hf import HyenaDNAConfig, HyenaDNAForCausalLM, HyenaDNAForSequenceClassification, HyenaDNATokenizer
from hyenadna_hf.data.fasta import Fasta
from hyenadna_hf.errors import InputError
from hyenadna_hf.inference.score_table import COLUMNS, score_to_file
from hyenadna_hf.inference.score_variants import main, read_vcf
from hyenadna_hf.inference.variants import Variant, VariantScore, score_variants

HEADER = "##fileformat=VCFv4.2\n##contig=<ID=20>\n##INFO=<ID=AF,Number=A,Type=Float,Description=share>\n"
ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(hyenadna_hf.__file__).parents[1])}
COLUMN_LINE = "#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO\n"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A model, a reference, and variants of every kind on it."""
    folder = tmp_path_factory.mktemp("variants")
    torch.manual_seed(0)
    config = HyenaDNAConfig(d_model=12, n_layer=2, max_seq_len=66, filter_order=16, embed_dropout=0.0)
    randomise(HyenaDNAForCausalLM(config)).save_pretrained(folder / "model")
    HyenaDNATokenizer(model_max_length=66).save_pretrained(folder / "model")
    rng = random.Random(0)
    contig = "".join(rng.choices("ACGTacgt", k=400)) + "N" * 20 + "".join(rng.choices("ACGT", k=400))
    (folder / "reference.fa").write_text(f">chr20\n{contig}\n")
    lines = []
    for number, start in enumerate(sorted([0, 1, 399, 420, 818, *rng.sample(range(400), 60)])):
        reference = contig[start : start + rng.choice([1, 1, 1, 3])].upper().replace("N", "") or "A"
        others = [base for base in "ACGT" if base != reference]
        alternates = rng.choice([others[:1], others, [reference + "TT"], ["GATTACA", "<DEL>", "*"]])
        if len(reference) > 1:
            alternates = [reference[0]]
        af = ",".join(["0.25"] * len(alternates))
        lines.append(f"20\t{start + 1}\tv{number}\t{reference}\t{','.join(alternates)}\t50\tPASS\tAF={af}\n")
    wrong = "A" if contig[10].upper() != "A" else "C"
    lines += [f"20\t11\t.\t{wrong}\tG\t.\t.\t.\n", f"20\t12\t.\t{contig[11].upper()}\t.\t.\t.\t.\n"]
    lines += ["chrUn\t11\t.\tA\tG\t.\t.\t.\n"]
    (folder / "in.vcf").write_text(HEADER + COLUMN_LINE + "".join(lines))
    pysam.tabix_compress(str(folder / "in.vcf"), str(folder / "in.vcf.gz"))
    return folder


def arguments(folder, out, vcf="in.vcf", window=40):
    files = {"vcf": folder / vcf, "fasta": folder / "reference.fa", "model": folder / "model", "out": out}
    return [*(text for name, path in files.items() for text in (f"--{name}", str(path))), "--window", str(window)]


@pytest.fixture(scope="module")
def expected(folder):
    model = AutoModelForCausalLM.from_pretrained(folder / "model")
    tokenizer = AutoTokenizer.from_pretrained(folder / "model")
    with Fasta(folder / "reference.fa") as fasta:
        return list(score_variants(model, tokenizer, read_vcf(folder / "in.vcf"), fasta, window=40))


@pytest.fixture(scope="module")
def table(folder):
    """The text of the table, from a run without kills."""
    main(arguments(folder, folder / "whole.tsv"))
    return (folder / "whole.tsv").read_text()


def assert_same_table(path, expected):
    """Up to rounding: which variants are in a batch together depends on where a run was killed."""
    found, expected = ([line.split("\t") for line in text.splitlines()] for text in (path.read_text(), expected))
    for row, other in zip(found, expected, strict=True):
        assert row[:5] + row[8:] == other[:5] + other[8:]
        if row[5] not in ("llr", "NA"):
            assert [float(ratio) for ratio in row[5:8]] == pytest.approx(
                [float(ratio) for ratio in other[5:8]], abs=1e-4
            )


def test_a_row_for_each_allele(folder, expected, table, tmp_path, capsys):
    found = pd.read_csv(folder / "whole.tsv", sep="\t", keep_default_na=False, na_values=["NA"])
    assert tuple(found.columns) == COLUMNS and len(found) == len(expected) == len(list(read_vcf(folder / "in.vcf")))
    reasons = set()
    for row, score in zip(found.itertuples(), expected):
        assert (row.chrom, row.pos - 1, row.ref) == (score.variant.contig, score.variant.start, score.variant.reference)
        assert row.alt == score.variant.alternate or (pd.isna(row.alt) and score.variant.alternate is None)
        if score.reason is None:
            assert pd.isna(row.reason) and row.llr == pytest.approx(score.llr, abs=1e-3)
            assert row.llr == pytest.approx((row.llr_forward + row.llr_reverse) / 2, abs=2e-6)
        else:
            assert pd.isna(row.llr) and row.reason == score.reason
        reasons.add(score.reason)
    assert {"contig_not_in_fasta", "reference_mismatch", "no_alternate", "symbolic_allele", None} <= reasons
    main(arguments(folder, tmp_path / "again.tsv", "in.vcf.gz"))
    assert_same_table(tmp_path / "again.tsv", table)
    printed = capsys.readouterr().out
    scored = sum(score.reason is None for score in expected)
    assert f"again.tsv: {scored} of {len(expected)} alleles have a score; not scored: 1 contig_not_in_fasta" in printed
    assert [path.name for path in tmp_path.iterdir()] == ["again.tsv"]


@pytest.mark.parametrize("name", ["out.vcf", "out.vcf.gz"])
def test_vcf_with_info(folder, expected, tmp_path, name):
    main(arguments(folder, tmp_path / name))
    scores = iter(expected)
    with pysam.VariantFile(str(tmp_path / name)) as found, pysam.VariantFile(str(folder / "in.vcf")) as before:
        for record, original in zip(found, before, strict=True):
            assert (record.id, record.pos, record.alleles) == (original.id, original.pos, original.alleles)
            assert record.info.get("AF") == original.info.get("AF")
            of_record = [next(scores) for _ in original.alts or (None,)]
            ratios = record.info.get("HYENADNA_LLR", (None,) * len(of_record))
            assert list(ratios) == [score.llr and pytest.approx(score.llr, abs=1e-3) for score in of_record]
            reasons = record.info.get("HYENADNA_REASON", (None,) * len(of_record))
            assert [reason or "." for reason in reasons] == [score.reason or "." for score in of_record]
    magic = (tmp_path / name).read_bytes()[:4]
    assert magic == (b"\x1f\x8b\x08\x04" if name.endswith("gz") else b"##fi")
    again = tmp_path / "again.vcf"
    main([*arguments(folder, again)[2:], "--vcf", str(tmp_path / name)])  # replaces the fields of the first run
    opened = gzip.open if name.endswith("gz") else open
    with opened(tmp_path / name, "rt") as file:
        assert file.read() == again.read_text()


def test_after_a_kill_each_row_is_there_once(folder, table, tmp_path):
    """A process that is killed while it writes, in the middle of a row."""
    out = tmp_path / "out.tsv"
    script = f"""
import sys, time
from hyenadna_hf.inference import score_table
from hyenadna_hf.inference.score_variants import main
slow = score_table.to_row
score_table.to_row = lambda score: time.sleep(0.02) or slow(score)
main({arguments(folder, out)!r})
"""
    part = tmp_path / "out.tsv.part0of1"
    process = subprocess.Popen([sys.executable, "-c", script], env=ENVIRONMENT)
    while process.poll() is None and not (part.is_file() and part.read_bytes().count(b"\n") > 30):
        time.sleep(0.01)
    assert process.poll() is None
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not out.exists() and part.read_bytes().count(b"\n") < table.count("\n")
    with part.open("ab") as file:
        file.write(b"20\t77\tcut sho")
    main(arguments(folder, out))
    assert_same_table(out, table)
    assert [path.name for path in tmp_path.iterdir()] == ["out.tsv"]


def test_what_is_left_of_another_run_is_not_gone_on_with(folder, tmp_path):
    out = tmp_path / "out.tsv"
    (tmp_path / "out.tsv.part0of1").write_text(json.dumps({"window": 20}) + "\n")
    with pytest.raises(InputError, match=r"out\.tsv\.part0of1: an unfinished run with another .* finish that run, or"):
        main(arguments(folder, out))
    (tmp_path / "out.tsv.part0of1").rename(tmp_path / "out.tsv.part1of4")
    with pytest.raises(InputError, match=r"out\.tsv\.part1of4: a run with another number of processes"):
        main(arguments(folder, out))
    assert not out.exists()


class Shards:
    """Processes that meet without waiting: the test runs them one after the other, the main one last."""

    def __init__(self, index, number):
        self.process_index, self.num_processes, self.is_main_process = index, number, index == 0

    def wait_for_everyone(self):
        pass


class KilledError(Exception):
    pass


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 60), st.integers(1, 4), st.integers(1, 8), st.data())
def test_any_shards_and_kills(tmp_path_factory, rows, number, block, data):
    """Each row once and in order, for any number of processes, killed at any byte."""
    out = tmp_path_factory.mktemp("shards") / "out.tsv"
    variants = [Variant("20", row, "A", "C") for row in range(rows)]

    def score(mine):
        mine = list(mine)
        assert [variant.start for variant in mine] == share[whole:]  # what is there is not done again
        for variant in mine:
            if variant.start in kills:
                kills.remove(variant.start)
                raise KilledError
            yield VariantScore(variant, variant.start / 7, 0.0, 0.0, 0)

    kills = data.draw(st.sets(st.integers(0, max(0, rows - 1)), max_size=5))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("hyenadna_hf.inference.score_table.BLOCK", block)
        for index in [*range(1, number), 0]:
            patch.setattr("hyenadna_hf.inference.score_table.processes", lambda i=index: Shards(i, number))
            share = [row for row in range(rows) if row // block % number == index]
            whole = 0
            while True:
                try:
                    reasons = score_to_file(out, {"a": 1}, lambda: iter(variants), score)
                    break
                except KilledError:
                    part = out.with_name(f"out.tsv.part{index}of{number}")
                    size = part.stat().st_size
                    with part.open("r+b") as file:
                        file.truncate(data.draw(st.integers(0, size)))
                    whole = max(0, part.read_bytes().count(b"\n") - 1)
    assert reasons.total() == rows
    assert [int(line.split("\t")[1]) - 1 for line in out.read_text().splitlines()[1:]] == list(range(rows))
    assert [path.name for path in out.parent.iterdir()] == ["out.tsv"]


def test_two_processes(folder, table, tmp_path):
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    script = tmp_path / "run.py"
    script.write_text("import sys\nfrom hyenadna_hf.inference.score_variants import main\nmain(sys.argv[1:])\n")
    out = tmp_path / "out" / "out.tsv"
    out.parent.mkdir()
    command = [*launch, str(script), *arguments(folder, out)]
    result = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result.stderr
    assert table.count("\n") > 65  # more than a block
    assert_same_table(out, table)
    assert result.stdout.count("alleles have a score") == 1
    assert [path.name for path in out.parent.iterdir()] == ["out.tsv"]


@pytest.mark.parametrize(
    "options, message",
    [
        (["--out", "out.csv"], "--out out.csv: the ending says the format; it must be one of .tsv, .vcf, .vcf.gz"),
        (["--out", "absent/out.tsv"], "there is no folder absent"),
        (["--window", "67"], "window=67: give 2 to 66 bases"),
        (["--vcf", "absent.vcf"], "absent.vcf: there is no such file"),
        (["--vcf", "text.vcf"], "text.vcf: this is not a readable VCF or BCF file"),
        (["--vcf", "broken.vcf"], "broken.vcf: the record behind 20:5 cannot be read"),
        (["--fasta", "absent.fa"], "absent.fa: there is no such file"),
        (["--model", "./absent/model"], "--model ./absent/model: cannot be loaded"),
        (["--model", "hyenadna-tiny-1k-remag"], "--model hyenadna-tiny-1k-remag: lm_head.weight and"),
        (["--model", "classifier"], "--model classifier: lm_head.weight and"),
        (["--max_tokens", "0"], "max_tokens=0"),
        (["--windows", "3"], "unknown argument --windows"),
    ],
)
def test_bad_input_leaves_nothing(folder, tmp_path, monkeypatch, options, message):
    monkeypatch.chdir(tmp_path)
    HyenaDNAForSequenceClassification(HyenaDNAConfig(d_model=8, max_seq_len=50)).save_pretrained("classifier")
    HyenaDNATokenizer().save_pretrained("classifier")
    (tmp_path / "text.vcf").write_text("these are no variants\n")
    (tmp_path / "broken.vcf").write_text(HEADER + COLUMN_LINE + "20\t5\t.\tA\tC\t.\t.\t.\n20\tfive\t.\tA\n")
    before = sorted(str(path) for path in tmp_path.rglob("*"))
    with pytest.raises(InputError) as error:
        main([*arguments(folder, "out.tsv"), *options])
    assert message in str(error.value)
    assert sorted(str(path) for path in tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    "line", ["\xe9\t11\t.\tA\tG\t.\t.\t.\n", "20\t11\t.\tA\tG\t.\t\xe9\t.\n", "20\t11\t\xe9\tA\tG\t.\t.\t.\n"]
)
def test_a_vcf_that_is_no_utf8_is_refused_before_it_is_scored(line, tmp_path):
    (tmp_path / "in.vcf").write_bytes((HEADER + COLUMN_LINE + line).encode("latin-1"))
    with pytest.raises(InputError, match=r"in.vcf: .* cannot be read \('utf-8' codec can't decode byte 0xe9"):
        list(read_vcf(tmp_path / "in.vcf"))


def test_a_vcf_with_a_damaged_block_is_refused(tmp_path):
    (tmp_path / "x.vcf").write_text(
        HEADER + COLUMN_LINE + "".join(f"20\t{i}\t.\tA\tG\t.\t.\t.\n" for i in range(1, 9000))
    )
    pysam.tabix_compress(str(tmp_path / "x.vcf"), str(tmp_path / "x.vcf.gz"))
    content = bytearray((tmp_path / "x.vcf.gz").read_bytes())
    content[-200] ^= 0xFF
    (tmp_path / "x.vcf.gz").write_bytes(content)
    with pytest.raises(InputError, match="x.vcf.gz: the record behind 20:[0-9,]+ cannot be read"):
        list(read_vcf(tmp_path / "x.vcf.gz"))


def test_a_vcf_packed_by_plain_gzip_is_refused_with_the_remedy(folder, tmp_path):
    file = tmp_path / "in.vcf.gz"
    file.write_bytes(gzip.compress((folder / "in.vcf").read_bytes()))
    with pytest.raises(InputError, match=r"gzip, where bgzip is wanted; gunzip -c .*in.vcf.gz \| bgzip > new.vcf.gz"):
        list(read_vcf(file))
