import pickle
import shutil
import tracemalloc
from itertools import islice

import pytest
import torch
from datasets.distributed import split_dataset_by_node
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader
from transformers import Trainer, TrainingArguments

from hyenadna_hf import HyenaDNAForCausalLM, HyenaDNATokenizer
from hyenadna_hf.data.collators import CausalCollator
from hyenadna_hf.data.fasta import Fasta
from hyenadna_hf.data.genome import GenomeDataset
from hyenadna_hf.data.sequence import reverse_complement
from hyenadna_hf.errors import InputError

TOKENIZER = HyenaDNATokenizer()
RECORDS = {"chr1": "ACGTacgtNNNNRYKMGATTACA" * 5, "chr2": "GGGCCCATA" * 4, "chrM": "TTA"}


def write(folder, records=RECORDS):
    path = folder / "genome.fa"
    path.write_text("".join(f">{name}\n{sequence}\n" for name, sequence in records.items()))
    return path


@pytest.fixture(scope="module")
def genome(tmp_path_factory):
    return Fasta(write(tmp_path_factory.mktemp("genome")))


def bed(folder, rows):
    path = folder / "x.bed"
    path.write_text("".join("\t".join(map(str, row)) + "\n" for row in rows))
    return path


def ids(sequence):
    return TOKENIZER(sequence)["input_ids"]


def windows(dataset):
    return [dataset.window(index) for index in range(dataset.size())]


@settings(max_examples=60)
@given(st.integers(1, 150), st.integers(1, 3), st.sampled_from(["validation", "test", "train"]), st.integers(0, 5))
def test_each_base_once_across_ranks(genome, max_length, world_size, split, epoch):
    seen = {name: [0] * length for name, length in genome.lengths.items()}
    for rank in range(world_size):
        dataset = GenomeDataset(genome, None, split, max_length, rank=rank, world_size=world_size)
        dataset.set_epoch(epoch)
        places = range(rank, dataset.size(), world_size)
        order = dataset._order(list(places))
        examples = list(dataset)
        assert len(examples) == len(dataset) == len(order)
        for index, example in zip(order, examples):
            name, start, end, other_strand = dataset.window(index)
            assert example["input_ids"].tolist() == ids(genome.fetch(name, start, end)) and not other_strand
            assert end - start == max_length or (
                end - start < max_length and (split != "train" or (start, end) == (0, genome.lengths[name]))
            )
            for base in range(start, end):
                seen[name][base] += 1
    counts = {count for bases in seen.values() for count in bases}
    assert counts == {1} if split != "train" else counts <= {0, 1}


def test_each_base_once_across_workers(genome):
    dataset = GenomeDataset(genome, None, "test", 10)
    loader = DataLoader(dataset, batch_size=None, num_workers=2)
    pieces = sorted(tuple(example["input_ids"].tolist()) for example in loader)
    assert pieces == sorted(tuple(example["input_ids"].tolist()) for example in dataset)
    assert sum(map(len, pieces)) == sum(genome.lengths.values())


def test_as_a_stream_of_datasets(genome):
    dataset = GenomeDataset(genome, max_length=10, reverse_complement=True, n_policy="drop")
    expected = sorted(tuple(example["input_ids"].tolist()) for example in dataset)
    stream = dataset.to_datasets(shards=4)
    dataset.set_epoch(1)
    assert stream.features == dataset.features
    pieces = []
    for rank in range(2):
        share = split_dataset_by_node(stream, rank, 2).with_format("torch")
        pieces += list(DataLoader(share, batch_size=None, num_workers=2))
    assert all(piece["input_ids"].dtype == torch.long for piece in pieces)
    assert sorted(tuple(piece["input_ids"].tolist()) for piece in pieces) == expected
    # Resumed anywhere, the rest is what it would have been.
    whole = [example["input_ids"] for example in stream]
    examples = iter(stream)
    before = [next(examples)["input_ids"] for _ in range(5)]
    dataset.set_epoch(0)
    again = dataset.to_datasets(shards=4)
    again.load_state_dict(stream.state_dict())
    assert [*before, *(example["input_ids"] for example in again)] == whole


def test_an_epoch_of_training_has_windows_of_its_own(genome):
    dataset = GenomeDataset(genome, max_length=10)
    first = set(windows(dataset))
    dataset.set_epoch(1)
    assert set(windows(dataset)) != first
    assert {name for name, *_ in first} == set(RECORDS)


