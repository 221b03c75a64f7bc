"""GenomicBenchmarks, the Nucleotide Transformer tasks and GUE, from files and from a Hub over HTTP."""

import io
import json
import shutil
import warnings

import pandas as pd
import pytest
from forked import result_of
from hub_server import serve

from hyenadna_hf.data.genomic_benchmarks import GENOMIC_BENCHMARKS, load_genomic_benchmark
from hyenadna_hf.data.labelled import BUNDLED, load_labelled_sequences
from hyenadna_hf.data.named import BENCHMARKS, load_labelled
from hyenadna_hf.data.nucleotide_transformer import (
    GUE_TASKS,
    NUCLEOTIDE_TRANSFORMER_TASKS,
    REVISED_NUCLEOTIDE_TRANSFORMER_TASKS,
    load_nucleotide_transformer_task,
)
from hyenadna_hf.errors import InputError

FIRST_BASE = 31_581_000  # of the fixture, on chromosome 20


@pytest.fixture(autouse=True)
def sizes_differ():
    """What is small enough for a test has not the published sizes; the tests of the warning look at it themselves."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*are published; results are not comparable")
        yield


@pytest.fixture
def reference(fixtures, tmp_path):
    return shutil.copy(fixtures / "human_chr20.fa.gz", tmp_path / "reference.fa.gz")


@pytest.fixture(scope="module")
def windows():
    """The bundled splice sites that lie in the fixture's region, with their sequences."""
    tables = [pd.read_csv(BUNDLED["splice_sites_chr20"] / f"{name}.csv.gz") for name in ("train", "validation", "test")]
    table = pd.concat(tables)
    locus = table["locus"].str.extract(r"chr20:(?P<start>\d+)-(?P<end>\d+):(?P<strand>[+-])")
    table = table.assign(start=locus["start"].astype(int), end=locus["end"].astype(int), strand=locus["strand"])
    table = table[(table["start"] >= FIRST_BASE) & (table["end"] <= FIRST_BASE + 24_000)]
    start, end = table["start"] - FIRST_BASE, table["end"] - FIRST_BASE
    region = "chr20:31581000-31605000"
    return table.assign(id=range(len(table)), region=region, start=start, end=end).reset_index(drop=True)


CLASSES = {"donor": "enhancer", "acceptor": "ocr", "neither": "promoter"}


def tree(folder, windows, kind):
    """A benchmark of three classes in the layouts of the package genomic-benchmarks."""
    for split, rows in (("train", windows.iloc[:-9]), ("test", windows.iloc[-9:])):
        for label, class_name in CLASSES.items():
            part = rows[rows["label"] == label]
            (folder / split).mkdir(parents=True, exist_ok=True)
            if kind == "intervals":
                columns = ["id", "region", "start", "end", "strand"]
                part[columns].to_csv(folder / split / f"{class_name}.csv.gz", index=False)
                continue
            (folder / split / class_name).mkdir()
            for row in part.itertuples():
                (folder / split / class_name / f"{row.id}.txt").write_text(row.sequence)
    (folder / "metadata.yaml").write_text("version: 0\n")
    return str(folder)


@pytest.mark.parametrize("kind", ["intervals", "text"])
def test_the_layouts_of_genomic_benchmarks(tmp_path, windows, reference, kind):
    source = tree(tmp_path / "set", windows, kind)
    data = load_genomic_benchmark("human_ensembl_regulatory", source, reference if kind == "intervals" else None)
    assert set(windows["strand"]) == {"+", "-"} and len(data["test"]) == 9
    names = data["train"].features["label"].names
    assert names == ["enhancer", "ocr", "promoter"]
    loaded = sorted((row["sequence"].upper(), names[row["label"]]) for split in data.values() for row in split)
    assert loaded == sorted((row.sequence.upper(), CLASSES[row.label]) for row in windows.itertuples())


def test_intervals_in_one_table(tmp_path, windows, reference):
    windows.drop(columns=["sequence", "locus"]).to_csv(tmp_path / "x.tsv", sep="\t", index=False)
    data = load_labelled_sequences(str(tmp_path / "x.tsv"), reference=reference)
    loaded = sorted(row["sequence"].upper() for split in data.values() for row in split)
    assert loaded == sorted(windows["sequence"].str.upper())


BAD_INTERVALS = {
    "negative start": ({"start": -1}, "row 3: chr20:31581000-31605000:-1-"),
    "past the end": ({"end": 24_001}, "row 3: .*has 24,000 bases"),
    "nothing in it": ({"end": 0}, "row 3: .*is not an interval"),
    "no number": ({"start": "x"}, "row 3: .*is not an interval"),
    "strand": ({"strand": "forward"}, "row 3: the strand is 'forward'; it must be"),
    "unknown region": ({"region": "chr21"}, "row 3: .*there is no sequence 'chr21'"),
}


