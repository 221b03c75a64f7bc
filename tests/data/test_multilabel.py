import gzip

import pandas as pd
import pytest
from datasets import Dataset, DatasetDict
from hypothesis import given, settings
from hypothesis import strategies as st

from hyenadna_hf.data.multilabel import is_saved_dataset, load_multilabel_sequences, load_regression_sequences
from hyenadna_hf.errors import InputError

TABLE = pd.DataFrame(
    {"seq": ["ACGT", "GGNA", "TTTT", "CCAA"], "CTCF": [1, 0, 0, 1], "DNase": [1, 1, 0, 0], "note": "x"}
)


@pytest.mark.parametrize("ending", ["csv.gz", "tsv", "parquet"])
def test_a_column_a_label_in_every_format(tmp_path, ending):
    for split in ("train", "dev", "test"):
        path = tmp_path / f"x_{split}.{ending}"
        if ending == "parquet":
            TABLE.to_parquet(path)
        else:
            TABLE.to_csv(path, sep="\t" if ending == "tsv" else ",", index=False)
    data, names = load_multilabel_sequences(tmp_path / "x", ["DNase", "CTCF"])
    assert names == ["DNase", "CTCF"] and list(data) == ["train", "validation", "test"]
    assert data["test"]["sequence"][:] == TABLE["seq"].tolist()
    assert data["test"]["labels"][:] == [[1, 1], [1, 0], [0, 0], [0, 1]]


@settings(max_examples=15)
@given(st.lists(st.lists(st.integers(0, 1), min_size=3, max_size=3), min_size=10, max_size=30), st.integers(0, 5))
def test_what_is_held_out_is_each_row_once(tmp_path_factory, labels, seed):
    folder = tmp_path_factory.mktemp("rows")
    sequences = [f"{'A' * i}C" for i in range(len(labels))]
    pd.DataFrame(labels, columns=list("abc")).assign(sequence=sequences).to_csv(folder / "train.csv", index=False)
    data, _ = load_multilabel_sequences(folder, ["a", "b", "c"], seed=seed)
    rows = [row for split in data.values() for row in split]
    assert sorted(len(row["sequence"]) for row in rows) == list(range(1, len(labels) + 1))
    assert all(row["labels"] == labels[len(row["sequence"]) - 1] for row in rows)


@pytest.mark.parametrize(
    "columns, message",
    [
        (["CTCF", "absent"], "label_column='absent' is not one of its columns: seq, CTCF, DNase, note"),
        (["CTCF", "note"], "row 1: note is 'x'; labels must be 0 or 1"),
        (["CTCF", ""], "give each column once"),
        (["CTCF", "CTCF"], "give each column once"),
    ],
)
def test_columns_that_will_not_do(tmp_path, columns, message):
    TABLE.to_csv(tmp_path / "train.csv", index=False)
    with pytest.raises(InputError, match=message):
        load_multilabel_sequences(tmp_path, columns)


def test_other_bad_input(tmp_path):
    TABLE.assign(seq="ACGX").to_csv(tmp_path / "train.csv", index=False)
    with pytest.raises(InputError, match="row 1: the sequence contains 'X' at base 4"):
        load_multilabel_sequences(tmp_path, ["CTCF", "DNase"])
    TABLE.to_csv(tmp_path / "test.csv", index=False)
    (tmp_path / "train.csv").unlink()
    with pytest.raises(InputError, match="there is no train split, only test"):
        load_multilabel_sequences(tmp_path, ["CTCF", "DNase"])
    with gzip.open(tmp_path / "train.csv.gz", "wt") as file:
        file.write("sequence,a,b\nACGT,1,0\n")
    (tmp_path / "test.csv").unlink()
    with pytest.raises(InputError, match="cannot hold a test split of 20% out of 1 train rows"):
        load_multilabel_sequences(tmp_path, ["a", "b"])
    DatasetDict({"train": Dataset.from_dict({"sequence": ["A"], "label": [0]})}).save_to_disk(tmp_path / "saved")
    with pytest.raises(InputError, match="this is not a save_to_disk folder; set label_column"):
        load_multilabel_sequences(tmp_path / "saved")
    (tmp_path / "saved" / "dataset_dict.json").write_text("what")
    with pytest.raises(InputError, match="saved: this is not a readable save_to_disk folder"):
        load_multilabel_sequences(tmp_path / "saved")


def test_saved_data_sets_of_both_kinds(tmp_path):
    data = Dataset.from_dict({"sequence": list(TABLE["seq"]), "labels": [[1, 1], [0, 1], [0, 0], [1, 0]]})
    DatasetDict({"train": data, "validation": data, "test": data}).save_to_disk(tmp_path / "lists")
    assert is_saved_dataset(tmp_path / "lists")
    loaded, names = load_multilabel_sequences(tmp_path / "lists")
    assert names == ["0", "1"] and loaded["test"][:] == data[:]
    columns = Dataset.from_pandas(TABLE)
    DatasetDict({"train": columns, "validation": columns, "test": columns}).save_to_disk(tmp_path / "columns")
    assert not is_saved_dataset(tmp_path / "columns") and not is_saved_dataset("splice_sites_chr20")
    loaded, names = load_multilabel_sequences(tmp_path / "columns", ["CTCF", "DNase"])
    assert names == ["CTCF", "DNase"] and loaded["test"][:] == data[:]


def test_labels_that_are_called_like_columns_that_readers_look_for(tmp_path):
    table = TABLE.rename(columns={"seq": " Sequence ", "CTCF": "Class", "DNase": "Target"})
    for split in ("train", "dev", "test"):
        table.to_csv(tmp_path / f"{split}.csv", index=False, sep=";")
    data, names = load_multilabel_sequences(tmp_path, ["Class", "Target"])
    assert names == ["Class", "Target"] and data["test"]["sequence"][:] == TABLE["seq"].tolist()
    assert data["test"]["labels"][:] == [[1, 1], [0, 1], [0, 0], [1, 0]]


@pytest.mark.parametrize("columns, names", [([], ["label"]), (["b", "a"], ["b", "a"])])
def test_numbers_to_predict(tmp_path, columns, names):
    table = TABLE.assign(label=[0.5, -1e3, 7, 2], a=[1, 2, 3, 4], b=["1e-3", "2", "3", "4"])
    for split in ("train", "dev", "test"):
        table.to_csv(tmp_path / f"{split}.csv", index=False)
    data, found = load_regression_sequences(tmp_path, columns)
    assert found == names
    assert data["test"]["labels"][:] == table[names].astype(float).to_numpy().tolist()
    data.save_to_disk(tmp_path / "saved")
    saved, numbers = load_regression_sequences(tmp_path / "saved")
    assert saved["test"]["labels"][:] == data["test"]["labels"][:] and numbers == list("01"[: len(names)])


@pytest.mark.parametrize("value", ["", "x", "inf", "nan"])
def test_targets_that_are_no_numbers(tmp_path, value):
    TABLE.assign(label=["1", "2", value, "3"]).to_csv(tmp_path / "train.csv", index=False)
    with pytest.raises(InputError, match=f"row 3: label is '{value}'; targets of a regression must be finite numbers"):
        load_regression_sequences(tmp_path)
