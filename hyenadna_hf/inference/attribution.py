"""
Attributions: how much each base of a sequence contributes to a prediction.

All methods work on one-hot sequences through [`OneHotModel`], which the functions of tangermeme and captum accept too.
Contributions belong to the bases of the sequence and have the unit of the prediction.

- `input_x_gradient`: gradient of the prediction with respect to the one-hot input, at the base of the sequence
  (Shrikumar et al. 2017).
- `integrated_gradients`: mean gradient on a straight path from a reference, times the difference from it
  (Sundararajan et al. 2017), averaged over dinucleotide shuffles of the sequence. Contributions sum to the difference
  of the prediction from the mean prediction for the shuffles.
- `mutagenesis`: prediction minus the mean of the predictions with each of the four bases at the position.
- `deep_lift`: DeepLIFT (Shrikumar et al. 2017) by tangermeme, over the same shuffles. It has no rule for the gates of
  Hyena, which are products, and treats them as linear, so that contributions do not sum up; tangermeme warns about the
  difference.
"""

import random
from collections.abc import Callable, Sequence

import numpy as np
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

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
    A HyenaDNA model that takes one-hot sequences, for tangermeme, captum and the methods of this module.

    Zeros at a position stand for N. Inputs of a classifier get the special tokens of its tokenizer, those of a language
    model none.

    Args:
        model: A HyenaDNA sequence classifier or causal language model, with or without PEFT adapters.
        tokenizer: Tokenizer of the model.

    Attributes:
        longest: Largest number of bases that the model reads at once.
        targets: Names of the outputs: the labels of a classifier, or `log-likelihood`.

    Raises:
        InputError: If the model has another head.
    """

    def __init__(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
        super().__init__()
        base_model_of(model)  # rejects other models and soft prompts
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
        template = [] if self.is_language_model else tokenizer("A")["input_ids"]
        position = template.index(tokenizer.convert_tokens_to_ids("A")) if template else 0
        self._before, self._after = template[:position], template[position + 1 :]
        self._bases = tokenizer.convert_tokens_to_ids([*BASES])
        self._unknown = tokenizer.convert_tokens_to_ids("N")
        self.longest = model.config.max_seq_len - len(template) + bool(template)

    def forward(self, X: torch.Tensor) -> torch.Tensor:  # noqa: N803
        """
        Predict the targets.

        Args:
            X: Fractions of A, C, G and T at each position, of shape `(batch, 4, length)`.

        Returns:
            Logits of a classifier, or the log-likelihood of the sequence without its first base, in nats, of shape
            `(batch, targets)`.
        """
        weight = self.model.get_input_embeddings().weight
        shares = X.transpose(1, 2).to(weight.dtype)  # [B, L, 4]
        unknown = 1 - shares.sum(-1, keepdim=True)
        embeds = shares @ weight[self._bases] + unknown * weight[self._unknown]
        before, after = (weight[tokens].expand(len(X), -1, -1) for tokens in (self._before, self._after))
        logits = self.model(inputs_embeds=torch.cat([before, embeds, after], dim=1)).logits
        if not self.is_language_model:
            return logits
        log_p = logits[:, :-1, self._bases].log_softmax(-1)
        return (log_p * shares[:, 1:]).sum((1, 2))[:, None]


def one_hot(sequences: Sequence[str], device: torch.device | str = "cpu") -> torch.Tensor:
    """Encode sequences of equal length as float32, `(sequences, 4, length)`, with zeros for N and other codes."""
    letters = np.array([[*normalise(sequence)] for sequence in sequences])
    return torch.tensor(letters[:, None] == np.array([*BASES])[:, None], dtype=torch.float32, device=device)


def attribute(
    model: PreTrainedModel,
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
    Compute the contribution of each base of a sequence to a prediction.

    Args:
        model: A HyenaDNA sequence classifier or causal language model, with or without PEFT adapters. Its device and
            mode do not change.
        tokenizer: Tokenizer of the model.
        sequence: IUPAC nucleotide codes in either case.
        method: `"input_x_gradient"`, `"integrated_gradients"`, `"mutagenesis"` or `"deep_lift"`.
        target: Label or its number. Defaults to the one with the highest logit. A language model has a single target,
            the log-likelihood of the sequence.
        references: Number of dinucleotide shuffles, for `integrated_gradients` and `deep_lift`.
        steps: Number of points on the path from each shuffle, for `integrated_gradients`.
        seed: Seed of the shuffles.
        max_tokens: Tokens in a batch.

    Returns:
        Float32 contributions of shape `(length,)`, NaN for bases other than A, C, G and T.

    Raises:
        InputError: If an argument or the sequence is invalid, or tangermeme is missing for `deep_lift`.
    """
    predict = OneHotModel(model, tokenizer)
    check_arguments(predict, method, target, references, steps)
    wrong = NOT_A_NUCLEOTIDE.search(sequence)
    if wrong or not 2 <= len(sequence) <= predict.longest:
        problem = f"contains {wrong[0]!r} at base {wrong.start() + 1:,}" if wrong else f"has {len(sequence):,} bases"
        raise InputError(f"sequence: it {problem}; give 2 to {predict.longest:,} IUPAC nucleotide codes.")
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


