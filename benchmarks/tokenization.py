"""
Milliseconds to tokenize a million bases into tensors, from the table and in Rust.

    python benchmarks/tokenization.py --out benchmarks/results/tokenization
"""

import argparse
import random
import statistics
import time

from report import write_table
from transformers import PreTrainedTokenizerFast

from hyenadna_hf import HyenaDNATokenizer


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bases", type=int, default=1_000_000, help="length of the sequence")
    parser.add_argument("--out", required=True, help="beginning of the names of the files to write")
    args = parser.parse_args()
    random.seed(0)
    sequence = "".join(random.choices("ACGTN", k=args.bases))
    tokenizer = HyenaDNATokenizer()
    ways = {
        "table (the default for tensors)": (lambda: tokenizer(sequence, return_tensors="pt"), 50),
        "Rust": (lambda: PreTrainedTokenizerFast.__call__(tokenizer, sequence, return_tensors="pt"), 5),
    }
    if not (ways["Rust"][0]()["input_ids"] == tokenizer(sequence, return_tensors="pt")["input_ids"]).all():
        raise SystemExit("the two give other tokens")
    rows = []
    for name, (tokenize, times) in ways.items():
        seconds = [_timed(tokenize) for _ in range(times)]
        rows.append(
            {
                "way": name,
                "bases": args.bases,
                "median, ms": 1e3 * statistics.median(seconds),
                "best, ms": 1e3 * min(seconds),
            }
        )
    write_table(rows, args.out)


def _timed(function):
    started = time.perf_counter()
    function()
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
