"""`hyenadna dependency-map`: how substituting each base of a region changes the predictions at the others."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from ..arguments import CommandParser
from ..data.annotation import Feature, features_in
from ..data.fasta import Fasta
from ..data.intervals import centre_window, parse_region
from ..data.sequence import normalise, reverse_complement
from ..errors import InputError, WorkError
from ..jobs import Job, output_path, replace_file, save_array
from ..loading import load_language_model
from ..processes import processes
from .dependencies import check_part, combine_strands, dependencies_on_a_strand
from .likelihood import BaseLikelihood
from .mutagenesis import LONGEST_LETTERED, PICTURES
from .scoring import ScoringArguments, identity_of
from .variants import WINDOW

FORMATS = (".npz", ".parquet")
PART_TOKENS = 1 << 20  # the most that a killed run loses
BRIGHTEST = 99  # percentile of the map at the end of the colour scale


@dataclass(kw_only=True)
class DependencyMapArguments(ScoringArguments):
    region: str = field(metadata={"help": "The region, such as chr20:30000001-30000200 (1-based).", "positional": True})
    out: str = field(
        metadata={"help": "File to write: .npz (a matrix of changed by predicted bases) or .parquet (a row per pair)."}
    )
    plot: str | None = field(default=None, metadata={"help": f"Heat map to draw: {', '.join(PICTURES)}."})
    tracks: list[str] = field(
        default_factory=list,
        metadata={"help": "Genes or motifs to draw below the heat map: BED, GTF or GFF3 files (default: none)."},
    )
    window: int = field(default=WINDOW, metadata={"help": "Bases that the model reads at once, centred on the region."})


def parser() -> CommandParser:
    """Return the argument parser of `hyenadna dependency-map`."""
    return CommandParser(
        "dependency-map",
        DependencyMapArguments,
        "Nucleotide dependencies: the largest change of the log2 odds of a base at each position of a region after a "
        "substitution at each other one. Bases after the changed one are predicted on the forward strand, those before "
        "it on the reverse strand. The same command resumes a run that was stopped. Several devices: accelerate launch "
        "-m hyenadna_hf dependency-map ...",
        "--region CHR:START-END --fasta REFERENCE.fa --model MODEL --out MAP.npz [--plot MAP.png] [ARGUMENT ...]",
        [
            "--region chr20:30,000,001-30,000,200 --fasta ref.fa --model my-lm --out map.npz --plot map.png",
            "--region 20:1-500 --fasta ref.fa --model my-lm --out map.parquet --plot map.pdf --tracks genes.gtf tf.bed",
        ],
    )


def main(argv: list[str]) -> dict[str, Any] | None:
    """Run `hyenadna dependency-map` with command-line arguments."""
    args, _ = parser().parse(argv)
    out = output_path("--out", args.out, FORMATS)
    plot = None
    if args.plot is not None:
        plot = output_path("--plot", args.plot, PICTURES)
        import_module("matplotlib")  # fail early if it is missing
    elif args.tracks:
        raise InputError(f"--tracks {args.tracks[0]}: tracks are drawn below a heat map; give --plot too.")
    state = processes(args.use_cpu)
    with Fasta(args.fasta) as fasta:
        contig, start, end, _ = parse_region(args.region, fasta)
        tracks = [features_in(path, fasta, contig, start, end) for path in args.tracks]
        if not end - start <= args.window:
            raise InputError(
                f"--window {args.window}: the region has {end - start:,} bases; give a larger window or a smaller "
                "region."
            )
        model, tokenizer = load_language_model(args)
        likelihood = BaseLikelihood(model, tokenizer, args.bos, args.max_tokens)
        left, right = centre_window(start, end, args.window, fasta.lengths[contig])
        sequence = fasta.fetch(contig, left, right)
        check_part(likelihood, sequence, start - left, end - left)
        # Input on each strand: the context before the region, and the region.
        readings = [sequence[: end - left], reverse_complement(sequence[start - left :])]
        length = end - start
        parts = [(strand, *part) for strand in range(len(readings)) for part in _divide(length)]

        def make(part: tuple[int, int, int], path: Path, advance: Callable[[int], None]) -> None:
            strand, first, last = part
            text = readings[strand]
            before = len(text) - length
            save_array(path, dependencies_on_a_strand(likelihood, text, before, before + first, before + last))
            advance(last - first)

        def finish(path: Path) -> np.ndarray:
            arrays = [np.load(job.part(number)) for number in range(len(parts))]
            strands = np.split(np.concatenate(arrays), [length]) if sum(map(len, arrays)) == 2 * length else []
            if len(strands) != 2 or strands[0].shape != strands[1].shape:
                raise WorkError(f"{job.folder}: the parts do not match the region; delete this folder.")
            dependencies = combine_strands(*strands)
            write(path, dependencies, normalise(sequence[start - left : end - left]), contig, start)
            return dependencies

        identity = identity_of(args, model, tokenizer, window=args.window, region=[contig, start, end])
        with Job(out, identity, state) as job:
            job.run(parts, lambda part: part[2] - part[1], make, "bases", 2 * length)
            dependencies = job.finish(finish)
        if dependencies is None:
            return None
        if plot is not None:
            reference = normalise(fasta.fetch(contig, start, end))
            replace_file(plot, lambda path: draw(path, dependencies, reference, contig, start, tracks))
    region = f"{contig}:{start + 1}-{end}"
    print(f"{out}: dependencies between the {length:,} bases of {region}")
    return {"out": out, "region": region, "bases": length, "plot": plot}


def _divide(length: int) -> Iterator[tuple[int, int]]:
    """Divide a region so that the substitutions of a part have at most `PART_TOKENS` tokens, or a part has one base."""
    first = 0
    while first < length:
        last = min(length, first + max(1, PART_TOKENS // (3 * (length - first))))
        yield first, last
        first = last


def write(path: Path, dependencies: np.ndarray, sequence: str, contig: str, start: int) -> None:
    """
    Write a map to a file, and check it by reading it back.

    Args:
        path: `.npz` with the arrays `dependencies`, `sequence`, `chrom` and `start` (0-based), or `.parquet` with the
            columns `chrom`, `changed` and `predicted` (1-based positions), `base` (the changed one) and `dependency`,
            without undefined pairs.
        dependencies: Map from [`~hyenadna_hf.inference.dependencies.dependency_map`], of shape `(bases, bases)`.
        sequence: Bases of the region.
        contig: Contig of the region.
        start: Start of the region, 0-based.

    Raises:
        WorkError: If the file differs from the map when it is read back.
    """
    if path.suffix == ".npz":
        np.savez_compressed(path, dependencies=dependencies, sequence=sequence, chrom=contig, start=start)
    else:
        _table(dependencies, sequence, contig, start).to_parquet(path, index=False)
    if not np.array_equal(read_map(path, len(sequence), start), dependencies, equal_nan=True):
        raise WorkError(
            f"{path.name}: the file that was read back differs from what was written; check the free disk space."
        )


def _table(dependencies: np.ndarray, sequence: str, contig: str, start: int) -> Any:
    import pandas as pd

    changed, predicted = np.nonzero(~np.isnan(dependencies))
    return pd.DataFrame(
        {
            "chrom": contig,
            "changed": start + 1 + changed,
            "predicted": start + 1 + predicted,
            "base": np.array([*sequence])[changed],
            "dependency": dependencies[changed, predicted],
        }
    )


def read_map(path: Path, length: int, start: int) -> np.ndarray:
    """Read the map of a file from [`write`], given the length and the 0-based start of its region."""
    if path.suffix == ".npz":
        with np.load(path) as arrays:
            return arrays["dependencies"]
    import pandas as pd

    table = pd.read_parquet(path, columns=["changed", "predicted", "dependency"])
    dependencies: np.ndarray = np.full((length, length), np.nan, np.float32)
    dependencies[table["changed"] - 1 - start, table["predicted"] - 1 - start] = table["dependency"]
    return dependencies


def draw(
    path: Path,
    dependencies: np.ndarray,
    sequence: str,
    contig: str,
    start: int,
    tracks: Sequence[list[Feature]] = (),
) -> None:
    """
    Draw a heat map, with lanes of annotated intervals below it.

    Args:
        path: Picture to write; its suffix sets the format.
        dependencies: Map of shape `(bases, bases)`.
        sequence: Bases of the region, shown on the axis if they fit.
        contig: Contig of the region.
        start: Start of the region, 0-based.
        tracks: Intervals of each file, with one lane per kind.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    length = len(sequence)
    lanes: dict[tuple[int, str], list[Feature]] = {}
    for number, track in enumerate(tracks):
        for feature in track:
            lanes.setdefault((number, feature.kind), []).append(feature)
    side = min(10, max(5, 0.07 * length))
    heights = [side, *[0.28] * len(lanes)]
    figure = Figure(figsize=(side + 2, sum(heights) + 0.8), layout="constrained")
    axes, *below = figure.subplots(len(heights), 1, sharex=True, height_ratios=heights, squeeze=False)[:, 0]
    limit = np.nanpercentile(dependencies, BRIGHTEST) if np.isfinite(dependencies).any() else 1
    extent = (start + 0.5, start + length + 0.5, start + length + 0.5, start + 0.5)
    axes.set_facecolor("lightgrey")
    image = axes.imshow(
        dependencies,
        cmap="magma_r",
        vmin=0,
        vmax=max(limit, 1e-6),
        extent=extent,
        aspect="auto",
        interpolation="nearest",
    )
    axes.set_ylabel("changed base")
    if length <= LONGEST_LETTERED:
        positions = range(start + 1, start + length + 1)
        axes.set_yticks(positions, sequence, size=5)
        axes.tick_params(axis="y", length=0)
    else:
        axes.yaxis.set_major_locator(MaxNLocator(integer=True))
        axes.yaxis.set_major_formatter("{x:,.0f}")
    for lane, ((_, kind), features) in zip(below, lanes.items()):
        for feature in features:
            color = {"+": "C0", "-": "C3"}.get(feature.strand, "grey")
            lane.barh(0, feature.end - feature.start, left=feature.start + 0.5, height=0.7, color=color, alpha=0.5)
            centre = (max(feature.start, start) + min(feature.end, start + length)) / 2 + 0.5
            lane.text(centre, 0, feature.name, ha="center", va="center", size=6, clip_on=True)
        lane.set_yticks([0], [kind], size=7)
        lane.tick_params(axis="y", length=0)
        lane.set_ylim(-0.5, 0.5)
    last = [axes, *below][-1]
    last.set_xlim(*extent[:2])
    last.set_xlabel(f"predicted base, on {contig}")
    last.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=6))
    last.xaxis.set_major_formatter("{x:,.0f}")
    figure.colorbar(image, ax=axes, extend="max", label="largest change of log2 odds", pad=0.01)
    figure.savefig(path, dpi=150)
