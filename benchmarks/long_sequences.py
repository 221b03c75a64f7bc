"""
Seconds and peak memory of long inputs on a CPU, in pieces (the default) and whole.

    python benchmarks/long_sequences.py --out benchmarks/results/long_sequences

Each way of a row is a process of its own. Memory is the peak of the process above what it holds when the model is
loaded. Time is the best of `--repeats` after one run to warm up (one run, cold, where that takes more than a minute).
Before any row, values and gradients of both ways are compared at 32,768 positions of a two-layer model.
"""

import argparse
import json
import resource
import subprocess
import sys
import time

import torch
from report import write_table

from hyenadna_hf import HyenaDNAModel
from hyenadna_hf.hub.sizes import published_config
from hyenadna_hf.model import modeling_hyenadna

NEVER = 1 << 62


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", default="hyenadna-large-1m-seqlen", help="a published size, random weights")
    parser.add_argument("--inference", type=int, nargs="*", default=[1024, 8192, 32768, 160_000, 1_000_000])
    parser.add_argument("--training", type=int, nargs="*", default=[8192, 32768])
    parser.add_argument("--longest_whole", type=int, default=160_000, help="positions; longer rows in pieces only")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--out", help="beginning of the names of the files to write")
    parser.add_argument("--row", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.row:
        row = json.loads(args.row)
        return print(json.dumps(measure(args.size, args.repeats, **row) if row else compare()))
    run(args)
    rows = []
    for training, lengths in ((False, args.inference), (True, args.training)):
        for length in lengths:
            pair = {
                whole: run(args, length=length, training=training, whole=whole)
                for whole in ((False, True) if length <= args.longest_whole else (False,))
            }
            rows.append(
                {
                    "what": "forward and backward" if training else "forward",
                    "positions": length,
                    "in pieces, s": pair[False]["seconds"],
                    "whole, s": pair[True]["seconds"] if True in pair else "",
                    "in pieces, GB": pair[False]["gigabytes"],
                    "whole, GB": pair[True]["gigabytes"] if True in pair else "",
                }
            )
            print(rows[-1], flush=True)
    write_table(rows, args.out)


def run(args, **row):
    """A row, or the comparison, in a process of its own: the peak of a process counts that of its parent too."""
    command = [sys.executable, __file__, "--size", args.size, "--repeats", str(args.repeats), "--row", json.dumps(row)]
    result = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(result.stdout.splitlines()[-1])


def choose(whole):
    modeling_hyenadna.BLOCKED_FROM = NEVER if whole else 4096
    modeling_hyenadna.RECOMPUTED_FROM = NEVER if whole else 16384


def step(model, ids, training):
    if not training:
        with torch.inference_mode():
            return model(ids).last_hidden_state
    model.zero_grad()
    hidden = model(ids).last_hidden_state
    hidden.square().mean().backward()
    return hidden.detach()


def measure(size, repeats, length, training, whole):
    choose(whole)
    torch.manual_seed(0)
    model = HyenaDNAModel(published_config(size)).train(training)
    ids = torch.randint(7, 11, (1, length))
    with open("/proc/self/statm") as file:
        loaded = int(file.read().split()[1]) * resource.getpagesize()
    seconds = []
    while len(seconds) <= repeats and (not seconds or seconds[0] < 60):
        started = time.perf_counter()
        step(model, ids, training)
        seconds.append(time.perf_counter() - started)
    peak = 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {"seconds": min(seconds[1:] or seconds), "gigabytes": (peak - loaded) / 1e9}


def compare():
    config = published_config("hyenadna-large-1m-seqlen")
    config.n_layer = 2
    torch.manual_seed(0)
    model = HyenaDNAModel(config).eval()
    ids = torch.randint(7, 11, (1, 32768))
    found = []
    for whole in (True, False):
        choose(whole)
        values = [step(model, ids, training=False), step(model, ids, training=True)]
        found.append([*values, *(parameter.grad.clone() for parameter in model.parameters())])
    for one, other in zip(*found):
        difference = float((one - other).abs().max() / other.abs().max())
        if difference > 1e-4:
            raise SystemExit(f"in pieces and whole differ by {difference:.2g} of the largest value")


if __name__ == "__main__":
    main()
