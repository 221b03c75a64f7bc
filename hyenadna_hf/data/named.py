"""Load any labelled data set by its published name or by the location of its files."""

from pathlib import Path

from datasets import DatasetDict

from .benchmarks import load_benchmark
from .files import find_published
from .genomic_benchmarks import GENOMIC_BENCHMARKS
from .labelled import load_labelled_sequences
from .nucleotide_transformer import GUE_TASKS, NUCLEOTIDE_TRANSFORMER_TASKS, REVISED_NUCLEOTIDE_TRANSFORMER_TASKS

BENCHMARKS = {
    **GENOMIC_BENCHMARKS,
    **NUCLEOTIDE_TRANSFORMER_TASKS,
    **REVISED_NUCLEOTIDE_TRANSFORMER_TASKS,
    **GUE_TASKS,
}


def load_labelled(
    source: str | Path,
    sequence_column: str | None = None,
    label_column: str | None = None,
    validation_fraction: float = 0.1,
    test_fraction: float = 0.2,
    seed: int = 42,
) -> DatasetDict:
    """
    Load a published data set by name from the Hub, or anything that [`load_labelled_sequences`] supports.

    Args:
        source: Name or location. Existing files and folders take precedence over published names.
        sequence_column: See [`load_labelled_sequences`].
        label_column: See [`load_labelled_sequences`].
        validation_fraction: See [`load_labelled_sequences`].
        test_fraction: See [`load_labelled_sequences`].
        seed: Random seed of the held-out splits.

    Returns:
        A `DatasetDict` with splits `train`, `validation` and `test`, and columns `sequence` and `label`.
    """
    benchmark = find_published(source, BENCHMARKS)
    if benchmark is not None:
        return load_benchmark(str(source), benchmark, None, None, validation_fraction, seed)
    return load_labelled_sequences(source, sequence_column, label_column, validation_fraction, test_fraction, seed)
