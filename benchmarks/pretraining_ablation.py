"""
What the settings of pretraining are worth: short runs of `hyenadna pretrain`, one thing changed at a time.

    python benchmarks/pretraining_ablation.py --data genomes/ --out benchmarks/results/pretraining_ablation

`genomes/` is what scripts/make_pretraining_data.py makes. Every run trains the tiny size on as many bases of human
chromosomes 20, X and 22, in bfloat16 with one thread, and its figure is the bits a base on 20:30,000,001-31,000,000,
which no run is trained on; nothing else was looked at. The learning rate falls to a tenth along a cosine.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from report import write_table

from hyenadna_hf import HyenaDNATokenizer
from hyenadna_hf.hub.sizes import published_config

BASES = 4 << 20
ROWS = 8  # of 1,024 bases in a step
NO_DROPOUT, RATE = {"embed_dropout": 0.0}, ["--learning_rate", "2e-3"]
MUON = [*RATE, "--muon_learning_rate", "6e-3"]
# Name, fields of the configuration, arguments.
SETTINGS = (
    ("as published: AdamW at 6e-4, dropout 0.1 on embeddings", {}, []),
    ("AdamW at 2e-3", {}, RATE),
    ("no dropout, AdamW at 2e-3", NO_DROPOUT, RATE),
    ("no dropout, AdamW at 4e-3", NO_DROPOUT, ["--learning_rate", "4e-3"]),
    ("no dropout, Muon at 2e-3, AdamW at 2e-3 for the rest", NO_DROPOUT, [*RATE, "--muon_learning_rate", "2e-3"]),
    ("the same, Muon at 4e-3", NO_DROPOUT, [*RATE, "--muon_learning_rate", "4e-3"]),
    ("the same, Muon at 6e-3", NO_DROPOUT, MUON),
    ("the same, Muon at 8e-3", NO_DROPOUT, [*RATE, "--muon_learning_rate", "8e-3"]),
    ("the same, Muon at 16e-3", NO_DROPOUT, [*RATE, "--muon_learning_rate", "16e-3"]),
    ("Muon at 6e-3, less decay", NO_DROPOUT, [*MUON, "--weight_decay", "0.01"]),
    ("Muon at 6e-3, from 128 bases up", NO_DROPOUT, [*MUON, "--initial_length", "128"]),
    ("Muon at 6e-3, one strand", NO_DROPOUT, [*MUON, "--both_strands", "false"]),
    ("Muon at 6e-3, tied embeddings", {**NO_DROPOUT, "tie_word_embeddings": True}, MUON),
)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, type=Path, help="folder of genomes")
    parser.add_argument("--settings", nargs="+", type=int, help="rows of the table, from 0 (default: all)")
    parser.add_argument("--out", required=True, help="beginning of the names of the files to write")
    args = parser.parse_args()
    rows = []
    for number in args.settings or range(len(SETTINGS)):
        name, fields, arguments = SETTINGS[number]
        with tempfile.TemporaryDirectory() as folder:
            found = pretrain(Path(folder), args.data, fields, arguments)
        bits = found["splits"]["validation"]["bits_per_base"]
        rows.append({"setting": name, "bases seen": f"{found['bases_seen']:,}", "bits a base": f"{bits:.4f}"})
        print(rows[-1], f"{found['train_seconds']:.0f} s", flush=True)
        write_table(rows, args.out)


def pretrain(folder, data, fields, arguments):
    """The results of a run."""
    config = published_config("hyenadna-tiny-1k-seqlen", **fields)
    config.save_pretrained(folder / "model")
    HyenaDNATokenizer(config.max_position_embeddings).save_pretrained(folder / "model")
    command = [
        *("pretrain", "--model", folder / "model", "--fasta", data / "human.fa", "--output_dir", folder / "out"),
        *("--validation", "20:30,000,001-31,000,000", "--test", "20:31,000,001-31,100,000", "--window", "1024"),
        *("--both_strands", "true", "--bf16", "true", "--per_device_train_batch_size", ROWS, "--warmup_steps", "20"),
        *("--max_steps", BASES // (ROWS * 1024), "--eval_strategy", "no", "--save_strategy", "no", *arguments),
        *("--disable_tqdm", "true"),
    ]
    subprocess.run(
        [sys.executable, "-m", "hyenadna_hf", *map(str, command)],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
        check=True,
    )
    return json.loads((folder / "out" / "pretraining.json").read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
