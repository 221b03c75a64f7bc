"""`hyenadna embed`: embeddings of the sequences of a FASTA file, or of intervals of it."""

import hashlib
import json
import os
import shutil
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from transformers import AutoModel

from .. import __version__
from ..arguments import CommandParser
from ..data.fasta import Fasta
from ..data.intervals import read_bed
from ..data.sequence import reverse_complement
from ..errors import InputError
from ..pretrained import BUNDLED_CHECKPOINTS
from .batching import chunks_of
from .command import processes
from .embed import POOLINGS, check_arguments, embed
from .embedding_files import WRITERS, check_output
from .loading import DTYPES, fingerprint, load_trained

# A part is what is kept on disk at once, and what a kill can cost: so many bases, or so many numbers of output (64 MB).
PART_BASES = 1 << 20
PART_NUMBERS = 1 << 24

RUN_FILE = "run.json"

# How rich prints a line with paths in it.
PLAIN = {"soft_wrap": True, "markup": False, "highlight": False}


@dataclass
class EmbedArguments:
    out: str = field(
        metadata={
            "help": "File to write: .parquet, a row a sequence; .npy, an array (sequences, d_model), and beside it a "
            ".tsv with its rows; or .h5ad, for which anndata is needed."
        }
    )
    model: str = field(
        metadata={
            "help": f"A checkpoint that ships with the package ({', '.join(BUNDLED_CHECKPOINTS)}), folder, or Hub id."
        }
    )
    bed: str | None = field(
        default=None,
        metadata={"help": "Embed these intervals (BED, also .gz; those on strand - as their reverse complement)."},
    )
    pooling: str = field(
        default="mean", metadata={"help": f"Over the bases of a sequence: {', '.join(POOLINGS)} (every base)."}
    )
    layer: int = field(
        default=-1,
        metadata={
            "help": "Hidden state: 0 token embeddings, i output of block i, -1 the last one after the final norm."
        },
    )
    reverse_complement: bool = field(default=False, metadata={"help": "Mean of both strands."})
    window: int | None = field(
        default=None,
        metadata={"help": "Read longer sequences as overlapping tiles of this many bases (default: never)."},
    )
    stride: int | None = field(
        default=None, metadata={"help": "From a tile to the next, in bases (default: half of --window)."}
    )
    max_tokens: int = field(default=16_384, metadata={"help": "Tokens in a batch, padding included."})
    dtype: str = field(default="float32", metadata={"help": f"Of the weights: {', '.join(DTYPES)}. Output is float32."})
    tokenizer: str | None = field(
        default=None, metadata={"help": "Folder or Hub id of the tokenizer (default: --model)."}
    )
    trust_remote_code: bool = field(default=False, metadata={"help": "Allow code that comes with --model to run."})
    use_cpu: bool = field(default=False, metadata={"help": "Do not use an accelerator, although there is one."})


class Region(NamedTuple):
    """A sequence to embed: `[start, end)` from 0 of a contig; `strand` is `+`, `-`, or `.` where BED does not say."""

    name: str
    contig: str
    start: int
    end: int
    strand: str

    @property
    def length(self):
        """Number of bases."""
        return self.end - self.start

    def read(self, genome):
        """Its bases, a `str`; on strand `-` the reverse complement."""
        sequence = genome.fetch(self.contig, self.start, self.end)
        return reverse_complement(sequence) if self.strand == "-" else sequence


def parser():
    """The arguments of `hyenadna embed`."""
    parser = CommandParser(
        "embed",
        EmbedArguments,
        "Embed every sequence of a FASTA file, or intervals of it. A run that was stopped goes on where it was when it "
        "is started again. Several devices: torchrun --nproc_per_node N -m hyenadna_hf embed ...",
        "FASTA [--bed BED] --model MODEL --out FILE [ARGUMENT ...]",
        [
            "genome.fa.gz --bed regions.bed --model hyenadna-tiny-1k-remag --out regions.parquet",
            "reads.fa --model my_model --pooling last --reverse_complement --out reads.npy",
            "contigs.fa --model my_model --window 1000 --stride 500 --out contigs.parquet",
        ],
    )
    parser.add_argument("fasta", help="DNA sequences: plain, .gz (unpacked to a temporary file first) or bgzip.")
    return parser


def main(argv):
    """Run `hyenadna embed` with the arguments `argv` (a list of `str`)."""
    arguments, more = parser().parse(argv)
    return {"out": embed_fasta(more.fasta, arguments)}


