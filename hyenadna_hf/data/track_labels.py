"""Labels of every base of a genome from the values of bigWig files, averaged over bins."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InputError
from .fasta import Fasta
from .source import regular_file


class TrackLabels:
    """
    Values of bigWig tracks at every base of a genome, averaged over bins.

    Bases without value count as 0. Files are opened once per process.

    Args:
        paths: bigWig files. Their names without suffix are the names of the labels.
        fasta: Genome of the files.
        bin_size: Bases in a bin.

    Attributes:
        names: Names of the labels.
        contigs: Contigs of the genome that the first file has.
        problem_type: `"regression"`.

    Raises:
        InputError: If a file is not readable as bigWig, or has negative values; two have the same name; or the sizes
            of its contigs are not those of the genome.
    """

    problem_type = "regression"

    def __init__(self, paths: Sequence[str | Path], fasta: Fasta, bin_size: int = 1) -> None:
        self.path, self.bin_size = ", ".join(map(str, paths)), bin_size
        self.names = [Path(path).name.removesuffix(".bw").removesuffix(".bigWig") for path in paths]
        if len(set(self.names)) < len(self.names):
            raise InputError(f"--bigwig {self.path}: two files have the same name; rename one.")
        self._paths = [regular_file(path, "bigWig") for path in paths]
        self._files: list[Any] = []
        self._contigs = [self._match(path, file, fasta) for path, file in zip(paths, self._open())]
        self.contigs = [contig for contig in fasta.lengths if contig in self._contigs[0]]

    def fetch(self, contig: str, start: int, end: int) -> np.ndarray:
        """
        Return the values of the bases `[start, end)` of a contig, 0-based.

        Returns:
            Means of the bins, which begin at `start`, at each of their bases: shape `(length, tracks)`, type `float32`.
        """
        firsts = np.arange(0, end - start, self.bin_size)
        sizes = np.diff([*firsts, end - start])
        labels: np.ndarray = np.zeros((end - start, len(self.names)), np.float32)
        for number, (file, contigs) in enumerate(zip(self._open(), self._contigs)):
            if contig in contigs:
                values = np.nan_to_num(file.values(contigs[contig], start, end, numpy=True))
                labels[:, number] = np.repeat(np.add.reduceat(values, firsts) / sizes, sizes)
        return labels

    def _open(self) -> list[Any]:
        import pyBigWig

        if not self._files:
            for path in self._paths:
                try:
                    file = pyBigWig.open(str(path))
                except RuntimeError as error:
                    raise InputError(f"{path}: this is not a readable bigWig file.") from error
                if not file.isBigWig():
                    raise InputError(f"{path}: this is a bigBed file; give bigWig.")
                if file.header()["minVal"] < 0:
                    raise InputError(f"{path}: it has negative values, but tracks are counts or coverage.")
                self._files.append(file)
        return self._files

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_files": []}  # each process opens the files for itself

    @staticmethod
    def _match(path: str | Path, file: Any, fasta: Fasta) -> dict[str, str]:
        """Return the name in the file of each contig of the genome that it has."""
        names = {}
        for name, length in file.chroms().items():
            try:
                contig = fasta.resolve(name)
            except InputError:
                continue  # of an assembly with more contigs
            if fasta.lengths[contig] != length:
                raise InputError(
                    f"{path}: {name} has {length:,} bases, but {fasta.lengths[contig]:,} in {fasta.path}; use the "
                    "genome of the track."
                )
            names[contig] = name
        if not names:
            raise InputError(f"{path}: it has none of the sequences of {fasta.path}; use the genome of the track.")
        return names
