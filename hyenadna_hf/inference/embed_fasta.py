"""`hyenadna embed`: embed the sequences of a FASTA file, or intervals of it."""

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from rich.console import Console
from transformers import AutoModel

from .. import __version__
from ..arguments import CommandParser
from ..data.fasta import Fasta
from ..data.intervals import read_bed
from ..data.sequence import reverse_complement
from ..data.source import BED, FASTA, regular_file
from ..errors import InputError
from ..jobs import Job, output_path, save_array, sha256
from ..loading import InferenceArguments, fingerprint, load_trained
from ..processes import processes
from .batching import chunks_of
from .embed import POOLINGS, check_arguments, embed
from .embedding_files import WRITERS, check_output, write
from .likelihood import check_strands

# Size of a part, the work that a kill can lose: bases, or output numbers (64 MB).
PART_BASES = 1 << 20
PART_NUMBERS = 1 << 24

# Options of rich for printing a line with paths.
PLAIN = {"soft_wrap": True, "markup": False, "highlight": False}


@dataclass(kw_only=True)
class EmbedArguments(InferenceArguments):
    fasta: str = field(
        metadata={"help": "DNA sequences: FASTA, plain, bgzip or gzip; - for standard input.", "positional": True}
    )
    out: str = field(
        metadata={
            "help": "File to write: .parquet, one row per sequence; .npy, an array (sequences, d_model), with a "
            ".tsv of its rows beside it; or .h5ad, which needs anndata."
        }
    )
    bed: str | None = field(
        default=None,
        metadata={"help": "Embed these intervals (BED, also .gz; on strand - the reverse complement)."},
    )
    pooling: str = field(
        default="mean", metadata={"help": f"Pooling over the bases of a sequence: {', '.join(POOLINGS)} (every base)."}
    )
    layer: int = field(
        default=-1,
        metadata={"help": "Hidden state: 0 token embeddings, i output of block i, -1 last block after the final norm."},
    )
    strands: str = field(
        default="forward",
        metadata={
            "help": "both: the mean of both strands; or forward.",
            "formerly": ["reverse_complement"],
            "nargs": "?",
            "const": "both",
        },
    )
    window: int | None = field(
        default=None,
        metadata={"help": "Read longer sequences as overlapping tiles of this many bases (default: never)."},
    )
    stride: int | None = field(
        default=None, metadata={"help": "Bases from one tile to the next (default: half of --window)."}
    )
    max_tokens: int = field(default=16_384, metadata={"help": "Tokens in a batch, padding included."})


class Region(NamedTuple):
    """
    A sequence to embed: `[start, end)` of `chrom`, 0-based. `strand` is `+`, `-`, or `.` if the BED file has none.
    """

    name: str
    chrom: str
    start: int
    end: int
    strand: str

    @property
    def length(self) -> int:
        """Number of bases."""
        return self.end - self.start

    def read(self, genome: Fasta) -> str:
        """Read the sequence; on strand `-`, its reverse complement."""
        sequence = genome.fetch(self.chrom, self.start, self.end)
        return reverse_complement(sequence) if self.strand == "-" else sequence


def parser() -> CommandParser:
    """Build the argument parser of `hyenadna embed`."""
    return CommandParser(
        "embed",
        EmbedArguments,
        "Embed every sequence of a FASTA file, or intervals of it. The same command resumes an interrupted run. "
        "For several devices: torchrun --nproc_per_node N -m hyenadna_hf embed ...",
        "--fasta FASTA [--bed BED] --model MODEL --out FILE [ARGUMENT ...]",
        [
            "--fasta genome.fa.gz --bed regions.bed --model hyenadna-tiny-1k-remag --out regions.parquet",
            "--fasta reads.fa --model my_model --pooling last --strands both --out reads.npy",
            "--fasta contigs.fa --model my_model --window 1000 --stride 500 --out contigs.parquet",
        ],
    )


def main(argv: list[str]) -> dict[str, Any]:
    """Run `hyenadna embed` with the arguments `argv`."""
    arguments, _ = parser().parse(argv)
    return {"out": embed_fasta(arguments)}


