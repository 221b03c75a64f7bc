import gzip
import json
import random
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from datasets import Dataset
from forked import run_in_two_processes, run_until_killed
from scipy.stats import spearmanr
from sklearn.metrics import average_precision_score, roc_auc_score
from transformers import AutoModelForCausalLM, AutoTokenizer

import hyenadna_hf
from hyenadna_cli import main as cli
from hyenadna_hf import HyenaDNAConfig, HyenaDNAForCausalLM, HyenaDNATokenizer
from hyenadna_hf.data.fasta import Fasta
from hyenadna_hf.errors import InputError
from hyenadna_hf.inference import variant_tables
from hyenadna_hf.inference.evaluate_variants import main
from hyenadna_hf.inference.variant_effects import SCORES, score_variant_effects
from hyenadna_hf.inference.variant_tables import PublishedTable, find_column, read_variants
from hyenadna_hf.inference.variants import Variant

FILES = ["metrics.csv", "metrics.png", "scores.parquet", "table.md"]
WINDOW = 40


@pytest.fixture(scope="module")
def folder(tmp_path_factory, save_model):
    """Two models, a reference, and a table of variants in every format."""
    folder = tmp_path_factory.mktemp("evaluate")
    for seed, name in enumerate(("model", "other")):
        save_model(folder / name, max_seq_len=66, seed=seed)
    rng = random.Random(0)
    contig = "".join(rng.choices("ACGTacgt", k=400))
    (folder / "reference.fa").write_text(f">chr20\n{contig}\n")
    rows = []
    for position in sorted(rng.sample(range(400), 30)):
        for base in "ACGT".replace(contig[position].upper(), ""):
            cadd = "" if position % 7 == 0 else f"{rng.random():.3f}"
            rows.append(("20", position + 1, contig[position].upper(), base, rng.choice("aabc"), rng.gauss(0, 1), cadd))
    rows[4] = (*rows[4][:2], "N", *rows[4][3:])  # which has no score
    table = pd.DataFrame(rows, columns=["Chrom", "POS", "ref", "Alt", "Kind", "Effect", "cadd"])
    table["group"] = [rng.choice(["exon", "intron"]) for _ in rows]
    table.to_csv(folder / "table.csv", index=False)
    table.rename(columns={"Chrom": "#CHROM"}).to_csv(folder / "table.tsv", index=False, sep="\t")
    table.to_parquet(folder / "table.parquet")
    with gzip.open(folder / "table.csv.gz", "wt") as file:
        table.to_csv(file, index=False)
    header = "##fileformat=VCFv4.2\n##contig=<ID=20>\n"
    header += "".join(
        f'##INFO=<ID={name},Number={number},Type={kind},Description="x">\n'
        for name, number, kind in (("Kind", "A", "String"), ("Effect", "A", "Float"), ("cadd", "A", "Float"))
    )
    header += '##INFO=<ID=group,Number=1,Type=String,Description="x">\n'
    lines = [
        f"20\t{row.POS}\t.\t{row.ref}\t{row.Alt}\t.\t.\tKind={row.Kind};Effect={row.Effect};group={row.group}"
        + (f";cadd={row.cadd}\n" if row.cadd else "\n")
        for row in table.itertuples()
    ]
    (folder / "table.vcf").write_text(header + "#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO\n" + "".join(lines))
    return folder


LABELS = ["--label_column", "kind", "--positive", "a", "--target_column", "effect", "--group_column", "group"]
LABELS += ["--baselines", "cadd"]


def arguments(folder, out, table="table.csv", models=("model",)):
    files = ["--table", folder / table, "--fasta", folder / "reference.fa", "--out", out]
    files += ["--model", *(folder / name for name in models)]
    return [*map(str, files), "--window", str(WINDOW), "--bootstrap", "50", "--use_cpu"]


@pytest.fixture(scope="module")
def whole(folder):
    """The result of a run with both models and the control."""
    out = folder / "whole"
    return main([*arguments(folder, out, models=("model", "other")), *LABELS]), out


