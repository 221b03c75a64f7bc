from itertools import combinations

import numpy as np
import pytest
from datasets import ClassLabel, Dataset, DatasetDict, Features, Value
from hypothesis import given, settings
from hypothesis import strategies as st

from hyenadna_hf.data import leakage
from hyenadna_hf.data.labelled import load_labelled_sequences
from hyenadna_hf.data.leakage import CONTAINMENT, DistinctSequences, K, leakage_summary, split_by_similarity
from hyenadna_hf.data.sequence import reverse_complement
from hyenadna_hf.errors import InputError

SPLITS = ("train", "validation", "test")


def random_sequences(count, length, seed=0):
    rng = np.random.default_rng(seed)
    return ["".join(letters) for letters in rng.choice(list("ACGT"), (count, length))]


def data_of(*splits):
    return DatasetDict({name: Dataset.from_dict({"sequence": rows}) for name, rows in zip(SPLITS, splits)})


def labelled(sequences, labels, classes):
    features = Features({"sequence": Value("string"), "label": ClassLabel(num_classes=classes)})
    return DatasetDict({"train": Dataset.from_dict({"sequence": sequences, "label": labels}, features)})


def mutated(sequence, *places):
    for place in places:
        sequence = sequence[:place] + ("C" if sequence[place] in "Aa" else "A") + sequence[place + 1 :]
    return sequence


# The definitions, by the letter.


def spelled(sequence):
    return sequence.upper().replace("U", "T")


def kmers_of(sequence):
    sequence = spelled(sequence)
    words = {sequence[i : i + K] for i in range(len(sequence) - K + 1)}
    return {min(word, reverse_complement(word)) for word in words if set(word) <= set("ACGT")}


def is_near_duplicate(sequence, other):
    kmers = kmers_of(sequence)
    return len(kmers) >= K and len(kmers & kmers_of(other)) >= CONTAINMENT * len(kmers)


def is_same(sequence, other):
    return spelled(other) in (spelled(sequence), reverse_complement(spelled(sequence)))


def leakage_of(first, second):
    kinds = []
    for sequence in second:
        if any(spelled(sequence) == spelled(other) for other in first):
            kinds.append("exact")
        elif any(is_same(sequence, other) for other in first):
            kinds.append("reverse_complement")
        elif any(is_near_duplicate(sequence, other) for other in first):
            kinds.append("near_duplicate")
    names = ("exact", "reverse_complement", "near_duplicate")
    return {kind: kinds.count(kind) for kind in names} | {"overlapping": None}


def connected(rows, are_linked):
    """For each row the smallest row that a chain of links leads to."""
    groups = list(range(rows))
    for first, second in combinations(range(rows), 2):
        if are_linked(first, second):
            old, new = groups[second], groups[first]
            groups = [new if group == old else group for group in groups]
    return [groups.index(group) for group in groups]


ORIGINALS = [*random_sequences(4, 70), "CAG" * 20, "A" * 40, "N" * 50]


@st.composite
def relatives(draw):
    """A piece of one or two of a few sequences, spelled, mutated and turned in any way."""
    parts = draw(st.lists(st.sampled_from(ORIGINALS), min_size=1, max_size=2))
    sequence = "".join(part[draw(st.integers(0, 50)) :][: draw(st.integers(0, 70))] for part in parts)
    for place in draw(st.lists(st.integers(0, 139), max_size=3)):
        if place < len(sequence):
            sequence = sequence[:place] + draw(st.sampled_from("ACGTNR")) + sequence[place + 1 :]
    if draw(st.booleans()):
        sequence = reverse_complement(sequence)
    if draw(st.booleans()):
        sequence = sequence.replace("T", "U")
    return sequence.lower() if draw(st.booleans()) else sequence


sequences = st.lists(relatives(), min_size=1, max_size=6)
sizes = st.tuples(st.sampled_from([1, 200, 2**25]), st.sampled_from([1, 200, 2**21]))


