"""
Attributions: how much each base of a sequence contributes to a prediction.

All methods work on one-hot sequences through [`OneHotModel`], which is also what the functions of tangermeme and captum
take. A contribution is that of the base that is there, in the units of the prediction.

- `input_x_gradient`: the gradient of the prediction with respect to the one-hot input, at the base that is there
  (Shrikumar et al. 2017).
- `integrated_gradients`: the mean gradient on the straight way from a reference, times the difference from it
  (Sundararajan et al. 2017), as the mean over dinucleotide shuffles of the sequence. Contributions sum to the
  prediction less the mean prediction of the shuffles.
- `mutagenesis`: the prediction less the mean of those with each of the four bases there.
- `deep_lift`: DeepLIFT (Shrikumar et al. 2017) by tangermeme, over the same shuffles. It has no rule for the products
  by which Hyena gates and takes them as linear, so the sum is off; tangermeme warns by how much.
"""

import random
from collections.abc import Sequence

import numpy as np
import torch
from transformers import PreTrainedTokenizerBase

from ..data.sequence import BASES, NOT_A_NUCLEOTIDE, normalise
from ..data.shuffle import dinucleotide_shuffle
from ..errors import InputError
from ..loading import check_tokenizer
from .batching import inference_of
from .embed import base_model_of
from .likelihood import MAX_TOKENS

METHODS = ("input_x_gradient", "integrated_gradients", "mutagenesis", "deep_lift")
REFERENCES, STEPS = 20, 20


class OneHotModel(torch.nn.Module):
    """
    A HyenaDNA model on one-hot sequences, for tangermeme, captum and the methods of this module.

    A position with zeros is N. A classifier reads the special tokens that its tokenizer adds; a language model none.

    Args:
        model ([`HyenaDNAForSequenceClassification`] or [`HyenaDNAForCausalLM`], also with PEFT adapters): The model.
        tokenizer ([`HyenaDNATokenizer`]): Its tokenizer.

    Attributes:
        longest (`int`): The most bases that go into the model.
        targets (`list[str]`): Names of the outputs: the labels of a classifier, `log-likelihood` of a language model.

    Raises:
        InputError: if the model has another head.
    """

    def __init__(self, model: torch.nn.Module, tokenizer: PreTrainedTokenizerBase) -> None:
        super().__init__()
        base_model_of(model)  # refuses other models and soft prompts
        check_tokenizer(tokenizer)
        self.model = model
        self.is_language_model = model.get_output_embeddings() is not None
        if self.is_language_model:
            self.targets = ["log-likelihood"]
        elif hasattr(model, "pool_positions"):  # a classifier of sequences
            self.targets = [str(model.config.id2label[i]) for i in range(model.config.num_labels)]
        else:
            name = type(model).__name__
            raise InputError(f"model: {name} is neither HyenaDNAForSequenceClassification nor HyenaDNAForCausalLM.")
        around = [] if self.is_language_model else tokenizer("A")["input_ids"]
        at = around.index(tokenizer.convert_tokens_to_ids("A")) if around else 0
        self._before, self._after = around[:at], around[at + 1 :]
        self._bases = tokenizer.convert_tokens_to_ids([*BASES])
        self._unknown = tokenizer.convert_tokens_to_ids("N")
        self.longest = model.config.max_seq_len - len(around) + bool(around)

    def forward(self, X: torch.Tensor) -> torch.Tensor:  # noqa: N803
        """
        Args:
            X (`torch.Tensor` of shape `(batch, 4, length)`): Shares of A, C, G and T at each position.

        Returns:
            `torch.Tensor` of shape `(batch, targets)`: the logits of a classifier, or the log-likelihood of the
            sequence under a language model, in nats, but for the first base.
        """
        weight = self.model.get_input_embeddings().weight
        shares = X.transpose(1, 2).to(weight.dtype)  # [B, L, 4]
        unknown = 1 - shares.sum(-1, keepdim=True)
        embeds = shares @ weight[self._bases] + unknown * weight[self._unknown]
        special = (weight[tokens].expand(len(X), -1, -1) for tokens in (self._before, self._after))
        before, after = special
        logits = self.model(inputs_embeds=torch.cat([before, embeds, after], dim=1)).logits
        if not self.is_language_model:
            return logits
        log_p = logits[:, :-1, self._bases].log_softmax(-1)
        return (log_p * shares[:, 1:]).sum((1, 2))[:, None]


def one_hot(sequences: Sequence[str], device: torch.device | str = "cpu") -> torch.Tensor:
    """One-hot sequences of equal length, float32, of shape `(sequences, 4, length)`; zeros for N and the like."""
    letters = np.array([[*normalise(sequence)] for sequence in sequences])
    return torch.tensor(letters[:, None] == np.array([*BASES])[:, None], dtype=torch.float32, device=device)


