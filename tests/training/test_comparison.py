"""Baselines beside a fine-tuned classifier: which there are, and that each tells what it can tell."""

import random

import numpy as np
import pytest
import torch
from datasets import ClassLabel, Dataset, DatasetDict, Features, Sequence, Value
from sklearn.metrics import average_precision_score

from hyenadna_hf.data.base_labels import BaseLabels, LabelledWindows
from hyenadna_hf.data.fasta import Fasta
from hyenadna_hf.data.intervals import Interval
from hyenadna_hf.training import comparison
from hyenadna_hf.training.comparison import FLANK, compare, compare_bases, count_labels
from hyenadna_hf.training.metrics import token_metrics

CPU = torch.device("cpu")
CLASSES = Features({"sequence": Value("string"), "label": ClassLabel(names=["a", "b", "c"])})


def data_of(make, features=CLASSES, sizes=(240, 60)):
    rng = random.Random(0)
    splits = {}
    for split, size in zip(("train", "test"), sizes):
        rows = [make(rng, number) for number in range(size)]
        target = "labels" if "labels" in features else "label"
        columns = {"sequence": [row[0] for row in rows], target: [row[1] for row in rows]}
        splits[split] = Dataset.from_dict(columns, features)
    return DatasetDict(splits)


def by_position(rng, number, length=60):
    """Class a has G at the 30th base, class b has T there, and there is no c; the same letters stand elsewhere."""
    letters = rng.choices("ACGT", k=length)
    letters[29] = "GT"[number % 2]
    return "".join(letters), number % 2


def test_position_tells_what_counts_do_not():
    found = {name: metrics["accuracy"] for name, (metrics, _) in compare(data_of(by_position), CPU).items()}
    assert list(found) == ["majority class", "6-mer counts, linear", "position weight matrix", "CNN, 3 epochs"]
    assert found["majority class"] == 0.5
    assert found["position weight matrix"] > 0.9 > 0.75 > found["6-mer counts, linear"]


def test_a_position_weight_matrix_is_the_log_odds_of_counts():
    """Against counts by hand, with one of each letter added; lower case and U are the same letters."""
    train = [("acgu", 0), ("ACGT", 0), ("TCGA", 1), ("TTGA", 1), ("TCCA", 2)]
    test = ["ACGT", "TCGA", "ACCA"]
    data = DatasetDict({
        "train": Dataset.from_dict({"sequence": [x for x, _ in train], "label": [y for _, y in train]}, CLASSES),
        "test": Dataset.from_dict({"sequence": test, "label": [0, 1, 2]}, CLASSES),
    })  # fmt: skip
    expected = []
    for text in test:
        scores = []
        for label in range(3):
            rows = [x.upper().replace("U", "T") for x, y in train if y == label]
            odds = [np.log((sum(row[i] == text[i] for row in rows) + 1) / (len(rows) + 11)) for i in range(4)]
            scores.append(np.log(len(rows) / len(train)) + sum(odds))
        expected.append(int(np.argmax(scores)))
    found = compare(data, CPU)["position weight matrix"][0]["accuracy"]
    assert found == np.mean(np.array(expected) == [0, 1, 2])


@pytest.mark.parametrize(
    ("longest", "names"),
    [
        (60, {"6-mer counts, linear", "CNN, 3 epochs"}),  # of several lengths
        (1_001, {"6-mer counts, linear", "CNN, 3 epochs"}),
        (10_001, {"6-mer counts, linear"}),
    ],
)
def test_what_does_not_fit_is_left_out(longest, names):
    def make(rng, number):
        length = longest if number == 0 or longest > 60 else rng.randint(20, 60)
        return "".join(rng.choices("ACGT", k=length)), number % 3

    assert set(compare(data_of(make, sizes=(12, 6)), CPU)) == {"majority class"} | names


def test_several_labels():
    def make(rng, number):
        labels = [rng.random() < 0.5, rng.random() < 0.5]
        text = "".join(rng.choices("ACGT", [1 + 3 * labels[0], 1, 1 + 3 * labels[1], 1], k=60))
        return text, [float(label) for label in labels]

    features = Features({"sequence": Value("string"), "labels": Sequence(Value("float32"))})
    found = compare(data_of(make, features), CPU, groups={"first": [0]})
    assert set(found) == {"majority class", "6-mer counts, linear", "CNN, 3 epochs"}
    assert found["majority class"][0]["auroc"] == 0.5
    assert all(found[name][0]["auroc_first"] > 0.8 for name in ("6-mer counts, linear", "CNN, 3 epochs"))