def test_metrics_are_those_of_direct_calls(folder, whole):
    """Scores from the function, metrics from scikit-learn and scipy, with the signs of the documentation."""
    result, out = whole
    assert sorted(path.name for path in out.iterdir()) == FILES
    assert (result["variants"], result["scored"]) == (90, 89) and list(result) == ["variants", "scored", "metrics"]
    assert list(result["metrics"][0]) == ["group", "score", "model", "metric", "value", "low", "high", "n"]
    table = pd.read_csv(folder / "table.csv")
    variants = [Variant("20", row.POS - 1, row.ref, row.Alt) for row in table.itertuples()]
    oriented = {("cadd", "baseline"): table["cadd"].to_numpy()}
    written = pd.read_parquet(out / "scores.parquet")
    for name in ("model", "other"):
        source = str(folder / name)
        model, tokenizer = (auto.from_pretrained(source) for auto in (AutoModelForCausalLM, AutoTokenizer))
        with Fasta(folder / "reference.fa") as fasta:
            effects = list(score_variant_effects(model, tokenizer, variants, fasta, window=WINDOW))
        for score in SCORES:
            values = np.array([effect.scores.get(score, np.nan) for effect in effects])
            of_model = written[written["model"] == source]
            np.testing.assert_allclose(of_model[score], values, atol=1e-5)
            oriented[score, source] = -values if score == "llr" else values
        assert list(of_model["row"]) == list(range(90)) and list(of_model["pos"]) == list(table["POS"])
        assert list(of_model["reason"].dropna()) == ["ambiguous_allele"]
    rows = {(row["group"], row["score"], row["model"], row["metric"]): row for row in result["metrics"]}
    for (score, model), values in oriented.items():
        for group in ("all", "exon", "intron"):
            known = ~np.isnan(values) & ((table["group"] == group) | (group == "all")).to_numpy()
            positive, effect = (table["Kind"] == "a")[known], table["Effect"][known]
            expected = {
                "auroc": roc_auc_score(positive, values[known]),
                "auprc": average_precision_score(positive, values[known]),
                "spearman": spearmanr(values[known], effect).statistic,
            }
            for metric, value in expected.items():
                row = rows[group, score, model, metric]
                assert row["value"] == pytest.approx(value, abs=1e-6) and row["n"] == known.sum()
                assert row["low"] <= value <= row["high"]


def test_the_control_has_random_weights(folder, whole):
    """One for both models, which have one configuration; another one for another seed; none if that is asked for."""
    result, out = whole
    models = dict.fromkeys(row["model"] for row in result["metrics"])
    assert list(models) == [str(folder / "model"), str(folder / "other"), "random weights", "baseline"]
    written = pd.read_parquet(out / "scores.parquet").set_index("model")["llr"]
    torch.manual_seed(0)
    control = HyenaDNAForCausalLM(HyenaDNAConfig.from_pretrained(folder / "model"))
    table = pd.read_csv(folder / "table.csv")
    variants = [Variant("20", row.POS - 1, row.ref, row.Alt) for row in table.itertuples()]
    with Fasta(folder / "reference.fa") as fasta:
        effects = score_variant_effects(control, HyenaDNATokenizer(), variants, fasta, ["llr"], WINDOW)
        expected = [effect.scores.get("llr", np.nan) for effect in effects]
    np.testing.assert_allclose(written["random weights"], expected, atol=1e-5)


def test_no_control_and_no_intervals(folder, tmp_path):
    options = ["--no_control", "--bootstrap", "0", "--score", "jsd", "--target_column", "Effect"]
    result = main([*arguments(folder, tmp_path / "out"), *options])
    assert [(row["model"], row["score"], row["metric"]) for row in result["metrics"]] == [
        (str(folder / "model"), "jsd", "spearman")
    ]
    assert np.isnan(result["metrics"][0]["low"])
    text = (tmp_path / "out" / "table.md").read_text()
    assert "89 of 90 variants have scores; 1 ambiguous_allele." in text and "[" not in text.split("##")[1]


@pytest.mark.parametrize("table", ["table.tsv", "table.parquet", "table.csv.gz", "table.vcf"])
def test_formats(folder, whole, tmp_path, table):
    result = main([*arguments(folder, tmp_path / "out", table, ("model", "other")), *LABELS])
    for row, expected in zip(result["metrics"], whole[0]["metrics"], strict=True):
        assert {name: row[name] for name in ("group", "score", "model", "metric", "n")} == {
            name: expected[name] for name in ("group", "score", "model", "metric", "n")
        }
        assert row["value"] == pytest.approx(expected["value"], abs=1e-6)


