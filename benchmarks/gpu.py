"""
Tests and measurements on a GPU in nine minutes, with torch, transformers, triton, pytest and this folder on PYTHONPATH.

    python benchmarks/gpu.py --out DIR
    python benchmarks/gpu.py --quick --device cpu --out DIR   # the same code in two minutes, without a GPU

writes tests.txt, gpu.csv, gpu.md, gpu.json and, if there is matplotlib, gpu.png. First it runs the tests in tests/gpu,
then it measures, the most telling rows first. Rows that were not reached say "no time", others why they failed. It ends
with 1 if a test or this package fails, or if values differ from those in float64 by more than 1e-3 of the largest value
(float32) or 0.2 of it (bfloat16).

The ways have the same sizes, random weights and no dropout. `published` is the published formulation
(benchmarks/published.py); `attention` is GPT-2 with flash attention, in bfloat16 only; `compiled` is torch.compile for
one shape at a time, in the mode of --compile_mode ("reduce-overhead" uses CUDA graphs). Float32 is without TF32.
Bfloat16 is autocast in `published` and where there are gradients, and the dtype of the weights elsewhere. `training` is
forward, backward and AdamW. `generation` is of 128 tokens with the cache, after a prompt that is read before the clock
starts; to it comes the share of the look-ahead (benchmarks/generation.py). `published` has no cache and reads
everything for each token. `ms` is of a token there, elsewhere of a call.

The ways of a shape take turns after a call to warm up, the compiled ones by themselves; a time is the median of the
rounds, of which there is one if it takes seconds. `peak GB` is what the allocator held beyond the model that the ways
share, and is not counted for compiled ways. `error` is the largest difference from float64, of the largest value, in
hidden states and gradients; attention has none, since it has weights of its own, and neither have inputs beyond 65,536
positions.
"""

import argparse
import copy
import csv
import gc
import importlib
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import time
import traceback
from contextlib import contextmanager, nullcontext
from datetime import UTC, datetime
from functools import partial
from importlib.util import find_spec
from itertools import groupby
from pathlib import Path

import torch
import transformers
from published import Published, gpt2
from report import text
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from hyenadna_hf import HyenaDNAConfig, HyenaDNAModel
from hyenadna_hf.markdown import markdown_table

ROOT = Path(__file__).resolve().parents[1]
FULL = {
    "minutes": 9,
    "sizes": [(128, 2), (256, 8)],  # width, layers
    "lengths": [256, 1024, 4096, 16_384, 65_536, 262_144, 1_000_000],
    "batches": [(64, 128), (64, 1024), (32, 512), (16, 2048)],  # rows, length
    "longest_compiled": 16_384,
    "new": 128,  # tokens
    "rounds": 7,
}
QUICK = {
    "minutes": 1.75,
    "sizes": [(128, 2)],
    "lengths": [256, 1024],
    "batches": [(4, 128)],
    "longest_compiled": 256,
    "new": 16,
    "rounds": 2,
}
LONGEST_EXACT = 65_536
TOLERANCE = {"float32": 1e-3, "bfloat16": 0.2}
WAYS = ["ours", "ours compiled", "published", "attention", "attention compiled"]
SHAPE = ["what", "width", "layers", "rows", "positions", "dtype"]
HEADS = ["what", "way", *SHAPE[1:], "tokens/s", "ms", "peak GB", "error", "x published", "note"]


