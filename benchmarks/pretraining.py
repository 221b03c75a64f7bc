"""
Held-out bits a base of a pretrained checkpoint, beside Markov models that counted the same bases.

The checkpoint's figures are those of its `pretraining.json`; the Markov models are trained and scored here, on what
that run's command names. They have every base before the scored one as context, while the checkpoint begins anew with
each window.

    python benchmarks/pretraining.py hyenadna_hf/pretrained/hyenadna-tiny-1k-chr20 --fasta 20.fa.gz \\
        --out benchmarks/results/pretraining
"""

import argparse
import json
import shlex
from pathlib import Path

from report import write_table
from transformers import HfArgumentParser

from hyenadna_hf.baselines.markov import MarkovModel
from hyenadna_hf.reproduce.bits import region_texts
from hyenadna_hf.training.pretrain_arguments import GenomeArguments
from hyenadna_hf.training.pretrain_data import genome_splits


def sequences(streams):
    """The regions of a split, each as a `str`."""
    return (text for _, text in region_texts(streams))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", help="folder with pretraining.json")
    parser.add_argument("--fasta", required=True, help="the genome that it was trained on")
    parser.add_argument("--orders", type=int, nargs="+", default=[5, 11], help="of the Markov models")
    parser.add_argument("--out", required=True, help="path of the table, without ending")
    args = parser.parse_args()

    run = json.loads((Path(args.checkpoint) / "pretraining.json").read_text(encoding="utf-8"))
    genome_args, *_ = HfArgumentParser(GenomeArguments).parse_args_into_dataclasses(
        shlex.split(run["command"])[2:], return_remaining_strings=True
    )
    genome_args.fasta = [args.fasta]
    splits = genome_splits(genome_args, length=1024, seed=0)
    rows = []
    for order in args.orders:
        model = MarkovModel(order).fit(sequences(splits["train"]))
        bits = {name: model.bits_per_base(sequences(splits[name]))[0] for name in ("validation", "test")}
        rows.append({"model": f"Markov, order {order}", "bases seen": "all, once", **_row(bits)})
    bits = {name: found["bits_per_base"] for name, found in run["splits"].items()}
    rows.append({"model": Path(args.checkpoint).name, "bases seen": f"{run['bases_seen']:,}", **_row(bits)})
    write_table(rows, args.out)


def _row(bits):
    return {f"{name}, bits a base": f"{value:.4f}" for name, value in bits.items()}


if __name__ == "__main__":
    main()