@settings(max_examples=40)
@given(st.data(), st.integers(1, 140), st.sampled_from([0, 7]))
def test_windows_of_a_bed(genome, tmp_path_factory, data, max_length, shift):
    starts = data.draw(st.lists(st.integers(0, 100), min_size=1, max_size=6))
    rows = [("1", start, data.draw(st.integers(start + 1, 115))) for start in starts]
    path = bed(tmp_path_factory.mktemp("bed"), rows)
    plain = GenomeDataset(genome, path, "test", max_length, shift=50, reverse_complement=True)
    augmented = GenomeDataset(genome, path, "train", max_length, shift=shift)
    for row, (name, start, end, other_strand), (_, moved, moved_end, _) in zip(
        rows, windows(plain), windows(augmented), strict=True
    ):
        assert name == "chr1" and end - start == min(max_length, 115) and not other_strand
        middle = (row[1] + row[2]) // 2 - max_length // 2
        assert start == max(0, min(middle, 115 - max_length))
        assert abs(moved - start) <= shift and moved >= 0 and moved_end <= 115 and moved_end - moved == end - start


@settings(max_examples=30)
@given(st.integers(1, 60), st.sampled_from(["train", "test"]), st.integers(0, 5), st.booleans())
def test_bases_are_those_of_the_windows(genome, tmp_path_factory, max_length, split, epoch, has_bed):
    rows = [("chr1", 3, 8), ("chr2", 0, 36), ("chrM", 1, 2)]
    path = bed(tmp_path_factory.mktemp("bed"), rows) if has_bed else None
    dataset = GenomeDataset(genome, path, split, max_length)
    dataset.set_epoch(epoch)
    assert dataset.bases() == sum(end - start for _, start, end, _ in windows(dataset))


def test_splits_of_a_bed(tmp_path, genome):
    path = bed(tmp_path, [("chr1", 0, 8, "train"), ("chr1", 20, 30, "valid"), ("chr2", 0, 5, "test")])
    assert windows(GenomeDataset(genome, path, "train", 8)) == [("chr1", 0, 8, False)]
    assert windows(GenomeDataset(genome, path, "validation", 4)) == [("chr1", 23, 27, False)]
    names = bed(tmp_path, [("chr1", 0, 8, "peak1"), ("chr1", 20, 30, "peak2")])
    assert len(GenomeDataset(genome, names, "test", 8)) == 2
    with pytest.raises(InputError, match="no interval of the split validation; it has train"):
        GenomeDataset(genome, bed(tmp_path, [("chr1", 0, 8, "train")]), "validation")
    with pytest.raises(InputError, match="chr1:9-10 has 'peak' in the fourth column"):
        GenomeDataset(genome, bed(tmp_path, [("chr1", 0, 8, "train"), ("chr1", 9, 10, "peak")]))
    with pytest.raises(InputError, match="line 1: the interval begins at -1"):
        GenomeDataset(genome, bed(tmp_path, [("chr1", -1, 8)]))
    with pytest.raises(InputError, match="the file is empty"):
        GenomeDataset(genome, bed(tmp_path, []), "test")


def test_both_strands_in_training_only(genome):
    dataset = GenomeDataset(genome, max_length=5, reverse_complement=True)
    strands = set()
    for index in range(dataset.size()):
        name, start, end, other_strand = dataset.window(index)
        sequence = genome.fetch(name, start, end)
        expected = ids(reverse_complement(sequence) if other_strand else sequence)
        assert dataset.example(index)["input_ids"].tolist() == expected
        strands.add(other_strand)
    assert strands == {True, False}
    assert not any(w[3] for w in windows(GenomeDataset(genome, None, "test", 5, reverse_complement=True)))


def test_n_policies(tmp_path):
    path = write(tmp_path, {"a": "ACGTNNRTAAAA"})
    kept, masked, dropped = (
        list(GenomeDataset(path, None, "test", 4, n_policy=policy)) for policy in ("keep", "mask", "drop")
    )
    assert [example["labels"].tolist() for example in kept] == [[7, 8, 9, 10], [11, 11, 11, 10], [7] * 4]
    assert [example["labels"].tolist() for example in masked] == [[7, 8, 9, 10], [-100, -100, -100, 10], [7] * 4]
    assert [example["input_ids"].tolist() for example in masked] == [example["input_ids"].tolist() for example in kept]
    assert [example["input_ids"].tolist() for example in dropped] == [[7, 8, 9, 10], [7] * 4]
    assert len(list(GenomeDataset(path, None, "test", 4, n_policy="drop", max_n=0.75))) == 3
    with pytest.raises(TypeError):
        len(GenomeDataset(path, n_policy="drop"))


