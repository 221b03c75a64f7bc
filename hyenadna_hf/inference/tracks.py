"""`hyenadna track`: write the log-likelihood of every base of a genome, or of regions, for genome browsers."""

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from transformers import PreTrainedTokenizerBase

from ..arguments import CommandParser
from ..data.fasta import Fasta
from ..data.intervals import parse_region, read_bed
from ..errors import InputError, WorkError
from ..jobs import Job, output_path, save_array
from ..loading import load_language_model
from ..processes import processes
from .batching import chunks_of
from .likelihood import MAX_TOKENS, BaseLikelihood, check_strands, mean_of_strands, tile_log_likelihoods
from .scoring import ScoringArguments, identity_of
from .tiling import tiles

BEDGRAPH = (".bedgraph", ".bg")
BIGWIG = (".bw", ".bigwig")

PART_BASES = 1 << 20  # size of a part, the work that a kill can lose


class Piece(NamedTuple):
    """A window `[start, end)` of a contig, and the part whose values are kept; 0-based."""

    contig: str
    start: int
    end: int
    keep_start: int
    keep_end: int


@dataclass(kw_only=True)
class TrackArguments(ScoringArguments):
    out: str = field(metadata={"help": f"File to write: {', '.join((*BEDGRAPH, *BIGWIG))}."})
    region: str | None = field(
        default=None, metadata={"help": "chr:start-end, counted from 1 (default: the whole genome)."}
    )
    bed: str | None = field(default=None, metadata={"help": "BED file of regions, in place of --region."})
    window: int | None = field(
        default=None, metadata={"help": "Bases that the model reads at once (default: as many as it can)."}
    )
    stride: int | None = field(
        default=None, metadata={"help": "Bases from one window to the next (default: half a window)."}
    )
    strands: str = field(default="both", metadata={"help": "both: the mean of both strands; or forward."})


def parser() -> CommandParser:
    """Build the argument parser of `hyenadna track`."""
    return CommandParser(
        "track",
        TrackArguments,
        "Write the log-likelihood of each base, in nats, as bedGraph or bigWig. The same command resumes an "
        "interrupted run. For several devices: accelerate launch -m hyenadna_hf track ...",
        "--fasta REFERENCE.fa --model MODEL --out OUT.bw [--region CHR:START-END] [ARGUMENT ...]",
        ["--fasta ref.fa --model my-lm --region chr20:1-50,000 --window 1024 --stride 512 --out track.bw"],
    )


def main(argv: list[str]) -> dict[str, Any] | None:
    """Run `hyenadna track` with the arguments `argv`."""
    args, _ = parser().parse(argv)
    out = output_path("--out", args.out, (*BEDGRAPH, *BIGWIG))
    state = processes(args.use_cpu)
    with Fasta(args.fasta) as fasta:
        regions = _regions(args, fasta)
        model, tokenizer = load_language_model(args)
        likelihood = BaseLikelihood(model, tokenizer, args.bos, args.max_tokens)
        window, stride = likelihood.tile_size(args.window, args.stride)
        check_strands(args.strands)
        total = sum(end - start for _, start, end in regions)
        identity = {"window": window, "stride": stride, "strands": args.strands, "regions": regions}

        def parts() -> Iterator[list[Piece]]:
            return chunks_of(pieces_of(fasta, regions, window, stride), count_kept_bases, PART_BASES)

        def make(part: list[Piece], path: Path, advance: Callable[[int], None]) -> None:
            _write_part(path, _score_pieces(likelihood, fasta, part, args.strands), advance)

        def finish(path: Path) -> None:
            write = write_bedgraph if path.suffix in BEDGRAPH else write_bigwig
            write(path, _read_parts(job, parts()), fasta.lengths)

        with Job(out, identity_of(args, model, tokenizer, **identity), state) as job:
            job.run(parts(), count_bases, make, "bases", total)
            job.finish(finish)
    if not state.is_main_process:
        return None
    print(f"{out}: {total:,} bases in {len(regions):,} regions")
    return {"out": out, "bases": total, "regions": len(regions)}


