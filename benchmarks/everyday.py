"""
Milliseconds at the lengths of every day: this package, the published formulation, multimolecule, and the bound.

    python benchmarks/everyday.py --out benchmarks/results/everyday_training
    python benchmarks/everyday.py --dtype bfloat16 --out benchmarks/results/everyday_training_bfloat16
    python benchmarks/everyday.py --compile --lengths 120 --out benchmarks/results/everyday_training_compiled
    python benchmarks/everyday.py --inference --out benchmarks/results/everyday_inference

writes .csv and .md. The ways of a row take turns in one process, after one round to warm up; a time is the median of
the rounds, a ratio the median of the ratios of each round. A training step is forward, backward and AdamW, with the
dropout on embeddings of the defaults in all ways. bfloat16 is autocast. Before a time is printed, hidden states and
gradients without dropout are compared, in float32 with those of ours in float64.

The ways: `published` is the published formulation (benchmarks/published.py); `bound` the matrix products of the layers
alone, in that dtype, of 1,024 positions at a time in memory that is used again, three times as many in training;
with --compile, `compiled` is ours by torch.compile, which takes a C++ compiler and some minutes a shape.
"""

import argparse
import copy
import statistics
from functools import partial
from importlib.util import find_spec

import torch
from published import Bound, Published, loss_of
from report import write_table
from speed import multimolecule, ours, timed

from hyenadna_hf import HyenaDNAConfig, HyenaDNAModel

# Width, layers, rows, length.
TRAINING = [
    (128, 2, 32, 120),
    (128, 2, 64, 200),
    (128, 2, 32, 512),
    (128, 2, 16, 1024),
    (256, 2, 16, 1024),
    (256, 4, 4, 2048),
]
INFERENCE = [(width, 2, 64, length) for width in (128, 256) for length in (70, 128, 200, 300, 512)]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--inference", action="store_true", help="forward alone, in place of training steps")
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32")
    parser.add_argument("--compile", action="store_true", help="also measure the compiled model")
    parser.add_argument("--lengths", type=int, nargs="+", help="only the shapes of these lengths")
    parser.add_argument("--rounds", type=int, default=11)
    parser.add_argument("--out", required=True, help="beginning of the names of the files to write")
    args = parser.parse_args()
    rows = []
    shapes = INFERENCE if args.inference else TRAINING
    for shape in [shape for shape in shapes if not args.lengths or shape[-1] in args.lengths]:
        rows.append(row_of(args, *shape))
        print(rows[-1], flush=True)
    write_table(rows, args.out)


def row_of(args, width, layers, rows, length):
    torch.manual_seed(0)
    config = HyenaDNAConfig(d_model=width, n_layer=layers, d_inner=4 * width, max_seq_len=max(1026, length + 2))
    model = HyenaDNAModel(config).train(not args.inference)
    ids = torch.randint(7, 11, (rows, length))
    forwards = {"ours": partial(ours, model), "published": Published(model, length)}
    if args.inference and find_spec("multimolecule"):
        forwards["multimolecule"] = multimolecule(model)
    if args.compile:
        torch._dynamo.reset()  # a shape of its own, not a variable one
        forwards["compiled"] = partial(ours, torch.compile(model))
    differences = compare(args, model, forwards, ids)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
    run = partial(infer, args) if args.inference else partial(train, args, optimizer)
    steps = {name: partial(run, forward) for name, forward in forwards.items()}
    of_dtype = copy.deepcopy(model).to(getattr(torch, args.dtype))
    steps["bound"] = Bound(of_dtype, rows, length, backward=not args.inference)
    for step in steps.values():
        step(ids)
    found = [{name: timed(step, ids) for name, step in steps.items()} for _ in range(args.rounds)]
    row = {"width": width, "layers": layers, "rows": rows, "positions": length}
    row |= {f"{name}, ms": 1000 * statistics.median(one[name] for one in found) for name in steps}
    pairs = [(name, "ours") for name in steps if name not in ("ours", "compiled", "bound")] + [("ours", "bound")]
    pairs += [("published", "compiled"), ("compiled", "bound")] if args.compile else []
    row |= {f"{a} / {b}": statistics.median(one[a] / one[b] for one in found) for a, b in pairs}
    return row | {f"{name}, largest difference": f"{value:.0e}" for name, value in differences.items()}


def infer(args, forward, ids):
    with torch.inference_mode(), autocast(args):
        return forward(ids)


def train(args, optimizer, forward, ids):
    optimizer.zero_grad()
    with autocast(args):
        hidden = forward(ids)
    loss_of(hidden).backward()
    optimizer.step()


def autocast(args):
    return torch.autocast("cpu", torch.bfloat16, enabled=args.dtype == "bfloat16")


def compare(args, model, forwards, ids):
    """The largest difference of each way from float64, of the largest value of each tensor."""
    exact = copy.deepcopy(model).double()
    expected = tensors_of(exact, partial(ours, exact), ids, args.inference)
    found = {}
    for name, forward in forwards.items():
        with autocast(args):
            tensors = tensors_of(model, forward, ids, args.inference)
        pairs = zip(tensors, expected, strict=True)
        largest = max(float((one - other).abs().max() / other.abs().max()) for one, other in pairs)
        if not largest <= (5e-4 if args.dtype == "float32" else 0.2):
            raise SystemExit(f"{name} differs by {largest:.2g} of the largest value")
        found[name] = largest
    return found


def tensors_of(model, forward, ids, inference):
    """Hidden states, and in training gradients, of a loss without dropout."""
    dropout, model.backbone.dropout.p = model.backbone.dropout.p, 0.0
    model.zero_grad()
    with torch.set_grad_enabled(not inference):
        hidden = forward(ids)
        if not inference:
            loss_of(hidden).backward()
    model.backbone.dropout.p = dropout
    return [hidden.detach(), *(parameter.grad for parameter in model.parameters() if parameter.grad is not None)]


if __name__ == "__main__":
    main()
