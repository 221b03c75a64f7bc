"""The 18 tasks of the Nucleotide Transformer paper, first and revised version, and the tasks of GUE."""

from collections.abc import Iterable
from pathlib import Path

from datasets import DatasetDict

from .benchmarks import Benchmark, get_benchmark, load_benchmark

_NT_REPOSITORY = "InstaDeepAI/nucleotide_transformer_downstream_tasks"
_REVISED_REPOSITORY = "InstaDeepAI/nucleotide_transformer_downstream_tasks_revised"
_GUE_REPOSITORY = "leannmlindsey/GUE"

# Classes, sequences in train and test, length (Dalla-Torre et al. 2023), and the metric of the HyenaDNA paper.
NUCLEOTIDE_TRANSFORMER_TASKS = {
    name: Benchmark(tuple(map(str, range(classes))), train, test, length, metric, _NT_REPOSITORY, task=name)
    for name, classes, train, test, length, metric in (
        ("enhancers", 2, 14_968, 400, 200, "mcc"),
        ("enhancers_types", 3, 14_968, 400, 200, "mcc"),
        ("H3", 2, 13_468, 1_497, 500, "mcc"),
        ("H3K4me1", 2, 28_509, 3_168, 500, "mcc"),
        ("H3K4me2", 2, 27_614, 3_069, 500, "mcc"),
        ("H3K4me3", 2, 33_119, 3_680, 500, "mcc"),
        ("H3K9ac", 2, 25_003, 2_779, 500, "mcc"),
        ("H3K14ac", 2, 29_743, 3_305, 500, "mcc"),
        ("H3K36me3", 2, 31_392, 3_488, 500, "mcc"),
        ("H3K79me3", 2, 25_953, 2_884, 500, "mcc"),
        ("H4", 2, 13_140, 1_461, 500, "mcc"),
        ("H4ac", 2, 30_685, 3_410, 500, "mcc"),
        ("promoter_all", 2, 53_276, 5_920, 300, "f1"),
        ("promoter_no_tata", 2, 47_767, 5_299, 300, "f1"),
        ("promoter_tata", 2, 5_509, 621, 300, "f1"),
        ("splice_sites_acceptors", 2, 19_961, 2_218, 600, "f1"),
        ("splice_sites_all", 3, 27_000, 3_000, 400, "f1"),
        ("splice_sites_donors", 2, 19_775, 2_198, 600, "f1"),
    )
}

# Classes and length of the revised tasks (Dalla-Torre et al. 2025, doi:10.1038/s41592-024-02523-z), with ten histone
# marks of K562 cells. Sizes are given where they are known here.
REVISED_NUCLEOTIDE_TRANSFORMER_TASKS = {
    f"{name}_revised": Benchmark(
        tuple(map(str, range(classes))), train, test, length, "mcc", _REVISED_REPOSITORY, task=name
    )
    for name, classes, train, test, length in (
        ("enhancers", 2, None, None, 400),
        ("enhancers_types", 3, None, None, 400),
        ("H2AFZ", 2, None, None, 1000),
        ("H3K27ac", 2, None, None, 1000),
        ("H3K27me3", 2, None, None, 1000),
        ("H3K36me3", 2, None, None, 1000),
        ("H3K4me1", 2, None, None, 1000),
        ("H3K4me2", 2, None, None, 1000),
        ("H3K4me3", 2, None, None, 1000),
        ("H3K9ac", 2, None, None, 1000),
        ("H3K9me3", 2, None, None, 1000),
        ("H4K20me1", 2, None, None, 1000),
        ("promoter_all", 2, 30_000, 1_584, 300),
        ("promoter_no_tata", 2, None, None, 300),
        ("promoter_tata", 2, None, None, 300),
        ("splice_sites_acceptors", 2, None, None, 600),
        ("splice_sites_all", 3, None, None, 600),
        ("splice_sites_donors", 2, None, None, 600),
    )
}


def _gue(
    names: Iterable[str], classes: int, length: int, metric: str = "mcc", configuration: str = "{}"
) -> dict[str, Benchmark]:
    return {
        name: Benchmark(
            tuple(map(str, range(classes))), None, None, length, metric, _GUE_REPOSITORY, configuration.format(name)
        )
        for name in names
    }


# Genome Understanding Evaluation (Zhou et al. 2024, arXiv:2306.15006).
_HISTONE_MARKS = ["H3", "H3K14ac", "H3K36me3", "H3K4me1", "H3K4me2", "H3K4me3", "H3K79me3", "H3K9ac", "H4", "H4ac"]
GUE_TASKS = {
    **_gue([f"emp_{mark}" for mark in _HISTONE_MARKS], 2, 500),
    **_gue([f"prom_300_{kind}" for kind in ("all", "notata", "tata")], 2, 300),
    **_gue([f"prom_core_{kind}" for kind in ("all", "notata", "tata")], 2, 70),
    **_gue([f"tf_{number}" for number in range(5)], 2, 101, configuration="human_{}"),
    **_gue([f"mouse_{number}" for number in range(5)], 2, 101),
    **_gue(["splice_reconstructed"], 3, 400),
    **_gue(["virus_covid"], 9, 1000, "f1"),
}


def load_nucleotide_transformer_task(
    name: str, source: str | Path | None = None, validation_fraction: float = 0.1, seed: int = 42
) -> DatasetDict:
    """
    Load a task of the Nucleotide Transformer paper or of GUE.

    Args:
        name: A key of `NUCLEOTIDE_TRANSFORMER_TASKS` (the first version, as used in the HyenaDNA paper),
            `REVISED_NUCLEOTIDE_TRANSFORMER_TASKS` (the version after peer review, with the suffix `_revised`) or
            `GUE_TASKS`, which have the metadata of each task.
        source: Location of the files. Defaults to the Hub. Files are a folder with `train` and `test` (and optionally
            `dev`), in FASTA with headers `>name|label` or any other format and layout of `load_labelled_sequences`.
        validation_fraction: Fraction of train to hold out if there is no validation split.
        seed: Random seed of the held-out split.

    Returns:
        A `DatasetDict` with splits `train`, `validation` and `test`, and columns `sequence` (`string`) and `label`
        (`ClassLabel` with the published numbers as names). Sizes that differ from the published ones cause a warning.

    Raises:
        InputError: If the name is unknown or the source is invalid.
    """
    tasks = {**NUCLEOTIDE_TRANSFORMER_TASKS, **REVISED_NUCLEOTIDE_TRANSFORMER_TASKS, **GUE_TASKS}
    benchmark = get_benchmark(name, tasks, "task")
    return load_benchmark(name, benchmark, source, None, validation_fraction, seed)
