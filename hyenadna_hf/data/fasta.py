"""Random access to the sequences of FASTA files."""

import os
import re
import tempfile
import warnings
import weakref
from pathlib import Path
from typing import Self

import pysam

from ..errors import InputError
from .sequence import NOT_A_NUCLEOTIDE, NUCLEOTIDES
from .source import DAMAGED_GZIP, FASTA, open_packed, packing_of, regular_file, remove_own

LETTERS = (NUCLEOTIDES + NUCLEOTIDES.lower()).encode()
ENDINGS = (".fa", ".fasta", ".fna")


class Fasta:
    """
    Random access to the sequences of a FASTA file: plain, bgzip, or gzip.

    Nothing but the index is held in memory. The index (`.fai`, with bgzip also `.gzi`, as `samtools faidx` makes them)
    is kept beside the file where that folder can be written to, else in a temporary folder; one that is older than the
    file is made anew. Before an index is made, the whole file is checked once. Plain gzip and standard input have no
    random access: a temporary copy is made once in a process and removed when the process ends; `bgzip` avoids it.
    Windows line ends are not part of the sequence; the check warns of them with their number.

    An object can be pickled and used after a fork: every process opens the file for itself. Not thread-safe.

    Args:
        path: The file, or `-` for standard input; its packing is told from its content.

    Attributes:
        path: The file.
        lengths: Bases of each sequence by its name (the header up to white space), in file order.

    Raises:
        InputError: If the file is absent, empty, damaged, no FASTA, has two records of a name, a record without
            sequence, lines of unequal length within a record, or other characters than IUPAC nucleotide codes.

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
        self._prepare()
        file = self._open()
        self._set_lengths(dict(zip(file.references, file.lengths)))

    def resolve(self, name: str) -> str:
        """
        The file's own name of a sequence, whether it is called `chr20` or `20`, `chrM`, `M` or `MT`.

        Args:
            name: As another file has it.

        Returns:
            A key of `lengths`.

        Raises:
            InputError: If there is no such sequence, or more than one that could be meant.
        """
        if name in self.lengths:
            return name
        same = self._names.get(bare_name(name), [])
        if len(same) > 1:
            raise InputError(f"{self.path}: {name!r} could be any of {', '.join(same)}; use one of these names.")
        if not same:
            raise InputError(f"{self.path}: there is no sequence {name!r}; there are {self._some_names()}.")
        return same[0]

    def fetch(self, name: str, start: int = 0, end: int | None = None) -> str:
        """
        A piece of a sequence, letters as in the file (soft-masked ones in lower case).

        Args:
            name: Which sequence, by any name that `resolve` knows.
            start: First base, from 0.
            end: Base after the last one. Defaults to the end of the sequence.

        Returns:
            `str` of `end - start` letters.

        Raises:
            InputError: If there is no such sequence or piece, or it holds other characters than nucleotide codes.
        """
        name = self.resolve(name)
        length = self.lengths[name]
        end = length if end is None else end
        if not 0 <= start <= end <= length:
            raise InputError(
                f"{self.path}: {name} has {length:,} bases; there is no piece from {start:,} to {end:,} of it "
                "(0-based, half-open)."
            )
        if start == end:
            return ""
        try:
            sequence = self._open().fetch(name, start, end)
        except (OSError, ValueError) as error:
            raise InputError(f"{self.path}: {name} cannot be read ({error}); is the file damaged?") from error
        # An index that somebody else made says nothing about the letters.
        if len(sequence) != end - start or sequence.encode().translate(None, LETTERS):
            wrong = NOT_A_NUCLEOTIDE.search(sequence)
            found = f"{wrong[0]!r} at base {start + wrong.start() + 1:,}" if wrong else "fewer bases than in its index"
            raise InputError(
                f"{self.path}: {name} holds {found}; a FASTA file of DNA is wanted, and an index that belongs to it "
                f"(delete {self._indices['.fai']} to have it made anew)."
            )
        return sequence

    def close(self) -> None:
        """Close the file and remove a temporary index; the object cannot be used any more."""
        self._closed = True
        self._handle = None
        if self._cleanup is not None:
            self._cleanup()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def __getstate__(self):
        return {**self.__dict__, "_handle": None, "_process": None, "_cleanup": None}

    def _set_lengths(self, lengths: dict[str, int]) -> None:
        self.lengths = lengths
        self._names: dict[str, list[str]] = {}
        for name in lengths:
            self._names.setdefault(bare_name(name), []).append(name)

    def _some_names(self, shown: int = 6):
        names = list(self.lengths)
        return ", ".join(names[:shown]) + (f" and {len(names) - shown:,} more" if len(names) > shown else "")

    def _prepare(self) -> None:
        """See to a file with random access and its index."""
        self._handle = self._process = self._cleanup = None
        self._random_access = regular_file(self.path, FASTA)
        packing = packing_of(self._random_access)
        try:
            self._set_indices(self._random_access.parent, packing)
            if not self._index_is_fresh():
                _check(self._random_access, self.path)
                if not os.access(self._random_access.parent, os.W_OK):
                    self._set_indices(self._temporary_folder(), packing)
                self._make_index()
        except BaseException:
            self.close()
            raise

    def _set_indices(self, folder: Path, packing) -> None:
        suffixes = (".fai", ".gzi") if packing == "bgzip" else (".fai",)
        self._indices = {suffix: folder / f"{self._random_access.name}{suffix}" for suffix in suffixes}

    def _index_is_fresh(self):
        time = self._random_access.stat().st_mtime_ns
        return all(index.is_file() and index.stat().st_mtime_ns >= time for index in self._indices.values())

    def _make_index(self) -> None:
        # Under another name first: several processes may do this at the same time, and any may be killed.
        with tempfile.TemporaryDirectory(dir=self._indices[".fai"].parent, prefix=".index-") as unfinished:
            made = {suffix: Path(unfinished) / f"index{suffix}" for suffix in self._indices}
            options = [word for suffix, file in made.items() for word in (f"--{suffix[1:]}-idx", str(file))]
            try:
                pysam.faidx(str(self._random_access), *options)
            except pysam.SamtoolsError as error:
                raise InputError(f"{self.path}: cannot be indexed ({' '.join(str(error).split())}).") from error
            for suffix, file in made.items():
                file.replace(self._indices[suffix])

    def _temporary_folder(self):
        folder = tempfile.mkdtemp(prefix="hyenadna-fasta-")
        self._cleanup = weakref.finalize(self, remove_own, folder, os.getpid())
        return Path(folder)

    def _open(self):
        if self._closed:
            raise ValueError(f"{self.path} is closed.")
        # A handle from before a fork shares its position in the file with the other process.
        if self._handle is None or self._process != os.getpid():
            if not all(index.exists() for index in self._indices.values()):
                self._prepare()  # they were in a temporary folder of a process that has ended
            fai, gzi = (self._indices.get(suffix) for suffix in (".fai", ".gzi"))
            try:
                self._handle = pysam.FastaFile(str(self._random_access), str(fai), gzi and str(gzi))
            except (OSError, ValueError) as error:
                raise InputError(
                    f"{self.path}: cannot be read with its index ({error}); delete {fai} to have it made anew."
                ) from error
            self._process = os.getpid()
        return self._handle


class FastaFolder(Fasta):
    """
    The FASTA files of a folder (one a chromosome, say) as if they were one file.

    Args:
        path: The folder; files that end in .fa, .fasta or .fna, also with .gz or .bgz.

    Raises:
        InputError: If there is no such file, one of them is invalid, or two have a sequence of the same name.
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
            raise InputError(f"{self.path}: there is no FASTA file in this folder ({', '.join(ENDINGS)}).")
        self._set_lengths(lengths)

    def fetch(self, name: str, start: int = 0, end: int | None = None):
        name = self.resolve(name)
        return self._files[name].fetch(name, start, end)

    def close(self) -> None:
        for file in self._files.values():
            file.close()


