"""`hyenadna track`: the log-likelihood of every base of a genome, or of regions, for genome browsers."""

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
import torch
from rich.console import Console
from rich.progress import Progress
from transformers import PreTrainedTokenizerBase

from ..arguments import CommandParser
from ..data.fasta import Fasta
from ..data.intervals import parse_region, read_bed
from ..errors import InputError
from .command import ScoringArguments, load_language_model, output_path, processes, replace_file
from .likelihood import MAX_TOKENS, STRANDS, BaseLikelihood, mean_of_strands, tile_log_likelihoods
from .tiling import tiles

BEDGRAPH = (".bedgraph", ".bg")
BIGWIG = (".bw", ".bigwig")


@dataclass(kw_only=True)
class TrackArguments(ScoringArguments):
    out: str = field(metadata={"help": f"What to write, by its ending: {', '.join((*BEDGRAPH, *BIGWIG))}."})
    region: str | None = field(default=None, metadata={"help": "chr:start-end, counted from 1 (default: all)."})
    bed: str | None = field(default=None, metadata={"help": "Regions as a BED file, in place of --region."})
    window: int | None = field(
        default=None, metadata={"help": "Bases that the model reads at once (default: as many as it takes)."}
    )
    stride: int | None = field(
        default=None, metadata={"help": "Bases from a window to the next (default: half a window)."}
    )
    strands: str = field(default="both", metadata={"help": "both: the mean of both strands; or forward."})


def parser():
    """The arguments of `hyenadna track`."""
    return CommandParser(
        "track",
        TrackArguments,
        "Write the log-likelihood of each base, in nats, as bedGraph or bigWig.",
        "--fasta REFERENCE.fa --model MODEL --out OUT.bw [--region CHR:START-END] [ARGUMENT ...]",
        ["--fasta ref.fa --model my-lm --region chr20:1-50,000 --window 1024 --stride 512 --out track.bw"],
    )


def main(argv):
    """Run `hyenadna track` with the arguments `argv` (a list of `str`)."""
    args, _ = parser().parse(argv)
    if processes(args.use_cpu).num_processes > 1:
        raise InputError("hyenadna track runs in one process; divide the work by --region or --bed.")
    out = output_path("--out", args.out, (*BEDGRAPH, *BIGWIG))
    with Fasta(args.fasta) as fasta:
        regions = _regions(args, fasta)
        model, tokenizer = load_language_model(args)
        pieces = likelihood_track(
            model, tokenizer, fasta, regions, args.window, args.stride, args.strands, args.bos, args.max_tokens
        )
        console = Console(stderr=True)
        total = sum(end - start for _, start, end in regions)
        write = write_bedgraph if out.suffix in BEDGRAPH else write_bigwig
        replace_file(out, lambda path: write(path, _with_progress(pieces, total, console), fasta.lengths))
    print(f"{out}: {total:,} bases in {len(regions):,} regions")
    return {"out": out, "bases": total, "regions": len(regions)}


def likelihood_track(
    model: torch.nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    fasta: Fasta,
    regions: Iterable[tuple[str, int, int]],
    window: int | None = None,
    stride: int | None = None,
    strands: str = "both",
    bos: bool = False,
    max_tokens: int = MAX_TOKENS,
):
    """
    Log-likelihood of every base of regions of a genome, in memory that depends neither on their number nor their size.

    A region is read as overlapping windows that are stitched at the middle of the overlap; see
    [`~hyenadna_hf.inference.likelihood.sequence_log_likelihood`]. The windows begin half an overlap before it and end
    as far behind it, so that its bases are read in no less context than those in the middle of a genome.

    Args:
        model ([`HyenaDNAForCausalLM`], also with PEFT adapters): The language model.
        tokenizer ([`HyenaDNATokenizer`]): Its tokenizer.
        fasta ([`~hyenadna_hf.data.fasta.Fasta`]): The genome.
        regions (iterable of `tuple`): Contig, start and end, from 0, half-open.
        window, stride (`int`, *optional*): In bases; by default as many as the model takes, and half of that.
        strands (`str`, defaults to `"both"`): `"both"`: the mean of both strands; or `"forward"`.
        bos (`bool`, defaults to `False`): Put [BOS] before each window.
        max_tokens (`int`, defaults to 16384): Tokens in a batch, padding included.

    Returns:
        iterator of `tuple`: contig, start, and `np.ndarray` of shape `(length,)` with the log-probability of each base
        from there on, in nats, float32, NaN where it is not scored; in order and without gaps within a region.

    Raises:
        InputError: at once if an argument will not do.
    """
    likelihood = BaseLikelihood(model, tokenizer, bos, max_tokens)
    window, stride = likelihood.tile_size(window, stride)
    if strands not in STRANDS:
        raise InputError(f"strands={strands!r}: it must be one of {', '.join(STRANDS)}.")
    pieces = (piece for region in regions for piece in _pieces(fasta, *region, window, stride))
    scored = tile_log_likelihoods(likelihood, pieces, strands)
    return ((contig, start, mean_of_strands(values)) for (contig, start), _, values in scored)