def test_files(whole):
    result, out = whole
    frame = pd.read_csv(out / "metrics.csv")
    assert frame.to_dict("records") == [
        {name: pytest.approx(value) if isinstance(value, float) else value for name, value in row.items()}
        for row in result["metrics"]
    ]
    text = (out / "table.md").read_text()
    row = next(row for row in result["metrics"] if row["metric"] == "auprc" and row["score"] == "cadd")
    assert f"{row['value']:.3f} [{row['low']:.3f}, {row['high']:.3f}]" in text
    assert "## AUROC" in text and "positive)" in text and "hyenadna evaluate-variants --table" in text
    assert (out / "metrics.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"


def test_json(folder, tmp_path, capfd):
    words = ["evaluate-variants", *arguments(folder, tmp_path / "out"), "--label_column", "Kind", "--positive", "a"]
    assert cli([*words, "--score", "llr", "--no_control", "--json"]) == 0
    found = json.loads(capfd.readouterr().out)
    assert found.keys() == {"variants", "scored", "metrics"} and len(found["metrics"]) == 2


WRITE = "inference.evaluate_variants._write_part"
SMALL_PARTS = {"inference.evaluate_variants.PART_BASES": 400}


@pytest.mark.slow
def test_after_a_kill_the_result_is_that_of_a_whole_run(folder, tmp_path, monkeypatch):
    monkeypatch.setattr("hyenadna_hf.inference.evaluate_variants.PART_BASES", 400)
    expected = main([*arguments(folder, tmp_path / "whole"), *LABELS])
    words = [*arguments(folder, tmp_path / "out"), *LABELS]
    # Of 18 parts: 10 variants each, and a control.
    run_until_killed("inference.evaluate_variants", words, WRITE, 14, SMALL_PARTS)
    parts = list((tmp_path / "out" / "scores.parquet.partial").glob("0*"))
    assert len(parts) == 13 and not (tmp_path / "out" / "metrics.csv").exists()
    before = {path: path.stat().st_mtime_ns for path in parts}
    monkeypatch.setattr(
        "hyenadna_hf.inference.evaluate_variants._write_part",
        lambda path, *args, write=hyenadna_hf.inference.evaluate_variants._write_part: (
            pytest.fail("it was there") if path in before else write(path, *args)
        ),
    )
    assert main(words) == expected
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == FILES


def test_two_processes(folder, whole, tmp_path):
    words = [*arguments(folder, tmp_path / "out", models=("model", "other")), *LABELS]
    result = run_in_two_processes("inference.evaluate_variants", words, SMALL_PARTS)
    assert result.stdout.count("of 90 variants have scores") == 1
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == FILES
    found, expected = (pd.read_parquet(path / "scores.parquet") for path in (tmp_path / "out", whole[1]))
    pd.testing.assert_frame_equal(found, expected, atol=1e-5)


def test_another_question_resumes_and_another_model_does_not(folder, tmp_path, monkeypatch):
    """Parts hold scores alone, so that labels may change."""
    words = [*arguments(folder, tmp_path / "out"), *LABELS]
    run_until_killed("inference.evaluate_variants", words, WRITE, 3, SMALL_PARTS)
    with pytest.raises(InputError, match="an unfinished run that differs in models;"):
        main([*arguments(folder, tmp_path / "out", models=("other",)), *LABELS])
    with pytest.raises(InputError, match="an unfinished run that differs in scores, window;"):
        main([*arguments(folder, tmp_path / "out"), *LABELS, "--score", "llr", "--window", "42"])
    with monkeypatch.context() as patch:
        patch.setattr("hyenadna_hf.inference.evaluate_variants.PART_BASES", 400)
        question = ["--label_column", "kind", "--positive", "b"]
        resumed = main([*arguments(folder, tmp_path / "out"), *question])
    assert resumed == main([*arguments(folder, tmp_path / "whole"), *question])


def test_published_tables(folder, whole, tmp_path, monkeypatch):
    """The path of a Hub id, with a folder in its place: its configuration, labels that are booleans, its columns."""
    table = pd.read_csv(folder / "table.csv").rename(columns=str.lower).dropna(subset="ref")
    table["label"], table["chrom"] = table["kind"] == "a", table["chrom"].astype(str)
    hub = tmp_path / "hub"
    (hub / "mine").mkdir(parents=True)
    Dataset.from_pandas(table, preserve_index=False).to_parquet(hub / "mine" / "test.parquet")
    (hub / "README.md").write_text(
        "---\nconfigs:\n- config_name: mendelian\n  data_files:\n  - split: test\n    path: mine/test.parquet\n---\n"
    )
    published = PublishedTable(str(hub), "mendelian", "label", "True", "GRCh38", "effect")
    monkeypatch.setitem(variant_tables.PUBLISHED, "traitgym_mendelian", published)
    monkeypatch.chdir(tmp_path)
    words = arguments(folder, "out", models=("model", "other"))
    words[words.index("--table") + 1] = "traitgym_mendelian"
    found = main([*words, "--group_column", "group", "--baselines", "cadd"])
    for row, expected in zip(found["metrics"], whole[0]["metrics"], strict=True):
        assert row["value"] == pytest.approx(expected["value"], abs=1e-6)


def test_a_published_table_that_the_hub_does_not_give(folder, tmp_path, monkeypatch):
    monkeypatch.setitem(variant_tables.PUBLISHED, "findlay_2018", PublishedTable("no/such", None, "class", "LOF", "x"))
    words = arguments(folder, tmp_path / "out")
    words[words.index("--table") + 1] = "findlay_2018"
    with pytest.raises(InputError, match="the data set no/such cannot be loaded from the Hub"):
        main(words)


@pytest.mark.parametrize(
    "options, message",
    [
        ([], "table.csv: there is no column label, class, target; set --label_column"),
        (["--label_column", "species"], "--label_column species: the table has no column 'species'; its"),
        (["--label_column", "kind"], "--label_column kind: the labels are a, b, c; set --positive to"),
        (["--label_column", "kind", "--positive", "z"], "--positive z: column kind has no such label; choose"),
        (["--label_column", "kind", "--positive", "a", "b", "c"], "--label_column kind: all variants are positive"),
        (["--target_column", "kind"], "--target_column kind: row 1 contains "),
        (["--target_column", "effect", "--positive", "a"], "--positive a: this requires --label_column"),
        ([*LABELS, "--baselines", "group"], "--baselines group: row 1 contains "),
        ([*LABELS, "--group_column", "exon"], "--group_column exon: the table has no column 'exon'"),
        ([*LABELS, "--score", "lr"], "--score lr: choose one of llr, abs_llr, jsd, embedding_distance."),
        ([*LABELS, "--score", "llr", "llr"], "--score llr: it is given twice"),
        ([*LABELS, "--bootstrap", "-1"], "--bootstrap -1: give a number of samples"),
        ([*LABELS, "--window", "67"], "window=67: give 2 to 66 bases"),
        ([*LABELS, "--model", "./absent"], "--model ./absent: cannot be loaded"),
        ([*LABELS, "--model", "hyenadna-tiny-1k-remag"], "--model hyenadna-tiny-1k-remag: lm_head.weight and"),
        ([*LABELS, "--table", "absent.csv"], "absent.csv: there is no such file"),
        ([*LABELS, "--table", "text.csv"], "text.csv: the table has no column 'chrom'; its columns are"),
        ([*LABELS, "--table", "empty.csv"], "empty.csv: the table contains no variant."),
        ([*LABELS, "--table", "zero.csv"], "zero.csv, row 2: the position '0' is invalid; it must be"),
        ([*LABELS, "--table", "broken.vcf"], "broken.vcf: "),
        ([*LABELS, "--fasta", "absent.fa"], "absent.fa: there is no such file"),
        ([*LABELS, "--out", "text.csv"], "--out text.csv: this is a file; give a folder."),
    ],
)
def test_bad_input_leaves_nothing(folder, tmp_path, monkeypatch, options, message):
    monkeypatch.chdir(tmp_path)
    Path("text.csv").write_text("these,are\nno,variants\n")
    Path("empty.csv").write_text("chrom,pos,ref,alt,kind\n")
    Path("zero.csv").write_text("chrom,pos,ref,alt,kind\n20,1,A,C,a\n20,0,A,C,b\n")
    Path("broken.vcf").write_text("##fileformat=VCFv4.2\n#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO\n20\tfive\n")
    before = sorted(str(path) for path in tmp_path.rglob("*"))
    with pytest.raises(InputError) as error:
        main([*arguments(folder, "out"), *options])
    assert message in str(error.value)
    assert sorted(str(path) for path in tmp_path.rglob("*")) == before


def test_columns_in_any_case():
    table = pd.DataFrame({"Kind": [], "kind": [], "POS": []})
    assert find_column("t", table, "kind") == "kind" and find_column("t", table, "pos") == "POS"
    with pytest.raises(InputError, match="--label_column KIND: the table has 2 columns 'KIND'"):
        find_column("t", table, "KIND", "label_column")


def test_a_vcf_has_a_row_for_each_alternate(tmp_path):
    (tmp_path / "in.vcf").write_text(
        "##fileformat=VCFv4.2\n##contig=<ID=20>\n"
        '##INFO=<ID=AF,Number=A,Type=Float,Description="x">\n##INFO=<ID=AD,Number=R,Type=Integer,Description="x">\n'
        '##INFO=<ID=DB,Number=0,Type=Flag,Description="x">\n##INFO=<ID=XS,Number=.,Type=String,Description="x">\n'
        "#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO\n"
        "20\t5\t.\tA\tC,G\t.\t.\tAF=0.5,0.25;AD=1,2,3;DB;XS=a,b\n20\t6\t.\tC\t.\t.\t.\t.\n"
    )
    variants, table = read_variants(tmp_path / "in.vcf")
    assert variants == [Variant("20", 4, "A", "C"), Variant("20", 4, "A", "G"), Variant("20", 5, "C", None)]
    assert table[["AF", "AD", "DB", "XS"]].to_numpy().tolist() == [
        ["0.5", "2", "True", "a,b"],
        ["0.25", "3", "True", "a,b"],
        ["", "", "", ""],
    ]