def embed_fasta(arguments: EmbedArguments) -> Path:
    """
    Embed the sequences of a FASTA file into a file.

    The work is a [`~hyenadna_hf.jobs.Job`]: parts are kept until all are finished, and `out` appears once it is
    complete and checked. In addition to the names and lengths of the sequences (about 0.4 kB each) and the intervals
    (0.1 kB each), memory holds one part (64 MB, or one sequence if that is larger) and the working memory of [`embed`].

    Args:
        arguments: Command-line arguments.

    Returns:
        The written file.

    Raises:
        InputError: If an input or an argument is invalid, before anything is written.
        OSError: If the file cannot be written.
    """
    started = time.monotonic()
    state = processes(arguments.use_cpu)
    console = Console(stderr=True, quiet=not state.is_main_process)
    out = output_path("--out", arguments.out, tuple(WRITERS))
    check_output(out, arguments.pooling)
    check_strands(arguments.strands)
    model, tokenizer = load_trained(
        AutoModel, arguments.model, arguments.dtype, arguments.tokenizer, arguments.trust_remote_code
    )
    options: dict[str, Any] = {"pooling": arguments.pooling, "reverse_complement": arguments.strands == "both"}
    options["layer"], options["window"], options["stride"] = check_arguments(
        model.config, arguments.pooling, arguments.layer, arguments.max_tokens, arguments.window, arguments.stride
    )
    with Fasta(arguments.fasta) as genome:
        regions = list_regions(genome, arguments.bed)
        if options["window"] is None:
            _check_lengths(arguments.bed or arguments.fasta, regions, model.config.max_seq_len)
        metadata = {
            "fasta": sha256(regular_file(arguments.fasta, FASTA, unpack=False)),
            "bed": arguments.bed and sha256(regular_file(arguments.bed, BED, unpack=False)),
            "model": fingerprint(model, tokenizer),
            **options,
        }
        with Job(out, metadata, state) as job:
            parts = list(_divide(regions, model.config.d_model, arguments.pooling))
            finished = sum(job.part(number).exists() for number in range(len(parts)))
            if finished:
                console.print(f"Resuming {job.folder}: {finished:,} of {len(parts):,} parts are finished.", **PLAIN)
            options["max_tokens"] = arguments.max_tokens
            model.to(state.device)

            def make(part: list[Region], path: Path, advance: Callable[[int], None]) -> None:
                embeddings = embed(model, tokenizer, (region.read(genome) for region in part), **options)
                _write_part(path, part, embeddings, advance)

            job.run(parts, _count_bases, make, "bases", _count_bases(regions))
            metadata |= {
                "version": __version__,
                "fasta_name": Path(arguments.fasta).name,
                "model_name": arguments.model,
            }
            files = [(part, job.part(number)) for number, part in enumerate(parts)]
            job.finish(lambda path: write(path, files, metadata))
    if state.is_main_process:
        console.print(f"{len(regions):,} sequences embedded in {time.monotonic() - started:.0f} s: {out}", **PLAIN)
    return out


def _count_bases(regions: Iterable[Region]) -> int:
    return sum(region.length for region in regions)


def _write_part(
    path: Path, part: list[Region], embeddings: Iterable[np.ndarray], advance: Callable[[int], None]
) -> None:
    rows = []
    for region, embedding in zip(part, embeddings, strict=True):
        rows.append(embedding.reshape(-1, embedding.shape[-1]))
        advance(region.length)
    save_array(path, np.concatenate(rows))


def list_regions(genome: Fasta, bed: str | None) -> list[Region]:
    """
    List every sequence of a genome, or the intervals of a BED file.

    Args:
        genome: Genome.
        bed: BED file, or `None` for whole sequences.

    Raises:
        InputError: If the BED file is invalid or empty.
    """
    if bed is None:
        return [Region(name, name, 0, length, "+") for name, length in genome.lengths.items()]
    regions = []
    for contig, start, end, rest in read_bed(bed, genome):
        name, _, strand = (*rest, "", "", "")[:3]
        name = name if name not in ("", ".") else f"{contig}:{start + 1}-{end}"
        if strand not in ("+", "-", ".", ""):
            raise InputError(f"{bed}: the strand of {name} is {strand!r}; it must be +, - or .")
        regions.append(Region(name, contig, start, end, strand or "."))
    if not regions:
        raise InputError(f"{bed}: the file contains no interval.")
    return regions


def _check_lengths(source: str, regions: list[Region], longest: int) -> None:
    too_long = [region for region in regions if region.length > longest]
    if too_long:
        raise InputError(
            f"{source}: {too_long[0].name} has {too_long[0].length:,} bases ({len(too_long):,} of {len(regions):,} "
            f"sequences are too long), but the model's max_seq_len is {longest:,}; set --window to read them in tiles, "
            "or embed intervals with --bed."
        )


def _divide(regions: list[Region], width: int, pooling: str) -> Iterator[list[Region]]:
    """Divide regions into the parts of the job."""

    def share(region: Region) -> float:
        numbers = width * (region.length if pooling == "none" else 1)
        return max(region.length / PART_BASES, numbers / PART_NUMBERS)

    return chunks_of(regions, share, 1)