def embed_fasta(fasta, arguments):
    """
    Embed the sequences of a FASTA file into a file.

    Parts are kept in the folder `OUT.partial` until all are there; when it is found, parts that belong to the same
    inputs and arguments are not computed again. `out` itself appears when it is complete. Beside the list of regions,
    no more is in memory than one part (64 MB, or one sequence if that is larger) and what [`embed`] holds.

    Args:
        fasta (`str` or `Path`): The file.
        arguments ([`EmbedArguments`]): What to do.

    Returns:
        `Path`: the file that was written.

    Raises:
        InputError: if an input or an argument will not do, before anything is written.
    """
    started = time.monotonic()
    state = processes(arguments.use_cpu)
    console = Console(stderr=True, quiet=not state.is_main_process)
    out = Path(arguments.out).expanduser()
    check_output(out, arguments.pooling)
    model, tokenizer = load_trained(
        AutoModel, arguments.model, arguments.dtype, arguments.tokenizer, arguments.trust_remote_code
    )
    options = {"pooling": arguments.pooling, "reverse_complement": arguments.reverse_complement}
    options["layer"], options["window"], options["stride"] = check_arguments(
        model.config, arguments.pooling, arguments.layer, arguments.max_tokens, arguments.window, arguments.stride
    )
    folder = out.with_name(f"{out.name}.partial")
    with Fasta(fasta) as genome:
        regions = _regions(genome, arguments.bed)
        if options["window"] is None:
            _check_lengths(arguments.bed or fasta, regions, model.config.max_seq_len)
        run = {
            "version": __version__,
            "fasta": _sha256(genome.path),
            "bed": arguments.bed and _sha256(arguments.bed),
            "model": fingerprint(model, tokenizer),
            **options,
        }
        with state.main_process_first():
            _begin(folder, run)
        parts = [
            (part, folder / f"{number:06}.npy")
            for number, part in enumerate(_divide(regions, model.config.d_model, arguments.pooling))
        ]
        there = sum(file.exists() for _, file in parts)
        if there:
            console.print(f"Going on with {folder}: {there:,} of {len(parts):,} parts are there.", **PLAIN)
        options["max_tokens"] = arguments.max_tokens
        mine = parts[state.process_index :: state.num_processes]
        _embed_parts(mine, genome, model.to(state.device), tokenizer, options, console)
    state.wait_for_everyone()
    if state.is_main_process:
        _finish(out, parts, {**run, "fasta_name": genome.path.name, "model_name": arguments.model})
        console.print(f"{len(regions):,} sequences embedded in {time.monotonic() - started:.0f} s: {out}", **PLAIN)
    return out


def _embed_parts(parts, genome, model, tokenizer, options, console):
    """Write the file of every part that has none."""
    with _progress(console, sum(region.length for part, _ in parts for region in part)) as advance:
        for part, file in parts:
            if file.exists():
                advance(sum(region.length for region in part))
                continue
            rows = []
            sequences = (region.read(genome) for region in part)
            for region, embedding in zip(part, embed(model, tokenizer, sequences, **options)):
                rows.append(embedding.reshape(-1, embedding.shape[-1]))
                advance(region.length)
            _write(file, lambda new, rows=rows: np.save(new, np.concatenate(rows)))


def _regions(genome, bed):
    """Every sequence of a [`Fasta`], or those of a BED file, as a `list` of [`Region`]."""
    if bed is None:
        return [Region(name, name, 0, length, "+") for name, length in genome.lengths.items()]
    regions = []
    for contig, start, end, rest in read_bed(bed, genome):
        name, _, strand = (*rest, "", "", "")[:3]
        name = name if name not in ("", ".") else f"{contig}:{start + 1}-{end}"
        if strand not in ("+", "-", ".", ""):
            raise InputError(f"{bed}: the strand of {name} is {strand!r}; it is one of +, - and .")
        regions.append(Region(name, contig, start, end, strand or "."))
    if not regions:
        raise InputError(f"{bed}: there is no interval in it.")
    return regions


def _check_lengths(source, regions, longest):
    too_long = [region for region in regions if region.length > longest]
    if too_long:
        raise InputError(
            f"{source}: {too_long[0].name} has {too_long[0].length:,} bases ({len(too_long):,} of {len(regions):,} "
            f"sequences have too many), but the model's max_seq_len is {longest:,}; read them in tiles with --window, "
            "or embed intervals with --bed."
        )


def _divide(regions, width, pooling):
    """Lists of consecutive regions, a part each."""

    def share(region):
        numbers = width * (region.length if pooling == "none" else 1)
        return max(region.length / PART_BASES, numbers / PART_NUMBERS)

    return chunks_of(regions, share, 1)


def _sha256(file):
    with open(file, "rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def _begin(folder, run):
    """Make the folder of a run, or go on with the one that is there if it is the same."""
    file = folder / RUN_FILE
    if file.exists():
        before = json.loads(file.read_text(encoding="utf-8"))
        other = [name for name in run if before.get(name) != run[name]]
        if other:
            raise InputError(
                f"{folder}: here are parts of a run with another {', '.join(other)}; delete the folder to begin anew, "
                "or give another --out."
            )
    elif folder.exists() and any(folder.iterdir()):
        raise InputError(
            f"{folder}: this is where parts go, but there is something else; move it, or name another --out."
        )
    else:
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"{folder}: this folder for parts cannot be made ({error.strerror}).") from error
        _write(file, lambda new: new.write(json.dumps(run, indent=2).encode()))


def _write(file, write):
    """Let the function `write` fill a file, which appears when it is complete."""
    unfinished = file.with_suffix(".unfinished")
    with open(unfinished, "wb") as new:
        write(new)
    os.replace(unfinished, file)


def _finish(out, parts, about):
    """Make the output of the parts, and remove them."""
    folder = parts[0][1].parent
    finished = folder / "finished"
    shutil.rmtree(finished, ignore_errors=True)
    finished.mkdir()
    WRITERS[out.suffix](finished / out.name, parts, about)
    for file in sorted(finished.iterdir(), key=lambda file: file.name == out.name):  # that one last
        os.replace(file, out.with_name(file.name))
    shutil.rmtree(folder)


@contextmanager
def _progress(console, total):
    """A bar on a terminal, nothing elsewhere; gives the function that moves it on by a number of bases."""
    columns = (TextColumn("bases"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        task = progress.add_task("", total=total)
        yield lambda bases: progress.advance(task, bases)
