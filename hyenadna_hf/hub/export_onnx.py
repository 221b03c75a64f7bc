"""`hyenadna export-onnx`: a saved model as an ONNX graph of one length, for runtimes without PyTorch."""

import copy
import importlib.util
import logging
import warnings
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import torch
from rich.console import Console
from torch import nn

from ..arguments import CommandParser
from ..errors import InputError
from ..jobs import output_path, replace_file
from ..loading import CHECKPOINTS, CheckpointArguments, load_model

TOLERANCE = 1e-3  # of the largest output; float32 against float64
PACKAGES = ("onnx", "onnxscript", "onnxruntime")


@dataclass(kw_only=True)
class ExportArguments(CheckpointArguments):
    """The options of `hyenadna export-onnx`."""

    model: str = field(
        metadata={"positional": True, "help": f"A HyenaDNA model, exported with its head: {CHECKPOINTS}."}
    )
    out: str = field(metadata={"positional": True, "help": "File to write, .onnx."})
    max_length: int = field(
        metadata={"formerly": ["length"], "help": "Length of the inputs, in tokens; pad shorter sequences to it."}
    )
    batch_size: int = field(default=1, metadata={"formerly": ["batch"], "help": "Sequences in a batch."})


def parser():
    """The arguments of `hyenadna export-onnx`."""
    return CommandParser(
        "export-onnx",
        ExportArguments,
        "Write a saved HyenaDNA model as an ONNX graph, and compare it in onnxruntime with the model in float64.",
        "--model MODEL --out FILE --max_length N [ARGUMENT ...]",
        ["--model hyenadna-finetuned --out classifier.onnx --max_length 1024 --batch_size 8"],
    )


def main(argv):
    """Run `hyenadna export-onnx` with the arguments `argv` (a list of `str`)."""
    args, _ = parser().parse(argv)
    path = output_path("--out", args.out, (".onnx",))
    model = load_model(None, args.model, trust_remote_code=args.trust_remote_code)
    error = export_onnx(model, path, args.max_length, args.batch_size)
    Console().print(
        f"Wrote {path}: inputs input_ids and attention_mask, int64 of shape ({args.batch_size}, {args.max_length:,}); "
        f"its output in onnxruntime is within {error:.0e} of the model's in float64, relative to the largest value.",
        soft_wrap=True,
    )
    return {"out": path, "batch_size": args.batch_size, "max_length": args.max_length, "largest_difference": error}


def export_onnx(model: nn.Module, path: str | Path, max_length: int, batch_size: int = 1) -> float:
    """
    Write a model as an ONNX graph for batches of one shape.

    The graph has the inputs `input_ids` and `attention_mask`, int64 of shape `(batch_size, max_length)`, and one
    output, the first one of the model: logits or hidden states, float32. Its masks are exact: pad to the left or the
    right, with any token. A graph for all lengths would need transforms of a size that is known only at run time, which
    onnxruntime refuses.

    Args:
        model ([`PreTrainedModel`]): Any HyenaDNA class. It is not changed.
        path (`str` or `Path`): Where to write it; a file there is replaced when the new one is whole and compared.
        max_length (`int`): Length of the inputs in tokens, at least 2.
        batch_size (`int`, defaults to 1): Sequences in a batch.

    Returns:
        `float`: the largest difference of the output in onnxruntime from the model in float64, of the largest value
        there, on random sequences of which some are padded.

    Raises:
        InputError: if a package of the extra `onnx` is missing, a number is out of range, or the difference is above
            1e-3. Nothing is written then.
    """
    missing = [name for name in PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        raise InputError(f"{', '.join(missing)}: missing; pip install 'hyenadna_hf[onnx]'.")
    if not 2 <= max_length <= model.config.max_seq_len:
        raise InputError(f"max_length={max_length}: this model takes 2 to {model.config.max_seq_len:,} tokens.")
    if batch_size < 1:
        raise InputError(f"batch_size={batch_size}: a batch has at least one sequence.")
    model = copy.deepcopy(model).cpu().float().eval()
    inputs = _example(max_length, batch_size)
    found = []

    def write(temporary):
        with torch.no_grad(), _quiet_exporter():
            torch.onnx.export(
                _FirstOutput(model),
                (inputs["input_ids"], inputs["attention_mask"]),
                temporary,
                input_names=list(inputs),
                output_names=["output"],
                dynamo=True,
                external_data=False,
                verbose=False,
            )
        found.append(_difference(model, temporary, inputs))
        if not found[0] <= TOLERANCE:
            raise InputError(f"{path}: not written; the graph differs from the model by {found[0]:.1g} of the largest.")

    replace_file(Path(path), write)
    return found[0]


@contextmanager
def _quiet_exporter():
    """Without what the exporter says about itself and about packages that it would know."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


class _FirstOutput(nn.Module):
    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, input_ids, attention_mask):
        return self.model(input_ids=input_ids, attention_mask=attention_mask)[0]


def _example(length, batch):
    ids = torch.randint(7, 11, (batch, length), generator=torch.Generator().manual_seed(0))
    mask = torch.ones_like(ids)
    mask[0, : length // 3] = 0
    mask[1:2, length - length // 4 :] = 0
    return {"input_ids": ids, "attention_mask": mask}


def _difference(model, path, inputs):
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {name: tensor.numpy() for name, tensor in inputs.items()})
    with torch.no_grad():
        expected = model.double()(**inputs)[0]
    real = inputs["attention_mask"].bool() if expected.shape[:2] == inputs["attention_mask"].shape else slice(None)
    return float((torch.from_numpy(found) - expected)[real].abs().max() / expected[real].abs().max())
