"""Random access to the sequences of FASTA files."""

import os
import re
import tempfile
import warnings
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import pysam

from ..errors import InputError, shorten_list
from .sequence import NOT_A_NUCLEOTIDE, NUCLEOTIDES
from .source import DAMAGED_GZIP, FASTA, open_packed, packing_of, regular_file, remove_at_exit

LETTERS = (NUCLEOTIDES + NUCLEOTIDES.lower()).encode()
ENDINGS = (".fa", ".fasta", ".fna")


class Fasta:
    """
    Random access to the sequences of a FASTA file: plain, bgzip, or gzip.

    Only the index is held in memory. The index (`.fai`, with bgzip also `.gzi`, as made by `samtools faidx`) is written
    beside the file if the folder is writable, otherwise to a temporary folder. An index older than the file is rebuilt.
    Before it is indexed, the whole file is checked once. Plain gzip and standard input do not allow random access: they
    are copied once per process to a temporary file, which is removed when the process ends; use `bgzip` to avoid the
    copy. Windows line ends are not part of the sequence; the check warns about them.

    Objects can be pickled and used after a fork: every process opens the file for itself. Not thread-safe.

    Args:
        path: The file, or `-` for standard input. The compression is detected from the content.

    Attributes:
        path: The file.
        lengths: Length of each sequence in bases, by name (the header up to white space), in file order.

    Raises:
        InputError: If the file is missing, empty, damaged or not FASTA, or if it has duplicate names, a record without
            sequence, lines of unequal length within a record, or characters other than IUPAC nucleotide codes.

    Example:

    ```python
    >>> with Fasta("genome.fa.gz") as genome:
    ...     genome.fetch("chr20", 30_000_000, 30_000_010)
    'AAATAAGGCT'
    ```
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path).expanduser()
        self._closed = False
        self._handle: pysam.FastaFile | None = None
        self._process: int | None = None
        self._cleanup: Callable[[], Any] | None = None
        self._prepare()
        file = self._open()
        self.lengths = dict(zip(file.references, file.lengths))

    def resolve(self, name: str) -> str:
        """
        Find a sequence under another naming convention, such as `chr20` and `20`, or `chrM`, `M` and `MT`.

        Args:
            name: Name of the sequence in another file.

        Returns:
            Its name in this file, a key of `lengths`.

        Raises:
            InputError: If no sequence or more than one matches.
        """
        if name in self.lengths:
            return name
        matches = self._names.get(bare_name(name), [])
        if len(matches) > 1:
            raise InputError(f"{self.path}: {name!r} matches {', '.join(matches)}; use one of these names.")
        if not matches:
            raise InputError(
                f"{self.path}: there is no sequence {name!r}; the file has {shorten_list([*self.lengths], 6)}."
            )
        return matches[0]

    def fetch(self, name: str, start: int = 0, end: int | None = None) -> str:
        """
        Read a piece of a sequence, with the letters of the file (lower case where soft-masked).

        Args:
            name: Name of the sequence, under any convention that `resolve` supports.
            start: First base, counted from 0.
            end: Position after the last base. Defaults to the end of the sequence.

        Returns:
            A string of `end - start` letters.

        Raises:
            InputError: If there is no such sequence or piece, or it has characters other than nucleotide codes.
        """
        name, start, end = self._check_interval(name, start, end)
        if start == end:
            return ""
        try:
            sequence = self._open().fetch(name, start, end)
        except (OSError, ValueError) as error:
            raise InputError(f"{self.path}: {name} cannot be read ({error}); check that the file is intact.") from error
        # An existing index does not guarantee valid letters.
        if len(sequence) != end - start or sequence.encode().translate(None, LETTERS):
            wrong = NOT_A_NUCLEOTIDE.search(sequence)
            content = (
                f"{wrong[0]!r} at base {start + wrong.start() + 1:,}" if wrong else "fewer bases than its index says"
            )
            raise InputError(
                f"{self.path}: {name} has {content}; give a FASTA file of DNA with a matching index "
                f"(delete {self._indices['.fai']} to rebuild it)."
            )
        return sequence

    def _check_interval(self, name: str, start: int, end: int | None) -> tuple[str, int, int]:
        """Return the interval of a call of `fetch`, with the name in this file and without defaults."""
        name = self.resolve(name)
        length = self.lengths[name]
        end = length if end is None else end
        if not 0 <= start <= end <= length:
            raise InputError(
                f"{self.path}: {name} has {length:,} bases; the interval from {start:,} to {end:,} is invalid "
                "(0-based, half-open)."
            )
        return name, start, end

    def close(self) -> None:
        """Close the file and remove a temporary index. The object cannot be used afterwards."""
        self._closed = True
        self._handle = None
        if self._cleanup is not None:
            self._cleanup()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_handle": None, "_process": None, "_cleanup": None}

    @cached_property
    def _names(self) -> dict[str, list[str]]:
        """Names by their bare name. Built when it is first needed, because a file may have millions of sequences."""
        names: dict[str, list[str]] = {}
        for name in self.lengths:
            names.setdefault(bare_name(name), []).append(name)
        return names

    def _prepare(self) -> None:
        """Make sure that a file with random access and its index exist."""
        self._handle = self._process = self._cleanup = None
        self._random_access = regular_file(self.path, FASTA)
        packing = packing_of(self._random_access)
        try:
            self._set_indices(self._random_access.parent, packing)
            if not self._is_index_fresh():
                _check(self._random_access, self.path)
                if not os.access(self._random_access.parent, os.W_OK):
                    self._set_indices(self._temporary_folder(), packing)
                self._make_index()
        except BaseException:
            self.close()
            raise

    def _set_indices(self, folder: Path, packing: str) -> None:
        suffixes = (".fai", ".gzi") if packing == "bgzip" else (".fai",)
        self._indices = {suffix: folder / f"{self._random_access.name}{suffix}" for suffix in suffixes}

    def _is_index_fresh(self) -> bool:
        time = self._random_access.stat().st_mtime_ns
        return all(index.is_file() and index.stat().st_mtime_ns >= time for index in self._indices.values())

    def _make_index(self) -> None:
        # Under a temporary name first: several processes may do this at once, and any may be killed.
        with tempfile.TemporaryDirectory(dir=self._indices[".fai"].parent, prefix=".index-") as unfinished:
            files = {suffix: Path(unfinished) / f"index{suffix}" for suffix in self._indices}
            options = [word for suffix, file in files.items() for word in (f"--{suffix[1:]}-idx", str(file))]
            try:
                pysam.faidx(str(self._random_access), *options)
            except pysam.SamtoolsError as error:
                raise InputError(f"{self.path}: cannot be indexed ({' '.join(str(error).split())}).") from error
            for suffix, file in files.items():
                file.replace(self._indices[suffix])

    def _temporary_folder(self) -> Path:
        folder = tempfile.mkdtemp(prefix="hyenadna-fasta-")
        self._cleanup = remove_at_exit(folder, self)
        return Path(folder)

    def _open(self) -> pysam.FastaFile:
        if self._closed:
            raise ValueError(f"{self.path} is closed.")
        # A handle opened before a fork shares its file position with the other process.
        if self._handle is None or self._process != os.getpid():
            if not all(index.exists() for index in self._indices.values()):
                self._prepare()  # the temporary folder was removed with its process
            fai, gzi = (self._indices.get(suffix) for suffix in (".fai", ".gzi"))
            try:
                self._handle = pysam.FastaFile(str(self._random_access), str(fai), gzi and str(gzi))
            except (OSError, ValueError) as error:
                raise InputError(
                    f"{self.path}: cannot be read with its index ({error}); delete {fai} to rebuild it."
                ) from error
            self._process = os.getpid()
        return self._handle


class FastaFolder(Fasta):
    """
    The FASTA files of a folder, for example one per chromosome, read like one file.

    Args:
        path: The folder. Files must end in .fa, .fasta or .fna, optionally followed by .gz or .bgz.

    Raises:
        InputError: If there is no such file, a file is invalid, or two files have a sequence of the same name.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path).expanduser()
        self._files: dict[str, Fasta] = {}
        lengths = {}
        for file in fasta_files(self.path):
            fasta = Fasta(file)
            for name, length in fasta.lengths.items():
                if name in lengths:
                    raise InputError(f"{self._files[name].path} and {file} both have a sequence {name!r}; rename one.")
                self._files[name], lengths[name] = fasta, length
        if not lengths:
            raise InputError(f"{self.path}: this folder contains no FASTA file ({', '.join(ENDINGS)}).")
        self.lengths = lengths

    def fetch(self, name: str, start: int = 0, end: int | None = None) -> str:
        name = self.resolve(name)
        return self._files[name].fetch(name, start, end)

    def close(self) -> None:
        for file in self._files.values():
            file.close()


