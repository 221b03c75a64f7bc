import gzip
import multiprocessing
import os
import pickle
import tempfile
from pathlib import Path

import pysam
import pytest
from forked import result_of
from hypothesis import given, settings
from hypothesis import strategies as st

from hyenadna_hf.data.fasta import Fasta
from hyenadna_hf.data.sequence import NUCLEOTIDES
from hyenadna_hf.errors import InputError

RECORDS = {"chr1": "ACGTacgtNNNNRYKM" * 9, "chrM": "GATTACA", "20": "ttttC" * 30, "chrX_alt|v=1:2-3": "A"}


def fasta_text(records, width=11, end="\n"):
    lines = []
    for name, sequence in records.items():
        lines += [f">{name} of something", *(sequence[i : i + width] for i in range(0, len(sequence), width))]
    return end.join(lines) + end


def write(path, text, packed="plain"):
    path.write_bytes(gzip.compress(text.encode()) if packed == "gzip" else text.encode())
    if packed == "bgzip":
        pysam.tabix_compress(str(path), f"{path}.packed", force=True)
        Path(f"{path}.packed").replace(path)
    return path


def assert_is(fasta, records):
    assert fasta.lengths == {name: len(sequence) for name, sequence in records.items()}
    assert list(fasta.lengths) == list(records)
    assert {name: fasta.fetch(name) for name in records} == records


@pytest.mark.parametrize("end", ["\n", "\r\n"], ids=["unix", "windows"])
@pytest.mark.parametrize("packed", ["plain", "gzip", "bgzip"])
def test_every_packing_and_both_line_ends(tmp_path, packed, end):
    path = write(tmp_path / "any.name", fasta_text(RECORDS, end=end), packed)
    with Fasta(path) as fasta:
        assert_is(fasta, RECORDS)
        assert fasta.fetch("chr1", 5, 40) == RECORDS["chr1"][5:40]
        assert fasta.fetch("chr1", 4, 4) == ""
    indices = {"plain": {".fai"}, "gzip": set(), "bgzip": {".fai", ".gzi"}}[packed]
    assert {file.name for file in tmp_path.iterdir()} == {"any.name", *(f"any.name{suffix}" for suffix in indices)}
    with pytest.raises(ValueError, match="is closed"):
        fasta.fetch("chr1")


def test_windows_line_ends_are_counted(tmp_path):
    with pytest.warns(UserWarning, match=r"any.fa: 7 lines have Windows line endings"):
        Fasta(write(tmp_path / "any.fa", fasta_text({"a": "ACGT" * 15}, end="\r\n"))).close()


@settings(max_examples=40)
@given(
    st.dictionaries(st.text("abcXYZ019._|:", min_size=1), st.text(NUCLEOTIDES + "acgtn", min_size=1), min_size=1),
    st.integers(1, 30),
    st.sampled_from(["\n", "\r\n"]),
    st.data(),
)
def test_any_piece_of_any_record(records, width, end, data):
    name = data.draw(st.sampled_from(sorted(records)))
    start = data.draw(st.integers(0, len(records[name])))
    stop = data.draw(st.integers(start, len(records[name])))
    with tempfile.TemporaryDirectory() as folder:
        text = fasta_text(records, width, end)
        path = write(Path(folder) / "x.fa", text if data.draw(st.booleans()) else text.removesuffix(end))
        with Fasta(path) as fasta:
            assert_is(fasta, records)
            assert fasta.fetch(name, start, stop) == records[name][start:stop]


