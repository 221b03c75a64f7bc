import gzip
import io
import multiprocessing
import os
import resource
import subprocess
import sys
import tarfile
import tempfile
import threading
import zipfile
from pathlib import Path

import pysam
import pytest
import torch

from hyenadna_hf.data.biotypes import load_biotypes
from hyenadna_hf.data.fasta import Fasta
from hyenadna_hf.data.intervals import read_bed
from hyenadna_hf.data.labelled import read_labelled
from hyenadna_hf.data.source import open_packed, packing_of, refuse_foreign, regular_file
from hyenadna_hf.errors import InputError
from hyenadna_hf.inference.variant_tables import read_variants

WANTED = "a VCF or BCF file"
MARK = b"\xef\xbb\xbf"


@pytest.fixture
def temporary(tmp_path, monkeypatch):
    """The folder of temporary files, for this test alone."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


@pytest.fixture
def pipe(tmp_path):
    """Builds a named pipe that gives some bytes once."""
    writers = []

    def build(content):
        path = tmp_path / f"pipe{len(writers)}"
        os.mkfifo(path)
        writers.append(threading.Thread(target=path.write_bytes, args=(content,)))
        writers[-1].start()
        return path

    yield build
    for writer in writers:
        writer.join()


def bgzip(content):
    with tempfile.NamedTemporaryFile(suffix=".gz") as file:
        with pysam.BGZFile(file.name, "wb") as packed:
            packed.write(content)
        return file.read()


def archive(*names):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as packed:
        for name in names:
            packed.writestr(name, "x" * 5000)
    return file.getvalue()


def saved_by_torch():
    file = io.BytesIO()
    torch.save({"weight": torch.ones(2)}, file)
    return file.getvalue()


def tar():
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as packed:
        packed.addfile(tarfile.TarInfo("genome.fa"))
    return file.getvalue()


@pytest.mark.parametrize("content", [b">a\nAC\n", bgzip(b">a\nAC\n")], ids=["plain", "bgzip"])
def test_other_files_are_themselves(tmp_path, temporary, content):
    (tmp_path / "x.fa").write_bytes(content)
    assert regular_file(tmp_path / "x.fa", WANTED) == tmp_path / "x.fa"
    (tmp_path / "link").symlink_to("x.fa")
    assert regular_file(str(tmp_path / "link"), WANTED) == tmp_path / "link"
    assert not list(temporary.iterdir())


@pytest.mark.parametrize("pack", [bytes, gzip.compress, bgzip], ids=["plain", "gzip", "bgzip"])
@pytest.mark.parametrize("mark", [b"", MARK], ids=["", "mark"])
@pytest.mark.parametrize("is_pipe", [False, True], ids=["file", "pipe"])
@pytest.mark.parametrize("unpack", [False, True])
def test_every_way_to_give_the_same_content(tmp_path, temporary, pipe, pack, mark, is_pipe, unpack):
    content = b"chr1\t0\t5\n" * 3000
    packed = pack(mark + content)
    path = pipe(packed) if is_pipe else tmp_path / "x.bed"
    if not is_pipe:
        path.write_bytes(packed)
    file = regular_file(path, WANTED, unpack)
    assert regular_file(path, WANTED, unpack) == file  # a pipe can be read once
    with open_packed(file) as lines:
        assert lines.read() == content
    with open_packed(file, "rt") as lines:
        assert lines.readline() == "chr1\t0\t5\n"
    if unpack:
        assert packing_of(file) == ("bgzip" if pack is bgzip and not mark else "plain")
    assert (file == path) == (not is_pipe and not mark and (pack is not gzip.compress or not unpack))


def test_a_file_that_has_changed_is_copied_again(tmp_path, temporary):
    path = tmp_path / "x.bed.gz"
    for content in (b"chr1\t0\t5\n", b"chr2\t0\t50\n"):
        path.write_bytes(gzip.compress(content))
        assert regular_file(path, WANTED).read_bytes() == content


BAD = {
    "absent": (None, "there is no such file; check the path"),
    "empty": (b"", "the file is empty"),
    "only a mark": (MARK, "the file is empty"),
    "empty gzip": (gzip.compress(b""), "the file is empty"),
    "cut gzip": (gzip.compress(b">a\nACGT\n" * 99)[:-9], "the gzip file is damaged"),
    "cut long gzip": (gzip.compress(os.urandom(20_000))[:-9], "the gzip file is damaged"),
    "two bytes of gzip": (b"\x1f\x8b", "the gzip file is damaged"),
    "cut zip": (archive("xl/workbook.xml")[:-30], "a damaged zip archive"),
}
FOREIGN = {
    "fastq": (b"@read/1 x\nACGTN\n+\nIIIII\n", "a FASTQ file", "seqtk seq -A"),
    "windows fastq": (b"@read\r\nACGTN\r\n+\r\nIIIII\r\n", "a FASTQ file", "seqtk seq -A"),
    "long read": (b"@read\n" + b"ACGT" * 5000 + b"\n+\n" + b"IIII" * 5000, "a FASTQ file", "seqtk seq -A"),
    "fastq.gz": (gzip.compress(b"@read\nACGTN\n+\nIIIII\n"), "a FASTQ file", "seqtk seq -A"),
    "sam": (b"@HD\tVN:1.6\n", "a SAM file", "samtools fasta"),
    "bam": (bgzip(b"BAM\x01\x00\x00"), "a BAM or CRAM file", "samtools fasta"),
    "2bit": (b"\x43\x27\x41\x1a\x00\x00\x00\x00", "a 2bit file", "twoBitToFa"),
    "2bit, big end first": (b"\x1a\x41\x27\x43\x00\x00\x00\x00", "a 2bit file", "twoBitToFa"),
    "genbank": (b"LOCUS       NC_000913  4641652 bp\n", "a GenBank or EMBL file", "FASTA"),
    "xlsx": (archive("[Content_Types].xml", "docProps/app.xml", "xl/workbook.xml"), "an Excel workbook", "as CSV"),
    "xls": (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1\x00\x00", "an Excel workbook", "as CSV"),
    "pointer": (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "a Git LFS pointer", "git lfs pull"),
    "html": (b"\n<!DOCTYPE html>\n<html>", "a web page", "download the file itself"),
    "marked html": (MARK + b"<html><head>", "a web page", "download the file itself"),
    "xml": (b"<?xml version='1.0'?><Error>", "a web page or XML", "download the file itself"),
    "pdf": (b"%PDF-1.7\n", "a PDF", "give the data"),
    "png": (b"\x89PNG\r\n\x1a\n", "an image", "give the data"),
    "zip": (archive("genome.fa"), "a zip archive", "unpack it"),
    "tar": (tar(), "a tar archive", "tar -xf"),
    "tar.gz": (gzip.compress(tar()), "a tar archive", "tar -xf"),
    "bz2": (b"BZh91AY&SY\x00", "a bzip2 file", "bunzip2"),
    "xz": (b"\xfd7zXZ\x00\x00", "an xz file", "unxz"),
    "zst": (b"\x28\xb5\x2f\xfd\x04", "a zstd file", "unzstd"),
    "utf-16": ("seq,label\n".encode("utf-16"), "UTF-16 text", "UTF-8"),
    "hdf5": (b"\x89HDF\r\n\x1a\n\x00", "an HDF5 file", "export"),
}


@pytest.mark.parametrize("content, message", BAD.values(), ids=BAD)
def test_what_is_no_file_with_content_is_one_line_and_leaves_nothing(tmp_path, temporary, content, message):
    if content is not None:
        (tmp_path / "x.vcf").write_bytes(content)
    with pytest.raises(InputError) as error:
        regular_file(tmp_path / "x.vcf", WANTED)
    assert str(error.value).startswith(f"{tmp_path / 'x.vcf'}: ") and message in str(error.value)
    assert "\n" not in str(error.value) and not list(temporary.iterdir())


@pytest.mark.parametrize("content, kind, remedy", FOREIGN.values(), ids=FOREIGN)
def test_files_of_another_kind_are_named_with_the_remedy(tmp_path, content, kind, remedy):
    path = tmp_path / "x.vcf"
    path.write_bytes(content)
    with pytest.raises(InputError) as error:
        regular_file(path, WANTED)
    assert str(error.value).startswith(f"{path}: this is {kind}")
    assert f", not {WANTED}; " in str(error.value) and remedy in str(error.value) and "\n" not in str(error.value)
    if not content.startswith(MARK):
        with pytest.raises(InputError, match=f"my weights: this is {kind}"):
            refuse_foreign(path, "a checkpoint", "my weights")


@pytest.mark.parametrize(
    "content",
    [
        saved_by_torch(),
        b">a\nAC\n",
        b"##fileformat=VCFv4.2\n",
        b"seq;label\nA;b\n",
        b'{"seq": "A"}\n',
        b"PAR1",
        b"\xff\xff\xff\xff",
        b"@context,label\n1,2\n",
        b"ID,seq,label\n",
    ],
)
def test_what_some_reader_takes_passes(tmp_path, content):
    (tmp_path / "x").write_bytes(content)
    refuse_foreign(tmp_path / "x", WANTED)
    assert regular_file(tmp_path / "x", WANTED) == tmp_path / "x"


@pytest.mark.parametrize("read", [read_labelled, read_variants])
@pytest.mark.parametrize("damage", [lambda packed: packed[:2] + b"\0" + packed[3:], lambda packed: packed[:12]])
def test_damaged_gzip_after_a_byte_order_mark(tmp_path, read, damage):
    """Readers recognise a table by its first bytes, which this file does not give."""
    path = tmp_path / "x.csv"
    path.write_bytes(MARK + damage(gzip.compress(b"sequence,label\nACG,a\n")))
    with pytest.raises(InputError, match="x.csv: the gzip file is damaged"):
        read(str(path))


def test_a_folder_and_paths_that_cannot_be_read(tmp_path):
    with pytest.raises(InputError, match="this is a folder; give a VCF or BCF file"):
        regular_file(tmp_path, WANTED)
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(InputError, match=r"loop: cannot be read \("):
        regular_file(tmp_path / "loop", WANTED)
    with pytest.raises(InputError, match=r"cannot be read \("):
        regular_file("x" * 5000, WANTED)
    (tmp_path / "file").write_text("x")
    with pytest.raises(InputError, match="there is no such file"):
        regular_file(tmp_path / "file" / "below", WANTED)


def test_no_room_for_the_copy_is_an_error_of_the_system_and_leaves_nothing(tmp_path, temporary):
    (tmp_path / "x.bed.gz").write_bytes(gzip.compress(b"chr1\t0\t5\n" * 50_000))

    def with_small_files():
        resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))
        try:
            regular_file(tmp_path / "x.bed.gz", WANTED)
        except OSError as error:
            message = f"{error.filename}: {error.strerror}"
            os._exit(0 if "set TMPDIR to a folder" in message and str(temporary) in message else 3)
        os._exit(4)

    process = multiprocessing.get_context("fork").Process(target=with_small_files)
    process.start()
    process.join()
    assert process.exitcode == 0 and not list(temporary.iterdir())


@pytest.fixture
def standard_input(tmp_path):
    """Gives bytes on the standard input of this process, through a pipe or from a file."""
    before, threads = os.dup(0), []

    def write(descriptor, content):
        with open(descriptor, "wb") as file:
            file.write(content)

    def give(content, is_pipe=True):
        if is_pipe:
            reader, writer = os.pipe()
            threads.append(threading.Thread(target=write, args=(writer, content)))
            threads[-1].start()
        else:
            (tmp_path / "redirected").write_bytes(content)
            reader = os.open(tmp_path / "redirected", os.O_RDONLY)
        os.dup2(reader, 0)
        os.close(reader)

    yield give
    os.dup2(before, 0)
    os.close(before)
    for thread in threads:
        thread.join()


@pytest.mark.parametrize("name", ["-", "/dev/stdin"])
@pytest.mark.parametrize("is_pipe", [True, False], ids=["pipe", "file"])
@pytest.mark.parametrize("pack", [bytes, gzip.compress, bgzip], ids=["plain", "gzip", "bgzip"])
def test_a_genome_on_standard_input(temporary, standard_input, name, is_pipe, pack):
    standard_input(pack(MARK * (pack is not bgzip) + b">chr1 x\nACGT\n"), is_pipe)
    with Fasta(name) as genome:
        assert genome.lengths == {"chr1": 4} and genome.fetch("1", 1, 3) == "CG"
    with Fasta("-") as again, Fasta(Path(name)) as and_again:  # it can be read once only
        assert again.fetch("chr1") == and_again.fetch("chr1") == "ACGT"


@pytest.mark.parametrize("name", ["-", "/dev/stdin"])
def test_intervals_and_genes_on_standard_input(tmp_path, temporary, standard_input, name):
    (tmp_path / "genome.fa").write_text(">chr1\nACGTACGT\n")
    with Fasta(tmp_path / "genome.fa") as genome:
        standard_input(MARK + b"1\t0\t3\n")
        assert [interval[:3] for interval in read_bed(name, genome)] == [("chr1", 0, 3)]
        assert [interval[:3] for interval in read_bed(name, genome)] == [("chr1", 0, 3)]
        standard_input(MARK + b"1\tx\tncRNA_gene\t2\t4\t.\t-\t.\tID=gene:g;biotype=tRNA\n" * 3)
        with pytest.raises(InputError, match=f"{name}: fewer than two biotypes .* have at least 1 genes"):
            load_biotypes(name, genome, min_genes=1)


@pytest.mark.parametrize("name", ["-", "/dev/stdin"])
@pytest.mark.parametrize("pack", [bytes, gzip.compress], ids=["plain", "gzip"])
@pytest.mark.parametrize(
    "content",
    [
        MARK + b"Sequence; Label\nACGT; a b\nGG;c\n",
        b"seq\tclass\nACGT\ta b\nGG\tc\n",
        b'{"seq": "ACGT", "label": "a b"}\n{"seq": "GG", "label": "c"}\n',
        b">1|a b\nAC\nGT\n>2 x|c\nGG\n",
    ],
    ids=["csv", "tsv", "json lines", "fasta"],
)
def test_tables_on_standard_input(temporary, standard_input, name, pack, content):
    standard_input(pack(content))
    assert read_labelled(name) == {"train": {"sequence": ["ACGT", "GG"], "label": ["a b", "c"]}}


@pytest.mark.parametrize("content, message", [(b"", "-: the file is empty"), (b"%PDF-1", "-: this is a PDF")])
def test_bad_standard_input(temporary, standard_input, content, message):
    standard_input(content)
    with pytest.raises(InputError, match=message):
        regular_file("-", WANTED)


def test_copies_go_away_with_the_process_that_made_them(temporary):
    code = """
