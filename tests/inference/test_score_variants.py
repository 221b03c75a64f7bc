import gzip
import random
import weakref
from contextlib import nullcontext
from itertools import islice

import pandas as pd
import pysam
import pytest
from forked import Script, run_in_two_processes, run_script, run_until_killed
from transformers import AutoModelForCausalLM, AutoTokenizer

from hyenadna_hf import HyenaDNAConfig, HyenaDNAForSequenceClassification, HyenaDNATokenizer
from hyenadna_hf.data.fasta import Fasta
from hyenadna_hf.errors import InputError, WorkError
from hyenadna_hf.inference import score_table
from hyenadna_hf.inference.score_table import COLUMNS, write_tsv
from hyenadna_hf.inference.score_variants import main, read_vcf
from hyenadna_hf.inference.variants import score_variants

HEADER = "##fileformat=VCFv4.2\n##contig=<ID=20>\n##INFO=<ID=AF,Number=A,Type=Float,Description=share>\n"
SCRIPT = "import sys\nfrom hyenadna_hf.inference.score_variants import main\nmain(sys.argv[1:])\n"
SMALL_PARTS = {"inference.score_table.PART_BASES": 320}
COLUMN_LINE = "#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO\n"


@pytest.fixture(scope="module")
def folder(tmp_path_factory, save_model):
    """A model, a reference, and variants of every kind on it."""
    folder = tmp_path_factory.mktemp("variants")
    save_model(folder / "model", max_seq_len=66)
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


def test_a_row_for_each_allele(folder, expected, table, tmp_path, capsys):
    found = pd.read_csv(folder / "whole.tsv", sep="\t", keep_default_na=False, na_values=["NA"])
    assert tuple(found.columns) == COLUMNS and len(found) == len(expected) == len(list(read_vcf(folder / "in.vcf")))
    reasons = set()
    for row, score in zip(found.itertuples(), expected):
        assert (row.chrom, row.pos - 1, row.ref) == (score.variant.contig, score.variant.start, score.variant.reference)
        assert row.alt == score.variant.alternate or (pd.isna(row.alt) and score.variant.alternate is None)
        if score.reason is None:
            assert pd.isna(row.reason) and row.llr == pytest.approx(score.llr, abs=1e-3)
            ratios = [ratio for ratio in (row.llr_forward, row.llr_reverse) if not pd.isna(ratio)]
            assert row.llr == pytest.approx(sum(ratios) / len(ratios), abs=2e-6)
        else:
            assert pd.isna(row.llr) and row.reason == score.reason
        reasons.add(score.reason)
    assert {"contig_not_in_fasta", "reference_mismatch", "no_alternate", "symbolic_allele", None} <= reasons
    main(arguments(folder, tmp_path / "again.tsv", "in.vcf.gz"))
    assert (tmp_path / "again.tsv").read_text() == table
    printed = capsys.readouterr().out
    scored = sum(score.reason is None for score in expected)
    assert f"again.tsv: {scored} of {len(expected)} alleles have a score; not scored: 1 contig_not_in_fasta" in printed
    assert [path.name for path in tmp_path.iterdir()] == ["again.tsv"]


def test_rows_are_written_one_by_one(tmp_path):
    """Memory does not grow with their number."""

    class Row(list):
        """Lists have no weak references."""

    rows, alive = [], []

    def read():
        for number in range(50):
            row = Row([str(number)] * len(COLUMNS))
            rows.append(weakref.ref(row))
            alive.append(sum(reference() is not None for reference in rows))
            yield row

    write_tsv(tmp_path / "out.tsv", read())
    assert max(alive) <= 2 and (tmp_path / "out.tsv").read_text().count("\n") == 51


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


@pytest.fixture
def small_parts(monkeypatch):
    monkeypatch.setattr("hyenadna_hf.inference.score_table.PART_BASES", SMALL_PARTS["inference.score_table.PART_BASES"])


def test_after_a_kill_the_result_is_that_of_a_whole_run(folder, tmp_path, small_parts):
    main(arguments(folder, tmp_path / "whole.tsv"))
    out = tmp_path / "new" / "out.tsv"
    out.parent.mkdir()
    for row in (30, 21):  # in the middle of a part
        run_until_killed(
            "inference.score_variants", arguments(folder, out), "inference.score_table.to_row", row, SMALL_PARTS
        )
        assert not out.exists()
    parts = {path.name for path in (out.parent / "out.tsv.partial").glob("[0-9]*")}
    assert parts == {"000000", "000001", "000002", "000003", "000004"}  # of 8 variants each
    main(arguments(folder, out))
    assert out.read_text() == (tmp_path / "whole.tsv").read_text()
    assert [path.name for path in out.parent.iterdir()] == ["out.tsv"]


NOT_ITS_ROW = "the row of .* does not match its variant; delete .*partial and start again"


@pytest.mark.parametrize(
    "damage, message",
    [
        (lambda lines: lines[1:], NOT_ITS_ROW),
        (lambda lines: [lines[1], lines[0], *lines[2:]], NOT_ITS_ROW),
        (
            lambda lines: [*lines[:-1], lines[-1][:20] + "\n"],
            NOT_ITS_ROW,
        ),
        (lambda lines: [*lines, lines[-1]], NOT_ITS_ROW),
        (None, "No such file"),
    ],
)
def test_rows_that_are_not_those_of_the_variants_are_not_installed(folder, tmp_path, monkeypatch, damage, message):
    """Only damage to the parts can bring this about."""
    out = tmp_path / "out.vcf"
    out.write_text("old")

    def damaged(job, number):
        part = job.part(0)
        if damage is None:
            part.unlink()
        else:
            part.write_text("".join(damage(part.read_text().splitlines(keepends=True))))
        return rows(job, number)

    rows = score_table._rows
    monkeypatch.setattr(score_table, "_rows", damaged)
    with pytest.raises((WorkError, OSError), match=message):
        main(arguments(folder, out))
    assert out.read_text() == "old"


