"""
Peak memory of every published size against length, with each setting of `memory`, on a CPU.

    python benchmarks/memory.py --out benchmarks/results/memory
    python benchmarks/memory.py --sizes hyenadna-large-1m-seqlen --lengths 1000000 --longest_training 1000000 ...

Each cell is one run of one row of a process of its own, cold: gigabytes at the peak above what the process holds when
the model is loaded, and seconds (upper limits where the machine does something else meanwhile). Training is a forward
and a backward pass; "checkpointed" is memory="low" with gradient checkpointing, and its loss and gradients must be
finite. What would take longer than the limits given is left out.
"""

import argparse
import json
import subprocess
import sys
import time

import torch
from process_memory import held, most_held
from report import write_table

from hyenadna_hf import HyenaDNAForCausalLM
from hyenadna_hf.hub.sizes import SIZE_NAMES, published_config
from hyenadna_hf.model.plan_hyenadna import Plan

# Sizes that differ in max_seq_len alone take the same memory at the same length.
LENGTHS = [1024, 16_384, 32_768, 160_000, 450_000, 1_000_000]
WAYS = {
    "inference, auto": {"memory": "auto"},
    "inference, low": {"memory": "low"},
    "inference, fast": {"memory": "fast"},
    "training, auto": {"memory": "auto", "training": True},
    "training, low": {"memory": "low", "training": True},
    "training, checkpointed": {"memory": "low", "training": True, "checkpointed": True},
}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", nargs="+", default=SIZE_NAMES, help="published sizes, random weights")
    parser.add_argument("--lengths", type=int, nargs="+", default=LENGTHS, help="those that a size reads are tried")
    parser.add_argument("--longest_fast", type=int, default=160_000, help='longest inference with memory="fast"')
    parser.add_argument("--longest_training", type=int, default=32_768, help="longest training of any kind")
    parser.add_argument("--longest_kept", type=int, default=32_768, help="longest training without checkpointing")
    parser.add_argument("--out", required=True, help="beginning of the names of the files to write")
    parser.add_argument("--row", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.row:
        return print(json.dumps(measure(**json.loads(args.row))))
    rows, seen = [], {}
    for size in args.sizes:
        config = published_config(size)
        for length in args.lengths:
            if length > config.max_seq_len:
                continue
            key = config.n_layer, config.d_model, length
            if key not in seen:
                seen[key] = cells(args, size, length)
            rows.append({"size": size, "positions": length, **seen[key]})
            print(rows[-1], flush=True)
    write_table(rows, args.out)


def cells(args, size, length):
    row = {}
    for name, way in WAYS.items():
        longest = args.longest_fast if way["memory"] == "fast" else length
        if way.get("training"):
            longest = args.longest_training if way.get("checkpointed") else args.longest_kept
        found = in_process(size=size, length=length, **way) if length <= longest else {}
        row[f"{name}, GB"] = found.get("gigabytes", "")
        row[f"{name}, s"] = found.get("seconds", "")
    return row


def in_process(**row):
    """The peak of a process counts that of its parent too, so each cell has one of its own."""
    command = [sys.executable, __file__, "--out", "", "--row", json.dumps(row)]
    result = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(result.stdout.splitlines()[-1])


def measure(size, length, memory, training=False, checkpointed=False, path=None):
    plan = None if path is None else Plan(path, low_memory=memory == "low")
    torch.manual_seed(0)
    model = HyenaDNAForCausalLM(published_config(size)).train(training)
    model.config.memory = memory
    if checkpointed:
        enable = getattr(model, "activation_checkpointing_enable", model.gradient_checkpointing_enable)
        enable({"use_reentrant": False})
    ids = torch.randint(7, 11, (1, length))
    loaded = held()
    started = time.perf_counter()
    if training:
        loss = model(ids, labels=ids, plan=plan).loss
        loss.backward()
        gradients = [parameter.grad for parameter in model.parameters()]
        if not all(tensor.isfinite().all() for tensor in (loss, *gradients)):
            raise SystemExit("loss or gradients are not finite")
    else:
        with torch.inference_mode():
            model(ids, logits_to_keep=1, plan=plan)
    seconds = time.perf_counter() - started
    return {"seconds": seconds, "gigabytes": (most_held() - loaded) / 1e9}


if __name__ == "__main__":
    main()
