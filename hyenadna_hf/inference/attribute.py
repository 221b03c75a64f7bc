"""`hyenadna attribute`: contributions of the bases of a region to a prediction, as a track and a sequence logo."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from ..arguments import CommandParser
from ..data.fasta import Fasta
from ..data.intervals import parse_region, read_bed
from ..data.sequence import BASES, normalise, reverse_complement
from ..data.source import FASTA, regular_file
from ..errors import InputError, WorkError
from ..jobs import Job, output_path, replace_file, save_array, sha256
from ..loading import CHECKPOINTS, InferenceArguments, fingerprint, load_model, load_tokenizer
from ..processes import processes
from .attribution import METHODS, REFERENCES, STEPS, OneHotModel, attribute, check_arguments
from .likelihood import MAX_TOKENS, check_strands
from .mutagenesis import PICTURES
from .tracks import BEDGRAPH, BIGWIG, write_bedgraph, write_bigwig

LONGEST_LOGO = 500  # bases


@dataclass(kw_only=True)
class AttributeArguments(InferenceArguments):
    model: str = field(metadata={"help": f"A HyenaDNA classifier of sequences or language model: {CHECKPOINTS}."})
    fasta: str = field(metadata={"help": "DNA sequences: FASTA, plain, bgzip or gzip; - for standard input."})
    out: str = field(
        metadata={"help": f"File to write; its suffix sets the format: {', '.join((*BEDGRAPH, *BIGWIG))}."}
    )
    region: str | None = field(default=None, metadata={"help": "Region to attribute, as chr:start-end (1-based)."})
    bed: str | None = field(
        default=None, metadata={"help": "Regions that do not overlap, as a BED file, instead of --region."}
    )
    method: str = field(default="integrated_gradients", metadata={"help": f"One of {', '.join(METHODS)}."})
    target: str | None = field(
        default=None,
        metadata={"help": "Label of a classifier (default: the one with the highest logit, for each region)."},
    )
    strands: str = field(default="forward", metadata={"help": "both: the mean of both strands; or forward."})
    references: int = field(
        default=REFERENCES, metadata={"help": "Dinucleotide shuffles, for integrated_gradients and deep_lift."}
    )
    steps: int = field(default=STEPS, metadata={"help": "Points on the path from a reference to the sequence."})
    seed: int = field(default=0, metadata={"help": "Random seed of the shuffles."})
    max_tokens: int = field(default=MAX_TOKENS, metadata={"help": "Tokens in a batch, padding included."})
    plot: str | None = field(
        default=None, metadata={"help": f"Sequence logo of --region, by logomaker: {', '.join(PICTURES)}."}
    )


def parser() -> CommandParser:
    """Return the argument parser of `hyenadna attribute`."""
    return CommandParser(
        "attribute",
        AttributeArguments,
        "Contribution of each base of a region to a label of a classifier, or to the log-likelihood under a language "
        "model, as bedGraph or bigWig. The same command resumes a run that was stopped. Several devices: accelerate "
        "launch -m hyenadna_hf attribute ...",
        "--region CHR:START-END --fasta REFERENCE.fa --model MODEL --out OUT.bw [--plot LOGO.png] [ARGUMENT ...]",
        [
            "--region chr20:30,000,001-30,000,100 --fasta ref.fa --model my-classifier --target donor --out donor.bw",
            "--bed sites.bed --fasta ref.fa --model my-classifier --method mutagenesis --out sites.bedgraph",
        ],
    )


def main(argv: list[str]) -> dict[str, Any] | None:
    """Run `hyenadna attribute` with command-line arguments."""
    args, _ = parser().parse(argv)
    out = output_path("--out", args.out, (*BEDGRAPH, *BIGWIG))
    plot = _check_plot(args)
    check_strands(args.strands)
    if args.max_tokens < 1:
        raise InputError(f"--max_tokens {args.max_tokens}: give 1 or more.")
    state = processes(args.use_cpu)
    with Fasta(args.fasta) as fasta:
        regions = _regions(args, fasta)
        model = load_model(None, args.model, args.dtype, args.trust_remote_code)
        tokenizer = load_tokenizer(args.model, args.tokenizer, args.trust_remote_code)
        predict = OneHotModel(model.to(state.device), tokenizer)
        check_arguments(predict, args.method, args.target, args.references, args.steps)
        for contig, start, end in regions:
            if not 2 <= end - start <= predict.longest:
                raise InputError(
                    f"{args.bed or args.region}: {contig}:{start + 1}-{end} has {end - start:,} bases; this model "
                    f"reads 2 to {predict.longest:,}."
                )

        def contributions(sequence: str) -> np.ndarray:
            options = (args.method, args.target, args.references, args.steps, args.seed, args.max_tokens)
            return attribute(model, tokenizer, sequence, *options)

        def make(region: tuple[str, int, int], path: Path, advance: Callable[[int], None]) -> None:
            sequence = fasta.fetch(*region)
            values = contributions(sequence)
            if args.strands == "both":
                values = (values + contributions(reverse_complement(sequence))[::-1]) / 2
            save_array(path, values)
            advance(1)

        def pieces(job: Job) -> Iterator[tuple[str, int, np.ndarray]]:
            for number, (contig, start, end) in enumerate(regions):
                values = np.load(job.part(number))
                if len(values) != end - start:
                    raise WorkError(
                        f"{job.part(number)}: the number of bases does not match the region; delete this part."
                    )
                yield contig, start, values

        def finish(path: Path) -> tuple[str, int, np.ndarray]:
            (write_bedgraph if path.suffix in BEDGRAPH else write_bigwig)(path, pieces(job), fasta.lengths)
            return next(pieces(job))

        names = ("method", "target", "strands", "references", "steps", "seed")
        identity = {
            "model": fingerprint(model, tokenizer),
            "fasta": sha256(regular_file(args.fasta, FASTA, unpack=False)),
            "regions": regions,
            **{name: getattr(args, name) for name in names},
        }
        with Job(out, identity, state) as job:
            job.run(regions, lambda region: 1, make, "regions", len(regions))
            first = job.finish(finish)
        if first is None:
            return None
        if plot is not None:
            sequence = normalise(fasta.fetch(*regions[0]))
            replace_file(plot, lambda path: draw(path, first[2], sequence, *regions[0][:2]))
    bases = sum(end - start for _, start, end in regions)
    print(f"{out}: contributions of {bases:,} bases in {len(regions):,} regions")
    return {"out": out, "bases": bases, "regions": len(regions), "plot": plot}


def _check_plot(args: AttributeArguments) -> Path | None:
    if args.plot is None:
        return None
    plot = output_path("--plot", args.plot, PICTURES)
    if find_spec("logomaker") is None:
        raise InputError(f"--plot {plot}: the package logomaker is missing; pip install 'hyenadna_hf[attribution]'.")
    if args.region is None:
        raise InputError(f"--plot {plot}: a logo shows one region; give --region.")
    return plot


def _regions(args: AttributeArguments, fasta: Fasta) -> list[tuple[str, int, int]]:
    """List the requested regions, as `(contig, start, end)`, in the order of the genome."""
    if (args.region is None) == (args.bed is None):
        raise InputError("--region and --bed: give exactly one of them.")
    if args.region is not None:
        regions = [parse_region(args.region, fasta)[:3]]
        length = regions[0][2] - regions[0][1]
        if args.plot is not None and length > LONGEST_LOGO:
            raise InputError(
                f"--plot {args.plot}: the region has {length:,} bases, but a logo shows at most {LONGEST_LOGO}; give a "
                "shorter region."
            )
        return regions
    assert args.bed is not None
    order = {contig: number for number, contig in enumerate(fasta.lengths)}
    regions = sorted(
        (interval[:3] for interval in read_bed(args.bed, fasta)), key=lambda region: (order[region[0]], region[1:])
    )
    if not regions:
        raise InputError(f"{args.bed}: the file contains no interval.")
    for (contig, _, end), (following, start, _) in pairwise(regions):
        if contig == following and start < end:
            raise InputError(
                f"{args.bed}: two intervals overlap at {contig}:{start + 1:,}, but a track has one value per base; "
                "merge them."
            )
    return regions


def draw(path: Path, values: np.ndarray, sequence: str, contig: str, start: int) -> None:
    """
    Draw a sequence logo with the contributions as heights of the letters.

    Args:
        path: Picture to write; its suffix sets the format.
        values: Contributions of shape `(length,)`, NaN where undefined.
        sequence: Bases of the region.
        contig: Contig of the region.
        start: Start of the region, 0-based.
    """
    import logomaker
    import pandas as pd
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    heights = np.array(
        [[value if base == letter else 0.0 for letter in BASES] for base, value in zip(sequence, values)]
    )
    table = pd.DataFrame(np.nan_to_num(heights), columns=[*BASES], index=range(start + 1, start + len(sequence) + 1))
    figure = Figure(figsize=(min(40, max(6, 0.13 * len(sequence))), 2.4), layout="constrained")
    axes = figure.subplots()
    logomaker.Logo(table, ax=axes, color_scheme="classic", shade_below=0.2, fade_below=0.2)
    axes.axhline(0, color="black", linewidth=0.5)
    axes.set(xlabel=f"position on {contig}", ylabel="contribution")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=8))
    axes.xaxis.set_major_formatter("{x:,.0f}")
    figure.savefig(path, dpi=150)
