"""Bits per base that a language model, or a Markov model of the same genomes, needs for held-out regions."""

import json
import math
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ..baselines.markov import MarkovModel
from ..data.fasta import fasta_files, fasta_stem
from ..data.genome import GenomeDataset
from ..errors import InputError
from ..inference.likelihood import sequence_log_likelihood
from ..jobs import write_text
from ..loading import InferenceArguments, load_language_model
from ..training.pretrain_arguments import GenomeArguments
from ..training.pretrain_data import genome_splits
from . import steps

HELD_OUT_FILE = "held_out.txt"
MARKOV = "markov-"


@dataclass(kw_only=True)
class BitsArguments(InferenceArguments):
    """Options of [`InferenceArguments`], in which `--model` may also be `markov-K`, and those of this command."""

    output_dir: str = field(metadata={"help": "Folder for results.json."})
    dataset: str = field(metadata={"help": f"Folder of genomes with {HELD_OUT_FILE}: one held-out region per line."})
    window: int = field(
        default=1024, metadata={"help": "Length in bases of the adjacent windows that the model reads."}
    )
    markov_genomes: list[str] = field(
        default_factory=list,
        metadata={"help": "Genomes that a Markov model counts, outside of held-out regions (default: all)."},
    )
    seed: int = field(default=0, metadata={"help": "Ignored: nothing is random."})


def main(argv: list[str]) -> None:
    """Run `python -m hyenadna_hf.reproduce.bits` with the arguments `argv`."""
    bits(*steps.parse("bits", __doc__, BitsArguments, argv))


def bits(args: BitsArguments) -> dict[str, Any]:
    """
    Score the held-out regions of a folder of genomes.

    Each base is scored given the bases before it in its window, with probabilities normalised over A, C, G and T. Other
    letters and the first base of a window are not scored. The context of a Markov model extends before the window.

    Args:
        args: Options of the command.

    Returns:
        The contents of `results.json`. Its `metrics` are `bits, REGION` for each region, and for a language model also
        `bits at position, P`: the mean over all regions of bases P to 2 P - 1 of a window, counted from 0.

    Raises:
        InputError: If a genome, a region, the model or an argument is invalid.
    """
    started = time.monotonic()
    splits = load_held_out_splits(args.dataset, args.window)
    if args.model.startswith(MARKOV):
        metrics, origin = _markov_bits(args, splits), "counted"
    else:
        model, tokenizer = load_language_model(args)
        metrics, origin = window_bits(model, tokenizer, splits["test"], args.window), "pretrained"
    results = {
        "dataset": args.dataset,
        "model": args.model,
        "start": origin,
        "metrics": metrics,
        "seconds": round(time.monotonic() - started, 1),
    }
    output_dir = Path(args.output_dir)
    output_dir.mkdir(parents=True, exist_ok=True)
    write_text(output_dir / "results.json", json.dumps(results, indent=2) + "\n")
    return results


def load_held_out_splits(folder: str | Path, window: int = 1024) -> dict[str, list[GenomeDataset]]:
    """
    Split genomes into held-out regions, `test`, and the rest, `train`.

    Args:
        folder: Folder of FASTA files with a file of held-out regions.
        window: Length of a window in bases.

    Raises:
        InputError: If there is no such file, or a region in it is not part of the genomes.
    """
    genomes, path = fasta_files(folder), Path(folder) / HELD_OUT_FILE
    if not path.is_file():
        raise InputError(f"{path}: there is no such file; write one held-out region per line to it (chr7:1-5,000,000).")
    regions = path.read_text(encoding="utf-8").split()
    return genome_splits(GenomeArguments(fasta=[str(genome) for genome in genomes], test=regions), window, seed=0)


def window_bits(model: Any, tokenizer: Any, streams: Iterable[GenomeDataset], window: int) -> dict[str, float]:
    """
    Compute bits per base of a language model on adjacent windows.

    Args:
        model: A [`HyenaDNAForCausalLM`] or another language model.
        tokenizer: Its tokenizer.
        streams: Genomes with the regions to score.
        window: Length of a window in bases; the last one of a region may be shorter.

    Returns:
        The metrics described in [`bits`].
    """
    metrics: dict[str, float] = {}
    nats, scored = np.zeros(window), np.zeros(window)
    for name, text in region_texts(streams):
        windows = (text[start : start + window] for start in range(0, len(text), window))
        total = count = 0
        for scores in sequence_log_likelihood(model, tokenizer, windows, per_base=True, window=window):
            values: Any = scores.per_base
            known = ~np.isnan(values)
            nats[: len(values)] -= np.where(known, values, 0)
            scored[: len(values)] += known
            total, count = total - values[known].sum(dtype=np.float64), count + known.sum()
        metrics[f"bits, {name}"] = float(total / count / math.log(2))
    position = 1
    while position < window:
        positions = slice(position, 2 * position)
        if scored[positions].any():
            metrics[f"bits at position, {position}"] = float(
                nats[positions].sum() / scored[positions].sum() / math.log(2)
            )
        position *= 2
    return metrics


def region_texts(streams: Iterable[GenomeDataset]) -> Iterator[tuple[str, str]]:
    """Iterate over names and bases of the regions of genomes."""
    for stream in streams:
        for piece in stream.regions:
            is_complete = (piece.start, piece.end) == (0, stream.fasta.lengths[piece.name])
            name = piece.name if is_complete else f"{piece.name}:{piece.start + 1:,}-{piece.end:,}"
            yield name, stream.fasta.fetch(piece.name, piece.start, piece.end)


def _markov_bits(args: BitsArguments, splits: dict[str, list[GenomeDataset]]) -> dict[str, float]:
    order = args.model.removeprefix(MARKOV)
    if not order.isdecimal() or not 0 <= int(order) <= 12:
        raise InputError(f"--model {args.model}: use {MARKOV}0 to {MARKOV}12.")
    genomes = {str(fasta_stem(stream.fasta.path)): stream for stream in splits["train"]}
    unknown = next((name for name in args.markov_genomes if name not in genomes), None)
    if unknown is not None:
        raise InputError(f"--markov_genomes {unknown}: unknown genome; choose from {', '.join(genomes)}.")
    counted = [genomes[name] for name in args.markov_genomes or genomes]
    model = MarkovModel(int(order)).fit(text for _, text in region_texts(counted))
    return {f"bits, {name}": model.bits_per_base([text])[0] for name, text in region_texts(splits["test"])}


if __name__ == "__main__":
    steps.run("bits", main)