def test_names_of_ucsc_and_ensembl(tmp_path):
    fasta = Fasta(write(tmp_path / "x.fa", fasta_text({**RECORDS, "chr7": "A", "7": "C"})))
    for asked, own in {"1": "chr1", "Chr1": "chr1", "chr20": "20", "MT": "chrM", "M": "chrM", "chrMT": "chrM"}.items():
        assert fasta.resolve(asked) == own
    assert fasta.resolve("7") == "7" and fasta.resolve("chr7") == "chr7"
    assert fasta.fetch("chr20", 3, 6) == "tCt"
    with pytest.raises(InputError, match="'Chr7' matches chr7, 7"):
        fasta.resolve("Chr7")
    with pytest.raises(InputError, match=r"x.fa: there is no sequence '2'; the file has chr1, chrM, 20, .*7\."):
        fasta.resolve("2")
    many = Fasta(write(tmp_path / "many.fa", fasta_text({f"c{i}": "A" for i in range(1000)})))
    with pytest.raises(InputError, match=r"the file has c0, c1, c2, c3, c4, c5 and 994 more\."):
        many.resolve("x")


@pytest.mark.parametrize("start, end", [(0, 146), (-1, 4), (9, 3), (145, None)])
def test_a_piece_that_is_not_there(tmp_path, start, end):
    fasta = Fasta(write(tmp_path / "x.fa", fasta_text(RECORDS)))
    with pytest.raises(InputError, match=r"x.fa: chr1 has 144 bases; the interval from"):
        fasta.fetch("chr1", start, end)


BAD = {
    "absent": (None, "there is no such file"),
    "empty": ("", "the file is empty"),
    "duplicate name": (">a\nAC\n>b\nAC\n>a x\nGT\n", "line 5: duplicate record 'a', first found in line 1"),
    "protein": (">a\nACGT\nMKVLAA\n", "line 3: 'L' in record 'a' is not an IUPAC nucleotide code"),
    "aligned": (">a\nAC-GT\n", "line 2: '-' in record 'a'"),
    "numbered": (">a\n1 ACGT\n", "line 2: '1' in record 'a'"),
    "stray text": (
        "Sequences of today\n>a\nACGT\n",
        "line 1: a FASTA file must begin with a header >name, not with 'Sequ",
    ),
    "no header": ("ACGT\n", "line 1: a FASTA file must begin with a header"),
    "blank line first": ("\n>a\nACGT\n", "line 1: a FASTA file must begin with a header"),
    "blank line inside": (">a\nACGT\n\nACGT\n", "line 4: all lines of record 'a' except the last"),
    "blank line below header": (">a\n\nACGT\n", "line 3: all lines of record 'a' except the last"),
    "ragged lines": (
        ">a\nACGT\nAC\nACGT\n",
        "line 4: all lines of record 'a' except the last must have the same length",
    ),
    "longer line": (">a\nACGT\nACGTA\n", "line 3: all lines of record 'a'"),
    "mixed line ends": (">a\nACGT\r\nACGTA\nACGT\r\n", "line 3: all lines of record 'a'"),
    "no sequence": (">a\nACGT\n>b\n>c\nA\n", "line 3: record 'b' has no sequence"),
    "no sequence at the end": (">a\nACGT\n>b\n", "line 3: record 'b' has no sequence"),
    "no name": (">a\nACGT\n> b\nA\n", "line 3: the header must have a name directly after >"),
    "old Mac line ends": (">a\rACGT\rACGT\r", "line 1: record 'a' has no sequence"),
    "cut gzip": (gzip.compress(fasta_text(RECORDS).encode())[:-20], "the gzip file is damaged"),
    "two bytes of gzip": (b"\x1f\x8b", "the gzip file is damaged"),
    "empty gzip": (gzip.compress(b""), "the file is empty"),
    "fastq": ("@read\nACGT\n+\nIIII\n", "this is a FASTQ file, not a FASTA file; convert it"),
    "damaged gzip": (gzip.compress(b">a\nACGT\n")[:10] + b"\xff" * 20, "the gzip file is damaged"),
}


@pytest.mark.parametrize("content, message", BAD.values(), ids=BAD)
def test_a_bad_file_is_one_clear_line_and_leaves_nothing(tmp_path, monkeypatch, content, message):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    path = tmp_path / "x.fa"
    if content is not None:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(InputError) as error:
        Fasta(path)
    assert str(path) in str(error.value) and message in str(error.value) and "\n" not in str(error.value)
    assert not Path(f"{path}.fai").exists() and not list((tmp_path / "temporary").iterdir())


