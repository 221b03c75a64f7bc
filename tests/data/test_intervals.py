import gzip
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hyenadna_hf.data.fasta import Fasta
from hyenadna_hf.data.intervals import Interval, centre_window, parse_region, read_bed
from hyenadna_hf.errors import InputError


@pytest.fixture
def genome(tmp_path):
    (tmp_path / "genome.fa").write_text(">chr1\n" + "ACGT" * 25 + "\n>2\nGATTACA\n>chr20:5-9\nACGTA\n")
    return Fasta(tmp_path / "genome.fa")


@pytest.mark.parametrize("name, packed", [("x.bed", False), ("x.bed.gz", True), ("x.gz", False), ("x.bed", True)])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_bed(tmp_path, genome, end, name, packed, mark):
    lines = [f"{mark}track name=x", "# a comment", "1\t0\t100\ttrain\t0\t-", "", "chr2\t3\t7", "chr1 5 6 test"]
    path = tmp_path / name
    path.write_bytes((gzip.compress if packed else bytes)(end.join(lines).encode()))
    assert list(read_bed(path, genome)) == [
        Interval("chr1", 0, 100, ("train", "0", "-")),
        Interval("2", 3, 7),
        Interval("chr1", 5, 6, ("test",)),
    ]


NAMES = ["track7", "browserX", "track", "browser", "tracks", "track.1", "browser-2", "Track"]


@pytest.mark.parametrize("separator", ["\t", " "])
def test_sequences_that_are_called_like_the_lines_of_browsers(tmp_path, separator):
    (tmp_path / "genome.fa").write_text("".join(f">{name}\nACGT\n" for name in NAMES))
    lines = [
        "browser",
        "browser position chr7:127471196-127495720",
        "browser hide all",
        "track",
        "track name=pairedReads description='1 2' visibility=2",
        "track\tname=x",
        *(separator.join([name, "1", "3"]) for name in NAMES),
    ]
    (tmp_path / "x.bed").write_text("\n".join(lines))
    with Fasta(tmp_path / "genome.fa") as genome:
        assert list(read_bed(tmp_path / "x.bed", genome)) == [Interval(name, 1, 3) for name in NAMES]


BAD = {
    "negative start": ("chr1\t-3\t4", "the interval begins at -3, but BED counts from 0"),
    "past the end": ("chr1\t90\t101", "the interval ends at 101, but chr1 has 100 bases"),
    "nothing in it": ("chr1\t9\t9", "the interval from 9 to 9 is empty; its end must be after its start"),
    "the wrong way round": ("chr1\t9\t5", "is empty"),
    "no number": ("chr1\tfive\t9", "a BED line needs a sequence, a start and an end"),
    "beyond all numbers": (f"chr1\t5\t{'9' * 5000}", "a BED line needs a sequence, a start and an end"),
    "two columns": ("chr1\t5", "a BED line needs a sequence, a start and an end"),
    "unknown sequence": ("chr3\t5\t9", "there is no sequence 'chr3'; the file has chr1, 2"),
}


@pytest.mark.parametrize("line, message", BAD.values(), ids=BAD)
def test_a_bad_line_of_a_bed_is_named(tmp_path, genome, line, message):
    (tmp_path / "x.bed").write_text(f"chr1\t0\t5\n{line}\n")
    with pytest.raises(InputError, match=r"x\.bed, line 2: .*" + re.escape(message)):
        list(read_bed(tmp_path / "x.bed", genome))


def test_a_bed_that_is_none(tmp_path, genome):
    with pytest.raises(InputError, match="there is no such file"):
        list(read_bed(tmp_path / "absent.bed", genome))
    (tmp_path / "x.bed").write_bytes(b"chr1\t0\t5\n\xff\n")
    with pytest.raises(InputError, match="not a readable BED file"):
        list(read_bed(tmp_path / "x.bed", genome))
    (tmp_path / "x.bed").write_bytes(b"@read\nACGT\n+\nIIII\n")
    with pytest.raises(InputError, match="x.bed: this is a FASTQ file, not a BED file"):
        list(read_bed(tmp_path / "x.bed", genome))


def test_regions(genome):
    assert parse_region("chr1", genome) == Interval("chr1", 0, 100)
    assert parse_region("1:11-20", genome) == Interval("chr1", 10, 20)
    assert parse_region("chr1:1-1,00", genome) == Interval("chr1", 0, 100)
    assert parse_region("chr20:5-9", genome) == Interval("chr20:5-9", 0, 5)
    assert parse_region("chr20:5-9:2-3", genome) == Interval("chr20:5-9", 1, 3)
    for region in ("chr1:0-5", "chr1:50-101", "chr1:9-5"):
        with pytest.raises(InputError, match="is outside chr1, which has 100 bases"):
            parse_region(region, genome)
    for region in ("chr1:,-5", f"chr1:1-{'9' * 5000}"):
        with pytest.raises(InputError, match="there is no sequence 'chr1:"):
            parse_region(region, genome)
    with pytest.raises(InputError, match="no sequence 'chr9'"):
        parse_region("chr9:1-5", genome)


@given(st.integers(1, 200), st.integers(1, 300), st.data())
def test_a_window_around_a_centre(limit, length, data):
    start = data.draw(st.integers(0, limit - 1))
    end = data.draw(st.integers(start + 1, limit))
    first, last = centre_window(start, end, length, limit)
    assert 0 <= first < last <= limit and last - first == min(length, limit)
    if length >= end - start:
        assert first <= start and end <= last
    elif length > 1:
        assert start <= first and last <= end
    middle = (start + end) // 2
    if length // 2 <= middle <= limit - (length - length // 2):
        assert first == middle - length // 2


def test_damaged_gzip_is_named(tmp_path, genome):
    packed = bytearray(gzip.compress(b"chr1\t0\t100\n" * 50))
    packed[10] ^= 0xFF
    (tmp_path / "x.bed.gz").write_bytes(packed)
    with pytest.raises(InputError, match=r"x.bed.gz: the gzip file is damaged"):
        list(read_bed(tmp_path / "x.bed.gz", genome))
