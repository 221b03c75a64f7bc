import gzip
from collections import Counter
from random import Random

import pandas as pd
import pyarrow as pa
import pytest
from datasets import ClassLabel, Dataset, DatasetDict, Features, Value
from hypothesis import given, settings
from hypothesis import strategies as st

from hyenadna_hf.data.labelled import BUNDLED, MISSING, load_labelled_sequences, read_labelled, value_lengths
from hyenadna_hf.errors import InputError

TRAIN = pd.DataFrame({"sequence": ["ACGT", "acgtn", "GGGR", "TTTU"] * 10, "label": ["b", "a", "b", "a"] * 10})
TEST = pd.DataFrame({"sequence": ["AC", "GT"], "label": ["a", "b"]})


def write(table, path, separator=",", **kwargs):
    if path.name.endswith(".parquet"):
        table.to_parquet(path)
    elif path.name.endswith(".arrow"):
        data = pa.Table.from_pandas(table)
        with pa.ipc.new_file(path, data.schema) as file:
            file.write_table(data)
    elif ".json" in path.name:
        table.to_json(path, orient="records", lines=".jsonl" in path.name)
    elif ".fa" in path.name or ".fna" in path.name:
        text = "".join(f">read{i}|{row.label}\n{row.sequence}\n" for i, row in enumerate(table.itertuples()))
        (gzip.open if path.suffix == ".gz" else open)(path, "wt").write(text)
    else:
        table.to_csv(path, index=False, sep="\t" if ".tsv" in path.name else separator, **kwargs)


def rows(split):
    names = split.features["label"].names
    return [(row["sequence"], names[row["label"]]) for row in split]


@pytest.mark.parametrize(
    "ending",
    [
        *(".csv", ".csv.gz", ".tsv", ".tsv.gz", ".parquet", ".arrow", ".jsonl", ".jsonl.gz", ".json"),
        *(".fa", ".fasta.gz", ".fna"),
    ],
)
@pytest.mark.parametrize("layout", ["folder", "prefix"])
def test_formats_and_layouts(tmp_path, ending, layout):
    before = "" if layout == "folder" else "my.set_"
    write(TRAIN, tmp_path / f"{before}train{ending}")
    write(TEST, tmp_path / f"{before}dev{ending}")
    write(TEST, tmp_path / f"{before}test{ending}")
    (tmp_path / "notes.txt").write_text("not data")
    data = load_labelled_sequences(str(tmp_path if layout == "folder" else tmp_path / "my.set"))
    assert list(data) == ["train", "validation", "test"]
    assert data["train"].features["label"].names == ["a", "b"]
    assert rows(data["train"]) == list(TRAIN.itertuples(index=False, name=None))
    assert rows(data["validation"]) == rows(data["test"]) == list(TEST.itertuples(index=False, name=None))


LABELS = st.text(st.characters(codec="ascii", categories=["L", "N", "P", "S", "Zs"]), min_size=1).map(
    lambda text: " ".join(text.split())
)


@settings(max_examples=60)
@given(
    st.sampled_from([",", ";", "\t"]),
    st.sampled_from([".csv", ".tsv"]),
    st.sampled_from(["", "\ufeff"]),
    st.sampled_from(["sequence", "Sequence", "SEQ", " dna ", '"Seq"']),
    st.sampled_from(["label", "Label", "CLASS", " target", '"a class, or; so"']),
    st.lists(LABELS.filter(lambda label: label not in MISSING), min_size=1),
)
def test_any_header_and_delimiter(tmp_path_factory, separator, ending, mark, sequence, label, labels):
    quoted = [f'"{name.replace(chr(34), 2 * chr(34))}"' for name in labels]
    path = tmp_path_factory.mktemp("tables") / f"x{ending}"
    lines = [[" id", sequence, label], *([str(i), "ACGT", name] for i, name in enumerate(quoted))]
    path.write_text(mark + "".join(f"{separator} ".join(line) + "\n" for line in lines), encoding="utf-8")
    column = label.strip('"') if " class" in label else None
    assert read_labelled(str(path), label_column=column)["train"] == {
        "sequence": ["ACGT"] * len(labels),
        "label": labels,
    }