def fasta_files(folder: str | Path) -> list[Path]:
    """List the FASTA files in a folder, by suffix and sorted. Raise an `InputError` if it is not a folder."""
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(f"{folder}: there is no such folder; check the path.")
    return [file for file in sorted(folder.iterdir()) if file.is_file() and fasta_stem(file) is not None]


def fasta_stem(path: Path) -> str | None:
    """Return the name of a FASTA file without its suffixes, or `None` if it has no FASTA suffix."""
    name = path.name.removesuffix(".gz").removesuffix(".bgz")
    return next((name.removesuffix(ending) for ending in ENDINGS if name.endswith(ending)), None)


def bare_name(name: str) -> str:
    """Remove the differences between the names of Ensembl and UCSC from the name of a sequence."""
    bare = re.sub("^chr", "", name, flags=re.IGNORECASE)
    return "M" if bare == "MT" else bare


def _check(file: Path, path: Path) -> None:
    """Reject what `faidx` would ignore or not explain in `file`; errors name `path`."""
    first_lines: dict[str, int] = {}
    name, shape = None, None  # shape: letters and bytes in the first sequence line of a record
    windows_line_ends = 0
    try:
        with open_packed(file) as lines:
            for number, line in enumerate(lines, start=1):
                where, text = f"{path}, line {number:,}", line.rstrip(b"\r\n")
                windows_line_ends += line.endswith(b"\r\n")
                if text.startswith(b">"):
                    _check_has_sequence(path, first_lines, name, shape)
                    name, shape, ended = _name_in(text, where), None, False
                    if name in first_lines:
                        raise InputError(
                            f"{where}: duplicate record {name!r}, first found in line {first_lines[name]:,}; "
                            "rename or remove one."
                        )
                    first_lines[name] = number
                    continue
                if name is None:
                    raise InputError(
                        f"{where}: a FASTA file must begin with a header >name, not with "
                        f"{text[:20].decode(errors='replace')!r}."
                    )
                wrong = text.translate(None, LETTERS)
                if wrong:
                    raise InputError(
                        f"{where}: {chr(wrong[0])!r} in record {name!r} is not an IUPAC nucleotide code; give a FASTA "
                        "file of DNA (not protein, numbered or aligned sequences)."
                    )
                shape = shape or (len(text), len(line))
                if text and (ended or len(text) > shape[0]):
                    raise InputError(
                        f"{where}: all lines of record {name!r} except the last must have the same length and line "
                        "ending; rewrap the file, for example with `seqkit seq -w 60`."
                    )
                ended = not text or (len(text), len(line)) != shape
    except DAMAGED_GZIP as error:
        raise InputError(f"{path}: the gzip file is damaged ({error}); download it again.") from error
    _check_has_sequence(path, first_lines, name, shape)
    if windows_line_ends:
        warnings.warn(
            f"{path}: {windows_line_ends:,} lines have Windows line endings, which are ignored.", stacklevel=5
        )


def _name_in(header: bytes, where: str) -> str:
    words = header[1:].split(None, 1)
    if not words or header[1:2].isspace():
        raise InputError(f"{where}: the header must have a name directly after >.")
    return words[0].decode(errors="replace")


def _check_has_sequence(
    path: Path, first_lines: dict[str, int], name: str | None, shape: tuple[int, int] | None
) -> None:
    if name is not None and not (shape and shape[0]):
        raise InputError(f"{path}, line {first_lines[name]:,}: record {name!r} has no sequence; remove it.")
