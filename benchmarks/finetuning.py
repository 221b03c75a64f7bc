"""
Seconds of the whole command `hyenadna finetune`, now and at an earlier commit.

    python benchmarks/finetuning.py --against faee1e8 --out benchmarks/results/finetuning

One epoch over the bundled splice sites from the remag weights, with dropout on embeddings and without baselines, as
that commit does by default but for its two quick baselines. The commands take turns; seconds are medians.
"""

import argparse
import json
import statistics
import tempfile
from pathlib import Path

from earlier import ROOT, seconds_of, tree_of
from report import write_table

SETTINGS = (
    *("--model", "hyenadna-tiny-1k-remag", "--num_train_epochs", 1, "--embed_dropout", 0.1, "--baselines", "false"),
    *("--disable_tqdm", "true"),
)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--against", required=True, help="commit to compare with")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", required=True, help="beginning of the names of the files to write")
    args = parser.parse_args()
    with tree_of(args.against) as earlier, tempfile.TemporaryDirectory() as folder:
        ways = {
            "now, float32": (ROOT, "--muon_learning_rate", 0, "--bf16", "false"),
            "now, bfloat16": (ROOT, "--muon_learning_rate", 0, "--bf16", "true"),
            f"{args.against}, float32": (earlier,),
        }
        seconds, accuracy = {name: [] for name in ways}, {}
        for number in range(args.rounds):
            for name, (tree, *arguments) in ways.items():
                out = Path(folder) / f"{name} {number}"
                seconds[name].append(seconds_of(tree, "finetune", *SETTINGS, *arguments, "--output_dir", out))
                accuracy[name] = json.loads((out / "results.json").read_text())["test"]["model"]["accuracy"]
                print(name, f"{seconds[name][-1]:.1f} s", flush=True)
    rows = [
        {"code": name, "rounds": args.rounds, "seconds": statistics.median(times), "test accuracy": accuracy[name]}
        for name, times in seconds.items()
    ]
    write_table(rows, args.out)


if __name__ == "__main__":
    main()