@settings(max_examples=60)
@given(st.lists(st.tuples(st.text("ACGTUN|>", max_size=9), LABELS), min_size=1), st.integers(1, 9), st.booleans())
def test_the_label_is_all_that_follows_the_last_bar(tmp_path_factory, records, width, packed):
    sequence = "ACGTNACGTAC"
    body = "".join(f"{sequence[i : i + width]}\n" for i in range(0, len(sequence), width))
    text = "".join(f">{name} some text | {label.replace('|', '/')} \r\n{body}" for name, label in records).encode()
    path = tmp_path_factory.mktemp("fasta") / "x.fa"
    path.write_bytes(gzip.compress(text) if packed else text)
    labels = [label.replace("|", "/") for _, label in records]
    if set(labels) & set(MISSING):
        return
    assert read_labelled(str(path))["train"] == {"sequence": [sequence] * len(records), "label": labels}


def test_classes_with_blanks_in_fasta_stay_apart(tmp_path):
    (tmp_path / "x.fa").write_text(
        ">s0|strong enhancer\nAC\n>s1|strong promoter\nGT\n>s2 some text|1\nA\n>a|b|last one\nC\n"
    )
    assert read_labelled(str(tmp_path / "x.fa"))["train"]["label"] == [
        "strong enhancer",
        "strong promoter",
        "1",
        "last one",
    ]


@pytest.mark.parametrize("ending", [".fa", ".fasta", ".fna", ".fa.gz", ".csv", ".jsonl", ".parquet"])
def test_one_file_a_class(tmp_path, ending):
    expected = {"sequence": ["AC", "GT", "TT"], "label": ["a b", "a b", "c"]}
    for split in ("train", "test"):
        (tmp_path / split).mkdir()
        for name, sequences in (("a b", ["AC", "GT"]), ("c", ["TT"])):
            path = tmp_path / split / f"{name}{ending}"
            if ".f" in ending:
                text = "".join(f">{i} without label\n{sequence}\n" for i, sequence in enumerate(sequences))
                path.write_bytes(gzip.compress(text.encode()) if ending.endswith(".gz") else text.encode())
            else:
                write(pd.DataFrame({"seq": sequences}), path)
    assert read_labelled(str(tmp_path)) == {"train": expected, "test": expected}
    (tmp_path / "train" / f"empty{ending}").write_bytes(b"")
    with pytest.raises(InputError, match=f"empty{ending}: the file is empty"):
        read_labelled(str(tmp_path))


def test_one_file_a_class_whatever_its_labels_say(tmp_path):
    (tmp_path / "train").mkdir()
    (tmp_path / "train" / "a.fa").write_text(">1|x\nAC\n>2\nGT\n")
    (tmp_path / "train" / "b.csv").write_text("Sequence,Class,label\nTT,y,z\nT!,y,z\n")
    with pytest.raises(InputError, match=r"train, b\.csv row 2: the sequence contains '!' at base 2"):
        read_labelled(str(tmp_path))
    (tmp_path / "train" / "b.csv").write_text("Sequence,Class,label\nTT,y,z\n")
    assert read_labelled(str(tmp_path))["train"]["label"] == ["a", "a", "b"]


def test_names_of_classes_that_datasets_keeps_with_the_table(tmp_path):
    features = Features({"sequence": Value("string"), "label": ClassLabel(names=["neither", "donor"])})
    data = Dataset.from_dict({"sequence": ["AC", "GT", "TT"], "label": [1, 0, 1]}, features=features)
    expected = {"sequence": ["AC", "GT", "TT"], "label": ["donor", "neither", "donor"]}
    DatasetDict({"train": data, "validation": data}).save_to_disk(tmp_path / "saved")
    assert read_labelled(str(tmp_path / "saved")) == {"train": expected, "validation": expected}
    assert read_labelled(str(tmp_path / "saved" / "train")) == {"train": expected}
    data.to_parquet(tmp_path / "x.parquet")
    (arrow,) = (tmp_path / "saved" / "train").glob("*.arrow")  # a stream, where others write files
    for path in (tmp_path / "x.parquet", arrow):
        assert read_labelled(str(path)) == {"train": expected}
    absent = data.map(lambda row, i: {"label": row["label"] if i else -1}, with_indices=True)
    absent.save_to_disk(tmp_path / "absent")
    with pytest.raises(InputError, match=r"1 of 3 sequences have no label, first row 1 \(''\)"):
        read_labelled(str(tmp_path / "absent"))
    (tmp_path / "absent" / "state.json").write_text("{}")
    with pytest.raises(InputError, match="absent: this is not a readable save_to_disk folder"):
        read_labelled(str(tmp_path / "absent"))


