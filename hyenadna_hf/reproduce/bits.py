"""Bits a base that a language model, or a Markov model of the same genomes, needs for what was held out of them."""

import json
import math
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ..baselines.markov import MarkovModel
from ..data.fasta import fasta_files, fasta_stem
from ..errors import InputError
from ..inference.likelihood import sequence_log_likelihood
from ..jobs import write_text
from ..loading import InferenceArguments, load_language_model
from ..training.pretrain import GenomeArguments, genome_splits
from . import steps

HELD_OUT_FILE = "held_out.txt"
MARKOV = "markov-"


@dataclass(kw_only=True)
class BitsArguments(InferenceArguments):
    """Those of [`InferenceArguments`]; `--model` may also be `markov-K`."""

    output_dir: str = field(metadata={"help": "Where results.json goes."})
    dataset: str = field(metadata={"help": f"A folder of genomes with {HELD_OUT_FILE}: a held-out region a line."})
    window: int = field(default=1024, metadata={"help": "Bases that the model reads at once, side by side."})
    markov_genomes: list[str] = field(
        default_factory=list,
        metadata={"help": "Genomes that a Markov model counts, outside of held-out regions (default: all)."},
    )
    seed: int = field(default=0, metadata={"help": "Not used: nothing is random."})


def main(argv):
    """Run `python -m hyenadna_hf.reproduce.bits` with the arguments `argv` (a list of `str`)."""
    bits(*steps.parse("bits", __doc__, BitsArguments, argv))


def bits(args):
    """
    Score the held-out regions of a folder of genomes.

    The probability of a base is that given the bases before it in its window, normalised over A, C, G and T; other
    letters and the first base of a window are not scored. A Markov model has the bases before its window as context.

    Args:
        args ([`BitsArguments`]): As on the command line.

    Returns:
        `dict`: what `results.json` holds. Its `metrics` are `bits, REGION` for each region, and for a language model
        `bits at position, P`: the mean over all regions of the bases P to 2 P - 1 of a window, counted from 0.

    Raises:
        InputError: if a genome, a region, the model or an argument is invalid.
    """
    started = time.monotonic()
    splits = held_out_splits(args.dataset, args.window)
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


def held_out_splits(folder, window=1024):
    """
    What is held out of genomes, and the rest.

    Args:
        folder (`str` or `Path`): Has FASTA files, and the file of held-out regions.
        window (`int`, defaults to 1024): Bases in a window.

    Returns:
        `dict[str, list[GenomeDataset]]`: `train` and `test`.

    Raises:
        InputError: if there is no such file, or a region in it is not one of the genomes.
    """
    genomes, path = fasta_files(folder), Path(folder) / HELD_OUT_FILE
    if not path.is_file():
        raise InputError(f"{path}: there is no such file; write a held-out region a line into it (chr7:1-5,000,000).")
    regions = path.read_text(encoding="utf-8").split()
    return genome_splits(GenomeArguments(fasta=[str(genome) for genome in genomes], test=regions), window, seed=0)


def window_bits(model, tokenizer, streams, window):
    """
    Bits a base of a language model on windows that lie side by side.

    Args:
        model ([`HyenaDNAForCausalLM`]), tokenizer: The language model.
        streams (`list[GenomeDataset]`): Give the regions.
        window (`int`): Bases that the model reads at once; the last window of a region may be shorter.

    Returns:
        `dict[str, float]`: see [`bits`].
    """
    metrics, nats, scored = {}, np.zeros(window), np.zeros(window)
    for name, text in region_texts(streams):
        windows = (text[start : start + window] for start in range(0, len(text), window))
        total = count = 0
        for found in sequence_log_likelihood(model, tokenizer, windows, per_base=True, window=window):
            values = found.per_base
            known = ~np.isnan(values)
            nats[: len(values)] -= np.where(known, values, 0)
            scored[: len(values)] += known
            total, count = total - values[known].sum(dtype=np.float64), count + known.sum()
        metrics[f"bits, {name}"] = float(total / count / math.log(2))
    position = 1
    while position < window:
        here = slice(position, 2 * position)
        if scored[here].any():
            metrics[f"bits at position, {position}"] = float(nats[here].sum() / scored[here].sum() / math.log(2))
        position *= 2
    return metrics


def region_texts(streams):
    """Name and bases of each region of some streams."""
    for stream in streams:
        for piece in stream.regions:
            whole = (piece.start, piece.end) == (0, stream.fasta.lengths[piece.name])
            name = piece.name if whole else f"{piece.name}:{piece.start + 1:,}-{piece.end:,}"
            yield name, stream.fasta.fetch(piece.name, piece.start, piece.end)


def _markov_bits(args, splits):
    order = args.model.removeprefix(MARKOV)
    if not order.isdecimal() or not 0 <= int(order) <= 12:
        raise InputError(f"--model {args.model}: give {MARKOV}0 to {MARKOV}12.")
    genomes = {fasta_stem(stream.fasta.path): stream for stream in splits["train"]}
    unknown = next((name for name in args.markov_genomes if name not in genomes), None)
    if unknown is not None:
        raise InputError(f"--markov_genomes {unknown}: there are {', '.join(genomes)}.")
    counted = [genomes[name] for name in args.markov_genomes or genomes]
    model = MarkovModel(int(order)).fit(text for _, text in region_texts(counted))
    return {f"bits, {name}": model.bits_per_base([text])[0] for name, text in region_texts(splits["test"])}


if __name__ == "__main__":
    steps.run("bits", main)
