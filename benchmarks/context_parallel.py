"""
Peak memory and seconds of a training step whose sequence is shared by 1, 2 and 4 processes on one machine's CPU.

    python benchmarks/context_parallel.py --out benchmarks/results/context_parallel

Each row is a run of torchrun. Memory is the highest peak of a process above what it holds when the model is loaded; the
processes share the machine's cores, so seconds say little but that work is not repeated. Before the rows, the loss and
the gradients of each number of processes are compared with those of one at 4,096 positions.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
import torch.distributed as dist
from process_memory import held, most_held
from report import write_table
from torch.distributed.device_mesh import init_device_mesh

from hyenadna_hf import HyenaDNAForCausalLM
from hyenadna_hf.distributed import average_gradients, context_parallel
from hyenadna_hf.hub.sizes import published_config


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", default="hyenadna-large-1m-seqlen", help="a published size, random weights")
    parser.add_argument("--layers", type=int, default=4, help="blocks, in place of those of the size")
    parser.add_argument("--lengths", type=int, nargs="*", default=[16384, 32768], help="positions")
    parser.add_argument("--processes", type=int, nargs="*", default=[1, 2, 4])
    parser.add_argument("--out", default="context_parallel", help="beginning of the names of the files to write")
    parser.add_argument("--row", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.row:
        return measure(args.size, args.layers, **json.loads(args.row))
    compared = [run(args, processes, length=4096) for processes in args.processes]
    for processes, found in zip(args.processes, compared):
        for name in ("loss", "gradient"):
            if abs(found[name] - compared[0][name]) > 1e-4 * compared[0][name]:
                raise SystemExit(f"{name}: {found[name]} with {processes} processes, else {compared[0][name]}")
    rows = []
    for length in args.lengths:
        for processes in args.processes:
            found = run(args, processes, length=length)
            rows.append(
                {
                    "positions": length,
                    "processes": processes,
                    "peak a process, GB": found["gigabytes"],
                    "peak times processes, GB": found["gigabytes"] * processes,
                    "s": found["seconds"],
                }
            )
            print(rows[-1], flush=True)
    write_table(rows, args.out)


def run(args, processes, **row):
    with tempfile.TemporaryDirectory() as folder:
        row["file"] = str(Path(folder, "row.json"))
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(processes)]
        options = ["--size", args.size, "--layers", str(args.layers), "--row", json.dumps(row)]
        subprocess.run([*command, __file__, *options], check=True)
        return json.loads(Path(row["file"]).read_text())


def measure(size, layers, length, file):
    mesh = init_device_mesh("cpu", (int(os.environ["WORLD_SIZE"]),))
    torch.manual_seed(0)
    config = published_config(size)
    config.n_layer, config.embed_dropout = layers, 0.0
    model = HyenaDNAForCausalLM(config)
    ids = torch.randint(7, 11, (1, length))
    loaded = held()
    dist.barrier()
    started = time.perf_counter()
    with context_parallel(model, mesh, gather_outputs=False):
        loss = model(ids, labels=ids).loss
        loss.backward()
    seconds = time.perf_counter() - started
    above = torch.tensor(most_held() - loaded)
    dist.all_reduce(above, dist.ReduceOp.MAX)
    average_gradients(model, mesh)
    gradient = torch.stack([parameter.grad.norm() for parameter in model.parameters()]).norm()
    if dist.get_rank() == 0:
        found = {"gigabytes": above.item() / 1e9, "seconds": seconds}
        Path(file).write_text(json.dumps({**found, "loss": loss.item(), "gradient": gradient.item()}))
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
