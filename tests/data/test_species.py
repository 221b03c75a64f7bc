import random
from collections import Counter
from itertools import islice

import pytest
from torch.utils.data import DataLoader

from hyenadna_hf import HyenaDNATokenizer
from hyenadna_hf.data.collators import ClassificationCollator
from hyenadna_hf.data.fasta import FastaFolder
from hyenadna_hf.data.species import load_species
from hyenadna_hf.errors import InputError


def write(path, sequences):
    path.parent.mkdir(exist_ok=True)
    path.write_text("".join(f">{name}\n{sequence}\n" for name, sequence in sequences.items()))


@pytest.fixture
def folder(tmp_path):
    rng = random.Random(0)
    folder = tmp_path / "species"
    folder.mkdir()
    chromosomes = {f"chr{i}": "".join(rng.choices("ACGT", k=500 + 10 * i)) for i in range(1, 9)}
    write(folder / "yak.fa", chromosomes)
    write(folder / "cod" / "1.fa", {"1": "A" * 300, "2": "C" * 400})
    write(folder / "cod" / "2.fasta", {"3": "G" * 300, "MT": "T" * 70})
    write(folder / "bug.fna", {"circle": "ACGT" * 250})
    (folder / "notes.txt").write_text("not a genome")
    return folder


def places(stream, name):
    genome = stream._genomes[stream.names.index(name)]
    return {genome.window(index)[:3] for index in range(genome.size())}


def test_sequences_are_held_out_whole_and_a_single_one_is_cut(folder):
    streams = load_species(folder, 50, validation_fraction=0.2, test_fraction=0.2)
    assert list(streams) == ["train", "validation", "test"]
    for stream in streams.values():
        assert stream.names == stream.features["label"].names == ["bug", "cod", "yak"]
    for name, count in (("yak", 8), ("cod", 4)):
        held = [{place[0] for place in places(stream, name)} for stream in streams.values()]
        assert all(held) and sum(map(len, held)) == len(set.union(*held)) == count
    ends = [
        (min(place[1] for place in p), max(place[2] for place in p))
        for p in (places(s, "bug") for s in streams.values())
    ]
    assert ends[0][0] >= 0 and ends[0][1] <= 600 and ends[1:] == [(600, 800), (800, 1000)]
    again = load_species(folder, 50, validation_fraction=0.2, test_fraction=0.2)
    assert places(again["test"], "yak") == places(streams["test"], "yak")


def test_species_come_equally_often_with_their_own_bases(folder):
    streams = load_species(
        folder, 50, validation_fraction=0.2, test_fraction=0.2, reverse_complement=True, n_policy="keep"
    )
    for stream in streams.values():
        examples = list(stream)
        counts = Counter(example["label"] for example in examples)
        assert len(set(counts.values())) == 1 and sorted(counts) == [0, 1, 2] and len(examples) == len(stream)
        for example in examples:
            if example["label"] == 1:  # cod has one kind of base a chromosome
                assert len(set(example["input_ids"].tolist())) == 1
    first = [example["input_ids"].tolist() for example in streams["train"]]
    streams["train"].set_epoch(1)
    assert [example["input_ids"].tolist() for example in streams["train"]] != first


def test_shares_and_resuming(folder):
    def stream(**kwargs):
        return load_species(folder, 20, shift=5, **kwargs)["train"]

    def rows(examples):
        return [(example["label"], *example["input_ids"].tolist()) for example in examples]

    whole = rows(stream())
    shares = [rows(stream(rank=rank, world_size=3)) for rank in range(3)]
    assert sorted(example for share in shares for example in share) == sorted(whole)
    begun, resumed = stream(), stream()
    begun.set_epoch(2)
    head = rows(islice(begun, 11))
    resumed.load_state_dict(begun.state_dict())
    tail = rows(resumed)
    begun.set_epoch(0)
    begun.set_epoch(2)
    assert head + tail == rows(begun)


def test_batches_for_a_classifier(folder):
    streams = load_species(folder, 100, validation_fraction=0.2, test_fraction=0.2)
    loader = DataLoader(streams["test"], batch_size=3, collate_fn=ClassificationCollator(HyenaDNATokenizer()))
    batch = next(iter(loader))
    assert batch["labels"].tolist() == [0, 1, 2] and batch["input_ids"].shape[0] == 3


def test_held_out_by_hand(folder):
    held_out = {"yak": {"validation": ["1"], "test": ["chr2:1-100", "chr3"]}}
    streams = load_species(folder, 25, held_out)
    assert {place[0] for place in places(streams["train"], "yak")} == {"chr4", "chr5", "chr6", "chr7", "chr8"}
    assert {place[0] for place in places(streams["validation"], "yak")} == {"chr1"}
    assert max(end for name, _, end in places(streams["test"], "yak") if name == "chr2") == 100


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"held_out": {"eel": {}}}, "unknown species 'eel'; .* contains"),
        ({"held_out": {"yak": {"test": ["chr1"]}}}, "give regions for validation"),
        (
            {"held_out": {"bug": {"validation": ["circle:1-9"], "test": ["circle:10-20"]}}},
            "no sequence is left for train",
        ),
        ({"held_out": {"yak": {"validation": ["chr77"], "test": ["chr1"]}}}, "no sequence 'chr77'"),
        ({"validation_fraction": 0}, "validation_fraction=0"),
        ({"max_length": 0}, "max_length=0"),
    ],
)
def test_bad_arguments_are_named(folder, arguments, message):
    with pytest.raises(InputError, match=message):
        load_species(folder, **arguments)


def test_bad_folders_are_named(tmp_path, folder):
    with pytest.raises(InputError, match="there is no such folder"):
        load_species(tmp_path / "absent")
    (tmp_path / "one").mkdir()
    write(tmp_path / "one" / "a.fa", {"x": "ACGT"})
    with pytest.raises(InputError, match="needs at least two genomes; this folder contains 1"):
        load_species(tmp_path / "one")
    write(folder / "cod" / "3.fa", {"3": "ACGT"})
    with pytest.raises(InputError, match=r"2\.fasta and .*3\.fa both have a sequence '3'"):
        FastaFolder(folder / "cod")
    (folder / "empty").mkdir()
    with pytest.raises(InputError, match="this folder contains no FASTA file"):
        FastaFolder(folder / "empty")


def test_a_folder_as_one_file(folder):
    with FastaFolder(folder / "cod") as cod:
        assert cod.lengths == {"1": 300, "2": 400, "3": 300, "MT": 70}
        assert cod.fetch("chrM", 68) == "TT" and cod.fetch("chr2", 0, 3) == "CCC"
        with pytest.raises(InputError, match="1 has 300 bases"):
            cod.fetch("1", 0, 301)


def test_real_species(shared):
    streams = load_species(shared / "data" / "genomes", 32_768, n_policy="mask")
    assert len(streams["train"].names) == 5
    assert Counter(example["label"] for example in streams["train"]) == dict.fromkeys(range(5), 4)
    assert next(iter(streams["train"]))["input_ids"].shape == (32_768,)
    long = load_species(shared / "data" / "genomes", 1_000_000)["train"]
    assert len(next(iter(long))["input_ids"]) > 180_000