def test_sep_at_the_end(genome):
    example = GenomeDataset(genome, None, "test", 4, append_sep=True).example(0)
    assert example["input_ids"].tolist() == example["labels"].tolist() == [7, 8, 9, 10, 1]


def test_regions(genome):
    dataset = GenomeDataset(genome, None, "test", 6, regions=["2:3-14", "chrM"])
    assert windows(dataset) == [("chr2", 2, 8, False), ("chr2", 8, 14, False), ("chrM", 0, 3, False)]


def test_a_shift_does_not_leave_its_region(genome):
    dataset = GenomeDataset(genome, None, "train", 6, regions=["chr1:21-60"], shift=30)
    places = set()
    for epoch in range(20):
        dataset.set_epoch(epoch)
        places |= {(start, end) for _, start, end, _ in windows(dataset)}
    assert min(places)[0] == 20 and max(places)[1] == 60 and {end - start for start, end in places} == {6}


def test_a_killed_run_goes_on_where_it_was(genome):
    arguments = {"max_length": 7, "reverse_complement": True, "shift": 2, "seed": 5}
    whole = [example["input_ids"].tolist() for example in GenomeDataset(genome, **arguments)]
    killed = GenomeDataset(genome, **arguments)
    head = [example["input_ids"].tolist() for example in islice(killed, 6)]
    state = pickle.loads(pickle.dumps(killed.state_dict()))
    resumed = GenomeDataset(genome, **arguments)
    resumed.load_state_dict(state)
    assert head + [example["input_ids"].tolist() for example in resumed] == whole


def test_memory_does_not_grow_with_the_genome(tmp_path):
    peaks = []
    for bases in (100_000, 3_000_000):
        with (tmp_path / f"{bases}.fa").open("w") as file:
            file.write(">a\n")
            file.writelines("ACGTACGTTTGACCAGTAGG" * 3 + "\n" for _ in range(bases // 60))
        Fasta(tmp_path / f"{bases}.fa").close()
        tracemalloc.start()
        for _ in islice(GenomeDataset(tmp_path / f"{bases}.fa", max_length=200), 300):
            pass
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < peaks[0] + 100_000


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"split": "dev set"}, "split='dev set'"),
        ({"n_policy": "skip"}, "n_policy='skip'"),
        ({"max_length": 0}, "max_length=0"),
        ({"shift": -1}, "shift=-1"),
        ({"max_n": 2}, "max_n=2"),
        ({"regions": []}, "regions: it is empty"),
        ({"regions": ["chr9"]}, "no sequence 'chr9'"),
        ({"bed": "x.bed", "regions": ["chr1"]}, "bed and regions: give only one"),
        ({"bed": "absent.bed"}, "there is no such file"),
    ],
)
def test_bad_arguments_are_named(genome, arguments, message):
    with pytest.raises(InputError) as error:
        GenomeDataset(genome, **arguments)
    assert message in str(error.value)


def test_the_stock_trainer_learns_from_it(fixtures, tmp_path, config):
    shutil.copy(fixtures / "human_chr20.fa.gz", tmp_path / "genome.fa.gz")
    training = GenomeDataset(
        tmp_path / "genome.fa.gz", max_length=64, reverse_complement=True, append_sep=True, rank=0, world_size=1
    )
    arguments = TrainingArguments(
        tmp_path / "out",
        max_steps=3,
        per_device_train_batch_size=4,
        save_steps=3,
        report_to="none",
        logging_steps=1,
        dataloader_pin_memory=False,
    )
    trainer = Trainer(HyenaDNAForCausalLM(config), arguments, CausalCollator(TOKENIZER, pad_to_multiple_of=5), training)
    assert trainer.train().global_step == 3
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    assert len(losses) == 3 and 1 < losses[0] < 4


def test_real_genomes(shared):
    folder = shared / "data" / "genomes"
    dataset = GenomeDataset(folder / "human_chr20_30M-33M.fa.gz", None, "test", 1_000_000, append_sep=True)
    assert [len(example["input_ids"]) for example in dataset] == [1_000_001] * 3
    assert TOKENIZER.decode(dataset.example(0)["input_ids"][:9]) == "AAATAAGGC"
    training = GenomeDataset(folder / "yeast_chrI.fa.gz", max_length=1024, reverse_complement=True, n_policy="mask")
    batch = next(iter(DataLoader(training, batch_size=8, num_workers=1)))
    assert batch["input_ids"].shape == batch["labels"].shape == (8, 1024)
    assert torch.isin(batch["input_ids"], torch.tensor([7, 8, 9, 10, 11])).all()