@pytest.mark.parametrize("change, message", BAD_INTERVALS.values(), ids=BAD_INTERVALS)
def test_a_bad_interval_is_named(tmp_path, windows, reference, change, message):
    table = windows.drop(columns=["sequence", "locus"]).astype(object)
    for column, value in change.items():
        table.loc[2, column] = value
    table.to_csv(tmp_path / "x.csv", index=False)
    with pytest.raises(InputError, match=r"x\.csv, " + message):
        load_labelled_sequences(str(tmp_path / "x.csv"), reference=reference)


def test_intervals_need_a_reference(tmp_path, windows):
    source = tree(tmp_path / "set", windows, "intervals")
    with pytest.raises(InputError, match="give the reference genome"):
        load_genomic_benchmark("human_ensembl_regulatory", source)


@pytest.mark.parametrize("kind", ["intervals", "text"])
def test_an_empty_class_is_named(tmp_path, windows, reference, kind):
    source = tree(tmp_path / "set", windows[windows["label"] != "donor"], kind)
    with pytest.raises(InputError, match=r"enhancer.*: the class is empty"):
        load_genomic_benchmark("human_ensembl_regulatory", source, reference)
    for file in (tmp_path / "set").glob("*/enhancer*"):
        shutil.rmtree(file) if file.is_dir() else file.unlink()
    with pytest.raises(InputError, match="the class 'enhancer' has no sequence in train"):
        load_genomic_benchmark("human_ensembl_regulatory", source, reference)


def test_bad_text_files_and_folders_are_named(tmp_path):
    for split in ("train", "test"):
        for label in ("negative", "positive"):
            (tmp_path / split / label).mkdir(parents=True)
            for number in range(20):
                (tmp_path / split / label / f"{number}.txt").write_text("ACGT\r\n")
    data = load_genomic_benchmark("human_enhancers_cohn", str(tmp_path))
    assert set(data["train"]["sequence"]) == {"ACGT"}
    (tmp_path / "train" / "positive" / "7.txt").write_text("MKVL")
    with pytest.raises(InputError, match=r"train, positive/7\.txt: the sequence contains 'L' at base 4"):
        load_genomic_benchmark("human_enhancers_cohn", str(tmp_path))
    shutil.rmtree(tmp_path / "test")
    (tmp_path / "train" / "positive" / "7.txt").write_text("ACGT")
    with pytest.raises(InputError, match="there is no test split"):
        load_genomic_benchmark("human_enhancers_cohn", str(tmp_path))
    (tmp_path / "test").mkdir()
    with pytest.raises(InputError, match="neither folders of .txt files nor tables"):
        load_genomic_benchmark("human_enhancers_cohn", str(tmp_path))


def small(folder, labels, ending="csv"):
    for split in ("train", "test"):
        rows = [("ACGT" * 5, label) for label in labels] * 10
        if ending == "csv":
            pd.DataFrame(rows, columns=["seq", "label"]).to_csv(folder / f"{split}.csv", index=False)
        else:
            text = "".join(f">{split}{i}|{label}\n{sequence}\n" for i, (sequence, label) in enumerate(rows))
            (folder / f"{split}.{ending}").write_text(text)
    return str(folder)


def test_numbers_are_those_of_the_names(tmp_path):
    """Names and numbers of classes mean the same, and a size that is not the published one is said."""
    by_number = small(tmp_path, [1, 0])
    with pytest.warns(UserWarning, match="20 train sequences, but 75,000 are published; results are not comparable"):
        data = load_genomic_benchmark("demo_human_or_worm", by_number)
    assert data["test"].features["label"].names == ["human", "worm"] and data["test"]["label"][:2] == [1, 0]
    by_name = load_genomic_benchmark("demo_human_or_worm", small(tmp_path, ["worm", "human"]))
    assert by_name["test"]["label"] == data["test"]["label"]
    with pytest.raises(InputError, match="contains the label '2'; the classes are human, worm"):
        load_genomic_benchmark("demo_human_or_worm", small(tmp_path, [1, 0, 2]))
    with pytest.raises(InputError, match="contains the label 'fly'"):
        load_genomic_benchmark("demo_human_or_worm", small(tmp_path, ["worm", "human", "fly"]))
    with pytest.raises(InputError, match="unknown GenomicBenchmarks set; choose one of dummy_mouse"):
        load_genomic_benchmark("demo_human_or_fish")


