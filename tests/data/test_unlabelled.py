import gzip
import json
import random

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hyenadna_hf.data.fasta import Fasta
from hyenadna_hf.data.genome import GenomeDataset
from hyenadna_hf.data.intervals import Interval
from hyenadna_hf.data.labelled import read_labelled
from hyenadna_hf.data.sequence import reverse_complement
from hyenadna_hf.data.unlabelled import SequenceList, hold_out, load_unlabelled_sequences
from hyenadna_hf.errors import InputError

RNG = random.Random(0)
SEQUENCES = ["".join(RNG.choices("ACGTNacgtRU", k=length)) for length in (5, 64, 65, 1, 200, 130, 64, 9)]
NONE = {"validation_fraction": 0, "test_fraction": 0}


def write(path, sequences, column="sequence"):
    """Write a file in the format of its name."""
    suffix = path.name.removesuffix(".gz").rpartition(".")[2]
    table = pd.DataFrame({column: sequences, "score": range(len(sequences))})
    if suffix == "parquet":
        table.to_parquet(path)
        return path
    text = {
        "txt": lambda: "".join(f"{sequence}\r\n\n" for sequence in sequences),
        "fa": lambda: "".join(f">{i} a|b\n{sequence}\n" for i, sequence in enumerate(sequences)),
        "jsonl": lambda: "".join(json.dumps({column: sequence}) + "\n" for sequence in sequences),
        "json": lambda: json.dumps([{column: sequence} for sequence in sequences]),
        "csv": lambda: table.to_csv(index=False),
        "tsv": lambda: table.to_csv(index=False, sep="\t"),
    }[suffix]()
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return path


NAMES = ["x.csv", "x.tsv.gz", "x.jsonl", "x.json", "x.parquet", "x.txt", "x.txt.gz", "x.fa", "x.fa.gz"]


@pytest.mark.parametrize("name", NAMES)
def test_formats(tmp_path, name):
    path = write(tmp_path / name, SEQUENCES)
    assert load_unlabelled_sequences(path, **NONE) == {"train": SEQUENCES}
    if not name.startswith(("x.fa", "x.txt")):
        assert load_unlabelled_sequences(write(path, SEQUENCES, "Mine"), "Mine", **NONE) == {"train": SEQUENCES}


@pytest.mark.parametrize("split", ["train", "validation"])
@pytest.mark.parametrize("name", ["x.csv", "x.parquet", "x.txt"])
def test_windows_are_those_of_the_same_sequences_in_fasta(tmp_path, name, split):
    """In the same order, on the same strand, long sequences cut and short ones whole."""
    genome = Fasta(write(tmp_path / "genome.fa", SEQUENCES))
    sequences = load_unlabelled_sequences(write(tmp_path / name, SEQUENCES), **NONE)["train"]
    options = {"split": split, "max_length": 64, "reverse_complement": True, "rank": 0, "world_size": 1}
    table = SequenceList(sequences, name)
    regions = [Interval(number, 0, size) for number, size in table.lengths.items()]
    found = GenomeDataset(table, regions=regions, **options)
    expected = GenomeDataset(genome, **options)
    for epoch in range(3):
        for stream in (found, expected):
            stream.set_epoch(epoch)
        windows = [[row["input_ids"].tolist() for row in stream] for stream in (found, expected)]
        assert windows[0] == windows[1]
        assert sum(map(len, windows[0])) == found.bases() == expected.bases()
    assert max(map(len, windows[0])) == 64 and min(map(len, windows[0])) == 1


def test_a_list_of_sequences_is_read_like_a_genome():
    sequences = SequenceList(["ACGT", "GGCCA"], "x.csv")
    assert sequences.fetch("1") == "GGCCA" and sequences.fetch("1", 1, 3) == "GC" and sequences.fetch("0", 4) == ""
    with pytest.raises(InputError, match=r"x\.csv: 0 has 4 bases; the interval from 2 to 5"):
        sequences.fetch("0", 2, 5)
    with pytest.raises(InputError, match="there is no sequence '2'"):
        sequences.fetch("2")


def test_files_named_as_splits(tmp_path):
    for split, name in (("train", "train.txt"), ("validation", "dev.csv"), ("test", "test.parquet")):
        write(tmp_path / name, [split[0].upper().replace("V", "C") * 9])
    expected = {"train": ["T" * 9], "validation": ["C" * 9], "test": ["T" * 9]}
    assert load_unlabelled_sequences(tmp_path) == expected
    for name in ("train.txt", "dev.csv", "test.parquet"):
        (tmp_path / name).rename(tmp_path / f"mine_{name}")
    assert load_unlabelled_sequences(tmp_path / "mine") == expected


def test_what_is_held_out_comes_from_train_alone(tmp_path):
    sequences = ["".join(RNG.choices("ACGT", k=30)) for _ in range(100)]
    write(tmp_path / "train.csv", sequences)
    write(tmp_path / "validation.csv", sequences[:3])
    splits = load_unlabelled_sequences(tmp_path, validation_fraction=0.5, test_fraction=0.2, seed=1)
    assert splits["validation"] == sequences[:3]
    assert (len(splits["train"]), len(splits["test"])) == (80, 20)
    assert sorted(splits["train"] + splits["test"]) == sorted(sequences)


