"""
Seconds and peak memory against length: this package, the published formulation, attention, and the bound.

    python benchmarks/speed.py --out benchmarks/results/speed
    python benchmarks/speed.py --lengths 1000000 --longest_published 1000000 --out benchmarks/results/speed_1m
    python benchmarks/speed.py --training --batch 1 --lengths 8192 32768 --out benchmarks/results/speed_training

writes .csv, .md and .png. The ways of a row take turns in one process, after one round to warm up, and a time is the
median of the rounds; the ratios are medians of the ratios of each round. Before a time is printed, the values of all
ways are compared with those of float64 on that very input, or, in training, with each other (and the gradients too).
Memory is the peak of a process of its own above what it holds when the model is loaded. Beyond 160,000 positions that
process gives the time too, from one cold run, and the values of all ways are compared with ours.

The ways: `published` is the published formulation in float32 (benchmarks/published.py) and `bound` what its matrix
products and two transforms a channel take alone; `fast` is memory="fast"; `bfloat16` has weights in bfloat16;
`attention` is GPT-2 of the same width and depth with scaled_dot_product_attention; multimolecule is there if it is
installed. In training, `checkpointed` is gradient checkpointing.
"""

import argparse
import copy
import json
import math
import statistics
import subprocess
import sys
import tempfile
import time
from functools import partial
from importlib.util import find_spec

import torch
from process_memory import held, most_held
from published import Bound, Published, gpt2, loss_of
from report import machine, write_table

from hyenadna_hf import HyenaDNAModel
from hyenadna_hf.hub.sizes import published_config
from hyenadna_hf.model.longconv_hyenadna import fft_size

