"""
The longest sequence that 1, 8 and 64 GPUs of 80 GB train, estimated from what autograd keeps for a position.

    python benchmarks/longest_inputs.py --out benchmarks/results/longest_inputs

What is kept is counted on the CPU, through PyTorch's hooks for saved tensors, at two lengths whose difference is per
position: with everything kept, and with gradient checkpointing (the input of each block, and all of one block). To the
block in work, its transforms are added, which are freed within it: twice the length, for the channels that a rank has.
Weights, gradients and AdamW's moments take 16 bytes a parameter. A quarter of the memory is left free, for what the
backward pass holds while it works: the peak that benchmarks/context_parallel.py measures on a CPU is 1.2 times this
count. Nothing was run on a GPU.
"""

import argparse

import torch
from report import write_table

from hyenadna_hf import HyenaDNAConfig, HyenaDNAForCausalLM
from hyenadna_hf.model import modeling_hyenadna

MEMORY = 0.75 * 80e9  # bytes of a GPU
SIZES = {"6.6 M": (8, 256), "53 M": (16, 512), "0.42 B": (32, 1024), "1.7 B": (32, 2048)}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", default="longest_inputs", help="beginning of the names of the files to write")
    args = parser.parse_args()
    modeling_hyenadna.RECOMPUTED_FROM = 1 << 62  # as on a GPU
    rows = []
    for name, (layers, width) in SIZES.items():
        block, rest = bytes_per_position(width)
        transforms = 4 * 4 * 2 * width  # two spectra, their product and its inverse, at twice the length
        everything = layers * block + rest + transforms
        checkpointed = layers * 4 * width + block + rest + transforms
        for kept, needed in (("everything", everything), ("inputs of blocks", checkpointed)):
            row = {"parameters": name, "layers": layers, "width": width, "kept": kept, "bytes a position": needed}
            for gpus in (1, 8, 64):
                states = 16 * parameters(layers, width)
                row[f"{gpus} GPU" + "s" * (gpus > 1)] = positions(gpus, needed, states)
            rows.append(row)
    write_table(rows, args.out)


def positions(gpus, needed, states):
    """Bases of one sequence, to two digits, and the states whole on each GPU (as DDP has them)."""
    found = gpus * max(0, MEMORY - states) / needed
    return int(float(f"{found:.1e}"))


def build(layers, width):
    config = HyenaDNAConfig(d_model=width, n_layer=layers, max_seq_len=4096, embed_dropout=0.0)
    return HyenaDNAForCausalLM(config)


def parameters(layers, width):
    one, two = (sum(p.numel() for p in build(n, width).parameters()) for n in (1, 2))
    return one + (layers - 1) * (two - one)


def bytes_per_position(width):
    """What autograd keeps: of one block, and of all the rest."""
    one, two = ((kept(build(layers, width), 1024) - kept(build(layers, width), 512)) / 512 for layers in (1, 2))
    return round(two - one), round(one - (two - one))


def kept(model, length):
    """Bytes of all tensors that the backward pass of a loss will read, each storage once, without the parameters."""
    known = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    found = {}

    def pack(tensor):
        found[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage()
        return tensor

    ids = torch.randint(7, 11, (1, length))
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        loss = model(ids, labels=ids).loss
    total = sum(storage.nbytes() for pointer, storage in found.items() if pointer not in known)
    del loss
    return total


if __name__ == "__main__":
    main()