@given(
    st.lists(st.text("ACGT", min_size=1, max_size=4), min_size=1, max_size=30),
    st.floats(0, 0.6),
    st.floats(0, 0.6),
    st.integers(0, 99),
    st.randoms(),
)
def test_copies_stay_together_in_any_order(sequences, validation, test, seed, rng):
    fractions = {"test": test, "validation": validation}
    distinct = {min(sequence, reverse_complement(sequence)) for sequence in sequences}
    counts = {split: max(1, round(part * len(distinct))) for split, part in fractions.items() if part}
    if sum(counts.values()) >= len(distinct):
        with pytest.raises(InputError, match=f"out of {len(distinct)} distinct sequences; reduce test_fraction and"):
            hold_out("x.csv", {"train": sequences}, fractions, seed)
        return
    splits = hold_out("x.csv", {"train": sequences}, fractions, seed)
    assert splits.keys() == {"train", *counts}
    assert sorted(sequence for part in splits.values() for sequence in part) == sorted(sequences)
    keys = {split: {min(s, reverse_complement(s)) for s in part} for split, part in splits.items()}
    assert sum(map(len, keys.values())) == len(distinct)  # disjoint
    assert {split: len(keys[split]) for split in counts} == counts
    shuffled = [spell(sequence, rng) for sequence in rng.sample(sequences, len(sequences))]
    again = hold_out("x.csv", {"train": shuffled}, fractions, seed)
    for split, part in again.items():
        assert {min(s, reverse_complement(s)) for s in map(normal, part)} == keys[split]


def spell(sequence, rng):
    """Another spelling of a sequence: in lower case, as RNA, or on the other strand."""
    return rng.choice([sequence, sequence.lower(), sequence.replace("T", "U"), reverse_complement(sequence)])


def normal(sequence):
    return sequence.upper().replace("U", "T")


def test_the_seed_changes_the_split():
    sequences = {"train": ["".join(RNG.choices("ACGT", k=30)) for _ in range(100)]}
    one, same, other = (hold_out("x", sequences, {"test": 0.2}, seed)["test"] for seed in (1, 1, 2))
    assert one == same != other


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("x.txt", "ACGT\n\nACGX\n", r"x\.txt, line 3: the sequence contains 'X' at base 4"),
        ("x.txt", "ACG!\nACG\n", r"x\.txt: it begins with 'ACG!', which is neither a sequence \('!' at base 4"),
        ("x.txt", "", r"x\.txt: the file is empty"),
        ("x.csv", "sequence\n", r"x\.csv: the file contains no sequence"),
        ("x.csv", "\n\n", r"x\.csv: this is not a readable CSV"),
        ("x.csv", "id,dna\n1,ACGT\n2,AC-GT\n", r"x\.csv, row 2: the sequence contains '-' at base 3"),
        ("x.csv", "id,dna\n1,\n", r"x\.csv, row 1: the sequence is empty"),
        ("x.csv", "id,text\n1,ACGT\n", r"x\.csv: it has none of sequence, seq, dna; set sequence_column to one of"),
        ("x.csv", "id\n1\n", r"x\.csv: it begins with 'id'"),
        ("x.json", "[]", r"x\.json: it has none of sequence"),
        ("x.jsonl", '{"sequence": "AC"}\n{"sequence": 5}\n', r"x\.jsonl, row 2: the sequence contains '5' at base 1"),
        ("x.fa", ">a\nAC\n>b\nEF\n", r"x\.fa, >b: the sequence contains 'E' at base 1"),
        ("x.txt", "ACGT\n", "cannot hold test and validation out of 1 distinct"),
    ],
)
def test_errors(tmp_path, name, text, message):
    (tmp_path / name).write_text(text)
    with pytest.raises(InputError, match=message) as error:
        load_unlabelled_sequences(tmp_path / name)
    assert "\n" not in str(error.value)


def test_other_errors(tmp_path):
    write(tmp_path / "test.csv", ["ACGT"])
    with pytest.raises(InputError, match="there is no train split, only test"):
        load_unlabelled_sequences(tmp_path)
    write(tmp_path / "train.csv", ["ACGT"])
    with pytest.raises(InputError, match="sequence_column='mine' is not one of its columns: sequence, score"):
        load_unlabelled_sequences(tmp_path, "mine")
    with pytest.raises(InputError, match=r"validation_fraction=1.5: give 0 to below 1"):
        load_unlabelled_sequences(tmp_path, validation_fraction=1.5)
    with pytest.raises(InputError, match="there is no such file or folder"):
        load_unlabelled_sequences(tmp_path / "absent.txt")


def test_text_is_no_table_for_commands_that_need_labels(tmp_path):
    """Its first line is not taken for a header."""
    (tmp_path / "x.csv").write_text("ACGT\nACCT\n")
    with pytest.raises(InputError, match="it has none of label, class, target; set label_column to one of its columns"):
        read_labelled(tmp_path / "x.csv")