def test_tasks_from_fasta(tmp_path):
    data = load_nucleotide_transformer_task("enhancers_types", small(tmp_path, [2, 0, 1], "fna"), 0.2, seed=1)
    assert {name: len(split) for name, split in data.items()} == {"train": 24, "validation": 6, "test": 30}
    assert data["validation"].features["label"].names == ["0", "1", "2"]
    assert sorted(data["validation"]["label"]) == [0, 0, 1, 1, 2, 2]
    with pytest.raises(InputError, match="unknown task; choose one of enhancers"):
        load_nucleotide_transformer_task("H5")


def test_what_is_known():
    assert len(GENOMIC_BENCHMARKS) == 9 and len(NUCLEOTIDE_TRANSFORMER_TASKS) == 18 and len(GUE_TASKS) == 28
    assert len(REVISED_NUCLEOTIDE_TRANSFORMER_TASKS) == 18 and len(BENCHMARKS) == 9 + 18 + 18 + 28
    total = {name: known.train + known.test for name, known in GENOMIC_BENCHMARKS.items()}
    assert total["human_ensembl_regulatory"] == 289_061 and total["drosophila_enhancers_stark"] == 6_914
    for name, known in NUCLEOTIDE_TRANSFORMER_TASKS.items():
        assert known.metric == ("f1" if name.startswith(("promoter", "splice")) else "mcc")
    promoters, all_promoters = ("promoter_tata", "promoter_no_tata"), NUCLEOTIDE_TRANSFORMER_TASKS["promoter_all"]
    for split in ("train", "test"):
        parts = sum(getattr(NUCLEOTIDE_TRANSFORMER_TASKS[name], split) for name in promoters)
        assert parts == getattr(all_promoters, split)


@pytest.mark.parametrize("name", ["H2AFZ_revised", "enhancers_types_revised"])
def test_revised_tasks_from_files(tmp_path, name):
    labels = [2, 0, 1] if name.startswith("enhancers_types") else [1, 0]
    data = load_nucleotide_transformer_task(name, small(tmp_path, labels, "fna"), 0.2, seed=1)
    assert data["test"].features["label"].names == sorted(map(str, labels))
    assert len(data["test"]) == 10 * len(labels) and len(data["validation"]) == 2 * len(labels)


HUB_SCRIPT = """
import json, sys
from hyenadna_hf.data.genomic_benchmarks import load_genomic_benchmark
from hyenadna_hf.data.named import load_labelled
from hyenadna_hf.data.nucleotide_transformer import load_nucleotide_transformer_task
from hyenadna_hf.data.unlabelled import load_unlabelled_sequences
from hyenadna_hf.errors import InputError

def shown(data):
    names = data["train"].features["label"].names
    return {split: sorted([row["sequence"], names[row["label"]]] for row in rows) for split, rows in data.items()}

loaded = [load_genomic_benchmark("demo_human_or_worm"), load_nucleotide_transformer_task("H3")]
loaded += [load_nucleotide_transformer_task("tf_0"), load_labelled("human_enhancers_cohn")]
loaded += [load_labelled("H3K9me3_revised")]
try:
    load_labelled("H4")
except InputError as error:
    unlabelled = [
        load_unlabelled_sequences("human_enhancers_cohn", validation_fraction=0.5),
        load_unlabelled_sequences("katarinagresova/Genomic_Benchmarks_demo_human_or_worm", validation_fraction=0),
    ]
    print(json.dumps([[shown(data) for data in loaded], str(error), unlabelled]))
"""


