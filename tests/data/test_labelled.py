import gzip
from collections import Counter

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hyenadna_hf.data.labelled import BUNDLED, load_labelled_sequences
from hyenadna_hf.errors import InputError

TRAIN = pd.DataFrame({"sequence": ["ACGT", "acgtn", "GGGR", "TTTU"] * 10, "label": ["b", "a", "b", "a"] * 10})
TEST = pd.DataFrame({"sequence": ["AC", "GT"], "label": ["a", "b"]})


def write(table, path, **kwargs):
    if path.name.endswith(".parquet"):
        table.to_parquet(path)
    elif ".fa" in path.name or ".fna" in path.name:
        text = "".join(
            f">read{i} x|{row.label}\n{row.sequence}\n".replace(" x", "") for i, row in enumerate(table.itertuples())
        )
        (gzip.open if path.suffix == ".gz" else open)(path, "wt").write(text)
    else:
        table.to_csv(path, index=False, sep="\t" if ".tsv" in path.name else ",")


def rows(split):
    names = split.features["label"].names
    return [(row["sequence"], names[row["label"]]) for row in split]


@pytest.mark.parametrize("ending", [".csv", ".csv.gz", ".tsv", ".tsv.gz", ".parquet", ".fa", ".fasta.gz", ".fna"])
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


def test_one_file_is_split_by_class_the_same_way_each_time(tmp_path):
    write(TRAIN, tmp_path / "all.csv")
    first, second, other = (load_labelled_sequences(str(tmp_path / "all.csv"), seed=seed) for seed in (1, 1, 2))
    assert {name: len(split) for name, split in first.items()} == {"train": 28, "validation": 4, "test": 8}
    assert Counter(first["test"]["label"]) == {0: 4, 1: 4}
    assert [rows(split) for split in first.values()] == [rows(split) for split in second.values()]
    assert rows(first["train"]) != rows(other["train"])


@settings(deadline=None, max_examples=30)
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


BAD = {
    "empty file": ("x.csv", "", "the file is empty"),
    "no rows": ("x.csv", "sequence,label\n", "not one row"),
    "no sequence column": ("x.csv", "bases,label\nACGT,1\n", "sequence_column among its columns: bases, label"),
    "two label columns": ("x.csv", "seq,label,class\nACGT,1,2\n", "more than one of label, class"),
    "digits": ("x.csv", "seq,label\nACGT,1\nAC7GT,0\n", "row 2: the sequence holds '7' at base 3"),
    "protein": ("x.csv", "seq,label\nMKVL,1\n", "row 1: the sequence holds 'L' at base 4"),
    "empty sequence": ("x.csv", "seq,label\n,1\n", "row 1: the sequence holds nothing"),
    "empty label": ("x.csv", "seq,label\nACGT,\n", "row 1: the label is empty"),
    "one class": ("x.csv", "seq,label\nACGT,1\nACG,1\n", "every sequence has the label '1'"),
    "too few to split": ("x.csv", "seq,label\nACGT,1\nACG,0\n", "cannot hold a test split out of train"),
    "ragged": ("x.csv", "seq,label\nACGT,1\nACGT,1,2,3\n", "not a readable CSV file"),
    "more fields than columns": ("x.csv", "seq,label\nACGT,1,2\nACG,0,2\n", "not a readable CSV file"),
    "fewer fields than columns": ("x.csv", "seq,label\nACGT,1\nACG\n", "row 2: the label is empty"),
    "binary": ("x.tsv", b"seq\tlabel\n\xff\xfe\x00\t1\n", "not a readable TSV file"),
    "fasta named csv": ("x.csv", ">a|1\nACGT\n", "by its name it is CSV, but it begins with b'>'"),
    "csv named fasta": ("x.fa", "seq,label\nACGT,1\n", "by its name it is FASTA, but it begins with b's'"),
    "csv named parquet": ("x.parquet", "seq,label\nACGT,1\n", "not a readable Parquet file"),
    "text named gz": ("x.csv.gz", "seq,label\nACGT,1\n", "not a readable CSV file"),
    "gz cut short": ("x.csv.gz", gzip.compress(b"seq,label\n" + b"ACGT,1\n" * 999)[:-20], "not a readable CSV file"),
    "gz named csv": ("x.csv", gzip.compress(b"seq,label\nACGT,1\n"), "not a readable CSV file"),
    "fasta without labels": ("x.fa", ">a\nACGT\n", "the header >a has no label; write it as >a|label"),
    "fasta without sequence": ("x.fa", ">a|1\n>b|0\nAC\n", "row 1: the sequence holds nothing"),
    "unknown ending": ("x.xlsx", "PK", "unknown ending '.xlsx'"),
}


@pytest.mark.parametrize("name, content, message", BAD.values(), ids=BAD)
def test_a_bad_file_is_one_clear_line(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(InputError) as error:
        load_labelled_sequences(str(tmp_path / name))
    assert message in str(error.value) and name in str(error.value) and "\n" not in str(error.value)


def test_an_absent_value_in_parquet_is_named(tmp_path):
    pd.DataFrame({"seq": ["ACGT", "AC", "G"], "label": ["a", None, "b"]}).to_parquet(tmp_path / "x.parquet")
    with pytest.raises(InputError, match="row 2: the label is empty"):
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
    with pytest.raises(InputError, match="no train file in this folder"):
        load_labelled_sequences(str(tmp_path / "empty"))
    write(TEST, tmp_path / "empty" / "test.csv")
    with pytest.raises(InputError, match="no train split among test"):
        load_labelled_sequences(str(tmp_path / "empty"))
    for absent in (str(tmp_path / "absent"), "absent.csv.gz", "./absent"):
        with pytest.raises(InputError, match="there is no such file or folder"):
            load_labelled_sequences(absent)


def test_what_is_neither_file_nor_bundled_is_asked_of_the_hub(monkeypatch):
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)
    with pytest.raises(InputError, match=r"no bundled set \(splice_sites_chr20\); and the Hub does not give"):
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