def _write_part(path: Path, scored: Iterable[tuple[str, int, np.ndarray]], advance: Callable[[int], None]) -> None:
    values = []
    for *_, piece_values in scored:
        values.append(piece_values)
        advance(len(piece_values))

    save_array(path, np.concatenate(values))


def _read_parts(job: Job, parts: Iterable[list[Piece]]) -> Iterator[tuple[str, int, np.ndarray]]:
    """Yield contig, start and values of each piece from the files of the parts."""
    for number, part in enumerate(parts):
        values = np.load(job.part(number))
        if len(values) != count_bases(part):
            raise WorkError(f"{job.part(number)}: the number of bases does not match the regions; delete this part.")
        for piece, piece_values in zip(part, np.split(values, np.cumsum([*map(count_kept_bases, part)])[:-1])):
            yield piece.contig, piece.keep_start, piece_values


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
) -> Iterator[tuple[str, int, np.ndarray]]:
    """
    Compute the log-likelihood of every base of genomic regions, in memory independent of their number and size.

    A region is read as overlapping windows, stitched in the middle of the overlap (see
    [`~hyenadna_hf.inference.likelihood.sequence_log_likelihood`]). The windows start half an overlap before the region
    and end as far after it, so that its bases have as much context as those in the middle of a genome.

    Args:
        model: A HyenaDNA language model, with or without PEFT adapters.
        tokenizer: Tokenizer of the model.
        fasta: Reference genome.
        regions: Contig, start and end of each region, 0-based, half-open.
        window: Bases in a window. Defaults to the most that the model supports.
        stride: Bases from one window to the next. Defaults to half of `window`.
        strands: `"both"` for the mean of both strands, or `"forward"`.
        bos: Prepend [BOS] to each window.
        max_tokens: Tokens in a batch, padding included.

    Returns:
        An iterator of contig, start, and the log-probabilities of the bases from there on, in nats, float32, shape
        `(length,)`, NaN where a base is not scored; in order and without gaps within a region.

    Raises:
        InputError: Immediately if an argument is invalid.
    """
    likelihood = BaseLikelihood(model, tokenizer, bos, max_tokens)
    window, stride = likelihood.tile_size(window, stride)
    check_strands(strands)
    return _score_pieces(likelihood, fasta, pieces_of(fasta, regions, window, stride), strands)


def count_kept_bases(piece: Piece) -> int:
    """Return the number of bases of a piece whose values are kept."""
    return piece.keep_end - piece.keep_start


def count_bases(part: Iterable[Piece]) -> int:
    """Return the number of bases of pieces whose values are kept."""
    return sum(map(count_kept_bases, part))


def pieces_of(fasta: Fasta, regions: Iterable[tuple[str, int, int]], window: int, stride: int) -> Iterator[Piece]:
    """
    Yield the pieces of regions, in order.

    Args:
        fasta: Genome.
        regions: Contig, start and end of each region, 0-based, half-open.
        window: Bases in a window.
        stride: Bases from one window to the next.
    """
    flank = (window - stride) // 2
    for contig, start, end in regions:
        first, last = max(0, start - flank), min(fasta.lengths[contig], end + flank)
        for tile in tiles(last - first, window, stride):
            keep_start, keep_end = max(tile.keep_start + first, start), min(tile.keep_end + first, end)
            if keep_start < keep_end:
                yield Piece(contig, tile.start + first, tile.end + first, keep_start, keep_end)


def _score_pieces(
    likelihood: BaseLikelihood, fasta: Fasta, pieces: Iterable[Piece], strands: str
) -> Iterator[tuple[str, int, np.ndarray]]:
    """Yield contig, start and values of each piece."""
    texts = (
        (piece, fasta.fetch(*piece[:3]), slice(piece.keep_start - piece.start, piece.keep_end - piece.start))
        for piece in pieces
    )
    for piece, _, values in tile_log_likelihoods(likelihood, texts, strands):
        yield piece.contig, piece.keep_start, mean_of_strands(values)