def check_arguments(predict: OneHotModel, method: str, target: str | int | None, references: int, steps: int) -> None:
    """Raise an `InputError` if arguments of [`attribute`] are invalid for a [`OneHotModel`]."""
    if method not in METHODS:
        raise InputError(f"method={method!r}: choose one of {', '.join(METHODS)}.")
    is_target = target in predict.targets if isinstance(target, str) else target in (None, *range(len(predict.targets)))
    if not is_target:
        raise InputError(f"target={target!r}: unknown target; choose one of {', '.join(predict.targets)}.")
    if references < 1 or steps < 1:
        raise InputError(f"references={references}, steps={steps}: give 1 or more of each.")
    if method == "deep_lift":
        from importlib.util import find_spec

        if find_spec("tangermeme") is None:
            raise InputError("method='deep_lift': the package tangermeme is missing; pip install tangermeme.")


def integrated_gradients(
    predict: Callable,
    X: torch.Tensor,  # noqa: N803
    references: torch.Tensor,
    target: int,
    steps: int,
    rows: int,
) -> torch.Tensor:
    """
    Compute integrated gradients by the midpoint rule, averaged over references.

    Args:
        predict: Function from `(batch, 4, length)` to `(batch, targets)`.
        X: Sequence of shape `(1, 4, length)`.
        references: Starts of the paths, of shape `(references, 4, length)`.
        target: Column of the output.
        steps: Number of points on each path.
        rows: Number of points in a batch.

    Returns:
        Contributions of shape `(4, length)`.
    """
    shares = (torch.arange(steps, device=X.device) + 0.5) / steps
    points = torch.cartesian_prod(torch.arange(len(references), device=X.device), torch.arange(steps, device=X.device))
    total = torch.zeros_like(X[0])
    for batch in points.split(rows):
        start = references[batch[:, 0]]
        gradients = _gradients(predict, start + shares[batch[:, 1], None, None] * (X - start), target)
        total += (gradients * (X - start)).sum(0)
    return total / len(points)


def mutagenesis(predict: Callable, X: torch.Tensor, target: int, rows: int) -> torch.Tensor:  # noqa: N803
    """
    Compare the prediction with the mean prediction over the four bases at each position.

    The arguments are those of [`integrated_gradients`].

    Returns:
        Differences of shape `(4, length)`, zero for bases that the sequence does not have.
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


def _gradients(predict: Callable, X: torch.Tensor, target: int) -> torch.Tensor:  # noqa: N803
    X = X.detach().requires_grad_()  # noqa: N806
    return torch.autograd.grad(predict(X)[:, target].sum(), X)[0]
