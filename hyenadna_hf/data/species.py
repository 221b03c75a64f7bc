"""Which species does a window come from: a folder with the genome of each."""

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

    An epoch has as many windows of each species as the smallest genome has; of the others it has other ones in each
    epoch. Everything else is as in [`GenomeDataset`].

    Args:
        genomes: The windows of each species.
        shuffle: Whether their order is random.
        seed: As those of `WindowStream`.
        rank: As those of `WindowStream`.
        world_size: As those of `WindowStream`.

    Attributes:
        features: `input_ids` and `label`, a `ClassLabel` numbered by the names of the species in alphabetical order.

    Yields:
        `dict` with `input_ids`, a `torch.LongTensor` of shape `(length,)`, and `label` (`int`).
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

    def size(self):
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
            raise TypeError("how many windows are left out is known only when they have been read")
        return super().__len__()

    def example(self, index: int):
        number, label = divmod(index, len(self._genomes))
        genome = self._genomes[label]
        turned = mix(self.seed, self.epoch, label) if self.shuffle else 0
        example = genome.example((number + turned) % genome.size())
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
    Streams for telling species apart (the task of the HyenaDNA paper on human, lemur, mouse, pig and hippo).

    Whole sequences are held out: of each genome, by a choice that follows from `seed` and their names, as many as are
    needed for the fractions. A genome of fewer than three sequences is cut instead: its first part is train, then comes
    validation, the end is test.

    Args:
        folder: With one FASTA file a species (`human.fa.gz`, ...), or one folder of FASTA files each.
        max_length: Bases in a window, up to 1,000,000 and more.
        held_out: Regions by species and split,
            `{"human": {"validation": ["chr19"], "test": ["chr20", "chr21:1-5000000"]}}`; train is every sequence
            without one of them. Species that are not named are split by the rule above.
        validation_fraction: Share of the bases of each genome.
        test_fraction: Share of the bases of each genome.
        seed: Of the split and of the streams.
        kwargs: `reverse_complement`, `shift`, `n_policy`, `max_n`, `append_sep`, `rank` and `world_size` of
            [`GenomeDataset`].

    Returns:
        `dict[str, SpeciesDataset]` with `train`, `validation` and `test`.

    Raises:
        InputError: If there are fewer than two species, or a file or region will not do.
    """
    folder = Path(folder).expanduser()
    for name, fraction in (("validation_fraction", validation_fraction), ("test_fraction", test_fraction)):
        if not 0 < fraction < 0.5:
            raise InputError(f"{name}={fraction}: give a share of the bases between 0 and 0.5.")
    genomes = {fasta_stem(file): Fasta(file) for file in fasta_files(folder)}
    genomes |= {entry.name: FastaFolder(entry) for entry in sorted(folder.iterdir()) if entry.is_dir()}
    if len(genomes) < 2:
        raise InputError(f"{folder}: telling species apart needs the genomes of two or more; here is {len(genomes)}.")
    held_out = held_out or {}
    unknown = [name for name in held_out if name not in genomes]
    if unknown:
        raise InputError(f"held_out: there is no species {unknown[0]!r} in {folder}; there are {', '.join(genomes)}.")
    regions = {
        name: _chosen(name, genome, held_out[name])
        if name in held_out
        else _by_rule(genome, validation_fraction, test_fraction, seed)
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


def _chosen(name: str, genome, held_out):
    """Regions by split: those that the user named, and for train the sequences that none of them touches."""
    regions = {split: [parse_region(region, genome) for region in held_out.get(split, [])] for split in SPLITS[1:]}
    for split in SPLITS[1:]:
        if not regions[split]:
            raise InputError(f"held_out[{name!r}]: give regions for {split}.")
    touched = {region.name for split in SPLITS[1:] for region in regions[split]}
    regions["train"] = [whole for whole in _wholes(genome) if whole.name not in touched]
    if not regions["train"]:
        raise InputError(f"held_out[{name!r}]: no sequence is left for train.")
    return regions


def _by_rule(genome, validation_fraction: float, test_fraction: float, seed: int):
    """Regions by split: whole sequences where there are three or more, else pieces of each."""
    wholes = _wholes(genome)
    if len(wholes) < 3:
        return _cut(wholes, validation_fraction, test_fraction)
    total = sum(genome.lengths.values())
    left = sorted(wholes, key=lambda whole: mix(seed, crc32(whole.name.encode())))
    regions = {"train": left}
    for split, fraction in (("validation", validation_fraction), ("test", test_fraction)):
        regions[split] = [left.pop()]
        while len(left) > 2 and sum(region.end for region in regions[split]) < fraction * total:
            regions[split].append(left.pop())
    return regions


def _cut(wholes, validation_fraction: float, test_fraction: float):
    regions = {split: [] for split in SPLITS}
    for name, _, length, _ in wholes:
        first, second = round(length * (1 - validation_fraction - test_fraction)), round(length * (1 - test_fraction))
        if not 0 < first < second < length:
            raise InputError(f"the sequence {name} of {length:,} bases is too short to be split.")
        for split, start, end in zip(SPLITS, (0, first, second), (first, second, length)):
            regions[split].append(Interval(name, start, end))
    return regions


def _wholes(genome):
    return [Interval(name, 0, length) for name, length in genome.lengths.items()]
