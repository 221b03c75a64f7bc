"""One rank dies in the middle of a run: `fail.py killed` by a signal, `fail.py raises` with an error."""

import os
import signal
import sys

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh

from hyenadna_hf import HyenaDNAConfig, HyenaDNAForCausalLM
from hyenadna_hf.distributed import average_gradients, context_parallel


def main(how):
    mesh = init_device_mesh("cpu", (int(os.environ["WORLD_SIZE"]),))
    model = HyenaDNAForCausalLM(HyenaDNAConfig(d_model=16, filter_order=16, max_seq_len=64))
    ids = torch.randint(7, 11, (1, 40), generator=torch.Generator().manual_seed(0))
    with context_parallel(model, mesh):
        for step in range(1000):
            if step == 2 and dist.get_rank() == 1:
                if how == "killed":
                    os.kill(os.getpid(), signal.SIGKILL)
                raise RuntimeError("the data of rank 1 ended")
            model(ids, labels=ids).loss.backward()
            average_gradients(model, mesh)
    print("all steps done")


if __name__ == "__main__":
    main(*sys.argv[1:])
