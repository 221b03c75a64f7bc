import gzip

import pytest

from hyenadna_hf.data.bed import Interval, read_bed, whole_sequences
from hyenadna_hf.data.fasta import Fasta
from hyenadna_hf.errors import InputError


@pytest.fixture
def genome(tmp_path):
    path = tmp_path / "genome.fa"
    path.write_text(">chr1\nACGTTGCAnn\n>chr2\nGGGAAA\n")
    with Fasta(path) as fasta:
        yield fasta


def bed(tmp_path, text):
    path = tmp_path / "regions.bed"
    path.write_bytes(text.encode())
    return path


def test_columns_headers_and_separators(tmp_path, genome):
    text = (
        "#header\nbrowser position chr1\ntrack name=x\n\nchr1\t0\t4\n1\t1\t5\tfirst one\t0\t-\r\n"
        "chr2 2 6 . 0 .\nchr1\t9\t10\t\t0\t+\t9\t10\n"
    )
    intervals = read_bed(bed(tmp_path, text), genome)
    assert intervals == [
        Interval("chr1", 0, 4, "chr1:1-4", "."),
        Interval("chr1", 1, 5, "first one", "-"),
        Interval("chr2", 2, 6, "chr2:3-6", "."),
        Interval("chr1", 9, 10, "chr1:10-10", "+"),
    ]
    assert [interval.read(genome) for interval in intervals] == ["ACGT", "AACG", "GAAA", "n"]
    assert [interval.length for interval in intervals] == [4, 4, 4, 1]


def test_packed(tmp_path, genome):
    path = tmp_path / "regions.bed.gz"
    path.write_bytes(gzip.compress(b"chr1\t0\t4\n"))
    assert read_bed(path, genome) == [Interval("chr1", 0, 4, "chr1:1-4", ".")]
    path.write_bytes(gzip.compress(b"chr1\t0\t4\n" * 1000)[:20])
    with pytest.raises(InputError, match="regions.bed.gz: .*not a readable BED"):
        read_bed(path, genome)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("chr1\t0", "2 columns"),
        ("chr9\t0\t4", "no sequence 'chr9'"),
        ("chr1\tzero\t4", "'zero' and end '4' must be whole numbers"),
        ("chr1\t-1\t4", "from -1 to 4 on chr1, which has 10 bases"),
        ("chr1\t8\t11", "from 8 to 11 on chr1"),
        ("chr1\t4\t4", "from 4 to 4"),
        ("chr1\t0\t4\tx\t0\tminus", "strand is 'minus'"),
    ],
)
def test_errors_name_file_and_line(tmp_path, genome, line, words):
    with pytest.raises(InputError, match=f"regions.bed, line 2: .*{words}"):
        read_bed(bed(tmp_path, f"chr1\t0\t4\n{line}\n"), genome)


def test_files_without_intervals(tmp_path, genome):
    with pytest.raises(InputError, match=r"regions.bed: there is no interval"):
        read_bed(bed(tmp_path, "# nothing\n"), genome)
    with pytest.raises(InputError, match=r"absent.bed: this is not a readable"):
        read_bed(tmp_path / "absent.bed", genome)


def test_whole_sequences(genome):
    assert whole_sequences(genome) == [Interval("chr1", 0, 10, "chr1", "+"), Interval("chr2", 0, 6, "chr2", "+")]