def attribute(
    model: torch.nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    sequence: str,
    method: str = "integrated_gradients",
    target: str | int | None = None,
    references: int = REFERENCES,
    steps: int = STEPS,
    seed: int = 0,
    max_tokens: int = MAX_TOKENS,
) -> np.ndarray:
    """
    Contribution of each base of a sequence to a prediction.

    Args:
        model ([`HyenaDNAForSequenceClassification`] or [`HyenaDNAForCausalLM`], also with PEFT adapters): The model;
            its device and mode are left as they are found.
        tokenizer ([`HyenaDNATokenizer`]): Its tokenizer.
        sequence (`str`): IUPAC nucleotide codes in either case.
        method (`str`, defaults to `"integrated_gradients"`):
            `"input_x_gradient"`, `"integrated_gradients"`, `"mutagenesis"` or `"deep_lift"`.
        target (`str` or `int`, *optional*): Label or its number; by default the one with the highest logit. A language
            model has one target, the log-likelihood of the sequence.
        references (`int`, defaults to 20): Dinucleotide shuffles, for `integrated_gradients` and `deep_lift`.
        steps (`int`, defaults to 20): Points on the way from each, for `integrated_gradients`.
        seed (`int`, defaults to 0): Random seed of the shuffles.
        max_tokens (`int`, defaults to 16384): Tokens in a batch.

    Returns:
        `np.ndarray` of shape `(length,)`, float32; NaN for other bases than A, C, G and T.

    Raises:
        InputError: if an argument or the sequence is invalid, or tangermeme is missing for `deep_lift`.
    """
    predict = OneHotModel(model, tokenizer)
    check_arguments(predict, method, target, references, steps)
    wrong = NOT_A_NUCLEOTIDE.search(sequence)
    if wrong or not 2 <= len(sequence) <= predict.longest:
        found = f"{wrong[0]!r} at base {wrong.start() + 1:,}" if wrong else f"{len(sequence):,} bases"
        raise InputError(f"sequence: it has {found}; give 2 to {predict.longest:,} IUPAC nucleotide codes.")
    X = one_hot([sequence], model.device)  # noqa: N806
    rng = random.Random(seed)
    shuffles = [dinucleotide_shuffle(normalise(sequence), rng) for _ in range(references)]
    rows = max(1, max_tokens // len(sequence))
    with inference_of(model), torch.inference_mode(False):
        if target is None:
            with torch.no_grad():
                target = int(predict(X).argmax())
        column = predict.targets.index(target) if isinstance(target, str) else target
        if method == "input_x_gradient":
            values = X[0] * _gradients(predict, X, column)[0]
        elif method == "integrated_gradients":
            values = integrated_gradients(predict, X, one_hot(shuffles, X.device), column, steps, rows)
        elif method == "mutagenesis":
            values = mutagenesis(predict, X, column, rows)
        else:
            from tangermeme.deep_lift_shap import deep_lift_shap

            reference = one_hot(shuffles, X.device)[None]
            options = {"target": column, "batch_size": rows, "device": X.device, "only_warn": True}
            values = deep_lift_shap(predict, X, references=reference, **options)[0]
        values = values.sum(0).masked_fill(X[0].sum(0) == 0, torch.nan)
    return values.float().cpu().numpy()


def check_arguments(predict, method, target, references, steps):
    """Refuse, by an `InputError`, arguments of [`attribute`] that do not fit a [`OneHotModel`]."""
    if method not in METHODS:
        raise InputError(f"method={method!r}: it is one of {', '.join(METHODS)}.")
    known = target in predict.targets if isinstance(target, str) else target in (None, *range(len(predict.targets)))
    if not known:
        raise InputError(f"target={target!r}: the targets of this model are {', '.join(predict.targets)}.")
    if references < 1 or steps < 1:
        raise InputError(f"references={references}, steps={steps}: give 1 or more of each.")
    if method == "deep_lift":
        from importlib.util import find_spec

        if find_spec("tangermeme") is None:
            raise InputError("method='deep_lift': the package tangermeme is missing; pip install tangermeme.")


def integrated_gradients(predict, X, references, target, steps, rows):  # noqa: N803
    """
    Integrated gradients by the midpoint rule, as the mean over references.

    Args:
        predict (`Callable`): Maps `(batch, 4, length)` to `(batch, targets)`.
        X (`torch.Tensor` of shape `(1, 4, length)`): The sequence.
        references (`torch.Tensor` of shape `(references, 4, length)`): Where the ways begin.
        target (`int`): Column of the output.
        steps (`int`): Points on each way.
        rows (`int`): How many to compute at once.

    Returns:
        `torch.Tensor` of shape `(4, length)`.
    """
    shares = (torch.arange(steps, device=X.device) + 0.5) / steps
    points = torch.cartesian_prod(torch.arange(len(references), device=X.device), torch.arange(steps, device=X.device))
    total = torch.zeros_like(X[0])
    for some in points.split(rows):
        start = references[some[:, 0]]
        gradients = _gradients(predict, start + shares[some[:, 1], None, None] * (X - start), target)
        total += (gradients * (X - start)).sum(0)
    return total / len(points)


def mutagenesis(predict, X, target, rows):  # noqa: N803
    """
    The prediction less the mean of those with each of the four bases at a position.

    Args: as those of [`integrated_gradients`].

    Returns:
        `torch.Tensor` of shape `(4, length)`, zeros for bases that are not there.
    """
    is_base = X[0].sum(0) > 0
    edits = torch.cartesian_prod(is_base.nonzero()[:, 0], torch.arange(len(BASES), device=X.device))  # position, base
    predictions = torch.empty(len(edits), device=X.device)
    with torch.no_grad():
        for numbers in torch.arange(len(edits), device=X.device).split(rows):
            edited = X.repeat(len(numbers), 1, 1)
            positions, bases = edits[numbers].T
            row = torch.arange(len(numbers), device=X.device)
            edited[row, :, positions] = 0
            edited[row, bases, positions] = 1
            predictions[numbers] = predict(edited)[:, target].float()
    effects = torch.zeros_like(X[0])
    by_base = predictions.view(-1, len(BASES))
    effects[:, is_base] = (by_base - by_base.mean(1, keepdim=True)).T
    return X[0] * effects


def _gradients(predict, X, target):  # noqa: N803
    X = X.detach().requires_grad_()  # noqa: N806
    return torch.autograd.grad(predict(X)[:, target].sum(), X)[0]
