"""`hyenadna export-onnx`: export a saved model as an ONNX graph of fixed length, for runtimes without PyTorch."""

import copy
import importlib.util
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from torch import nn

from ..arguments import CommandParser
from ..errors import InputError
from ..jobs import output_path, replace_file
from ..loading import CHECKPOINTS, CheckpointArguments, load_model

TOLERANCE = 1e-3  # relative to the largest output, float32 against float64
PACKAGES = ("onnx", "onnxscript", "onnxruntime")


@dataclass(kw_only=True)
class ExportArguments(CheckpointArguments):
    """Options of `hyenadna export-onnx`."""

    model: str = field(
        metadata={"positional": True, "help": f"A HyenaDNA model, exported with its head: {CHECKPOINTS}."}
    )
    out: str = field(metadata={"positional": True, "help": "File to write, .onnx."})
    max_length: int = field(
        metadata={"formerly": ["length"], "help": "Length of the inputs, in tokens; pad shorter sequences to it."}
    )
    batch_size: int = field(default=1, metadata={"formerly": ["batch"], "help": "Number of sequences in a batch."})


def parser() -> CommandParser:
    """Create the parser of `hyenadna export-onnx`."""
    return CommandParser(
        "export-onnx",
        ExportArguments,
        "Export a saved HyenaDNA model as an ONNX graph, and compare it in onnxruntime with the model in float64.",
        "--model MODEL --out FILE --max_length N [ARGUMENT ...]",
        ["--model hyenadna-finetuned --out classifier.onnx --max_length 1024 --batch_size 8"],
    )


def main(argv: list[str]) -> dict[str, Any]:
    """Run `hyenadna export-onnx` with the arguments `argv`."""
    args, _ = parser().parse(argv)
    path = output_path("--out", args.out, (".onnx",))
    model = load_model(None, args.model, trust_remote_code=args.trust_remote_code)
    error = export_onnx(model, path, args.max_length, args.batch_size)
    Console().print(
        f"Wrote {path}: inputs input_ids and attention_mask, int64 of shape ({args.batch_size}, {args.max_length:,}). "
        f"Its output in onnxruntime is within {error:.0e} of the model in float64, relative to the largest value.",
        soft_wrap=True,
    )
    return {"out": path, "batch_size": args.batch_size, "max_length": args.max_length, "largest_difference": error}


def export_onnx(model: nn.Module, path: str | Path, max_length: int, batch_size: int = 1) -> float:
    """
    Export a model as an ONNX graph for batches of one shape.

    The graph has the inputs `input_ids` and `attention_mask`, int64 of shape `(batch_size, max_length)`, and one
    output, the first of the model: logits or hidden states in float32. Masks are exact: pad to the left or the right,
    with any token. A graph for all lengths would need transforms of a size known only at run time, which onnxruntime
    does not support.

    Args:
        model: Model of any HyenaDNA class. It is not changed.
        path: File to write. An existing file is replaced once the new one is complete and verified.
        max_length: Length of the inputs in tokens, at least 2.
        batch_size: Number of sequences in a batch.

    Returns:
        The largest difference between onnxruntime and the model in float64 on random sequences, some of them padded,
        relative to the largest output.

    Raises:
        InputError: If a package of the extra `onnx` is missing, a number is out of range, or the difference exceeds
            1e-3. Nothing is written in that case.
    """
    missing = [name for name in PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        raise InputError(f"{', '.join(missing)}: missing; pip install 'hyenadna_hf[onnx]'.")
    if not 2 <= max_length <= model.config.max_seq_len:
        raise InputError(f"max_length={max_length}: this model accepts 2 to {model.config.max_seq_len:,} tokens.")
    if batch_size < 1:
        raise InputError(f"batch_size={batch_size}: it must be at least 1.")
    model = copy.deepcopy(model).cpu().float().eval()
    inputs = _example_inputs(max_length, batch_size)
    differences = []

    def write(temporary: Any) -> None:
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
        difference = _relative_difference(model, temporary, inputs)
        if not difference <= TOLERANCE:
            raise InputError(
                f"{path}: not written; the graph differs from the model by {difference:.1g} of the largest output."
            )
        differences.append(difference)

    replace_file(Path(path), write)
    return differences[0]


@contextmanager
def _quiet_exporter() -> Iterator[None]:
    """Suppress messages of the exporter on itself and on optional packages."""
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
    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        return self.model(input_ids=input_ids, attention_mask=attention_mask)[0]


def _example_inputs(length: int, batch: int) -> dict[str, torch.Tensor]:
    ids = torch.randint(7, 11, (batch, length), generator=torch.Generator().manual_seed(0))
    mask = torch.ones_like(ids)
    mask[0, : length // 3] = 0
    mask[1:2, length - length // 4 :] = 0
    return {"input_ids": ids, "attention_mask": mask}


def _relative_difference(model: nn.Module, path: Any, inputs: dict[str, torch.Tensor]) -> float:
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (output,) = session.run(None, {name: tensor.numpy() for name, tensor in inputs.items()})
    with torch.no_grad():
        expected = model.double()(**inputs)[0]
    valid = inputs["attention_mask"].bool() if expected.shape[:2] == inputs["attention_mask"].shape else slice(None)
    return float((torch.from_numpy(output) - expected)[valid].abs().max() / expected[valid].abs().max())
