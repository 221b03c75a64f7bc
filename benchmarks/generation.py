"""
Seconds a base of generation, with the cache and by recomputing the whole sequence.

    python benchmarks/generation.py --out benchmarks/results/generation

writes .csv, .md and .png. Both ways are timed in the same run, on the same sequence, and the last logits of both are
compared before a time is printed. A step of recomputing is one forward over the sequence so far, with logits of its
last position only. A cached step is the mean over `--bases` steps; to it comes the share of the look-ahead, the
transform over the whole history that is due once in max(256, length / 8) steps. Memory is the peak of reading the
prompt, and of everything, above what the process holds when the model is loaded; the prompts must grow.
"""

import argparse
import statistics
import time

import torch
from process_memory import held, most_held
from report import write_table
from transformers import AutoModelForCausalLM

from hyenadna_hf.hub.sizes import published_config
from hyenadna_hf.machine import machine


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", default="hyenadna-large-1m-seqlen", help="a published size, random weights")
    parser.add_argument(
        "--prompts", type=int, nargs="+", default=[1024, 8192, 32768, 131072, 998000], help="lengths, bases"
    )
    parser.add_argument("--bases", type=int, default=1024, help="bases to generate with the cache")
    parser.add_argument("--out", required=True, help="beginning of the names of the files to write")
    args = parser.parse_args()
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(published_config(args.size)).eval()
    with torch.inference_mode():
        loaded = held()
        model(torch.randint(7, 11, (1, 1024)), use_cache=True)  # warm up
        rows = [measure(model, length, args.bases, loaded) for length in args.prompts]
    write_table(rows, args.out)
    plot(rows, args.size, f"{args.out}.png")


def measure(model, length, bases, loaded):
    ids = torch.randint(7, 11, (1, length + bases))
    out, prefill = timed(lambda: model(ids[:, :length], use_cache=True, logits_to_keep=1))
    read = most_held() - loaded
    cache = out.past_key_values

    def generate():
        for position in range(length, length + bases):
            out = model(ids[:, position : position + 1], past_key_values=cache)
        return out

    out, seconds = timed(generate)
    recomputed = [timed(lambda: model(ids, logits_to_keep=1)) for _ in range(3 if length <= 32768 else 1)]
    difference = float((recomputed[0][0].logits - out.logits).abs().max())
    if difference > 1e-4:
        raise SystemExit(f"cached and recomputed logits differ by {difference:.2g} at {length + bases:,} positions")
    for layer in cache.layers:
        layer.horizon = layer.length  # the next step has to look ahead
    _, look_ahead = timed(lambda: model(ids[:, -1:], past_key_values=cache))
    step = seconds / bases + look_ahead / max(256, length // 8)
    full = statistics.median(seconds for _, seconds in recomputed)
    row = {
        "prompt, bases": length,
        "prefill, s": prefill,
        "recompute, s/base": full,
        "cached, s/base": step,
        "of which look-ahead": look_ahead / max(256, length // 8),
        "ratio": round(full / step),
        "reading, GB": read / 1e9,
        "generating, GB": (most_held() - loaded) / 1e9,
        "largest difference of logits": f"{difference:.1e}",
    }
    print(row, flush=True)
    return row


def timed(function):
    started = time.perf_counter()
    result = function()
    return result, time.perf_counter() - started


def plot(rows, size, path):
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    lengths = [row["prompt, bases"] for row in rows]
    figure, axes = pyplot.subplots(figsize=(6, 4), layout="constrained")
    axes.loglog(lengths, [row["recompute, s/base"] for row in rows], "o-", label="recomputing the sequence")
    axes.loglog(lengths, [row["cached, s/base"] for row in rows], "s-", label="with HyenaDNACache")
    axes.set_xlabel("bases before")
    axes.set_ylabel("seconds a base")
    axes.set_title(f"Generation, {size}, batch 1, float32\n{machine()}", fontsize=8)
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(path, dpi=150)


if __name__ == "__main__":
    main()