LONGEST = {
    "fast": 160_000,
    "bfloat16": 160_000,
    "published": 160_000,
    "multimolecule": 32_768,
    "attention": 16_384,
    "float64": 160_000,
}
# Of the largest value, from float64; else 1e-4. Transforms of the whole are inexact where long inputs begin.
TOLERANCE = {"bfloat16": 0.2, "published": 1e-3, "multimolecule": 1e-3}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", default="hyenadna-large-1m-seqlen", help="a published size, random weights")
    parser.add_argument("--lengths", type=int, nargs="+", default=[256, 1024, 4096, 8192, 32768, 160_000, 1_000_000])
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 8], help="8 only up to --batched bases")
    parser.add_argument("--batched", type=int, default=1024, help="longest input in batches of more than one")
    parser.add_argument("--training", action="store_true", help="forward and backward")
    parser.add_argument("--longest_published", type=int, default=LONGEST["published"])
    parser.add_argument("--out", required=True, help="beginning of the names of the files to write")
    parser.add_argument("--row", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.row:
        return print(json.dumps(measure(args, **json.loads(args.row))))
    rows = []
    for length in args.lengths:
        for batch in args.batch:
            if batch == 1 or length <= args.batched:
                rows.append(row_of(args, length, batch))
                print(rows[-1], flush=True)
    heads = dict.fromkeys(head for row in rows for head in row)
    write_table([{head: row.get(head, "") for head in heads} for row in rows], args.out)
    if len(args.lengths) > 1:
        plot(rows, args)


def ways_of(args, length):
    if args.training:
        names = ["ours", "checkpointed", "published"]
    else:
        names = ["ours", "fast", "bfloat16", "published", "attention", "multimolecule"]
    longest = {**LONGEST, "published": args.longest_published}
    found = [name for name in names if length <= longest.get(name, length)]
    return [name for name in found if name != "multimolecule" or find_spec(name)]


def row_of(args, length, batch):
    names = ways_of(args, length)
    long = length > LONGEST["float64"]
    with tempfile.TemporaryDirectory() as folder:
        found = None if long else in_process(args, length=length, batch=batch, ways=names)
        memory = {}
        for name in names:
            path = f"{folder}/{name}.pt" if long else None
            memory[name] = in_process(args, length=length, batch=batch, ways=[name], memory=True, path=path)
        if long:
            found = in_process(args, length=length, batch=batch, ways=[])  # the bound
            found["seconds"] |= {name: memory[name]["seconds"] for name in names}
            found |= {"ratios": ratios_of([found["seconds"]]), "differences": differences_of(names, folder)}
    row = {"positions": length, "rows": batch, "rounds": found["rounds"]}
    for name, value in found["seconds"].items():
        row[f"{name}, s"] = value
    for name, value in found["ratios"].items():
        row[name] = value
    for name in names:
        row[f"{name}, GB"] = memory[name]["above"]
    row["ours, whole process, GB"] = memory["ours"]["peak"]
    for name, value in found["differences"].items():
        row[f"{name}, largest difference"] = f"{value:.0e}"
    return row


def differences_of(names, folder):
    """The largest difference of each way from ours, of the largest value, by the files that they left."""
    ours, *others = names
    expected = torch.load(f"{folder}/{ours}.pt", mmap=True, weights_only=True)
    found = {}
    for name in others:
        if name == "attention":  # has weights of its own
            continue
        values = torch.load(f"{folder}/{name}.pt", mmap=True, weights_only=True)
        found[name] = checked(name, float((values - expected).abs().max() / expected.abs().max()))
    return found


def in_process(args, **row):
    """The peak of a process counts that of its parent too, so each row has one of its own."""
    command = [sys.executable, __file__, "--size", args.size, "--out", args.out, "--row", json.dumps(row)]
    command += ["--training"] * args.training
    result = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(result.stdout.splitlines()[-1])


def measure(args, length, batch, ways, memory=False, path=None):
    torch.manual_seed(0)
    config = published_config(args.size)
    config.embed_dropout = 0.0
    model = HyenaDNAModel(config).train(args.training)
    ids = torch.randint(7, 11, (batch, length))
    if memory:
        return peak(lambda: step_of(ways[0], model, length, args.training), ids, path)
    steps = {name: step_of(name, model, length, args.training) for name in ways}
    differences, warm = check(steps, ids, model) if ways else ({}, {})
    for name, of in {
        "bound": model,
        "bound, bfloat16": copy_of(model, "bfloat16") if "bfloat16" in ways else None,
    }.items():
        if of is not None:
            steps[name] = Bound(of, batch, length, fft_size(2 * length - 1), backward=args.training)
    longest = sum(warm.values())
    count = 1 if not ways or longest > 120 else 3 if longest > 10 else 7
    rounds = [{name: timed(step, ids) for name, step in steps.items()} for _ in range(count)]
    seconds = {name: statistics.median(one[name] for one in rounds) for name in steps}
    return {"seconds": seconds, "ratios": ratios_of(rounds), "rounds": len(rounds), "differences": differences}


def ratios_of(rounds):
    """Medians of the ratios in each round, by their names."""
    ratios = {
        "published / ours": ("published", "ours"),
        "published / fast": ("published", "fast"),
        "published / bfloat16": ("published", "bfloat16"),
        "published / checkpointed": ("published", "checkpointed"),
        "ours / bound": ("ours", "bound"),
        "fast / bound": ("fast", "bound"),
        "bfloat16 / its bound": ("bfloat16", "bound, bfloat16"),
    }
    return {
        name: statistics.median(one[above] / one[below] for one in rounds)
        for name, (above, below) in ratios.items()
        if above in rounds[0] and below in rounds[0]
    }


def step_of(name, model, length, training):
    """The function of token ids that is timed; it gives hidden states."""
    if name == "published":
        forward = Published(model, length)
    elif name == "attention":
        forward = attention(model.config, length)
    elif name == "multimolecule":
        forward = multimolecule(model)
    elif name == "checkpointed":
        forward = partial(checkpointed, model)
    elif name in ("fast", "bfloat16"):
        forward = partial(ours, copy_of(model, name))
    else:
        forward = partial(ours, model)
    return partial(forward_and_backward, model, forward) if training else partial(inference, forward)


def ours(model, ids):
    return model(ids).last_hidden_state


def checkpointed(model, ids):
    # The second names are the first ones' in transformers 4.
    getattr(model, "activation_checkpointing_enable", model.gradient_checkpointing_enable)({"use_reentrant": False})
    hidden = ours(model, ids)
    getattr(model, "activation_checkpointing_disable", model.gradient_checkpointing_disable)()
    return hidden


def copy_of(model, way):
    model = copy.deepcopy(model).eval()
    if way == "fast":
        model.config.memory = "fast"
    return model.bfloat16() if way == "bfloat16" else model


def attention(config, length):
    model = gpt2(config, length, attn_implementation="sdpa").eval()
    return lambda ids: model(ids, use_cache=False).last_hidden_state


def multimolecule(model):
    """That package's model with our weights."""
    from multimolecule import HyenaDnaConfig, HyenaDnaModel

    config = model.config
    other = HyenaDnaModel(
        HyenaDnaConfig(
            vocab_size=config.vocab_size,
            hidden_size=config.d_model,
            num_hidden_layers=config.n_layer,
            max_position_embeddings=config.max_seq_len,
            pad_token_id=None,
        ),
        add_pooling_layer=False,
    ).eval()
    mine = model.state_dict()
    state = {}
    for name in other.state_dict():
        source = "backbone." + name.replace("final_layer_norm", "ln_f").replace("encoder.", "")
        source = source.replace("implicit_filter.3.freq", "implicit_filter.1.freq")
        state[name] = mine[source.replace("implicit_filter.5.freq", "implicit_filter.1.freq")]
    other.load_state_dict(state)
    return lambda ids: other(ids).last_hidden_state


@torch.inference_mode()
def inference(forward, ids):
    return forward(ids)


def forward_and_backward(model, forward, ids):
    model.zero_grad()
    hidden = forward(ids)
    loss_of(hidden).backward()
    return hidden.detach()


def check(steps, ids, model):
    """
    The largest difference of each way from float64, of the largest value; it must be small. And the seconds it took.

    In training it is that from ours, of values and gradients.
    """
    found, seconds = {}, {}
    for name, step in steps.items():
        started = time.perf_counter()
        hidden = step(ids)
        seconds[name] = time.perf_counter() - started
        if name != "attention":
            found[name] = [hidden]
            if step.func is forward_and_backward:
                found[name] += [parameter.grad.clone() for parameter in model.parameters()]
    if model.training:
        expected = found.pop("ours")
    else:
        expected = [step_of("ours", copy.deepcopy(model).double(), ids.shape[1], training=False)(ids)]
    differences = {}
    for name, tensors in found.items():
        largest = max(float((mine - other).abs().max() / other.abs().max()) for mine, other in zip(tensors, expected))
        differences[name] = checked(name, largest)
    return differences, seconds


def checked(name, difference):
    if not difference <= TOLERANCE.get(name, 1e-4):
        raise SystemExit(f"{name} differs by {difference:.2g} of the largest value")
    return difference


def timed(step, ids):
    started = time.perf_counter()
    step(ids)
    return time.perf_counter() - started


def peak(make_step, ids, path=None):
    """The peak of this process in GB, what of it is `above` the loaded model, and seconds; values go to `path`."""
    loaded = held()
    step = make_step()
    started = time.perf_counter()
    hidden = step(ids)
    seconds = time.perf_counter() - started
    most = most_held()
    if path:
        torch.save(hidden, path)
    return {"peak": most / 1e9, "above": (most - loaded) / 1e9, "seconds": seconds}


def plot(rows, args):
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    rows = [row for row in rows if row["rows"] == 1]
    figure, axes = pyplot.subplots(1, 2, figsize=(10, 4.2), layout="constrained")
    for axis, unit, label in zip(axes, ("s", "GB"), ("seconds", "peak memory above the loaded model, GB")):
        for name in ("ours", "fast", "bfloat16", "checkpointed", "published", "attention", "multimolecule", "bound"):
            points = [(row["positions"], row[f"{name}, {unit}"]) for row in rows if row.get(f"{name}, {unit}")]
            if points:
                style = {"ours": "o-", "bound": "k:"}.get(name, ".--")
                axis.loglog(*zip(*points), style, label=name)
        lengths = [row["positions"] for row in rows]
        if unit == "s":
            middle = rows[(len(rows) - 1) // 2]
            for growth, text in ((lambda n: n * math.log2(n), "L log L"), (lambda n: n * n, "L²")):
                scale = middle["ours, s"] / growth(middle["positions"])
                axis.loglog(lengths, [scale * growth(n) for n in lengths], color="0.7", lw=0.8, zorder=0)
                axis.annotate(text, (lengths[-1], scale * growth(lengths[-1])), color="0.4", fontsize=8, ha="right")
        axis.set_xlabel("positions")
        axis.set_ylabel(label)
        axis.grid(alpha=0.3)
        axis.legend(fontsize=8)
    what = "forward and backward" if args.training else "forward"
    figure.suptitle(f"{args.size}, {what}, batch 1\n{machine()}", fontsize=8)
    figure.savefig(f"{args.out}.png", dpi=150)


if __name__ == "__main__":
    main()
