"""GenomicBenchmarks: the eight data sets of the HyenaDNA paper, and drosophila_enhancers_stark."""

from pathlib import Path
from typing import TYPE_CHECKING

from datasets import DatasetDict

from .benchmarks import Benchmark, get_benchmark, load_benchmark

if TYPE_CHECKING:
    from .fasta import Fasta

_NEGATIVE_POSITIVE = ("negative", "positive")

# Classes, sequences in train and test, median length (Gresova et al. 2023, doi:10.1186/s12863-023-01123-8).
GENOMIC_BENCHMARKS = {
    name: Benchmark(classes, train, test, length, "accuracy", f"katarinagresova/Genomic_Benchmarks_{name}")
    for name, classes, train, test, length in (
        ("dummy_mouse_enhancers_ensembl", _NEGATIVE_POSITIVE, 968, 242, 2381),
        ("demo_coding_vs_intergenomic_seqs", ("coding_seqs", "intergenomic_seqs"), 75_000, 25_000, 200),
        ("demo_human_or_worm", ("human", "worm"), 75_000, 25_000, 200),
        ("drosophila_enhancers_stark", _NEGATIVE_POSITIVE, 5_184, 1_730, 2142),
        ("human_enhancers_cohn", _NEGATIVE_POSITIVE, 20_843, 6_948, 500),
        ("human_enhancers_ensembl", _NEGATIVE_POSITIVE, 123_872, 30_970, 269),
        ("human_ensembl_regulatory", ("enhancer", "ocr", "promoter"), 231_348, 57_713, 401),
        ("human_nontata_promoters", _NEGATIVE_POSITIVE, 27_097, 9_034, 251),
        ("human_ocr_ensembl", _NEGATIVE_POSITIVE, 139_804, 34_952, 315),
    )
}


def load_genomic_benchmark(
    name: str,
    source: str | Path | None = None,
    reference: "str | Path | Fasta | None" = None,
    validation_fraction: float = 0.1,
    seed: int = 42,
) -> DatasetDict:
    """
    Load a data set of GenomicBenchmarks (Gresova et al. 2023).

    Args:
        name: A key of `GENOMIC_BENCHMARKS`, which has the metadata of each data set.
        source: Location of the files. Defaults to the Hub (`katarinagresova/Genomic_Benchmarks_NAME`). Files are the
            cache folder of the package genomic-benchmarks (`train/CLASS/ID.txt`), its interval tables
            (`train/CLASS.csv.gz` with columns `id`, `region`, `start`, `end`, `strand`) together with `reference`, or
            tables with sequences (.csv, .tsv, .parquet) in any layout of `load_labelled_sequences`.
        reference: Reference genome in FASTA format, for interval tables.
        validation_fraction: Fraction of train to hold out for validation.
        seed: Random seed of the held-out split.

    Returns:
        A `DatasetDict` with splits `train`, `validation` and `test`, and columns `sequence` (`string`) and `label`
        (`ClassLabel`, numbered as in `GENOMIC_BENCHMARKS`). Sizes that differ from the published ones cause a warning.

    Raises:
        InputError: If the name is unknown or the source is invalid.
    """
    benchmark = get_benchmark(name, GENOMIC_BENCHMARKS, "GenomicBenchmarks set")
    return load_benchmark(name, benchmark, source, reference, validation_fraction, seed)
