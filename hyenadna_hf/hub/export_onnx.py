"""`hyenadna export-onnx`: a saved model as an ONNX graph of one length, for runtimes without PyTorch."""

import copy
import importlib.util
import logging
import warnings
from contextlib import contextmanager
from pathlib import Path

import torch
import transformers
from rich.console import Console
from torch import nn

from ..arguments import CommandParser
from ..errors import InputError
from ..inference.command import output_path, replace_file
from ..inference.loading import load_trained
from ..pretrained import BUNDLED_CHECKPOINTS
from .card import TASKS

TOLERANCE = 1e-3  # of the largest output; float32 against float64
PACKAGES = ("onnx", "onnxscript", "onnxruntime")


def parser():
    """The arguments of `hyenadna export-onnx`."""
    parser = CommandParser(
        "export-onnx",
        [],
        "Write a saved HyenaDNA model as an ONNX graph, and compare it in onnxruntime with the model in float64.",
        "MODEL FILE --length N [ARGUMENT ...]",
        ["hyenadna-finetuned classifier.onnx --length 1024 --batch 8"],
    )
    parser.add_argument("model", help="folder or Hub id of a HyenaDNA model; it is exported with the head that it has")
    parser.add_argument("file", help="the file to write, .onnx")
    parser.add_argument("--length", type=int, required=True, help="tokens of a sequence; pad shorter ones to it")
    parser.add_argument("--batch", type=int, default=1, help="sequences of a batch")
    parser.add_argument("--trust_remote_code", action="store_true", help="allow code that comes with the model to run")
    return parser


def main(argv):
    """Run `hyenadna export-onnx` with the arguments `argv` (a list of `str`)."""
    (args,) = parser().parse(argv)
    path = output_path("FILE", args.file, (".onnx",))
    model = load_with_head(args.model, args.trust_remote_code)
    error = export_onnx(model, path, args.length, args.batch)
    Console().print(
        f"Wrote {path}: inputs input_ids and attention_mask, int64 of shape ({args.batch}, {args.length:,}); its "
        f"output in onnxruntime is within {error:.0e} of the model's in float64, relative to the largest value.",
        soft_wrap=True,
    )
    return {"file": path, "batch": args.batch, "length": args.length, "largest_difference": error}


def load_with_head(source, trust_remote_code=False):
    """
    A saved model of the class that its configuration names.

    Args:
        source (`str`): A checkpoint that ships with the package, a folder, or the id of a model on the Hub.
        trust_remote_code (`bool`, defaults to `False`): Allow code that comes with the checkpoint to run.

    Returns:
        [`PreTrainedModel`], in eval mode on the CPU.

    Raises:
        InputError: if it cannot be loaded, or is no HyenaDNA model.
    """
    path = BUNDLED_CHECKPOINTS.get(source, source)
    try:
        config = transformers.AutoConfig.from_pretrained(path, trust_remote_code=trust_remote_code)
    except Exception as error:  # what absent files, foreign code and configurations may raise
        raise InputError(f"{source}: cannot be loaded ({' '.join(str(error).split())}).") from error
    architecture = (config.architectures or ["nothing"])[0]
    if architecture not in TASKS:
        raise InputError(f"{source}: its config.json names {architecture}; there are {', '.join(TASKS)}.")
    auto_class = getattr(transformers, TASKS[architecture][0])
    model, _ = load_trained(auto_class, source, trust_remote_code=trust_remote_code)
    return model


def export_onnx(model: nn.Module, path: str | Path, length: int, batch: int = 1) -> float:
    """
    Write a model as an ONNX graph for batches of one shape.

    The graph has the inputs `input_ids` and `attention_mask`, int64 of shape `(batch, length)`, and one output, the
    first one of the model: logits or hidden states, float32. Its masks are exact: pad to the left or the right, with
    any token. A graph for all lengths would need transforms of a size that is known only at run time, which
    onnxruntime refuses.

    Args:
        model ([`PreTrainedModel`]): Any HyenaDNA class. It is not changed.
        path (`str` or `Path`): Where to write it; a file there is replaced when the new one is whole and compared.
        length (`int`): Tokens of a sequence, at least 2.
        batch (`int`, defaults to 1): Sequences of a batch.

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
    if not 2 <= length <= model.config.max_seq_len:
        raise InputError(f"length={length}: this model takes 2 to {model.config.max_seq_len:,} tokens.")
    if batch < 1:
        raise InputError(f"batch={batch}: a batch has at least one sequence.")
    model = copy.deepcopy(model).cpu().float().eval()
    inputs = _example(length, batch)
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
