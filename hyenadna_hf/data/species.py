"""Windows labelled with their species, from a folder with the genome of each."""

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any
from zlib import crc32

from datasets import ClassLabel, Features, Sequence, Value

from ..errors import InputError
from .fasta import Fasta, FastaFolder, fasta_files, fasta_stem
from .genome import GenomeDataset
from .intervals import Interval, parse_region
from .streams import WindowStream, mix

SPLITS = ("train", "validation", "test")


class SpeciesDataset(WindowStream):
    """
    A stream of windows of several genomes, in equal numbers, labelled with their species.

    An epoch has as many windows of each species as the smallest genome provides; for the others, the choice changes
    from epoch to epoch. See [`GenomeDataset`] for the windows.

    Args:
        genomes: Windows of each species.
        shuffle: Shuffle the windows.
        seed: See [`WindowStream`].
        rank: See [`WindowStream`].
        world_size: See [`WindowStream`].

    Attributes:
        features: The `datasets.Features` of `input_ids` and `label`, a `ClassLabel` numbered by the names of the
            species in alphabetical order.

    Yields:
        A `dict` with `input_ids`, shape `(length,)`, and `label` (`int`).
    """

    def __init__(
        self,
        genomes: dict[str, GenomeDataset],
        shuffle: bool = True,
        seed: int = 0,
        rank: int | None = None,
        world_size: int | None = None,
    ) -> None:
        super().__init__(shuffle, seed, rank, world_size)
        self.names = sorted(genomes)
        self._genomes = [genomes[name] for name in self.names]
        self.features = Features({"input_ids": Sequence(Value("int64")), "label": ClassLabel(names=self.names)})

    def size(self) -> int:
        return len(self._genomes) * min(genome.size() for genome in self._genomes)

    def set_epoch(self, epoch: int) -> None:
        super().set_epoch(epoch)
        for genome in self._genomes:
            genome.set_epoch(epoch)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        for genome in self._genomes:
            genome.set_epoch(self.epoch)

    def __len__(self) -> int:
        if any(genome.n_policy == "drop" for genome in self._genomes):
            raise TypeError("the number of windows is unknown with n_policy='drop'")
        return super().__len__()

    def example(self, index: int) -> dict[str, Any] | None:
        number, label = divmod(index, len(self._genomes))
        genome = self._genomes[label]
        offset = mix(self.seed, self.epoch, label) if self.shuffle else 0
        example = genome.example((number + offset) % genome.size())
        return None if example is None else {"input_ids": example["input_ids"], "label": label}