def test_rows_that_are_missing_at_the_end_are_noticed(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(score_table, "_rows", lambda job, number, rows=score_table._rows: islice(rows(job, number), 9))
    with pytest.raises(WorkError, match="is missing; delete"):
        main(arguments(folder, tmp_path / "out.tsv"))
    assert not (tmp_path / "out.tsv").exists()


def test_two_runs_at_once(folder, table, tmp_path):
    out = tmp_path / "out.tsv"
    runs = [run.wait() for run in [Script(SCRIPT, *arguments(folder, out)) for _ in range(3)]]
    refused = [run.stderr for run in runs if run.returncode != 0]
    assert all("InputError" in error and "another run is writing it" in error for error in refused)
    assert len(refused) < len(runs)
    assert out.read_text() == table and [path.name for path in tmp_path.iterdir()] == ["out.tsv"]


def test_two_processes(folder, tmp_path, small_parts):
    out = tmp_path / "out" / "out.tsv"
    out.parent.mkdir()
    result = run_in_two_processes("inference.score_variants", arguments(folder, out), SMALL_PARTS)
    main(arguments(folder, tmp_path / "one.tsv"))
    assert out.read_text() == (tmp_path / "one.tsv").read_text()
    assert result.stdout.count("alleles have a score") == 1
    assert [path.name for path in out.parent.iterdir()] == ["out.tsv"]


@pytest.mark.parametrize(
    "options, message",
    [
        (["--out", "out.csv"], "--out out.csv: the suffix sets the format; it must be one of .tsv, .vcf, .vcf.gz"),
        (["--out", "absent/out.tsv"], "the folder absent does not exist"),
        (["--window", "67"], "window=67: give 2 to 66 bases"),
        (["--vcf", "absent.vcf"], "absent.vcf: there is no such file"),
        (["--vcf", "text.vcf"], "text.vcf: this is not a readable VCF or BCF file"),
        (["--vcf", "broken.vcf"], "broken.vcf: the record after 20:5 cannot be read"),
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
    with pytest.raises(InputError, match="x.vcf.gz: the record after 20:[0-9,]+ cannot be read"):
        list(read_vcf(tmp_path / "x.vcf.gz"))


@pytest.mark.parametrize("change", ["gzip", "byte-order mark", "both"])
def test_other_spellings_of_a_vcf(folder, tmp_path, change):
    content = (folder / "in.vcf").read_bytes()
    if change != "gzip":
        content = b"\xef\xbb\xbf" + content
    if change != "byte-order mark":
        content = gzip.compress(content)
    (tmp_path / "in.vcf").write_bytes(content)
    assert list(read_vcf(tmp_path / "in.vcf")) == list(read_vcf(folder / "in.vcf"))


@pytest.mark.parametrize("name", ["-", "/dev/stdin"])
def test_a_vcf_from_standard_input(folder, table, tmp_path, name):
    words = [*arguments(folder, tmp_path / "out.tsv"), "--vcf", name]
    result = run_script(SCRIPT, *words, stdin=folder / "in.vcf.gz")
    assert result.returncode == 0, result.stderr
    assert (tmp_path / "out.tsv").read_text() == table


@pytest.mark.parametrize("order", ["sorted", "unsorted", "a contig comes back"])
def test_a_vcf_gets_an_index_if_it_can(folder, tmp_path, order):
    rows = {
        "sorted": [("20", 3), ("20", 3), ("20", 9), ("2", 1)],
        "unsorted": [("20", 9), ("20", 3)],
        "a contig comes back": [("20", 3), ("2", 1), ("20", 9)],
    }[order]
    (tmp_path / "in.vcf").write_text(
        HEADER + COLUMN_LINE + "".join(f"{contig}\t{position}\t.\tA\tG\t.\t.\t.\n" for contig, position in rows)
    )
    with nullcontext() if order == "sorted" else pytest.warns(UserWarning, match="so no index is written"):
        main([*arguments(folder, tmp_path / "out.vcf.gz")[2:], "--vcf", str(tmp_path / "in.vcf")])
    found = sorted(path.name for path in tmp_path.iterdir())
    assert found == ["in.vcf", "out.vcf.gz", *(["out.vcf.gz.tbi"] if order == "sorted" else [])]
    if order == "sorted":
        with pysam.VariantFile(str(tmp_path / "out.vcf.gz")) as file:
            assert [record.pos for record in file.fetch("20", 2, 9)] == [3, 3, 9]


def test_htslib_warns_once(folder, tmp_path):
    (tmp_path / "in.vcf").write_text(
        "##fileformat=VCFv4.2\n" + COLUMN_LINE + "".join(f"20\t{i}\t.\tA\tG\t.\t.\tXY=1\n" for i in range(1, 90))
    )
    result = run_script(SCRIPT, *arguments(folder, tmp_path / "out.vcf"), "--vcf", tmp_path / "in.vcf")
    assert result.returncode == 0, result.stderr
    warned = [line for line in result.stderr.splitlines() if line.startswith("[W::")]
    assert warned and len(warned) == len(set(warned))