def main():
    started = time.monotonic()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder for the files to write")
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    parser.add_argument("--quick", action="store_true", help="few and short inputs")
    parser.add_argument("--compile_mode", default="default", help="mode of torch.compile")
    parser.add_argument("--minutes", type=float, help=f"for all; {FULL['minutes']}, or {QUICK['minutes']} with --quick")
    args = parser.parse_args()
    if args.device == "cuda" and not torch.cuda.is_available():
        parser.error("there is no CUDA device; --quick --device cpu runs the same code without one")
    given = {} if args.minutes is None else {"minutes": args.minutes}
    vars(args).update((QUICK if args.quick else FULL) | given)
    deadline = started + 60 * args.minutes - 15  # to start, and to write the files
    args.left = lambda: deadline - time.monotonic()
    args.took = {}  # by rows so far
    args.out.mkdir(parents=True, exist_ok=True)
    torch.backends.cudnn.allow_tf32 = False

    tests, passed = run_tests(args)
    facts = {"tests marked gpu": tests, **machine(args), "minutes": args.minutes, "compile mode": args.compile_mode}
    rows = list_rows(args)
    for turn in [list(turn) for _, turn in groupby(rows, lambda row: (rank(row), shape_of(row)))]:
        with failures(*turn):
            measure(args, turn)
        if any(row["note"] != "no time" for row in turn):
            write(args, facts, rows)  # each time, so that something is there if the process is stopped
            for row in turn:
                print("; ".join(f"{name} {text(value)}" for name, value in row.items() if value), flush=True)
    write(args, facts, rows)
    plot(args, facts, rows)
    wrong = [row for row in rows if row["error"] is not None and not row["error"] <= TOLERANCE[row["dtype"]]]
    wrong += [row for row in rows if row["note"].startswith("failed") and row["way"].startswith("ours")]
    no_time = sum(row["note"] == "no time" for row in rows)
    print(f"tests marked gpu: {tests}; {len(rows)} rows, {len(wrong)} of them wrong, no time for {no_time}")
    return 0 if passed and not wrong else 1