import os, sys
from hyenadna_hf.data.source import regular_file
file = regular_file("-", "a FASTA file")
if not os.fork():
    sys.exit()  # runs what is to be done at the end of a process
os.wait()
print(file.read_text())
if not os.fork():
    os.closerange(0, 3)
    os.read(int(sys.argv[1]), 1)  # a child that lives on
"""
    reader, writer = os.pipe()
    command = [sys.executable, "-c", code, str(reader)]
    environment = {**os.environ, "TMPDIR": str(temporary)}
    done = subprocess.run(command, input=b"ACGT", capture_output=True, pass_fds=[reader], env=environment, timeout=120)
    left = list(temporary.iterdir())
    os.close(writer)
    os.close(reader)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"ACGT\n", b"") and not left


@pytest.mark.parametrize("is_packed", [True, False], ids=["unpacked copy", "index of a read-only folder"])
def test_workers_of_a_loader_leave_nothing(tmp_path, temporary, monkeypatch, is_packed):
    """They end without the functions of `atexit`."""
    path, text = tmp_path / "x.fa", b">a\nACGTAC\n"
    path.write_bytes(gzip.compress(text) if is_packed else text)
    monkeypatch.setattr(os, "access", lambda folder, mode: Path(folder) != tmp_path)

    class Bases(torch.utils.data.Dataset):
        genome = None

        def __len__(self):
            return 4

        def __getitem__(self, index):
            self.genome = self.genome or Fasta(path)
            assert list(temporary.iterdir())
            return self.genome.fetch("a", index, index + 2)

    loader = torch.utils.data.DataLoader(Bases(), num_workers=2, multiprocessing_context="fork", batch_size=None)
    assert list(loader) == ["AC", "CG", "GT", "TA"]
    del loader
    assert not list(temporary.iterdir()) and [file.name for file in tmp_path.glob("x*")] == ["x.fa"]