@settings(max_examples=50)
@given(sequences, sequences, sequences, sizes)
def test_leakage_and_groups_are_those_of_the_definitions(train, validation, test, sizes):
    splits = dict(zip(SPLITS, (train, validation, test)))
    with pytest.MonkeyPatch.context() as patch:
        for name, size in zip(("INDEX_SIZE", "BATCH_SIZE"), sizes):  # in many pieces or in one
            patch.setattr(leakage, name, size)
        distinct = DistinctSequences(data_of(*splits.values()))
        found, groups = distinct.leakage(), distinct.groups().tolist()
    assert found == {pair: leakage_of(*(splits[name] for name in pair)) for pair in combinations(SPLITS, 2)}
    rows = train + validation + test
    expected = connected(
        len(rows),
        lambda i, j: (
            is_same(rows[i], rows[j]) or is_near_duplicate(rows[i], rows[j]) or is_near_duplicate(rows[j], rows[i])
        ),
    )
    assert [groups.index(group) for group in groups] == expected
    for name, counts in distinct.duplicates().items():
        before = [(sequence, splits[name][:place]) for place, sequence in enumerate(splits[name])]
        assert counts["duplicates"] == sum(any(is_same(one, other) for other in others) for one, others in before)
        assert counts["duplicates"] - counts["reverse_complements"] == sum(
            any(spelled(one) == spelled(other) for other in others) for one, others in before
        )


intervals = st.lists(
    st.tuples(st.sampled_from(["chr1", "chr2"]), st.integers(0, 60), st.integers(1, 9)), min_size=1, max_size=8
)


@settings(max_examples=25)
@given(intervals, intervals, intervals)
def test_overlapping_intervals(train, validation, test):
    splits = {
        name: [(region, start, start + length) for region, start, length in rows]
        for name, rows in zip(SPLITS, (train, validation, test))
    }
    rows = [row for split in splits.values() for row in split]
    unrelated = iter(random_sequences(len(rows), 40))
    data = DatasetDict(
        {
            name: Dataset.from_dict(
                {"sequence": [next(unrelated) for _ in split]}
                | {column: [row[place] for row in split] for place, column in enumerate(("region", "start", "end"))}
            )
            for name, split in splits.items()
        }
    )

    def overlap(first, second):
        return first[0] == second[0] and first[1] < second[2] and second[1] < first[2]

    distinct = DistinctSequences(data)
    for (first, second), counts in distinct.leakage().items():
        expected = sum(any(overlap(one, other) for other in splits[first]) for one in splits[second])
        assert counts == {"exact": 0, "reverse_complement": 0, "near_duplicate": 0, "overlapping": expected}
    groups = distinct.groups().tolist()
    assert [groups.index(group) for group in groups] == connected(len(rows), lambda i, j: overlap(rows[i], rows[j]))


def test_coordinates_from_a_table_are_text():
    intervals = {"region": ["chr1"], "start": ["5"], "end": ["10"]}
    data = DatasetDict({name: Dataset.from_dict({"sequence": ["ACGTA"], **intervals}) for name in SPLITS})
    assert DistinctSequences(data).leakage()["train", "test"]["overlapping"] == 1
    data["test"] = Dataset.from_dict({"sequence": ["ACGTA"], **intervals, "region": ["1"]})  # by Ensembl
    assert DistinctSequences(data).leakage()["train", "test"]["overlapping"] == 1
    for column, wrong in (("start", "x"), ("start", "-1"), ("end", "5"), ("end", "7.5"), ("end", "")):
        data["test"] = Dataset.from_dict({"sequence": ["ACGTA"], **intervals, column: [wrong]})
        with pytest.raises(InputError, match=f"test, row 1: chr1:.*{wrong}.* is not an interval"):
            DistinctSequences(data)


def test_a_near_duplicate_at_the_threshold():
    sequence, other, *unrelated = random_sequences(4, 200)
    shared = (200 - K + 1 + 1) // 2  # half of the 185 k-mers, rounded up
    for count, expected in ((shared, 1), (shared - 1, 0)):
        end = count + K - 1
        train = [*unrelated, mutated(sequence, end)[: end + 1] + other]
        assert leakage_of(train, [sequence])["near_duplicate"] == expected
        found = DistinctSequences(data_of(train, [sequence])).leakage()["train", "validation"]
        assert found["near_duplicate"] == expected


def test_no_one_sequence_has_what_many_have_together():
    sequence, *others = random_sequences(5, 200)
    train = [other + sequence[start : start + 80] for other, start in zip(others, (0, 40, 80, 120))]
    assert DistinctSequences(data_of(train, [sequence])).leakage()["train", "validation"]["near_duplicate"] == 0


def test_rna_is_dna():  # 20 of 20, which the spelling would hide
    train = random_sequences(20, 60)
    test = [reverse_complement(sequence).replace("T", "U") for sequence in train]
    found = DistinctSequences(data_of(train, train[:1], test)).leakage()
    assert found["train", "test"]["reverse_complement"] == 20 and found["train", "validation"]["exact"] == 1