def _pieces(fasta, contig, start, end, window, stride):
    """What is read for a region, where its kept part begins, and the slice of it that is kept."""
    flank = (window - stride) // 2
    first, last = max(0, start - flank), min(fasta.lengths[contig], end + flank)
    for tile in tiles(last - first, window, stride):
        keep_start, keep_end = max(tile.keep_start, start - first), min(tile.keep_end, end - first)
        if keep_start < keep_end:
            text = fasta.fetch(contig, first + tile.start, first + tile.end)
            yield (contig, first + keep_start), text, slice(keep_start - tile.start, keep_end - tile.start)


def write_bedgraph(path, pieces, lengths):
    """
    Write a track as bedGraph: contig, start and end from 0, half-open, and the value; bases without value are left out.

    Args:
        path (`Path`): The file to write.
        pieces (iterable of `tuple`): As from [`likelihood_track`].
        lengths (`dict[str, int]`): Of the contigs; not used here.
    """
    with path.open("w", encoding="utf-8") as file:
        for contig, start, values in pieces:
            for position in np.flatnonzero(~np.isnan(values)):
                at = start + position
                file.write(f"{contig}\t{at}\t{at + 1}\t{values[position]:.4f}\n")


def write_bigwig(path, pieces, lengths):
    """
    Write a track as bigWig; bases without value are left out.

    Args:
        path (`Path`): The file to write.
        pieces (iterable of `tuple`): As from [`likelihood_track`], in the order of `lengths`.
        lengths (`dict[str, int]`): Of the contigs of the genome.
    """
    import pyBigWig

    with pyBigWig.open(str(path), "w") as file:
        file.addHeader(list(lengths.items()))
        for contig, start, values in pieces:
            scored = np.flatnonzero(~np.isnan(values))
            for run in np.split(scored, np.flatnonzero(np.diff(scored) > 1) + 1):
                if len(run):
                    file.addEntries(contig, int(start + run[0]), values=values[run].astype(np.float64), span=1, step=1)


def _regions(args, fasta):
    """What is asked for, as `(contig, start, end)`: in the order of the genome, each base once."""
    if args.region is not None and args.bed is not None:
        raise InputError(f"--region {args.region} and --bed {args.bed}: give one of them.")
    if args.region is not None:
        return [parse_region(args.region, fasta)[:3]]
    if args.bed is None:
        return [(contig, 0, length) for contig, length in fasta.lengths.items()]
    order = {contig: number for number, contig in enumerate(fasta.lengths)}
    merged = []
    intervals = sorted(read_bed(args.bed, fasta), key=lambda interval: (order[interval.name], interval))
    for contig, start, end, *_ in intervals:
        if merged and merged[-1][0] == contig and start <= merged[-1][2]:
            merged[-1] = (contig, merged[-1][1], max(end, merged[-1][2]))
        else:
            merged.append((contig, start, end))
    return merged


def _with_progress(pieces, total, console):
    with Progress(console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task("Scoring bases", total=total)
        for piece in pieces:
            yield piece
            bar.advance(task, len(piece[2]))
