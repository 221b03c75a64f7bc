"""
Seconds and memory of training soft prompts of up to the paper's 32,768 tokens before the frozen 160k model.

    python benchmarks/soft_prompt_memory.py --out benchmarks/results/soft_prompt_memory

A step is forward and backward of one row: prompt, `--length` bases, answer. Memory is the peak above that of the loaded
model, on a CPU of the process, on a GPU of its allocator. Each row of the table is a process of its own and runs once,
cold. Weights are random: this says nothing of accuracy.
"""

import argparse
import json
import subprocess
import sys
import time

import torch
from peft_methods import memory
from report import write_table

from hyenadna_hf import HyenaDNAForCausalLM
from hyenadna_hf.hub.sizes import published_config
from hyenadna_hf.training.soft_prompt import add_prompt


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", default="hyenadna-medium-160k-seqlen", help="a published size, random weights")
    parser.add_argument("--prompt_tokens", type=int, nargs="*", default=[2, 32, 128, 512, 2048, 8192, 32768])
    parser.add_argument("--length", type=int, default=500, help="bases behind the prompt")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--out", help="beginning of the names of the files to write")
    parser.add_argument("--row", type=json.loads, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.row:
        return print(json.dumps(measure(args, *args.row)))
    rows = []
    for tokens in args.prompt_tokens:
        plain, checkpointed = (run([tokens, checkpointing]) for checkpointing in (False, True))
        rows.append(
            {
                "prompt tokens": tokens,
                "parameters trained": plain["parameters"],
                "s a step": plain["seconds"],
                "peak memory, GB": plain["gigabytes"],
                "with gradient checkpointing, s": checkpointed["seconds"],
                "with gradient checkpointing, GB": checkpointed["gigabytes"],
            }
        )
        print(rows[-1], flush=True)
    if args.out:
        write_table(rows, args.out)


def run(row):
    """A row in a process of its own: the peak of a process counts that of its parent too."""
    command = [sys.executable, __file__, *sys.argv[1:], "--row", json.dumps(row)]
    result = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(result.stdout.splitlines()[-1])


def measure(args, tokens, checkpointing):
    torch.manual_seed(0)
    model = HyenaDNAForCausalLM(published_config(args.size)).to(args.device)
    if checkpointing:
        enable = getattr(model, "activation_checkpointing_enable", model.gradient_checkpointing_enable)
        enable({"use_reentrant": False})
    model = add_prompt(model, tokens, dropout=0.1).train()
    ids = torch.randint(7, 11, (1, args.length + 1), device=args.device)
    labels = ids.clone()
    labels[:, :-1] = -100
    loaded, started = memory(args.device), time.perf_counter()
    model(input_ids=ids, attention_mask=torch.ones_like(ids), labels=labels).loss.backward()
    gradient = model.prompt_encoder["default"].embedding.weight.grad
    if not gradient.isfinite().all():
        raise SystemExit("the gradient of the prompt is not finite")
    seconds = time.perf_counter() - started
    trained = [parameter.numel() for parameter in model.parameters() if parameter.requires_grad]
    gigabytes = (memory(args.device, peak=True) - loaded) / 1e9
    return {"parameters": sum(trained), "seconds": seconds, "gigabytes": gigabytes}


if __name__ == "__main__":
    main()
