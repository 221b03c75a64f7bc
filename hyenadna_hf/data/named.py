"""One door for every labelled data set: by the name of a published one, or by where its files are."""

from pathlib import Path

from datasets import DatasetDict

from .benchmarks import load_benchmark
from .genomic_benchmarks import GENOMIC_BENCHMARKS
from .labelled import load_labelled_sequences
from .nucleotide_transformer import GUE_TASKS, NUCLEOTIDE_TRANSFORMER_TASKS

BENCHMARKS = {**GENOMIC_BENCHMARKS, **NUCLEOTIDE_TRANSFORMER_TASKS, **GUE_TASKS}


def benchmark_of(source: str):
    """The published data set of that name, a `Benchmark`; `None` for anything else and for what is a file or folder."""
    return None if Path(source).expanduser().exists() else BENCHMARKS.get(str(source))


def load_labelled(
    source: str,
    sequence_column=None,
    label_column=None,
    validation_fraction: float = 0.1,
    test_fraction: float = 0.2,
    seed: int = 42,
) -> DatasetDict:
    """
    Load a published data set by its name, from the Hub, or anything that [`load_labelled_sequences`] takes.

    Args: as those of [`load_labelled_sequences`]; a file or folder goes before a published name.

    Returns:
        `DatasetDict` with splits `train`, `validation` and `test`, and columns `sequence` and `label`.
    """
    benchmark = benchmark_of(source)
    if benchmark is not None:
        return load_benchmark(source, benchmark, None, None, validation_fraction, seed)
    return load_labelled_sequences(source, sequence_column, label_column, validation_fraction, test_fraction, seed)
