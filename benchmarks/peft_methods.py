"""
Parameters trained, seconds and memory of PEFT's methods against full fine-tuning, for a sequence classifier.

    python benchmarks/peft_methods.py --out benchmarks/results/peft_methods

A step is forward, backward and AdamW on one batch; its time is the best of `--repeats` after two to warm up. Memory is
the peak above that of the loaded model, on a CPU of the process, on a GPU of its allocator. Each method is a process of
its own. Before times, it is checked that the method's first logits are those of the model (but behind a prompt), and
that no other parameter than its own changes.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path

import torch
from peft import (
    IA3Config,
    LNTuningConfig,
    LoraConfig,
    PromptEncoderConfig,
    PromptTuningConfig,
    VeraConfig,
    get_peft_model,
)
from process_memory import held, most_held
from report import write_table

from hyenadna_hf import HyenaDNAForSequenceClassification
from hyenadna_hf.hub.sizes import published_config
from hyenadna_hf.training.adapters import FEEDFORWARD_LAYERS, LINEAR_LAYERS, NORMS

LINEAR = {"target_modules": list(LINEAR_LAYERS)}
PROMPT = {"num_virtual_tokens": 32}
METHODS = {
    "full": None,
    "LoRA, r 8": (LoraConfig, LINEAR),
    "DoRA, r 8": (LoraConfig, {**LINEAR, "use_dora": True}),
    "IA3": (IA3Config, {**LINEAR, "feedforward_modules": list(FEEDFORWARD_LAYERS)}),
    "VeRA, r 256": (VeraConfig, LINEAR),
    "LN-tuning": (LNTuningConfig, {"target_modules": list(NORMS)}),
    "prompt tuning, 32 tokens": (PromptTuningConfig, PROMPT),
    "p-tuning, 32 tokens": (PromptEncoderConfig, {**PROMPT, "encoder_hidden_size": 128}),
}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", default="hyenadna-small-32k-seqlen", help="a published size, random weights")
    parser.add_argument("--length", type=int, default=1024, help="bases")
    parser.add_argument("--batch", type=int, default=8, help="sequences a step")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--out", help="beginning of the names of the files to write")
    parser.add_argument("--method", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.method:
        return print(json.dumps(measure(args)))
    rows = []
    for method in METHODS:
        command = [sys.executable, __file__, *sys.argv[1:], "--method", method]
        result = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
        rows.append(json.loads(result.stdout.splitlines()[-1]))
        print(rows[-1], flush=True)
    if args.out:
        write_table(rows, args.out)


def measure(args):
    torch.manual_seed(0)
    base = HyenaDNAForSequenceClassification(published_config(args.size, embed_dropout=0.0)).to(args.device)
    ids = torch.randint(7, 11, (args.batch, args.length), device=args.device)
    labels = torch.arange(args.batch, device=args.device) % 2
    with torch.no_grad():
        expected = base.eval()(ids).logits
    parameters = base.num_parameters()
    model = with_method(base, args.method)
    check_logits(model, ids, expected, args.method)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    frozen = [(parameter, parameter.clone()) for parameter in model.parameters() if not parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-3)
    model.train()
    loaded, seconds = memory(args.device), []
    while len(seconds) < 2 + args.repeats:
        started = time.perf_counter()
        optimizer.zero_grad()
        inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": labels}
        model(**inputs).loss.backward()
        optimizer.step()
        if args.device != "cpu":
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - started)
    if not all(torch.equal(parameter, before) for parameter, before in frozen):
        raise SystemExit(f"{args.method} changed a parameter that is not its own")
    return {
        "method": args.method,
        "parameters trained": sum(map(torch.Tensor.numel, trained)),
        "share, %": 100 * sum(map(torch.Tensor.numel, trained)) / parameters,
        "s a step": min(seconds[2:]),
        "peak memory, GB": (memory(args.device, peak=True) - loaded) / 1e9,
        "saved, MB": saved(model) / 1e6,
    }


def with_method(base, method):
    if METHODS[method] is None:
        return base
    config_class, options = METHODS[method]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PEFT asks transformers by an old name, and warns of every LayerNorm
        return get_peft_model(base, config_class(task_type="SEQ_CLS", **options))


def check_logits(model, ids, expected, method):
    if "tokens" in method:
        return
    with torch.no_grad():
        difference = float((model.eval()(input_ids=ids).logits - expected).abs().max())
    if difference > 1e-4:
        raise SystemExit(f"{method} begins with other logits than the model's, by {difference:.2g}")


def memory(device, peak=False):
    """Bytes in use, or the most that were."""
    if device != "cpu":
        return torch.cuda.max_memory_allocated() if peak else torch.cuda.memory_allocated()
    return most_held() if peak else held()


def saved(model):
    """Bytes of the tensors that `save_pretrained` writes."""
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        return sum(path.stat().st_size for path in Path(folder).glob("*.safetensors"))


if __name__ == "__main__":
    main()
