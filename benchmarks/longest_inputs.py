"""
The longest sequence that 1, 8 and 64 GPUs of 80 GB train, estimated from what autograd keeps for a position.

    python benchmarks/longest_inputs.py --out benchmarks/results/longest_inputs
    python benchmarks/longest_inputs.py --measure 32768 --out benchmarks/results/longest_inputs_measured

What is kept is counted on the CPU, through PyTorch's hooks for saved tensors, at two lengths whose difference is per
position: with everything kept; with gradient checkpointing (the input of each block, and all of one block); and with
memory="low" beside it. To the block in work, its transforms are added, which are freed within it: twice the length, for
the channels that are transformed together. Weights, gradients and AdamW's moments take 16 bytes a parameter. A quarter
of the memory is left free, for what the backward pass holds while it works.

The second line compares the peaks of training steps of 8 blocks of width 256, on the CPU, with that count. Nothing was
run on a GPU.
"""

import argparse
import json
import subprocess
import sys

import torch
from memory import measure
from report import write_table

from hyenadna_hf import HyenaDNAConfig, HyenaDNAForCausalLM
from hyenadna_hf.model.plan_hyenadna import Plan
from hyenadna_hf.model.tuning_hyenadna import TUNING

MEMORY = 0.75 * 80e9  # bytes of a GPU
# The paths of a GPU.
WAYS = {
    "everything": {"memory": "auto", "path": "whole"},
    "inputs of blocks": {"memory": "auto", "path": "whole", "checkpointed": True},
    'inputs of blocks, memory="low"': {"memory": "low", "path": "pieces", "checkpointed": True},
}
SIZES = {"6.6 M": (8, 256), "53 M": (16, 512), "0.42 B": (32, 1024), "1.7 B": (32, 2048)}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", default="longest_inputs", help="beginning of the names of the files to write")
    parser.add_argument("--measure", type=int, nargs="+", help="positions of the steps whose peaks are measured")
    parser.add_argument("--row", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.row:
        return print(json.dumps(measure(training=True, **json.loads(args.row))))
    write_table(measured(args.measure) if args.measure else estimates(), args.out)


def estimates():
    rows = []
    for name, (layers, width) in SIZES.items():
        for kept, way in WAYS.items():
            needed = counted(layers, width, **way)
            row = {"parameters": name, "layers": layers, "width": width, "kept": kept, "bytes a position": needed}
            for gpus in (1, 8, 64):
                states = 16 * parameters(layers, width)
                shared = gpus > 1 and way["memory"] == "low"  # an operator whose sequence is shared knows no pieces
                row[f"{gpus} GPU" + "s" * (gpus > 1)] = "" if shared else positions(gpus, needed, states)
            rows.append(row)
    return rows


def measured(lengths):
    layers, width = SIZES["6.6 M"]
    rows = []
    for kept, way in WAYS.items():
        for length in lengths:
            row = json.dumps({"size": "hyenadna-large-1m-seqlen", "length": length, **way})
            # The peak of a process counts that of its parent too.
            result = subprocess.run(
                [sys.executable, __file__, "--row", row], check=True, stdout=subprocess.PIPE, text=True
            )
            found = 1e6 * json.loads(result.stdout.splitlines()[-1])["gigabytes"] / length
            count = counted(layers, width, **way) / 1000
            rows.append({"positions": length, "kept": kept, "counted, kB": count, "measured, kB": found})
            rows[-1]["measured / counted"] = found / count
    return rows


def counted(layers, width, memory, path, checkpointed=False):
    """Bytes a position: of the blocks, of the rest, and of the transforms of what is transformed together."""
    block, rest = bytes_per_position(width, memory, path)
    inputs = 4 * width
    transforms = (
        4 * 4 * 2 * (TUNING.channels if memory == "low" else width)
    )  # two spectra, their product and its inverse
    return (layers * inputs + block if checkpointed else layers * block) + rest + transforms


def positions(gpus, needed, states):
    """Bases of one sequence, to two digits, and the states whole on each GPU (as DDP has them)."""
    found = gpus * max(0, MEMORY - states) / needed
    return int(float(f"{found:.1e}"))


def build(layers, width, memory="auto"):
    config = HyenaDNAConfig(d_model=width, n_layer=layers, max_seq_len=4096, embed_dropout=0.0, memory=memory)
    return HyenaDNAForCausalLM(config)


def parameters(layers, width):
    one, two = (sum(p.numel() for p in build(n, width).parameters()) for n in (1, 2))
    return one + (layers - 1) * (two - one)


def bytes_per_position(width, memory, path):
    """What autograd keeps: of one block, and of all the rest."""
    one, two = (
        (kept(build(layers, width, memory), path, 1024) - kept(build(layers, width, memory), path, 512)) / 512
        for layers in (1, 2)
    )
    return round(two - one), round(one - (two - one))


def kept(model, path, length):
    """Bytes of all tensors that the backward pass of a loss will read, each storage once, without the parameters."""
    known = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    found = {}

    def pack(tensor):
        found[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage()
        return tensor

    ids = torch.randint(7, 11, (1, length))
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        plan = Plan(path, low_memory=model.config.memory == "low")
        loss = model(ids, labels=ids, plan=plan).loss
    total = sum(storage.nbytes() for pointer, storage in found.items() if pointer not in known)
    del loss
    return total


if __name__ == "__main__":
    main()
