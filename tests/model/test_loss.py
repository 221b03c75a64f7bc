"""Losses of the heads per sequence and per position, against transformers, scikit-learn and scipy."""

import numpy as np
import pytest
import torch
from scipy.special import expit
from scipy.stats import poisson
from sklearn.metrics import log_loss, mean_squared_error
from transformers.loss.loss_utils import ForSequenceClassificationLoss, ForTokenClassification

from hyenadna_hf import HyenaDNAForSequenceClassification, HyenaDNAForTokenClassification
from hyenadna_hf.model.loss_hyenadna import prediction_loss

IDS = torch.randint(7, 11, (3, 9), generator=torch.Generator().manual_seed(0))
MASK = torch.ones_like(IDS)
MASK[0, 6:] = 0
HEADS = [HyenaDNAForSequenceClassification, HyenaDNAForTokenClassification]


def configure(config, problem_type, labels=2, **fields):
    config.num_labels, config.problem_type = labels, problem_type
    for name, value in fields.items():
        setattr(config, name, value)
    return config


def draw_labels(shape, problem_type, seed=1):
    rng = np.random.default_rng(seed)
    if problem_type == "single_label_classification":
        return torch.tensor(rng.integers(0, shape[-1], shape[:-1]))
    if problem_type == "multi_label_classification":
        return torch.tensor(rng.integers(0, 2, shape), dtype=torch.float32)
    return torch.tensor(rng.poisson(3, shape), dtype=torch.float32)


@pytest.mark.parametrize("model_class", HEADS)
@pytest.mark.parametrize("loss", ["single_label_classification", "multi_label_classification", "mse", "poisson"])
def test_losses_of_both_heads(model_class, loss, config, make_model):
    """The last label is missing; masked positions do not count."""
    problem_type = loss if loss.endswith("classification") else "regression"
    fields = {"regression_loss": loss} if problem_type == "regression" else {}
    model = make_model(model_class, configure(config, problem_type, **fields))
    with torch.no_grad():
        outputs = model(input_ids=IDS, attention_mask=MASK).logits
        labels = draw_labels(outputs.shape, problem_type)
        labels.view(-1)[-1] = -100
        found = model(input_ids=IDS, attention_mask=MASK, labels=labels).loss
    is_used = labels != -100
    if model_class is HyenaDNAForTokenClassification:
        is_used &= MASK.bool().reshape(*MASK.shape, *[1] * (labels.dim() - 2))
    y, x = labels[is_used].double().numpy(), outputs.double()
    if loss == "single_label_classification":
        expected = log_loss(y, x[is_used].softmax(-1).numpy(), labels=[0, 1])
    elif loss == "multi_label_classification":
        expected = log_loss(y, expit(x[is_used].numpy()), labels=[0, 1])
    elif loss == "mse":
        expected = mean_squared_error(y, x[is_used].numpy())
    else:
        rates = x[is_used].numpy()
        assert (rates > 0).all()
        expected = -(poisson.logpmf(y, rates) - poisson.logpmf(y, 1.0) - 1).mean()  # constants of the labels cancel
    assert float(found) == pytest.approx(expected, rel=1e-5)


def test_rates_are_exponentials_of_the_scores(config, make_model):
    model = make_model(HyenaDNAForSequenceClassification, configure(config, "regression", regression_loss="poisson"))
    with torch.no_grad():
        rates = model(input_ids=IDS).logits
        model.config.regression_loss = "mse"
        torch.testing.assert_close(rates, model(input_ids=IDS).logits.exp())


@pytest.mark.parametrize("problem_type", ["single_label_classification", "multi_label_classification", "regression"])
@pytest.mark.parametrize("labels", [1, 3])
def test_losses_of_sequences_equal_those_of_transformers(problem_type, labels, config):
    config = configure(config, problem_type, labels)
    logits = torch.randn(4, labels)
    targets = draw_labels((4, labels), problem_type)
    for shape in [targets.shape, (4,)] if problem_type == "regression" and labels == 1 else [targets.shape]:
        expected = ForSequenceClassificationLoss(targets.reshape(shape), logits, config)
        torch.testing.assert_close(prediction_loss(logits, targets.reshape(shape), config), expected)


def test_losses_of_positions_equal_those_of_transformers(config):
    config = configure(config, None, 3)
    logits, labels = torch.randn(2, 5, 3), torch.tensor([[0, 1, 2, -100, 1], [2, 2, -100, 0, 0]])
    for count in (None, 7, torch.tensor(5)):
        expected = ForTokenClassification(logits, labels, config, num_items_in_batch=count)
        torch.testing.assert_close(prediction_loss(logits, labels, config, count), expected)


@pytest.mark.parametrize(
    ("labels", "num_labels", "expected"),
    [
        (torch.zeros(4), 1, "regression"),
        (torch.zeros(4, dtype=torch.long), 2, "single_label_classification"),
        (torch.zeros(4, 2), 2, "multi_label_classification"),
    ],
)
def test_problem_types_are_inferred_like_in_transformers(labels, num_labels, expected, config):
    logits, ours, theirs = torch.randn(4, num_labels), configure(config, None, num_labels), type(config)()
    theirs.num_labels = num_labels
    torch.testing.assert_close(
        prediction_loss(logits, labels, ours), ForSequenceClassificationLoss(labels, logits, theirs)
    )
    assert ours.problem_type == theirs.problem_type == expected


@pytest.mark.parametrize("problem_type", ["single_label_classification", "regression"])
def test_labels_of_another_shape(problem_type, config):
    config = configure(config, problem_type, 2)
    with pytest.raises(ValueError, match=r"labels of shape \(3, 5\): problem_type=.* needs labels of shape"):
        prediction_loss(torch.randn(3, 2), torch.zeros(3, 5), config)


def test_low_precision_outputs_have_a_float32_loss(config):
    config = configure(config, "regression", 1)
    loss = prediction_loss(torch.tensor([[100.0]], dtype=torch.bfloat16), torch.tensor([100.3]), config)
    assert loss.dtype == torch.float32 and float(loss) == pytest.approx(0.09, rel=1e-4)


def test_missing_targets_have_no_gradient(config):
    config = configure(config, "regression", 2, regression_loss="poisson")
    outputs = torch.rand(2, 2, requires_grad=True)
    prediction_loss(outputs, torch.tensor([[1.0, -100.0], [-100.0, 2.0]]), config).backward()
    assert torch.equal(outputs.grad != 0, torch.eye(2, dtype=torch.bool))
