"""`hyenadna mutagenesis`: score every single-base change of a region with a language model."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from ..arguments import CommandParser
from ..data.fasta import Fasta
from ..data.intervals import parse_region
from ..data.sequence import BASES, normalise
from ..jobs import output_path, replace_file
from ..loading import load_language_model
from .score_table import ABSENT, score_to_file, summary
from .scoring import ScoringArguments, identity_of
from .variants import WINDOW, Variant, VariantScore, score_variants

PICTURES = (".png", ".pdf", ".svg")
LONGEST_LETTERED = 150  # bases up to which letters are legible in a picture


@dataclass(kw_only=True)
class MutagenesisArguments(ScoringArguments):
    region: str = field(
        metadata={"help": "Region such as chr20:30000001-30000200, counted from 1.", "positional": True}
    )
    out: str = field(metadata={"help": "Table to write, .tsv, with the columns of score-variants."})
    plot: str | None = field(default=None, metadata={"help": f"Heat map to draw: {', '.join(PICTURES)}."})
    window: int = field(default=WINDOW, metadata={"help": "Bases of the reference around each change."})


def parser() -> CommandParser:
    """Build the argument parser of `hyenadna mutagenesis`."""
    return CommandParser(
        "mutagenesis",
        MutagenesisArguments,
        "In-silico saturation mutagenesis: log-likelihood ratio, in nats, of each alternate base at each position of a "
        "region, computed as in score-variants.",
        "--region CHR:START-END --fasta REFERENCE.fa --model MODEL --out TABLE.tsv [--plot HEAT.png] [ARGUMENT ...]",
        ["--region chr20:30,000,001-30,000,060 --fasta ref.fa --model my-lm --out table.tsv --plot heat.png"],
    )


def main(argv: list[str]) -> dict[str, Any] | None:
    """Run `hyenadna mutagenesis` with the arguments `argv`."""
    args, _ = parser().parse(argv)
    out = output_path("--out", args.out, (".tsv",))
    plot = None
    if args.plot is not None:
        plot = output_path("--plot", args.plot, PICTURES)
        import_module("matplotlib")  # fails early if it is missing
    with Fasta(args.fasta) as fasta:
        contig, start, end, _ = parse_region(args.region, fasta)
        model, tokenizer = load_language_model(args)

        def score(variants: Iterable[Variant]) -> Iterator[VariantScore]:
            return score_variants(model, tokenizer, variants, fasta, args.window, args.bos, args.max_tokens)

        score(())  # checks the arguments before any file is written
        identity = identity_of(args, model, tokenizer, window=args.window, region=[contig, start, end])
        reasons = score_to_file(
            out, identity, lambda: single_base_changes(fasta, contig, start, end), score, args.window
        )
        if reasons is None:
            return None
        result = summary(reasons, out)
        if plot is not None:
            ratios = ratio_matrix(out, start, end)
            reference = normalise(fasta.fetch(contig, start, end))
            replace_file(plot, lambda path: draw(path, ratios, reference, contig, start))
            print(f"{plot}: {end - start:,} bases of {contig}")
        return {**result, "plot": plot}


def single_base_changes(fasta: Fasta, contig: str, start: int, end: int) -> Iterator[Variant]:
    """
    Yield every change of one base to another in a region.

    Args:
        fasta: Reference genome.
        contig: Name of the sequence.
        start: Start of the region, 0-based.
        end: End of the region, exclusive.

    Yields:
        The alternates of each position, in the order A, C, G, T.
    """
    for position, reference in enumerate(normalise(fasta.fetch(contig, start, end)), start):
        for alternate in BASES.replace(reference, ""):
            yield Variant(contig, position, reference, alternate)


def ratio_matrix(table: Path, start: int, end: int) -> np.ndarray:
    """
    Arrange the column `llr` of a table of single-base changes as a matrix.

    Args:
        table: The table.
        start: Start of its region, 0-based.
        end: End of its region, exclusive.

    Returns:
        One row for each of A, C, G and T, shape `(4, end - start)`; NaN where there is no score.
    """
    ratios = np.full((len(BASES), end - start), np.nan)
    with table.open(encoding="utf-8") as file:
        columns = file.readline().split()
        for line in file:
            row = dict(zip(columns, line.rstrip("\n").split("\t")))
            if row["llr"] != ABSENT:
                ratios[BASES.index(row["alt"]), int(row["pos"]) - 1 - start] = float(row["llr"])
    return ratios


def draw(path: Path, ratios: np.ndarray, reference: str, contig: str, start: int) -> None:
    """
    Draw a heat map of single-base changes: blue where the alternate is less likely than the reference, red where more.

    Args:
        path: Picture to write; its suffix sets the format.
        ratios: Result of [`ratio_matrix`], shape `(4, length)`.
        reference: Bases of the region, marked by dots, and written below the map if there is room.
        contig: Name of the sequence.
        start: Start of the region, 0-based.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    length = len(reference)
    figure = Figure(figsize=(min(40, max(6, 0.11 * length + 2)), 2.6), layout="constrained")
    axes = figure.subplots()
    limit: float = np.nanmax(np.abs(ratios), initial=1e-6)
    # Columns are centred on their positions, counted from 1.
    extent = (start + 0.5, start + length + 0.5, len(BASES) - 0.5, -0.5)
    axes.set_facecolor("lightgrey")
    picture = axes.imshow(
        ratios, cmap="RdBu_r", vmin=-limit, vmax=limit, aspect="auto", extent=extent, interpolation="nearest"
    )
    if length <= LONGEST_LETTERED:
        for position, base in enumerate(reference, start + 1):
            if base in BASES:
                axes.plot(position, BASES.index(base), ".", color="black", markersize=4)
            below: dict[str, Any] = {"xy": (position, 0), "xycoords": ("data", "axes fraction"), "xytext": (0, -3)}
            axes.annotate(base, **below, textcoords="offset points", ha="center", va="top", size=6)
        axes.tick_params(axis="x", length=0, pad=10)
    axes.set_yticks(range(len(BASES)), BASES)
    axes.set_ylabel("alternate")
    axes.set_xlabel(f"position on {contig}")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.xaxis.set_major_formatter("{x:,.0f}")
    figure.colorbar(picture, ax=axes, label="log-likelihood ratio\nto the reference (nats)", pad=0.01)
    figure.savefig(path, dpi=150)