def test_a_seed_gives_the_same_network_and_leaves_other_random_numbers_alone():
    data = data_of(by_position, sizes=(64, 32))
    torch.manual_seed(5)
    first = compare(data, CPU, seed=1)
    drawn = torch.rand(3)
    torch.manual_seed(5)
    torch.testing.assert_close(torch.rand(3), drawn, rtol=0, atol=0)
    again = compare(data, CPU, seed=1)
    assert {name: metrics for name, (metrics, _) in first.items()} == {n: m for n, (m, _) in again.items()}


MOTIFS = {"acceptor": "CTAGGT", "donor": "AGGTAA"}


def genome_with_motifs(folder):
    """The first base after each motif has its class; both motifs contain the other's dinucleotide."""
    rng, texts, rows = random.Random(0), {}, []
    for contig in ("train", "test"):
        letters = rng.choices("ACGT", k=3_000)
        for start in range(30, 2_960, 40):
            name, start = rng.choice(sorted(MOTIFS)), start + rng.randrange(20)
            letters[start : start + 6] = MOTIFS[name]
            rows.append((contig, start + 6, start + 7, name))
        texts[contig] = "".join(letters)
    (folder / "genome.fa").write_text("".join(f">{contig}\n{text}\n" for contig, text in texts.items()))
    (folder / "sites.bed").write_text("".join("\t".join(map(str, row)) + "\n" for row in rows))
    genome = Fasta(folder / "genome.fa")
    labels = BaseLabels(folder / "sites.bed", genome)
    windows = {name: LabelledWindows(genome, labels, [Interval(name, 0, 3_000)], 190) for name in texts}
    return windows, texts, rows


def position_weights_by_hand(texts, rows, window=190):
    """Log of the joint probability of each class and the 41 letters around each base of test, N beyond a window."""
    around = {}
    for contig, text in texts.items():
        tiles = [text[start : start + window] for start in range(0, len(text), window)]
        padded = ["N" * FLANK + tile + "N" * FLANK for tile in tiles]
        around[contig] = [tile[i : i + 2 * FLANK + 1] for tile in padded for i in range(len(tile) - 2 * FLANK)]
    classes = dict.fromkeys(range(3_000), "background")
    classes |= {start: name for contig, start, _, name in rows if contig == "train"}
    scores = []
    for name in ("background", *sorted(MOTIFS)):
        members = [around["train"][i] for i in range(3_000) if classes[i] == name]
        odds = []
        for offset in range(2 * FLANK + 1):
            column = [text[offset] for text in members]
            odds.append({letter: np.log((column.count(letter) + 1) / (len(column) + 5)) for letter in "ACGTN"})
        prior = np.log((len(members) + 1) / (3_000 + 3))
        scores.append([prior + sum(row[letter] for row, letter in zip(odds, text)) for text in around["test"]])
    return np.array(scores).T


def test_baselines_of_bases(tmp_path, monkeypatch):
    monkeypatch.setattr(comparison, "CNN_EPOCHS", 40)  # there are few steps in an epoch
    windows, texts, rows = genome_with_motifs(tmp_path)
    seen = []

    def measure(outputs, labels):
        seen.append(outputs)
        return token_metrics(outputs, labels, windows["test"].labels.names)

    torch.manual_seed(5)
    found = compare_bases(windows, *count_labels(windows["train"]), measure, CPU, seed=1)
    names = ["frequencies of train", "position weights, 41 bases", "CNN, 40 epochs"]
    assert list(found) == names and [outputs.shape for outputs in seen] == [(3_000, 3)] * 3
    expected = position_weights_by_hand(texts, rows)
    np.testing.assert_allclose(seen[1], expected, rtol=1e-9)
    probabilities = np.exp(expected) / np.exp(expected).sum(1, keepdims=True)
    for number, name in enumerate(sorted(MOTIFS), start=1):
        truth = np.zeros(3_000)
        truth[[start for contig, start, _, other in rows if (contig, other) == ("test", name)]] = 1
        area = average_precision_score(truth, probabilities[:, number])
        assert found[names[1]][0][f"auprc_{name}"] == pytest.approx(area) and area > 10 * truth.mean()
        assert found[names[0]][0][f"auprc_{name}"] == pytest.approx(truth.mean())
        assert found[names[2]][0][f"auprc_{name}"] > 0.9
    drawn = torch.rand(3)
    torch.manual_seed(5)
    torch.testing.assert_close(torch.rand(3), drawn, rtol=0, atol=0)  # other random numbers are left alone