@pytest.mark.parametrize("missing", [*MISSING, " NA ", "''"])
@pytest.mark.parametrize("ending", [".csv", ".tsv", ".jsonl", ".parquet", ".fa"])
def test_missing_labels_are_counted_and_named(tmp_path, missing, ending):
    missing = missing.replace("''", "")
    labels = ["a", missing, "b", missing, missing, missing, "na", "none"]
    path = tmp_path / f"x{ending}"
    write(pd.DataFrame({"sequence": ["ACGT"] * 8, "label": labels}), path)
    with pytest.raises(InputError) as error:
        read_labelled(str(path))
    rows = (">read1|", ">read3|", ">read4|") if ending == ".fa" else ("row 2", "row 4", "row 5")
    first = ", ".join(f"{row}{(missing if ending == '.fa' else '').rstrip()} ({missing.strip()!r})" for row in rows)
    assert f"x{ending}: 4 of 8 sequences have no label, first {first}; give each one class" in str(error.value)
    assert "cannot be named NA, NaN, None or null" in str(error.value)


def test_intervals_in_any_header(tmp_path):
    (tmp_path / "genome.fa").write_text(">chr1\nACGTTT\n")
    (tmp_path / "x.csv").write_text("Region; START; End; Strand; Label\n1; 0; 4; +; a\nchr1; 3; 6; -; b\n")
    assert read_labelled(str(tmp_path / "x.csv"), reference=tmp_path / "genome.fa")["train"] == {
        "sequence": ["ACGT", "AAA"],
        "label": ["a", "b"],
        "region": ["1", "chr1"],
        "start": ["0", "3"],
        "end": ["4", "6"],
    }


def test_one_file_is_split_by_class_the_same_way_each_time(tmp_path):
    write(TRAIN, tmp_path / "all.csv")
    first, second, other = (load_labelled_sequences(str(tmp_path / "all.csv"), seed=seed) for seed in (1, 1, 2))
    assert {name: len(split) for name, split in first.items()} == {"train": 28, "validation": 4, "test": 8}
    assert Counter(first["test"]["label"]) == {0: 4, 1: 4}
    assert [rows(split) for split in first.values()] == [rows(split) for split in second.values()]
    assert rows(first["train"]) != rows(other["train"])


@settings(max_examples=30)
@given(st.lists(st.integers(-30, 300), min_size=2, max_size=12, unique=True))
def test_numbers_are_numbered_in_order_and_in_every_split_alike(tmp_path_factory, classes):
    folder = tmp_path_factory.mktemp("numbers")
    table = pd.DataFrame({"seq": ["ACGT"] * len(classes), "class": classes})
    for split in ("train", "valid", "test"):
        table.sample(frac=1, random_state=len(split)).to_csv(folder / f"{split}.csv", index=False)
    data = load_labelled_sequences(str(folder))
    for split in data.values():
        assert split.features["label"].names == [str(number) for number in sorted(classes)]


def test_columns_are_chosen(tmp_path):
    table = TRAIN.rename(columns={"sequence": "window", "label": "kind"}).assign(label="c", id=range(40))
    write(table, tmp_path / "x.csv")
    data = load_labelled_sequences(str(tmp_path / "x.csv"), sequence_column="window", label_column="kind")
    assert data["train"].features["label"].names == ["a", "b"]


def test_the_bundled_splits_are_disjoint_regions():
    data = load_labelled_sequences("splice_sites_chr20")
    assert data["train"].features["label"].names == ["acceptor", "donor", "neither"]
    assert {name: len(split) for name, split in data.items()} == {"train": 12857, "validation": 1779, "test": 5015}
    last = -1
    for split in data:
        loci = pd.read_csv(BUNDLED["splice_sites_chr20"] / f"{split}.csv.gz")["locus"].str.extract(
            r"chr20:(\d+)-(\d+):[+-]"
        )
        starts, ends = loci[0].astype(int), loci[1].astype(int)
        assert starts.min() > last + 50_000 and (ends - starts == 120).all()
        last = ends.max()
    for sequence, label in rows(data["test"]):
        assert sequence[59:61] in {"donor": ["GT"], "acceptor": ["AG"], "neither": ["GT", "AG"]}[label]