def test_from_a_hub():
    def parquet(rows, columns):
        file = io.BytesIO()
        pd.DataFrame(rows, columns=columns).to_parquet(file)
        return file.getvalue()

    rows = [("ACGT", 0), ("TTGA", 1)] * 10
    tasks = [(sequence, f"read{i}", label, task) for i, (sequence, label) in enumerate(rows) for task in ("H3", "H4ac")]
    two = parquet(rows, ["seq", "label"])
    parts = {f"data/{split}-00000-of-00001.parquet": two for split in ("train", "test")}
    gue = {
        f"human_tf_0/{split}.csv": b"sequence,label\n" + b"ACGT,0\nTTGA,1\n" * 10 for split in ("train", "dev", "test")
    }
    card = {"configs": [{"config_name": "human_tf_0", "data_files": []}]}
    for split in ("train", "dev", "test"):
        card["configs"][0]["data_files"].append({"split": split, "path": f"human_tf_0/{split}.csv"})
    nt = parquet(tasks, ["sequence", "name", "label", "task"])
    revised = parquet(
        [("GGCC", "1", 0, "H3K9me3"), ("TTAA", "2", 1, "H3K9me3"), ("AAAA", "3", 1, "H2AFZ")] * 10,
        ["sequence", "name", "label", "task"],
    )
    with serve() as (hub, _):
        hub.repositories = {
            "katarinagresova/Genomic_Benchmarks_demo_human_or_worm": {"main": parts},
            "katarinagresova/Genomic_Benchmarks_human_enhancers_cohn": {"main": parts},
            "InstaDeepAI/nucleotide_transformer_downstream_tasks": {"main": {"train.parquet": nt, "test.parquet": nt}},
            "InstaDeepAI/nucleotide_transformer_downstream_tasks_revised": {
                "main": {"train.parquet": revised, "test.parquet": revised}
            },
            "leannmlindsey/GUE": {"main": {**gue, "README.md": f"---\n{json.dumps(card)}\n---\n".encode()}},
        }
        (worm, h3, tf, cohn, h3k9me3), message, unlabelled = result_of(HUB_SCRIPT)
    assert worm["test"] == sorted([["ACGT", "human"], ["TTGA", "worm"]] * 10)
    assert cohn["test"] == sorted([["ACGT", "negative"], ["TTGA", "positive"]] * 10)
    assert h3["test"] == tf["test"] == tf["validation"] == sorted([["ACGT", "0"], ["TTGA", "1"]] * 10)
    assert h3k9me3["test"] == sorted([["GGCC", "0"], ["TTAA", "1"]] * 10)
    assert unlabelled[1] == {"train": ["ACGT", "TTGA"] * 10, "test": ["ACGT", "TTGA"] * 10}
    assert unlabelled[0]["test"] == ["ACGT", "TTGA"] * 10
    assert sorted([unlabelled[0]["train"], unlabelled[0]["validation"]]) == [["ACGT"] * 10, ["TTGA"] * 10]
    assert [len(split) for split in h3.values()] == [18, 2, 20] and [len(split) for split in tf.values()] == [20] * 3
    assert (
        message == "H4 (InstaDeepAI/nucleotide_transformer_downstream_tasks): it has no task H4; check the repository."
    )


def test_without_a_hub(monkeypatch):
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)
    with pytest.raises(
        InputError, match=r"human_ocr_ensembl: the data set .* cannot be loaded from the Hub .* give their location"
    ):
        load_labelled("human_ocr_ensembl")


def test_real_sets_in_both_column_layouts(shared, tmp_path):
    folder = shared / "data" / "genomic_benchmarks"
    sizes = {
        "human_enhancers_cohn": (409, 134),
        "human_nontata_promoters": (386, 126),
        "human_ocr_ensembl": (2794, 741),
    }
    for name, (train, test) in sizes.items():
        with pytest.warns(UserWarning, match=f"{train:,} train sequences, but {GENOMIC_BENCHMARKS[name].train:,}"):
            data = load_genomic_benchmark(name, str(folder / "chr20" / name))
        assert len(data["train"]) + len(data["validation"]) == train and len(data["test"]) == test
        assert data["train"].features["label"].names == ["negative", "positive"]
    name = "human_nontata_promoters"
    shutil.copy(folder / "chr20" / f"{name}_train.csv.gz", tmp_path / "train.csv.gz")
    shutil.copy(folder / f"test_{name}.csv.gz", tmp_path / "test.csv.gz")
    with warnings.catch_warnings(record=True) as noted:
        warnings.simplefilter("always")
        data = load_genomic_benchmark(name, str(tmp_path))
    assert len(data["test"]) == GENOMIC_BENCHMARKS[name].test
    assert [str(note.message).rpartition(": ")[2].split(",")[0] for note in noted] == ["386 train sequences"]
    assert {len(sequence) for sequence in data["test"]["sequence"]} == {GENOMIC_BENCHMARKS[name].length}
    # The numbers of one layout are the names of the other.
    by_name = load_genomic_benchmark(name, str(folder / "chr20" / name))["test"]
    number = dict(zip(data["test"]["sequence"], data["test"]["label"]))
    assert all(number[row["sequence"]] == row["label"] for row in by_name)


def test_real_gue(shared):
    for name, sizes in {"prom_300_tata": (4904, 613, 613), "tf_0": (32378, 1000, 1000)}.items():
        data = load_nucleotide_transformer_task(name, str(shared / "data" / "gue" / name))
        assert tuple(len(split) for split in data.values()) == sizes
        assert {len(sequence) for sequence in data["test"]["sequence"]} == {GUE_TASKS[name].length}
