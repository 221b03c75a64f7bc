"""Open input files of any origin: standard input, pipes, gzip, byte-order marks; reject files of other kinds."""

import codecs
import functools
import gzip
import os
import re
import shutil
import stat
import tempfile
import zipfile
import zlib
from multiprocessing.util import Finalize
from pathlib import Path
from typing import IO, Any, cast

from ..errors import InputError

FASTA, BED, ANNOTATION, TABLE = "a FASTA file", "a BED file", "a GTF or GFF3 file", "a table of sequences"  # `wanted`
STANDARD_INPUT = ("-", "/dev/stdin", "/dev/fd/0", "/proc/self/fd/0")
DAMAGED_GZIP = (EOFError, gzip.BadGzipFile, zlib.error)
_PREFIX_BYTES = 4096  # read to recognise the kind of a file
_UNPACK = "unpack it first, with"
_GET_CSV = "save the sheet as CSV (UTF-8)"
# Kinds of files that no reader supports: pattern of the content, name, and remedy.
_FOREIGN = [
    (re.compile(pattern, re.DOTALL), kind, remedy)
    for pattern, kind, remedy in (
        (rb"version https://git-lfs\.github\.com/spec/", "a Git LFS pointer", "get the file itself with git lfs pull"),
        (rb"\s*<(?i:!doctype|html|\?xml)", "a web page or XML", "download the file itself, not its web page"),
        (rb"%PDF-", "a PDF", "give the data in a text format"),
        (rb"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "an Excel workbook", _GET_CSV),
        (rb"\x89PNG|\xff\xd8\xff|GIF8", "an image", "give the data in a text format"),
        (rb"\x89HDF\r\n\x1a\n", "an HDF5 file", "export its sequences first"),
        (rb"BZh[1-9]1AY&SY", "a bzip2 file", f"{_UNPACK} bunzip2"),
        (rb"\xfd7zXZ\x00", "an xz file", f"{_UNPACK} unxz"),
        (rb"\x28\xb5\x2f\xfd", "a zstd file", f"{_UNPACK} unzstd"),
        (rb".{257}ustar", "a tar archive", f"{_UNPACK} tar -xf, and give one file of it"),
        (rb"\xff\xfe|\xfe\xff", "UTF-16 text", "save it as UTF-8"),
        (rb"\x43\x27\x41\x1a|\x1a\x41\x27\x43", "a 2bit file", "convert it with twoBitToFa"),
        (rb"@(HD|SQ|RG|PG|CO)\t", "a SAM file", "convert it, for example with samtools fasta"),
        (rb"BAM\x01|CRAM", "a BAM or CRAM file", "convert it, for example with samtools fasta"),
        (rb"@[^\n]+\n[A-Za-z.*-]+(\r?\n\+|$)", "a FASTQ file", "convert it, for example with seqtk seq -A"),
        (rb"LOCUS  |ID   [^\n]+;", "a GenBank or EMBL file", "convert it to FASTA, for example with any2fasta"),
    )
]


def regular_file(path: str | Path, wanted: str, unpack: bool = True) -> Path:
    """
    Provide an input as a regular file that readers can reopen and seek.

    Standard input and other pipes are copied to a temporary file. So are files with a UTF-8 byte-order mark, which is
    removed, and gzip files other than bgzip, which are decompressed. There is one copy of each input per process,
    removed when the process ends. Other files are returned as they are.

    Args:
        path: The input; `-` or `/dev/stdin` for standard input.
        wanted: Description of the expected file for error messages, such as `"a VCF or BCF file"`.
        unpack: Decompress gzip. Not needed by readers that call [`open_packed`].

    Returns:
        The file itself or its copy. Error messages should name `path`, not the copy.

    Raises:
        InputError: If the input is missing, a folder, empty, unreadable, damaged gzip, or of another kind (see
            [`refuse_foreign`]).
        OSError: If there is no space for a temporary file.
    """
    path = Path(path).expanduser()
    source: Path | int = 0 if str(path) in STANDARD_INPUT else path
    try:
        status = os.stat(source)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise InputError(f"{path}: there is no such file; check the path.") from error
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}).") from error
    if stat.S_ISDIR(status.st_mode):
        raise InputError(f"{path}: this is a folder; give {wanted}.")
    identity: tuple[int, ...] = (status.st_dev, status.st_ino)
    file = path
    if stat.S_ISREG(status.st_mode):
        identity += (status.st_size, status.st_mtime_ns)
    if source == 0 or not stat.S_ISREG(status.st_mode):
        file = _copy(source, identity)
    start = read_prefix(file, path)
    if not start.removeprefix(codecs.BOM_UTF8):
        raise InputError(f"{path}: the file is empty.")
    refuse_foreign(file, wanted, path)
    if start.startswith(codecs.BOM_UTF8) or (unpack and packing_of(file) == "gzip"):
        try:
            file = _copy(file, identity, unpack=True)
        except DAMAGED_GZIP as error:
            raise _damaged(path, error) from error
    return file