def test_a_summary_in_one_line():
    train = random_sequences(6, 100)
    test = [train[0], train[1].lower(), reverse_complement(train[2]), mutated(train[3], 50)]
    test += random_sequences(2, 100, 1)
    assert leakage_summary(data_of(train, random_sequences(3, 100, 2), test)) == (
        "Leakage: 4 of 6 test sequences are in train (exact duplicates 2, reverse complements 1, near duplicates 1)."
    )
    assert leakage_summary(data_of(*(random_sequences(3, 100, seed) for seed in range(3)))) is None


def related(families, length=250):
    """Families of sequences that are near duplicates of each other, of the given sizes."""
    return [
        mutated(sequence, 3 * member + 2)
        for sequence, size in zip(random_sequences(len(families), length), families)
        for member in range(size)
    ]


def test_splits_without_near_duplicates_are_of_the_wanted_sizes():
    rng = np.random.default_rng(0)
    families = [20, 12, 9, *rng.integers(1, 6, 300)]
    sequences = related(families)
    labels = np.repeat(rng.integers(0, 3, len(families)), families)
    data = labelled(sequences, labels.tolist(), 3)
    data["test"] = data["train"].select(range(100))  # which are all in train
    data["train"] = data["train"].select(range(100, len(sequences)))
    assert leakage_summary(data) is not None

    split = split_by_similarity(data, 0.15, 0.25, seed=1)
    assert list(split) == list(SPLITS) and leakage_summary(split) is None
    assert sorted(s for part in split.values() for s in part["sequence"]) == sorted(sequences)
    label_of = dict(zip(sequences, labels))
    for part, fraction in zip(split.values(), (0.6, 0.15, 0.25)):
        assert part.features == data["train"].features
        assert part["label"] == [label_of[sequence] for sequence in part["sequence"]]
        for label in range(3):
            wanted = fraction * (labels == label).sum()
            assert list(part["label"]).count(label) == pytest.approx(wanted, abs=2)

    again, other = split_by_similarity(data, 0.15, 0.25, seed=1), split_by_similarity(data, 0.15, 0.25, seed=2)
    assert again["test"]["sequence"] == split["test"]["sequence"] != other["test"]["sequence"]


@pytest.mark.filterwarnings("ignore:Groups of near duplicates")
@settings(max_examples=30)
@given(st.lists(st.integers(1, 5), min_size=12, max_size=25), st.integers(0, 2**32 - 1))
def test_no_family_is_divided(families, seed):
    sequences = related(families)
    family = dict(zip(sequences, np.repeat(range(len(families)), families)))
    split = split_by_similarity(data_of(sequences), 0.2, 0.2, seed)
    parts = [{family[sequence] for sequence in part["sequence"]} for part in split.values()]
    assert sum(map(len, parts)) == len(families) and all(parts)


def test_shares_that_are_not_reached_are_told():
    with pytest.warns(UserWarning, match="so the splits are 50.0% train, 25.0% validation, 25.0% test"):
        split = split_by_similarity(data_of(related([10, 5, 5])), 0.2, 0.3)
    assert [len(part) for part in split.values()] == [10, 5, 5]


@pytest.mark.parametrize(
    "families, fractions, message",
    [
        ([80, *[1] * 20], (0.1, 0.2), "80 of the 100 sequences form one group.*a sum of 0.200 or less"),
        ([10, 10], (0.2, 0.3), "too few or too large"),
        ([1] * 10, (0.5, 0.5), "validation_fraction=0.5, test_fraction=0.5: give two numbers above 0"),
        ([1] * 10, (0.0, 0.5), "validation_fraction=0.0"),
    ],
)
def test_splits_that_cannot_be_made(families, fractions, message):
    with pytest.raises(InputError, match=message):
        split_by_similarity(data_of(related(families)), *fractions)


def test_the_bundled_set():
    data = load_labelled_sequences("splice_sites_chr20")
    found = DistinctSequences(data).leakage()
    assert [tuple(counts.values()) for counts in found.values()] == [(0, 0, 0, None), (0, 0, 2, None), (0, 0, 0, None)]
    split = split_by_similarity(data)
    assert leakage_summary(split) is None
    sizes = np.array([np.bincount(part["label"], minlength=3) for part in split.values()])
    assert np.abs(sizes / sizes.sum(0) - np.array([[0.7], [0.1], [0.2]])).max() < 0.001


def test_a_published_set(shared):
    data = load_labelled_sequences(shared / "data/gue/prom_300_tata")
    assert tuple(DistinctSequences(data).leakage()["train", "test"].values()) == (6, 0, 16, None)
