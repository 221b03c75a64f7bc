"""Labels of every base, against a loop over the intervals."""

import gzip

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hyenadna_hf.data.base_labels import BaseLabels, LabelledWindows
from hyenadna_hf.data.fasta import Fasta
from hyenadna_hf.data.intervals import Interval
from hyenadna_hf.errors import InputError

LENGTH = 60
GTF = """\
#!genome-build toy
1\ttoy\texon\t3\t10\t.\t+\t.\tgene_id "g";
1\ttoy\tCDS\t5\t10\t.\t+\t0\tgene_id "g";
1\ttoy\texon\t21\t30\t.\t-\t.\tgene_id "h";
2\ttoy\tintron\t1\t4\t.\t+\t.\tgene_id "g";
"""
GFF3 = "##gff-version 3\n" + "".join(
    line.replace('gene_id "g";', "ID=g").replace('gene_id "h";', "ID=h") + "\n" for line in GTF.splitlines()[1:]
)


@pytest.fixture(scope="module")
def genome(tmp_path_factory):
    path = tmp_path_factory.mktemp("genome") / "genome.fa"
    path.write_text(f">chr1\n{'ACGTN' * (LENGTH // 5)}\n>chr2\n{'N' * 40}{'ACGT' * 5}\n>chr3\nACGT\n")
    return Fasta(path)


intervals = st.lists(
    st.tuples(
        st.sampled_from(["chr1", "chr2"]), st.integers(0, LENGTH - 1), st.integers(1, 30), st.sampled_from("abc")
    ),
    min_size=1,
    max_size=12,
)


@settings(max_examples=60)
@given(intervals, st.integers(0, LENGTH - 1), st.integers(1, LENGTH))
def test_labels_equal_those_of_a_loop(tmp_path_factory, genome, rows, start, length):
    """With several labels a base, and with one where no classes overlap; otherwise an error names both intervals."""
    rows = [(contig, at, min(at + size, LENGTH), name) for contig, at, size, name in rows]
    path = tmp_path_factory.mktemp("bed") / "in.bed"
    path.write_text("".join(f"{contig}\t{at}\t{end}\t{name}\n" for contig, at, end, name in rows))
    labels, end = BaseLabels(path, genome, multi_label=True), min(start + length, LENGTH)
    names = sorted({name for *_, name in rows})
    assert labels.names == names
    for contig in ("chr1", "chr2"):
        expected = np.zeros((LENGTH, len(names)))
        for at, last, name in [row[1:] for row in rows if row[0] == contig]:
            expected[at:last, names.index(name)] = 1
        found = labels.fetch(contig, start, end)
        assert found.dtype == np.float32
        np.testing.assert_array_equal(found, expected[start:end])
        overlap = (expected.sum(1) > 1).any()
        if overlap:
            with pytest.raises(InputError, match="overlaps .* give --multi_label"):
                BaseLabels(path, genome)
            return
    single = BaseLabels(path, genome)
    assert single.names == ["background", *names]
    found = single.fetch("chr2", start, end)  # `expected` is that of this contig
    np.testing.assert_array_equal(found, (expected * (1 + np.arange(len(names)))).sum(1)[start:end])


@pytest.mark.parametrize(("name", "text"), [("a.gtf", GTF), ("a.gff3", GFF3), ("a.gtf.gz", GTF)])
def test_features_of_annotations(tmp_path, genome, name, text):
    """Positions count from 1, ends are inclusive, and contigs may have the other spelling."""
    path = tmp_path / name
    path.write_bytes(gzip.compress(text.encode()) if name.endswith("gz") else text.encode())
    labels = BaseLabels(path, genome, ["intron", "exon"])
    assert labels.names == ["background", "intron", "exon"] and labels.contigs == ["chr1", "chr2"]
    expected = np.zeros(LENGTH, int)
    expected[2:10] = expected[20:30] = 2
    np.testing.assert_array_equal(labels.fetch("chr1", 0, LENGTH), expected)
    np.testing.assert_array_equal(labels.fetch("chr2", 0, 6), [1, 1, 1, 1, 0, 0])
    np.testing.assert_array_equal(labels.fetch("chr3", 0, 4), 0)
    with pytest.raises(InputError, match=r"exon \(line 2\) on chr1|CDS \(line 3\) overlaps exon \(line 2\)"):
        BaseLabels(path, genome)


