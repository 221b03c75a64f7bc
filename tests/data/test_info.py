import pandas as pd
import pytest
from datasets import ClassLabel, Dataset, DatasetDict, Features, Value

from hyenadna_hf.data.info import describe, histogram, main
from hyenadna_hf.errors import InputError


@pytest.fixture
def folder(tmp_path):
    tables = {
        "train": [("AACC", "a"), ("ggtt", "b"), ("ACGTACGTTT", "a"), ("GGGGGGGC", "b")] * 1 + [("TTTTTTTT", "a")],
        "dev": [("AAAAAAAA", "a"), ("CCCGCCCG", "b")],
        "test": [("ACGTACGTTT", "a"), ("ATATATGG", "b"), ("AC", "a")],
    }
    for split, rows in tables.items():
        pd.DataFrame(rows, columns=["sequence", "label"]).to_csv(tmp_path / f"{split}.csv", index=False)
    return tmp_path


def data_of(splits):
    features = Features({"sequence": Value("string"), "label": ClassLabel(names=["x", "y"])})
    return DatasetDict(
        {
            name: Dataset.from_dict({"sequence": rows, "label": [i % 2 for i in range(len(rows))]}, features)
            for name, rows in splits.items()
        }
    )


def test_facts():
    splits = {"train": ["AACC", "ggtt", "ACNNT"], "validation": ["AGGTU", "GGTT"], "test": ["AGNNT", "ANNGT", "C"]}
    found = describe(data_of(splits))
    train = found["splits"]["train"]
    assert train["sequences"] == 3 and train["classes"] == {"x": 2, "y": 1} and train["lengths"] == [4, 4, 5]
    assert train["gc"] == pytest.approx(5 / 11) and train["duplicates"] == 1
    assert train["reverse_complements"] == 1
    counts = {pair: (kinds["exact"], kinds["reverse_complement"]) for pair, kinds in found["leakage"].items()}
    assert counts == {("train", "validation"): (1, 0), ("train", "test"): (0, 1), ("validation", "test"): (0, 0)}
    splits["test"].append("ANNGT")
    test = describe(data_of(splits))["splits"]["test"]
    assert test["duplicates"] == 1 and test["reverse_complements"] == 0


def test_info_is_printed(folder, capsys):
    found = main(["info", str(folder)])
    kinds = ("exact", "reverse_complement", "near_duplicate", "overlapping")
    assert {name: tuple(counts[kind] for kind in kinds) for name, counts in found["leakage"].items()} == {
        "validation in train": (0, 1, 0, None),
        "test in train": (1, 0, 0, None),
        "test in validation": (0, 0, 0, None),
    }
    assert found["near_duplicate"] == {"k": 16, "containment": 0.5}
    assert found["splits"]["train"]["duplicates"] == found["splits"]["train"]["reverse_complements"] == 1
    printed = " ".join(capsys.readouterr().out.split())
    for words in (
        "│ exact duplicates │ 0 (0.0%) │ 1 (33.3%) │ 0 (0.0%) │",
        "│ near duplicates │ 0 (0.0%) │ 0 (0.0%) │ 0 (0.0%) │",
        "Near duplicates: at least 50% of the distinct 16-mers",
        "│ sequences │ 5 │ 2 │ 3 │",
        "│ class a │ 3 │ 1 │ 2 │",
        "│ median length │ 8 │ 8 │ 8 │",
        "│ longest │ 10 │ 8 │ 10 │",
        "│ duplicates │ 1 │ 0 │ 0 │",
        "│ as reverse complement │ 1 │ 0 │ 0 │",
        "8 to 8 ████",
    ):
        assert words in printed, printed


def test_a_published_set_from_files(folder, capsys):
    for split in ("train", "dev", "test"):
        table = pd.read_csv(folder / f"{split}.csv")
        table.assign(label=table["label"].map({"a": "human", "b": "worm"})).to_csv(folder / f"{split}.csv", index=False)
    main(["info", "demo_human_or_worm", "--source", str(folder)])
    printed = " ".join(capsys.readouterr().out.split())
    assert "7 train sequences, but 75,000 are published" in printed and "class worm" in printed


def test_published_sets_are_listed(capsys):
    main(["info"])
    printed = " ".join(capsys.readouterr().out.split())
    for words in (
        "demo_coding_vs_intergenomic_seqs 2 75,000 25,000 200 accuracy",
        "H3K4me3 2",
        "tf_0",
        "splice_sites_chr20",
    ):
        assert words in printed


def test_preview(capsys):
    main(["preview", "splice_sites_chr20", "--rows", "2", "--width", "10"])
    printed = capsys.readouterr().out
    assert "12,857 sequences" in printed
    for label in ("acceptor", "donor", "neither"):
        assert printed.count(label) == 2
    assert printed.count("...") == 6


def test_a_picture_of_lengths():
    lines = histogram([1] * 40 + [2] * 20 + [10], bins=10, width=8)
    assert len(lines) == 10 and lines[0].split() == ["1", "to", "1", "████████", "40"]
    assert lines[1].split() == ["2", "to", "2", "████", "20"] and lines[9].split()[-2:] == ["▎", "1"]
    assert lines[4].split() == ["5", "to", "5", "0"]
    assert histogram([7, 7])[0].split() == ["7", "to", "7", "█" * 40, "2"]
    assert len(histogram(range(1000), bins=12)) == 12


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["preview"], "preview: give a data set"),
        (["info", "absent.csv"], "no such file or folder"),
        (["info", "splice_sites_chr20", "--source", "x"], "--source: splice_sites_chr20 is not a published data set"),
        (["info", "H3", "--source", "absent.csv"], "no such file or folder"),
        (["info", "H3", "--rows", "0"], "--rows 0"),
        (["info", "H3", "--fly"], "unknown argument --fly"),
        (["info", "H3", "--rows", "many"], "invalid int value: 'many'"),
        (["show", "x"], "invalid choice: 'show'"),
        ([], "arguments are required: what"),
    ],
)
def test_bad_arguments_are_named(arguments, message):
    with pytest.raises(InputError) as error:
        main(arguments)
    assert message in str(error.value)