LONG = b"seq,label\n" + "".join(f"{''.join(Random(i).choices('ACGT', k=60))},1\n" for i in range(999)).encode()
BAD = {
    "empty file": ("x.csv", "", "the file is empty"),
    "no rows": ("x.csv", "sequence,label\n", "no row"),
    "no sequence column": ("x.csv", "bases,label\nACGT,1\n", "set sequence_column to one of its columns: bases, label"),
    "two label columns": ("x.csv", "seq,label,class\nACGT,1,2\n", "more than one of label, class"),
    "digits": ("x.csv", "seq,label\nACGT,1\nAC7GT,0\n", "row 2: the sequence contains '7' at base 3"),
    "protein": ("x.csv", "seq,label\nMKVL,1\n", "row 1: the sequence contains 'L' at base 4"),
    "empty sequence": ("x.csv", "seq,label\n,1\n", "row 1: the sequence is empty"),
    "empty label": ("x.csv", "seq,label\nACGT,\n", "1 of 1 sequences have no label, first row 1 ('')"),
    "one class": ("x.csv", "seq,label\nACGT,1\nACG,1\n", "every sequence has the label '1'"),
    "too few to split": ("x.csv", "seq,label\nACGT,1\nACG,0\n", "cannot hold a test split out of train"),
    "ragged": ("x.csv", "seq,label\nACGT,1\nACGT,1,2,3\n", "not a readable CSV or TSV file"),
    "more fields than columns": ("x.csv", "seq,label\nACGT,1,2\nACG,0,2\n", "not a readable CSV or TSV file"),
    "fewer fields than columns": (
        "x.csv",
        "seq,label\nACGT,1\nACG\n",
        "1 of 2 sequences have no label, first row 2 ('')",
    ),
    "binary": ("x.tsv", b"seq\tlabel\n\xff\xfe\x00\t1\n", "not a readable CSV or TSV file"),
    "two columns of one name": ("x.csv", "Seq,seq ,label\nAC,AC,1\n", "there are two columns 'seq'"),
    "gz cut short": ("x.csv.gz", gzip.compress(LONG)[:-20], "not a readable CSV or TSV"),
    "short gz cut short": ("x.csv.gz", gzip.compress(b"seq,label\nACGT,1\n")[:-5], "the gzip file is damaged"),
    "fasta.gz cut short": (
        "x.fa.gz",
        gzip.compress(b">a|1" + LONG.replace(b",1\n", b"\n>a|1\n")[9:])[:-20],
        "not a readable FASTA",
    ),
    "fasta without labels": (
        "x.fa",
        ">a\nACGT\n",
        "1 of 1 sequences have no label, first >a (''); give each one class",
    ),
    "fasta with blank labels": ("x.fa", ">a| \nACGT\n>b|1\nA\n", "1 of 2 sequences have no label, first >a| ('')"),
    "fasta without sequence": ("x.fa", ">a|1\n>b|0\nAC\n", ">a|1: the sequence is empty"),
    "fasta with a blank inside": ("x.fa", ">a|1\nAC GT\n", ">a|1: the sequence contains ' ' at base 3"),
    "json lines cut short": ("x.jsonl", '{"seq":"ACGT","label":"1"}\n{"seq":"AC', "not a readable JSON Lines file"),
    "json lines without a label": (
        "x.jsonl",
        '{"seq":"AC","label":1}\n{"seq":"AC"}\n',
        "1 of 2 sequences have no label",
    ),
    "json lines with null": ("x.jsonl", '{"seq":"AC","label":null}\n', "1 of 1 sequences have no label"),
    "parquet cut short": ("x.parquet", b"PAR1\x00\x00", "not a readable Parquet file"),
    "arrow cut short": ("x.arrow", b"ARROW1\x00\x00\xff\xff", "not a readable Arrow file"),
    "excel": ("x.csv", b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "this is an Excel workbook, not a table of sequences"),
    "fastq": ("x.fa", "@read|1\nACGT\n+\nIIII\n", "this is a FASTQ file, not a table of sequences"),
    "html": ("x.csv", "<!doctype html>\n<html>", "this is a web page"),
}


@pytest.mark.parametrize("name, content, message", BAD.values(), ids=BAD)
def test_a_bad_file_is_one_clear_line(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(InputError) as error:
        load_labelled_sequences(str(tmp_path / name))
    assert message in str(error.value) and name in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["x.csv", "x.tsv", "x.fa", "x.csv.gz", "x.parquet", "x.txt", "x"])