NAMES = ["trackX", "browser.1", "track", "chr1"]
ROWS = {"bed": "{}\t2\t10\texon\n", "gtf": '{}\ttoy\texon\t3\t10\t.\t+\t.\tgene_id "g";\n'}


@pytest.mark.parametrize("first", NAMES)
@pytest.mark.parametrize("form", ROWS)
def test_contigs_that_are_called_like_the_lines_of_browsers(tmp_path, form, first):
    """Whichever row is the first, by which the format is told."""
    (tmp_path / "genome.fa").write_text("".join(f">{name}\n{'ACGT' * 5}\n" for name in NAMES))
    names = sorted(NAMES, key=lambda name: name != first)
    lines = ["browser position chr7:1-20\n", "track name=x description='1 2'\n", *map(ROWS[form].format, names)]
    (tmp_path / "x").write_text("".join(lines))
    labels = BaseLabels(tmp_path / "x", Fasta(tmp_path / "genome.fa"))
    assert labels.names == ["background", "exon"] and sorted(labels.contigs) == sorted(NAMES)
    for name in NAMES:
        np.testing.assert_array_equal(labels.fetch(name, 0, 20), [0] * 2 + [1] * 8 + [0] * 10)


def test_windows_tile_regions_and_ignore_n(tmp_path, genome):
    path = tmp_path / "in.bed"
    path.write_text("chr1\t5\t12\ta\nchr1\t30\t31\tb\n")
    labels = BaseLabels(path, genome)
    windows = LabelledWindows(genome, labels, [Interval("chr1", 3, 40), Interval("chr2", 0, 60)], 16)
    places = [tuple(window[:3]) for window in windows.windows]
    assert places == [("chr1", 3, 19), ("chr1", 19, 35), ("chr1", 35, 40), ("chr2", 32, 48), ("chr2", 48, 60)]
    example = windows[0]
    sequence = genome.fetch("chr1", 3, 19)
    assert [7 + "ACGTN".index(letter) for letter in sequence] == example["input_ids"].tolist()
    expected = [int(5 <= position < 12) for position in range(3, 19)]
    expected = [-100 if letter == "N" else label for letter, label in zip(sequence, expected)]
    assert example["labels"].tolist() == expected
    several = LabelledWindows(genome, BaseLabels(path, genome, multi_label=True), [Interval("chr1", 3, 19)], 16)[0]
    assert (several["labels"][np.array(list(sequence)) == "N"] == -100).all()


@pytest.mark.parametrize(
    ("text", "classes", "message"),
    [
        ("chr1\t0\t5\n", [], "chr1:1-5 has no name in the fourth column"),
        ("chr1\t0\t5\ta\n", ["b"], "there is no interval of the class 'b'; its classes are a"),
        ("# nothing\n", [], "it contains no interval; its classes are none"),
        ("chr1\t0\t5\tbackground\n", [], "'background' is the class of bases without interval"),
        ("chr1\t0\t500\ta\n", [], "the interval ends at 500, but chr1 has 60 bases"),
        ("chrX\t0\t5\ta\n", [], "there is no sequence 'chrX'"),
        ("1\tx\texon\t3\t100\t.\t+\t.\tID=g\n", [], "line 1: 3-100 is outside chr1"),
        ("7\tx\texon\t3\t100\t.\t+\t.\tID=g\n", [], "line 1: .* there is no sequence '7'"),
        ("1\tx\texon\t3\t10\t.\t*\t.\tID=g\n", [], "line 1: GTF and GFF3 have nine"),
    ],
)
def test_bad_files(tmp_path, genome, text, classes, message):
    path = tmp_path / "in.bed"
    path.write_text(text)
    with pytest.raises(InputError, match=message):
        BaseLabels(path, genome, classes)
