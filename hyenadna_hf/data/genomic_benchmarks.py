"""GenomicBenchmarks: the eight sets of the HyenaDNA paper, and drosophila_enhancers_stark."""

from pathlib import Path
from typing import TYPE_CHECKING

from datasets import DatasetDict

from .benchmarks import Benchmark, find, load_benchmark

if TYPE_CHECKING:
    from .fasta import Fasta

_TWO = ("negative", "positive")

# Classes, sequences in train and test, median length (Gresova et al. 2023, doi:10.1186/s12863-023-01123-8).
GENOMIC_BENCHMARKS = {
    name: Benchmark(classes, train, test, length, "accuracy", f"katarinagresova/Genomic_Benchmarks_{name}")
    for name, classes, train, test, length in (
        ("dummy_mouse_enhancers_ensembl", _TWO, 968, 242, 2381),
        ("demo_coding_vs_intergenomic_seqs", ("coding_seqs", "intergenomic_seqs"), 75_000, 25_000, 200),
        ("demo_human_or_worm", ("human", "worm"), 75_000, 25_000, 200),
        ("drosophila_enhancers_stark", _TWO, 5_184, 1_730, 2142),
        ("human_enhancers_cohn", _TWO, 20_843, 6_948, 500),
        ("human_enhancers_ensembl", _TWO, 123_872, 30_970, 269),
        ("human_ensembl_regulatory", ("enhancer", "ocr", "promoter"), 231_348, 57_713, 401),
        ("human_nontata_promoters", _TWO, 27_097, 9_034, 251),
        ("human_ocr_ensembl", _TWO, 139_804, 34_952, 315),
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
    Load one of GenomicBenchmarks (Gresova et al. 2023); `GENOMIC_BENCHMARKS` has what is known of each.

    Args:
        name: A key of `GENOMIC_BENCHMARKS`.
        source: The Hub by default (`katarinagresova/Genomic_Benchmarks_NAME`). Else the folder that the package
            genomic-benchmarks leaves in its cache (`train/CLASS/ID.txt`), its interval tables (`train/CLASS.csv.gz`
            with columns `id`, `region`, `start`, `end`, `strand`) together with `reference`, or tables with sequences
            (.csv, .tsv, .parquet) in any layout of `load_labelled_sequences`.
        reference: FASTA file that interval tables belong to.
        validation_fraction: Share of train to hold out for validation.
        seed: Of what is held out.

    Returns:
        `DatasetDict` with splits `train`, `validation` and `test`, and columns `sequence` (`string`) and `label`
        (`ClassLabel`, numbered as in `GENOMIC_BENCHMARKS`). A warning says if sizes are not the published ones.

    Raises:
        InputError: If there is no set of this name, or its source will not do.
    """
    benchmark = find(name, GENOMIC_BENCHMARKS, "GenomicBenchmarks set")
    return load_benchmark(name, benchmark, source, reference, validation_fraction, seed)