def write_bedgraph(path: Path, pieces: Iterable[tuple[str, int, np.ndarray]], lengths: Mapping[str, int]) -> None:
    """
    Write a track as bedGraph: contig, start and end (0-based, half-open) and value; bases without value are skipped.

    Args:
        path: File to write.
        pieces: Result of [`likelihood_track`].
        lengths: Lengths of the contigs; ignored.
    """
    with path.open("w", encoding="utf-8") as file:
        for contig, start, values in pieces:
            for position in np.flatnonzero(~np.isnan(values)):
                first = start + position
                file.write(f"{contig}\t{first}\t{first + 1}\t{values[position]:.4f}\n")


def write_bigwig(path: Path, pieces: Iterable[tuple[str, int, np.ndarray]], lengths: Mapping[str, int]) -> None:
    """
    Write a track as bigWig; bases without value are skipped.

    Args:
        path: File to write.
        pieces: Result of [`likelihood_track`], in the order of `lengths`.
        lengths: Lengths of the contigs of the genome.
    """
    import pyBigWig

    path.touch()  # pyBigWig crashes if it cannot write
    written = hashlib.sha256()
    with pyBigWig.open(str(path), "w") as file:
        file.addHeader(list(lengths.items()))
        for contig, start, values in pieces:
            scored = np.flatnonzero(~np.isnan(values))
            for run in np.split(scored, np.flatnonzero(np.diff(scored) > 1) + 1):
                if len(run):
                    file.addEntries(contig, int(start + run[0]), values=values[run].astype(np.float64), span=1, step=1)
            _update_digest(written, contig, start + scored, values[scored])
    # It does not report a full disk either.
    if _read_back(path, lengths) != written.hexdigest():
        raise WorkError(
            f"{path.name}: the file that was read back differs from what was written; check the free disk space."
        )


def _read_back(path: Path, lengths: Mapping[str, int]) -> str | None:
    """Compute the digest of the content of a bigWig file; `None` if it cannot be read."""
    import pyBigWig

    with path.open("rb") as content:
        first = content.read(4)
        content.seek(-4, os.SEEK_END)
        if content.read() != first:  # the format has its magic number at both ends
            return None
    digest = hashlib.sha256()
    try:
        with pyBigWig.open(str(path)) as file:
            for contig, length in lengths.items():
                for start in range(0, length, PART_BASES):
                    entries = file.intervals(contig, start, min(start + PART_BASES, length)) or ()
                    starts, _, values = zip(*entries) if entries else ((), (), ())
                    _update_digest(digest, contig, np.array(starts), np.array(values))
    except RuntimeError:
        return None
    return digest.hexdigest()


def _update_digest(digest: Any, contig: str, positions: np.ndarray, values: np.ndarray) -> None:
    if len(values):
        columns: list[np.ndarray] = [
            positions.astype(np.int64),
            values.astype(np.float32).view(np.int32).astype(np.int64),
        ]
        digest.update(b"".join(contig.encode() + row.tobytes() for row in np.stack(columns, axis=1)))


def _regions(args: TrackArguments, fasta: Fasta) -> list[tuple[str, int, int]]:
    """List the requested regions as `(contig, start, end)`: in the order of the genome, each base once."""
    if args.region is not None and args.bed is not None:
        raise InputError(f"--region {args.region} and --bed {args.bed}: give only one of them.")
    if args.region is not None:
        return [parse_region(args.region, fasta)[:3]]
    if args.bed is None:
        return [(contig, 0, length) for contig, length in fasta.lengths.items()]
    return read_merged_regions(args.bed, fasta)


def read_merged_regions(bed: str, fasta: Fasta) -> list[tuple[str, int, int]]:
    """
    Read a BED file as regions.

    Args:
        bed: The file.
        fasta: Genome of the file.

    Returns:
        Contig, start and end, in the order of the genome, each base once.
    """
    order = {contig: number for number, contig in enumerate(fasta.lengths)}
    merged: list[tuple[str, int, int]] = []
    intervals = sorted(read_bed(bed, fasta), key=lambda interval: (order[interval.name], interval))
    for contig, start, end, *_ in intervals:
        if merged and merged[-1][0] == contig and start <= merged[-1][2]:
            merged[-1] = (contig, merged[-1][1], max(end, merged[-1][2]))
        else:
            merged.append((contig, start, end))
    return merged