def fasta_files(folder: Path):
    """The FASTA files in a folder by their endings, as a sorted `list[Path]`; an `InputError` if it is no folder."""
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(f"{folder}: there is no such folder; check the path.")
    return [file for file in sorted(folder.iterdir()) if file.is_file() and fasta_stem(file) is not None]


def fasta_stem(path):
    """The name of a FASTA file without its endings; `None` if it is not named like one."""
    name = path.name.removesuffix(".gz").removesuffix(".bgz")
    return next((name.removesuffix(ending) for ending in ENDINGS if name.endswith(ending)), None)


def bare_name(name: str):
    """A name without what differs between Ensembl and UCSC."""
    bare = re.sub("^chr", "", name, flags=re.IGNORECASE)
    return "M" if bare == "MT" else bare


def _check(file: Path, path: Path) -> None:
    """Refuse what `faidx` would pass over or not explain in `file`, which the user knows as `path`."""
    first_lines: dict[str, int] = {}
    name, shape = None, None  # shape: letters and bytes of a record's first line of sequence
    windows_ends = 0
    try:
        with open_packed(file) as lines:
            for number, line in enumerate(lines, start=1):
                where, text = f"{path}, line {number:,}", line.rstrip(b"\r\n")
                windows_ends += line.endswith(b"\r\n")
                if text.startswith(b">"):
                    _check_has_sequence(path, first_lines, name, shape)
                    name, shape, ended = _name_in(text, where), None, False
                    if name in first_lines:
                        raise InputError(
                            f"{where}: there is a second record {name!r}, the first is in line {first_lines[name]:,}; "
                            "rename or remove one."
                        )
                    first_lines[name] = number
                    continue
                if name is None:
                    raise InputError(
                        f"{where}: FASTA begins with a header >name; here there is "
                        f"{text[:20].decode(errors='replace')!r}."
                    )
                wrong = text.translate(None, LETTERS)
                if wrong:
                    raise InputError(
                        f"{where}: {chr(wrong[0])!r} in record {name!r} is no IUPAC nucleotide code; a FASTA file of "
                        "DNA is wanted (not protein, nor numbered or aligned sequence)."
                    )
                shape = shape or (len(text), len(line))
                if text and (ended or len(text) > shape[0]):
                    raise InputError(
                        f"{where}: all lines of record {name!r} but the last must have one length and one kind of line "
                        "end; wrap the file anew, for example by `seqkit seq -w 60`."
                    )
                ended = not text or (len(text), len(line)) != shape
    except DAMAGED_GZIP as error:
        raise InputError(f"{path}: the gzip file is damaged ({error}); fetch it again.") from error
    _check_has_sequence(path, first_lines, name, shape)
    if windows_ends:
        warnings.warn(f"{path}: {windows_ends:,} lines end as on Windows; that is read over.", stacklevel=5)


def _name_in(header: str, where: str):
    words = header[1:].split(None, 1)
    if not words or header[1:2].isspace():
        raise InputError(f"{where}: the header has no name directly after >.")
    return words[0].decode(errors="replace")


def _check_has_sequence(path, first_lines, name: str, shape) -> None:
    if name is not None and not (shape and shape[0]):
        raise InputError(f"{path}, line {first_lines[name]:,}: the record {name!r} has no sequence; remove it.")