def refuse_foreign(path: str | Path, wanted: str, name: str | Path | None = None) -> None:
    """
    Reject a file of a kind that no reader supports, such as FASTQ, Excel, a web page or a Git LFS pointer.

    The kind is recognised from the first bytes, also inside gzip. PyTorch's zip files are accepted.

    Args:
        path: A regular file.
        wanted: Description of the expected file, such as `"a VCF or BCF file"`.
        name: Name of the file in error messages. Defaults to `path`.

    Raises:
        InputError: If the file is of such a kind, unreadable, or damaged gzip. The error names the kind and the remedy.
    """
    path, name = Path(path), name or path
    start = read_prefix(path, name).removeprefix(codecs.BOM_UTF8)
    for pattern, kind, remedy in _FOREIGN:
        if pattern.match(start):
            raise InputError(f"{name}: this is {kind}, not {wanted}; {remedy}.")
    if start.startswith(b"PK\x03\x04"):
        try:
            with open_packed(path) as file, zipfile.ZipFile(file) as archive:
                names = archive.namelist()
        except (zipfile.BadZipFile, *DAMAGED_GZIP) as error:
            raise InputError(f"{name}: this is a damaged zip archive ({error}); download it again.") from error
        if any(entry.startswith("xl/") for entry in names):
            raise InputError(f"{name}: this is an Excel workbook, not {wanted}; {_GET_CSV}.")
        if not any(entry.endswith("data.pkl") for entry in names):
            raise InputError(f"{name}: this is a zip archive, not {wanted}; unpack it and give one file of it.")


def packing_of(path: Path) -> str:
    """Return the compression of a regular file, detected from its content: `"plain"`, `"gzip"` or `"bgzip"`."""
    with path.open("rb") as file:
        start = file.read(14)
    if start[:2] != b"\x1f\x8b":
        return "plain"
    # bgzip is gzip in blocks, each with an extra field BC.
    return "bgzip" if start[12:14] == b"BC" and start[3] & 4 else "gzip"


def open_packed(path: Path, mode: str = "rb") -> IO[Any]:
    """Open a regular file for reading and decompress it if its content is gzip or bgzip. Text is UTF-8."""
    opener = open if packing_of(path) == "plain" else gzip.open
    return cast(IO[Any], opener(path, mode, encoding="utf-8" if "t" in mode else None))


def remove_at_exit(folder: str, owner: object = None) -> Finalize:
    """
    Remove a temporary folder when this process ends, or earlier, when an object is no longer used.

    Workers of a DataLoader end without the functions of `atexit` and `weakref`. A forked child removes nothing.

    Args:
        folder: The folder.
        owner: The object. Defaults to none.

    Returns:
        A callable that removes the folder at once.
    """
    return Finalize(owner, shutil.rmtree, (folder, True), exitpriority=-1)  # after child processes have ended


@functools.cache
def _copy(source: Path | int, identity: tuple[int, ...], unpack: bool = False) -> Path:
    """Copy an input to a temporary file without byte-order mark; one copy per process for each `identity`."""
    folder = tempfile.mkdtemp(prefix="hyenadna-")
    copy = Path(folder) / "input"
    try:
        with (
            open_packed(source)
            if unpack and isinstance(source, Path)
            else open(source, "rb", closefd=source != 0) as content,
            copy.open("wb") as file,
        ):
            start = content.read(len(codecs.BOM_UTF8))
            file.write(start.removeprefix(codecs.BOM_UTF8))
            shutil.copyfileobj(content, file, 1 << 20)
    except BaseException as error:
        shutil.rmtree(folder, ignore_errors=True)
        if isinstance(error, OSError) and error.filename is None and error.errno is not None:
            cause = f"{os.strerror(error.errno)}; set TMPDIR to a folder with more room"
            raise OSError(error.errno, cause, folder) from error
        raise
    remove_at_exit(folder)
    return copy


def read_prefix(path: Path, name: str | Path) -> bytes:
    """
    Read the first bytes of a file, by which its kind is recognised, unpacked like [`open_packed`].

    Args:
        path: The file.
        name: Name of the file in error messages.

    Raises:
        InputError: If the file cannot be read, or is damaged gzip.
    """
    try:
        with open_packed(path) as file:
            return file.read(_PREFIX_BYTES)
    except DAMAGED_GZIP as error:
        raise _damaged(name, error) from error
    except OSError as error:
        raise InputError(f"{name}: cannot be read ({error.strerror}).") from error


def _damaged(name: str | Path, error: Exception) -> InputError:
    return InputError(f"{name}: the gzip file is damaged ({error}); download it again.")