def run_tests(args):
    """Run the tests in tests/gpu, at most for two fifths of the time: a line on how it went, and whether well."""
    path, seconds = args.out / "tests.txt", 0.4 * args.left()
    if args.device == "cpu" or seconds < 1:
        why = "not run: they need a CUDA device" if args.device == "cpu" else "not run: no time"
        path.write_text(f"{why}\n", encoding="utf-8")
        return why, args.device == "cpu"
    command = ["timeout", "-k", "5", str(seconds), sys.executable, "-u", "-m", "pytest", "tests/gpu"]
    command += ["-m", "gpu", "-v", "-p", "no:cacheprovider", "--durations=10"]
    processes = max(1, (os.cpu_count() or 1) // 2) if find_spec("xdist") else 1
    command += ["-n", str(processes)] if processes > 1 else []
    # The twins in float64 are on the CPU, where more threads than cores wait for each other.
    environment = {**os.environ, "OMP_NUM_THREADS": str(max(1, (os.cpu_count() or 1) // processes))}
    with open(path, "w", encoding="utf-8") as file:
        code = subprocess.run(command, cwd=ROOT, env=environment, stdout=file, stderr=subprocess.STDOUT).returncode
        if code in (124, 137):
            print(f"\nstopped after {seconds:.0f} s", file=file)
    return path.read_text(encoding="utf-8").rstrip().split("\n")[-1].strip("= "), code == 0


def list_rows(args):
    """List all rows, the most telling first, as they are if there is no time for them."""
    rows = []
    for what in ("training", "forward", "forward+backward", "generation"):
        for dtype in ("bfloat16", "float32"):
            for count, length in args.batches if what == "training" else [(1, length) for length in args.lengths]:
                ways = [way for way in WAYS if dtype == "bfloat16" or "attention" not in way]
                if what == "generation" or length > args.longest_compiled:
                    ways = [way for way in ways if "compiled" not in way]
                for width, layers in args.sizes:
                    shape = dict(zip(SHAPE, (what, width, layers, count, length, dtype)))
                    rows += [dict.fromkeys(HEADS) | shape | {"way": way, "note": "no time"} for way in ways]
    return sorted(rows, key=rank)


def rank(row):
    """Tell after which others a row comes: compiling takes long, and so does attention to a million positions."""
    what, length, bfloat16 = row["what"], row["positions"], row["dtype"] == "bfloat16"
    if "compiled" in row["way"]:
        return 1 if bfloat16 and length in (2048, 16_384) else 3
    if row["way"] == "attention" and length > 262_144:
        return 2 if what == "forward" else 4
    return 3 if what == "generation" and not bfloat16 else 0


def shape_of(row):
    return tuple(row[name] for name in SHAPE)


def measure(args, turn):
    """Measure those rows of a shape for which there is time."""
    if all(estimate(args, row) > args.left() for row in turn):
        return
    torch.manual_seed(0)
    torch.compiler.reset()  # or it would stop compiling after some shapes
    shape = turn[0]
    length = shape["positions"] + args.new * (shape["what"] == "generation")
    sizes = {"d_model": shape["width"], "n_layer": shape["layers"], "max_seq_len": max(1026, length + 2)}
    model = HyenaDNAModel(HyenaDNAConfig(**sizes, embed_dropout=0.0)).to(args.device).train(trains(shape))
    ids = torch.randint(7, 11, (shape["rows"], length), device=args.device)
    expected, why_not = exact(args, shape, model, ids)
    ready = []
    for row in turn:
        if estimate(args, row) < args.left():
            row["note"], began = "", time.monotonic()
            with failures(row):
                ready.append(prepare(args, row, model, ids, expected))
                for _ in range(2 * ("compiled" in row["way"])):  # CUDA graphs are recorded in the second call
                    ready[-1][2]()
                if "attention" not in row["way"] and not expected:
                    row["note"] = why_not
            args.took[kind_of(row)] = time.monotonic() - began, work(row)
    expected, spent = None, 0
    for _ in range(args.rounds):
        began = time.monotonic()
        for row, _, call, own, times in ready:
            if not row["note"].startswith(("failed", "out of memory")):
                with failures(row):
                    seconds, peak = call()[1:]
                    times.append(seconds)
                    counted = args.device == "cuda" and "compiled" not in row["way"]  # graphs keep memory of their own
                    row["peak GB"] = (peak + own) / 1e9 if counted else None
        took = time.monotonic() - began
        spent += took
        if spent + took > 3 or took > args.left():
            break
    for row, module, *_, times in ready:
        if times:
            seconds, tokens = statistics.median(times), tokens_of(args, row)
            if row["what"] == "generation" and row["way"] == "ours":
                with failures(row):
                    seconds += tokens * look_ahead(args, module, ids)
            row["tokens/s"] = tokens / seconds
            row["ms"] = 1000 * seconds / (tokens if row["what"] == "generation" else 1)


def prepare(args, row, model, ids, expected):
    """Call a way once, to warm up and to compare; then come its module, the call, the bytes it keeps, and its times."""
    before = held(args)
    module = module_of(args, row, model, ids)
    # With a rate of 0 the weights stay the same for all ways.
    optimizer = torch.optim.AdamW(module.parameters(), lr=0.0) if row["what"] == "training" else None
    call = partial(run, args, row, module, ids, optimizer)
    hidden = call()[0]
    if expected and "attention" not in row["way"]:
        compare(args, row, hidden, model, expected)
    del hidden
    module.zero_grad()
    return row, module, call, held(args) - before, []


def estimate(args, row):
    """Estimate the seconds for a row, by the last one of its kind: a call to warm up, and a round."""
    if "compiled" in row["way"]:  # which takes longer than any call
        return args.took.get(kind_of(row), (8 * row["layers"], None))[0] + 2
    seconds, before = args.took.get(kind_of(row), (1, work(row)))
    return 2.5 * seconds * max(1, work(row) / before) + 1


def kind_of(row):
    return row["what"], row["way"], row["width"]


def work(row):
    return row["rows"] * row["positions"] ** (2 if "attention" in row["way"] else 1)


def tokens_of(args, row):
    """Tell how many tokens a call reads, or makes."""
    if row["what"] == "generation":
        return 1 if row["way"] == "published" else args.new
    return row["rows"] * row["positions"]


def trains(row):
    return row["what"] in ("training", "forward+backward")


def module_of(args, row, model, ids):
    """Make what computes the hidden states of a way."""
    name, _, compiled = row["way"].partition(" ")
    if name == "published":
        return Published(model, ids.shape[1])
    module = attention(model, ids) if name == "attention" else model
    if row["dtype"] == "bfloat16" and not trains(row):
        module = copy.deepcopy(module).bfloat16()
    return (
        torch.compile(module, fullgraph=name == "ours", dynamic=False, mode=args.compile_mode) if compiled else module
    )


def attention(model, ids):
    others = dict.fromkeys(("attn_pdrop", "embd_pdrop", "resid_pdrop"), 0.0)
    others["activation_function"] = "gelu_pytorch_tanh"  # the same function as the default, in one kernel
    # The implementation called "sdpa" makes a mask when it is compiled, and flash attention takes none.
    transformers.AttentionInterface.register("unmasked_sdpa", sdpa_attention_forward)
    with torch.device(ids.device):
        module = gpt2(model.config, ids.shape[1], attn_implementation="unmasked_sdpa", **others)
    return module.train(model.training)


def run(args, row, module, ids, optimizer=None):
    """Do what is timed: hidden states, seconds, and the bytes at the peak beyond those that were held before."""
    module.zero_grad()
    before = held(args)
    if args.device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    function = partial(forward, args, row, module, ids)
    with nullcontext() if trains(row) else torch.inference_mode():
        if trains(row):
            function = partial(train, function, ids, optimizer)
        elif row["what"] == "generation" and row["way"] != "published":
            prompt, new = ids.tensor_split([row["positions"]], dim=1)
            with context(args, row):
                function = partial(generate, args, row, module, new, module(prompt, use_cache=True).past_key_values)
        hidden, seconds = timed(args, function)
    return hidden, seconds, torch.cuda.max_memory_allocated() - before if args.device == "cuda" else 0


@contextmanager
def context(args, row):
    autocasts = row["dtype"] == "bfloat16" and (trains(row) or row["way"] == "published")
    flash = "attention" in row["way"] and args.device == "cuda"
    backend = sdpa_kernel(SDPBackend.FLASH_ATTENTION) if flash else nullcontext()
    with torch.autocast(args.device, torch.bfloat16, enabled=autocasts), backend:
        yield


def forward(args, row, module, ids):
    with context(args, row):
        return module(ids) if isinstance(module, Published) else module(ids, use_cache=False).last_hidden_state


def train(forward, ids, optimizer):
    """Do forward, backward with the loss of a language model whose logits are the first channels, and a step."""
    hidden = forward()
    F.cross_entropy(hidden[:, :-1, :12].flatten(0, 1), ids[:, 1:].flatten()).backward()
    if optimizer is not None:
        optimizer.step()
    return hidden.detach()


def generate(args, row, module, new, cache):
    """Read tokens one by one, as if each had been made from what came before."""
    with context(args, row):
        return torch.cat([module(one, past_key_values=cache).last_hidden_state for one in new.split(1, 1)], 1)


@torch.inference_mode()
def look_ahead(args, module, ids):
    """Measure the seconds that the transform over the whole history takes, divided by the tokens that it is for."""
    prompt, new = ids.tensor_split([-args.new], dim=1)
    cache = module(prompt, use_cache=True).past_key_values
    for layer in cache.layers:
        layer.horizon = layer.length
    return timed(args, lambda: module(new[:, :1], past_key_values=cache))[1] / max(256, prompt.shape[1] // 8)


def timed(args, function):
    synchronize = torch.cuda.synchronize if args.device == "cuda" else lambda: None
    synchronize()
    started = time.perf_counter()
    result = function()
    synchronize()
    return result, time.perf_counter() - started


def exact(args, shape, model, ids):
    """Compute hidden states, and in training gradients, in float64; or tell why there are none."""
    if shape["positions"] > LONGEST_EXACT or "attention" in shape["way"]:
        return [], ""
    what = "forward+backward" if trains(shape) else "forward"
    row, found = shape | {"what": what, "way": "ours", "dtype": "float64", "note": ""}, []
    with failures(row):
        twin = copy.deepcopy(model).double()
        hidden = run(args, row, twin, ids)[0]
        found = tensors_of(hidden, twin)
    return found, f"not compared: float64: {row['note']}" if row["note"] else ""


def compare(args, row, hidden, model, expected):
    """Note the error of a way."""
    if row["what"] == "generation":
        hidden, expected = hidden[:, -args.new :], [expected[0][:, -args.new :]]
    pairs = zip(tensors_of(hidden, model), expected, strict=True)
    row["error"] = float(torch.stack([(one - other).abs().max() / other.abs().max() for one, other in pairs]).max())
    if not row["error"] <= TOLERANCE[row["dtype"]]:
        row["note"] = f"differs by {row['error']:.2g} of the largest value"


def tensors_of(hidden, model):
    return [hidden, *(parameter.grad for parameter in model.parameters() if parameter.grad is not None)]


@contextmanager
def failures(*rows):
    """Note a failure in the rows that have no time yet, and go on."""
    try:
        yield
    except Exception as error:
        lack = isinstance(error, torch.OutOfMemoryError) or "ALLOC_FAILED" in str(error)  # cuFFT and cuBLAS
        first = str(error).strip().split("\n")[0]
        for row in rows:
            if row["ms"] is None:
                row["note"] = "out of memory" if lack else f"failed: {type(error).__name__}: {first}"
        if not lack:
            traceback.print_exc()
        error.__traceback__ = None  # whose frames hold tensors
        gc.collect()
        if lack and torch.cuda.is_available():
            torch.cuda.empty_cache()


def held(args):
    return torch.cuda.memory_allocated() if args.device == "cuda" else 0


def machine(args):
    """Name the device, the versions and the commit that the results depend on."""
    commit, cores = "", f"{os.cpu_count()} CPU cores, {torch.get_num_threads()} threads"
    if shutil.which("git"):
        command = ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
        commit = subprocess.run(command, cwd=ROOT, capture_output=True, text=True).stdout.strip()
    return {
        "device": torch.cuda.get_device_name() if args.device == "cuda" else cores,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "transformers": transformers.__version__,
        "triton": importlib.import_module("triton").__version__ if find_spec("triton") else None,
        "commit": commit or "unknown",
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def write(args, facts, rows):
    published = {shape_of(row): row["ms"] for row in rows if row["way"] == "published"}
    for row in rows:
        base = published[shape_of(row)]
        row["x published"] = base / row["ms"] if base and row["ms"] else None
    with open(args.out / "gpu.csv", "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, HEADS)
        writer.writeheader()
        writer.writerows(rows)
    (args.out / "gpu.json").write_text(json.dumps({**facts, "rows": rows}, indent=1) + "\n", encoding="utf-8")
    table = markdown_table(HEADS, (map(text, row.values()) for row in rows))
    about = [f"- {name}: {value}" for name, value in facts.items()]
    (args.out / "gpu.md").write_text("\n".join([*about, "", *table]) + "\n", encoding="utf-8")


def plot(args, facts, rows):
    if find_spec("matplotlib") is None:
        print("gpu.png is left out, since matplotlib is not installed")
        return
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    kinds = [(width, what) for width, _ in args.sizes for what in ("forward", "forward+backward", "generation")]
    figure, axes = pyplot.subplots(len(kinds) // 3, 3, figsize=(13, 1.3 * len(kinds)), layout="constrained")
    for kind, axis in zip(kinds, axes.flat):
        shown = [row for row in rows if (row["width"], row["what"], row["dtype"]) == (*kind, "bfloat16")]
        for number, way in enumerate(WAYS):
            points = sorted((row["positions"], row["tokens/s"]) for row in shown if row["way"] == way and row["ms"])
            if points:
                axis.loglog(*zip(*points), "o-" if way == "ours" else ".--", color=f"C{number}", label=way)
        axis.set(title=f"{kind[1]}, width {kind[0]}", xlabel="positions", ylabel="tokens a second")
        axis.grid(alpha=0.3)
        if axis.lines:
            axis.legend(fontsize=8)
    figure.suptitle(f"bfloat16; {facts['device']}, PyTorch {facts['torch']}", fontsize=8)
    figure.savefig(args.out / "gpu.png", dpi=150)


if __name__ == "__main__":
    sys.exit(main())