def test_an_index_of_an_older_file_is_made_anew(tmp_path):
    path = write(tmp_path / "x.fa", fasta_text({"old": "ACGT"}))
    Fasta(path).close()
    os.utime(f"{path}.fai", (1, 1))
    with Fasta(write(path, fasta_text(RECORDS))) as fasta:
        assert_is(fasta, RECORDS)


@pytest.mark.parametrize(
    "index, message",
    [
        ("a\t8\t3\t8\t9\n", "has 'L' at base 3"),
        ("a\t9\t3\t8\t9\n", "a cannot be read"),
        ("what\n", "cannot be read with its"),
    ],
)
def test_what_a_foreign_index_hides_is_seen_when_read(tmp_path, index, message):
    path = write(tmp_path / "x.fa", ">a\nACLTACGT\n")
    Path(f"{path}.fai").write_text(index)
    with pytest.raises(InputError, match=message):
        Fasta(path).fetch("a")


@pytest.mark.parametrize("packed", ["plain", "bgzip"])
def test_a_folder_that_cannot_be_written_to(tmp_path, monkeypatch, packed):
    path = write(tmp_path / "x.fa", fasta_text(RECORDS), packed)
    monkeypatch.setattr("hyenadna_hf.data.fasta.os.access", lambda *_: False)  # root may write anywhere
    with Fasta(path) as fasta:
        assert_is(fasta, RECORDS)
        assert_is(pickle.loads(pickle.dumps(fasta)), RECORDS)
    assert [file.name for file in tmp_path.iterdir()] == ["x.fa"]


UNPICKLE = """
import json, pickle, sys
with open(sys.argv[1], "rb") as file:
    fasta = pickle.load(file)
print(json.dumps([fasta.fetch(name) for name in sys.argv[2:]]))
"""


@pytest.mark.parametrize("packed", ["plain", "gzip"])
def test_other_processes_open_the_file_for_themselves(tmp_path, packed):
    """Forked processes, and one that has the pickle alone, like a spawned one."""
    fasta = Fasta(write(tmp_path / "x.fa", fasta_text(RECORDS), packed))
    with multiprocessing.get_context("fork").Pool(2) as pool:
        assert pool.starmap(Fasta.fetch, [(fasta, name) for name in RECORDS] * 6) == [*RECORDS.values()] * 6
    (tmp_path / "pickle").write_bytes(pickle.dumps(fasta))
    assert result_of(UNPICKLE, tmp_path / "pickle", *RECORDS) == [*RECORDS.values()]
    assert_is(fasta, RECORDS)  # the unpacked copy is still there
    copy = pickle.loads(pickle.dumps(fasta))
    fasta.close()
    assert_is(copy, RECORDS)


def test_real_genome(shared):
    with Fasta(shared / "data" / "genomes" / "yeast_chrI.fa.gz") as fasta:
        assert fasta.lengths == {"chrI": 230208}
        assert fasta.fetch("I", 334, 337) == "ATG"  # the start codon of YAL069W


@pytest.mark.parametrize("packed", ["plain", "gzip", "bgzip"])
def test_a_byte_order_mark_is_no_part_of_the_first_name(tmp_path, packed):
    path = write(tmp_path / "x.fa", "\ufeff" + fasta_text(RECORDS), packed)
    with Fasta(path) as fasta:
        assert_is(fasta, RECORDS)
    assert [file.name for file in tmp_path.iterdir()] == ["x.fa"]  # the index belongs to the copy without it


def test_a_gzip_file_is_unpacked_once(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    path = write(tmp_path / "x.fa.gz", fasta_text(RECORDS), "gzip")
    with Fasta(path) as first, Fasta(path) as second:
        assert_is(first, RECORDS)
        assert_is(second, RECORDS)
    assert len(list((tmp_path / "temporary").iterdir())) == 1
    write(path, fasta_text({"new": "ACGT"}), "gzip")
    with Fasta(path) as fasta:
        assert_is(fasta, {"new": "ACGT"})