@pytest.mark.parametrize("pack", [bytes, gzip.compress])
@pytest.mark.parametrize("content", [b"seq,label\nACGT,1\n", b">a|1\nACGT\n", b'[{"seq": "ACGT", "label": 1}]'])
def test_the_format_is_told_from_the_content(tmp_path, name, pack, content):
    (tmp_path / name).write_bytes(pack(content))
    assert read_labelled(str(tmp_path / name)) == {"train": {"sequence": ["ACGT"], "label": ["1"]}}


def test_an_absent_value_in_parquet_is_named(tmp_path):
    pd.DataFrame({"seq": ["ACGT", "AC", "G"], "label": ["a", None, "b"]}).to_parquet(tmp_path / "x.parquet")
    with pytest.raises(InputError, match=r"1 of 3 sequences have no label, first row 2 \(''\)"):
        load_labelled_sequences(str(tmp_path / "x.parquet"))


@pytest.mark.parametrize("split", ["validation", "test"])
def test_a_label_that_train_lacks_is_named(tmp_path, split):
    write(TRAIN, tmp_path / "train.csv")
    write(pd.DataFrame({"sequence": ["AC"] * 3, "label": ["a", "z", "z"]}), tmp_path / f"{split}.csv")
    with pytest.raises(InputError, match=f"label 'z' occurs 2 times in {split} but never in train"):
        load_labelled_sequences(str(tmp_path))


def test_unknown_columns_files_and_splits_are_named(tmp_path):
    write(TRAIN, tmp_path / "train.csv")
    with pytest.raises(InputError, match="label_column='kind' is not one of its columns: sequence, label"):
        load_labelled_sequences(str(tmp_path), label_column="kind")
    write(TRAIN, tmp_path / "train.tsv")
    with pytest.raises(InputError, match=r"train\.csv and train\.tsv are both the train split"):
        load_labelled_sequences(str(tmp_path))
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="this folder contains no train file"):
        load_labelled_sequences(str(tmp_path / "empty"))
    write(TEST, tmp_path / "empty" / "test.csv")
    with pytest.raises(InputError, match="no train split, only test"):
        load_labelled_sequences(str(tmp_path / "empty"))
    for absent in (str(tmp_path / "absent"), "absent.csv.gz", "./absent"):
        with pytest.raises(InputError, match="there is no such file or folder"):
            load_labelled_sequences(absent)


def test_what_is_neither_file_nor_bundled_is_asked_of_the_hub(monkeypatch):
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)
    with pytest.raises(
        InputError, match=r"not a bundled data set \(splice_sites_chr20\); and .* cannot be loaded from the Hub"
    ):
        load_labelled_sequences("someone/absent-set")


def test_real_data_in_both_column_layouts(shared):
    promoters = load_labelled_sequences(str(shared / "data" / "gue" / "prom_300_tata"))
    assert {name: len(split) for name, split in promoters.items()} == {"train": 4904, "validation": 613, "test": 613}
    assert promoters["train"].features["label"].names == ["0", "1"]
    regulatory = load_labelled_sequences(
        str(shared / "data" / "genomic_benchmarks" / "chr20" / "human_ensembl_regulatory")
    )
    assert len(regulatory["test"]) == 1299 and len(regulatory["train"]) + len(regulatory["validation"]) == 5245
    assert regulatory["train"].features["label"].num_classes == 3


def test_parquet_that_is_no_utf8_is_named(tmp_path):
    file = tmp_path / "x.parquet"
    pd.DataFrame({"sequence": ["ACGTACGTTT"], "label": ["a"]}).to_parquet(file, compression=None, use_dictionary=False)
    file.write_bytes(file.read_bytes().replace(b"ACGTACGTTT", b"\x80CGTACGTTT"))
    with pytest.raises(InputError, match="x.parquet: this is not a readable Parquet file"):
        load_labelled_sequences(str(file))


@pytest.mark.parametrize("order", [None, [4, 0, 2], []])
def test_lengths_are_those_of_the_values(order):
    sequences, ids = ["ACGT", "", "NNA", "AC" * 40_000, "G"], [[7, 8], [], [9] * 5, [10] * 70, [1]]
    rows = Dataset.from_dict({"sequence": sequences, "ids": ids})
    if order is not None:
        rows = rows.select(order)
    for column in ("sequence", "ids"):
        assert value_lengths(rows, column).tolist() == [len(value) for value in rows[column]]