def load_species(
    folder: str | Path,
    max_length: int = 1024,
    held_out: Mapping[str, Mapping[str, Collection[str]]] | None = None,
    validation_fraction: float = 0.1,
    test_fraction: float = 0.1,
    seed: int = 0,
    **kwargs: Any,
) -> dict[str, SpeciesDataset]:
    """
    Build streams for species classification (the task of the HyenaDNA paper on human, lemur, mouse, pig and hippo).

    Whole sequences of each genome are held out, enough for the given fractions, chosen by `seed` and their names. A
    genome with fewer than three sequences is split by position instead: train first, then validation, then test.

    Args:
        folder: Folder with one FASTA file per species (`human.fa.gz`, ...), or one folder of FASTA files each.
        max_length: Length of a window, in bases, up to 1,000,000 and more.
        held_out: Regions by species and split, such as `{"human": {"validation": ["chr19"], "test": ["chr20",
            "chr21:1-5000000"]}}`. Train is every sequence without such a region. Other species are split as above.
        validation_fraction: Fraction of the bases of each genome for validation.
        test_fraction: Fraction of the bases of each genome for test.
        seed: Random seed of the split and of the streams.
        kwargs: `reverse_complement`, `shift`, `n_policy`, `max_n`, `append_sep`, `rank` and `world_size` of
            [`GenomeDataset`].

    Returns:
        Streams by split: `train`, `validation` and `test`.

    Raises:
        InputError: If there are fewer than two species, or a file or region is invalid.
    """
    folder = Path(folder).expanduser()
    for name, fraction in (("validation_fraction", validation_fraction), ("test_fraction", test_fraction)):
        if not 0 < fraction < 0.5:
            raise InputError(f"{name}={fraction}: give a fraction of the bases between 0 and 0.5.")
    genomes: dict[str, Fasta] = {str(fasta_stem(file)): Fasta(file) for file in fasta_files(folder)}
    genomes |= {entry.name: FastaFolder(entry) for entry in sorted(folder.iterdir()) if entry.is_dir()}
    if len(genomes) < 2:
        raise InputError(
            f"{folder}: species classification needs at least two genomes; this folder contains {len(genomes)}."
        )
    held_out = held_out or {}
    unknown = [name for name in held_out if name not in genomes]
    if unknown:
        raise InputError(f"held_out: unknown species {unknown[0]!r}; {folder} contains {', '.join(genomes)}.")
    regions = {
        name: _choose_regions(name, genome, held_out[name])
        if name in held_out
        else _hold_out_sequences(genome, validation_fraction, test_fraction, seed)
        for name, genome in genomes.items()
    }
    share = {name: kwargs.pop(name, None) for name in ("rank", "world_size")}
    return {
        split: SpeciesDataset(
            {
                name: GenomeDataset(
                    genome, split=split, max_length=max_length, regions=regions[name][split], seed=seed, **kwargs
                )
                for name, genome in genomes.items()
            },
            split == "train",
            seed,
            **share,
        )
        for split in SPLITS
    }


def _choose_regions(name: str, genome: Fasta, held_out: Mapping[str, Collection[str]]) -> dict[str, list[Interval]]:
    """Return regions by split: those chosen by the user, and for train the sequences that none of them touches."""
    regions = {split: [parse_region(region, genome) for region in held_out.get(split, [])] for split in SPLITS[1:]}
    for split in SPLITS[1:]:
        if not regions[split]:
            raise InputError(f"held_out[{name!r}]: give regions for {split}.")
    touched = {region.name for split in SPLITS[1:] for region in regions[split]}
    regions["train"] = [sequence for sequence in _whole_sequences(genome) if sequence.name not in touched]
    if not regions["train"]:
        raise InputError(f"held_out[{name!r}]: no sequence is left for train.")
    return regions


def _hold_out_sequences(
    genome: Fasta, validation_fraction: float, test_fraction: float, seed: int
) -> dict[str, list[Interval]]:
    """Return regions by split: whole sequences if there are at least three, otherwise pieces of each."""
    sequences = _whole_sequences(genome)
    if len(sequences) < 3:
        return _split_by_position(sequences, validation_fraction, test_fraction)
    total = sum(genome.lengths.values())
    remaining = sorted(sequences, key=lambda sequence: mix(seed, crc32(sequence.name.encode())))
    regions = {"train": remaining}
    for split, fraction in (("validation", validation_fraction), ("test", test_fraction)):
        regions[split] = [remaining.pop()]
        while len(remaining) > 2 and sum(region.end for region in regions[split]) < fraction * total:
            regions[split].append(remaining.pop())
    return regions


def _split_by_position(
    sequences: list[Interval], validation_fraction: float, test_fraction: float
) -> dict[str, list[Interval]]:
    regions: dict[str, list[Interval]] = {split: [] for split in SPLITS}
    for name, _, length, _ in sequences:
        first, second = round(length * (1 - validation_fraction - test_fraction)), round(length * (1 - test_fraction))
        if not 0 < first < second < length:
            raise InputError(f"the sequence {name} of {length:,} bases is too short to split; remove this genome.")
        for split, start, end in zip(SPLITS, (0, first, second), (first, second, length)):
            regions[split].append(Interval(name, start, end))
    return regions


def _whole_sequences(genome: Fasta) -> list[Interval]:
    return [Interval(name, 0, length) for name, length in genome.lengths.items()]
