"""Data of `hyenadna pretrain`: windows of genomes and of other sequences, by split."""

from collections.abc import Sequence
from typing import Any

from transformers import PretrainedConfig

from ..data.fasta import Fasta
from ..data.files import SPLITS
from ..data.genome import GenomeDataset
from ..data.intervals import Interval, parse_region, read_bed, training_intervals
from ..data.unlabelled import SequenceList, load_unlabelled_sequences
from ..errors import InputError
from .pretrain_arguments import DataArguments, GenomeArguments

MOST_N = 0.5  # largest fraction of N in a training window; others are skipped


def window_length(args: GenomeArguments, config: PretrainedConfig) -> int:
    """Return the length of a window, in bases; raise an `InputError` if the model cannot read it."""
    longest = config.max_position_embeddings
    length = longest - 2 if args.window is None else args.window
    if not 2 <= length <= longest - args.append_sep:
        raise InputError(f"--window {length}: give 2 to {longest - args.append_sep:,} bases, the limit of the model.")
    return length


def data_splits(args: DataArguments, length: int, seed: int) -> dict[str, list[GenomeDataset]]:
    """
    Build the streams of each split: those of the genomes, and then one of the sequences of `--dataset`.

    Args:
        args: Genomes, sequences and splits.
        length: Length of a window, in bases.
        seed: Random seed of held-out splits and of the order in training.

    Returns:
        Streams by split: `train`, `validation` and `test`.

    Raises:
        InputError: If the genomes, sequences or splits are invalid.
    """
    if not args.fasta and args.dataset is None:
        raise InputError("--fasta or --dataset: give at least one genome or file of sequences to train on.")
    for name in ("bed", "validation", "test"):
        if getattr(args, name) and not args.fasta:
            raise InputError(
                f"--{name}: it selects parts of --fasta; omit it, and name files of --dataset validation and test."
            )
    splits: dict[str, list[GenomeDataset]] = {"train": [], "validation": [], "test": []}
    if args.fasta:
        splits = genome_splits(args, length, seed)
    if args.dataset is None:
        if args.sequence_column is not None:
            raise InputError(f"--sequence_column {args.sequence_column}: it is a column of --dataset; omit it.")
        return splits
    sequences_by_split = load_unlabelled_sequences(
        args.dataset, args.sequence_column, args.validation_fraction, args.test_fraction, seed
    )
    for split, sequences in sequences_by_split.items():
        fasta = SequenceList(sequences, args.dataset)
        regions = [Interval(name, 0, size) for name, size in fasta.lengths.items()]
        splits[split].append(_stream(args, split, fasta, length, seed, regions=regions))
    return splits


def mean_window(streams: list[GenomeDataset], weights: Sequence[float]) -> float:
    """Compute the mean length of training windows, in bases, if each stream is sampled with its weight."""
    return sum(
        weight / sum(weights) * stream.bases() / stream.size() for stream, weight in zip(streams, weights, strict=True)
    )


def genome_splits(args: GenomeArguments, length: int, seed: int) -> dict[str, list[GenomeDataset]]:
    """
    Build the streams of each split, one per genome that has bases in it.

    Args:
        args: Genomes and splits.
        length: Length of a window, in bases.
        seed: Random seed of the order in training.

    Returns:
        Streams by split: `train`, `validation` and `test`.

    Raises:
        InputError: If the genomes or splits are invalid.
    """
    if not args.fasta:
        raise InputError("--fasta: give at least one genome.")
    if args.bed and len(args.bed) != len(args.fasta):
        raise InputError(
            f"--bed: there are {len(args.bed)} for {len(args.fasta)} genomes; give one per genome or none."
        )
    if args.bed and (args.validation or args.test):
        raise InputError("--bed and --validation or --test: the BED file defines the splits; omit one of them.")
    genomes = [Fasta(path) for path in args.fasta]
    splits: dict[str, list[GenomeDataset]] = {"train": [], "validation": [], "test": []}
    if args.bed:
        for genome, bed in zip(genomes, args.bed):
            for split in splits:
                if split in _bed_splits(bed, genome):
                    splits[split].append(_stream(args, split, genome, length, seed, bed=bed))
        return splits
    held_out = {
        name: [_find_region(region, genomes) for region in getattr(args, name)] for name in ("validation", "test")
    }
    for i, genome in enumerate(genomes):
        pieces_by_split = {
            name: [piece for number, piece in pieces if number == i] for name, pieces in held_out.items()
        }
        sequences = [Interval(name, 0, size) for name, size in genome.lengths.items()]
        pieces_by_split["train"] = training_intervals(sequences, **pieces_by_split)
        for split, pieces in pieces_by_split.items():
            if pieces:
                splits[split].append(_stream(args, split, genome, length, seed, regions=pieces))
    return splits


def _stream(args: GenomeArguments, split: str, fasta: Fasta, length: int, seed: int, **source: Any) -> GenomeDataset:
    n_policy: dict[str, Any] = {"n_policy": "drop", "max_n": MOST_N} if split == "train" else {}
    return GenomeDataset(
        fasta, split=split, max_length=length, reverse_complement=args.both_strands, seed=seed,
        append_sep=args.append_sep, rank=0, world_size=1, **n_policy, **source,
    )  # fmt: skip


def _bed_splits(bed: str, genome: Fasta) -> set[str]:
    names = (interval.rest[0] for interval in read_bed(bed, genome) if interval.rest)
    return {SPLITS[name] for name in names if name in SPLITS} or {"train"}


def _find_region(region: str, genomes: list[Fasta]) -> tuple[int, Interval]:
    matches = []
    for number, genome in enumerate(genomes):
        try:
            matches.append((number, parse_region(region, genome)))
        except InputError as error:
            reason = str(error)
    if len(matches) != 1:
        problem = f"{len(matches)} of the genomes have it; define the splits with --bed" if matches else reason
        raise InputError(f"--validation and --test {region}: {problem}")
    return matches[0]
