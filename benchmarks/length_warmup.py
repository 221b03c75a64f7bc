"""
What sequence-length warm-up saves: time, and loss on held-out sequence, with and without it at equal bases.

Both runs see the same windows in the same order with the same learning rates; with warm-up the first share of the steps
cuts them into shorter sequences. Each is an ordinary `hyenadna pretrain`.

    python benchmarks/length_warmup.py genome.fa.gz --validation chr20:1-200000 --out benchmarks/results/length_warmup
"""

import argparse
import csv
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import matplotlib
from report import write_table

matplotlib.use("Agg")
from matplotlib import pyplot


def train(args, folder, more):
    """One run in a process of its own: its `pretraining.json` and the rows of its log."""
    options = {
        "fasta": args.fasta, "validation": args.validation, "model": args.model, "window": args.length,
        "max_steps": args.steps, "per_device_train_batch_size": args.batch, "per_device_eval_batch_size": args.batch,
        "learning_rate": 2e-3, "disable_tqdm": True, "output_dir": folder, **more,
    }  # fmt: skip
    command = [sys.executable, "-m", "hyenadna_hf", "pretrain", "--bf16"]
    for name, value in options.items():
        command += [f"--{name}", str(value)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    with open(folder / "training_log.csv", encoding="utf-8") as file:
        return json.loads((folder / "pretraining.json").read_text(encoding="utf-8")), list(csv.DictReader(file))


def plot(logs, path):
    figure, axis = pyplot.subplots(figsize=(6, 4))
    for name, rows in logs.items():
        rows = [row for row in rows if row["loss"]]
        axis.plot([int(row["bases"]) / 1e6 for row in rows], [float(row["loss"]) for row in rows], label=name, lw=1)
    axis.set(xlabel="million bases seen", ylabel="training loss, nats a base", ylim=(None, 1.5))
    axis.legend()
    figure.tight_layout()
    figure.savefig(path, dpi=120)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("fasta")
    parser.add_argument("--validation", required=True, help="region to hold out")
    parser.add_argument("--model", default="hyenadna-tiny-16k-seqlen-d128")
    parser.add_argument("--length", type=int, default=16384, help="bases in a window, and of the last stage")
    parser.add_argument("--initial_length", type=int, default=256, help="of the first stage")
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--batch", type=int, default=1, help="windows a step")
    parser.add_argument("--share", type=float, default=0.5, help="of the steps that the warm-up takes")
    parser.add_argument("--out", required=True, help="path of table and plot, without ending")
    args = parser.parse_args()
    runs = {
        f"{args.length:,} from the start": {},
        f"{args.initial_length:,} to {args.length:,}": {
            "initial_length": args.initial_length,
            "length_warmup_steps": args.share,
        },
    }
    rows, logs = [], {}
    for name, more in runs.items():
        with tempfile.TemporaryDirectory() as folder:
            run, logs[name] = train(args, Path(folder) / "run", more)
        bits = run["splits"]["validation"]["bits_per_base"]
        rows.append({
            "lengths": name, "million bases": run["bases_seen"] / 1e6, "seconds": run["train_seconds"],
            "held-out bits a base": f"{bits:.4f}",
        })  # fmt: skip
    write_table(rows, args.out)
    plot(logs, f"{args.out}.png")


if __name__ == "__main__":
    main()
