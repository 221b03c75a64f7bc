import numpy as np
import pytest
import torch
from sklearn.utils.class_weight import compute_class_weight
from torch import nn
from torch.nn import functional as F
from transformers import Trainer, TrainingArguments

from hyenadna_hf.training.loss import SmoothedCausalLoss, WeightedLoss, balanced_weights


def test_balanced_weights_are_those_of_scikit_learn():
    labels = np.array([0, 2, 2, 1, 2, 2, 0, 2])
    expected = compute_class_weight("balanced", classes=np.arange(3), y=labels)
    np.testing.assert_allclose(balanced_weights(labels), expected)
    assert balanced_weights(labels, classes=4).tolist() == pytest.approx([1, 2, 0.4, 1])  # the last never occurs


def test_positives_of_a_label_weigh_as_much_as_its_negatives():
    labels = np.array([[1, 0, 1], [0, 0, 1], [0, 0, 1], [0, 0, 0]], dtype=np.uint8)
    assert balanced_weights(labels).tolist() == pytest.approx([3, 1, 1 / 3])


def test_every_class_has_the_same_share_in_the_loss():
    labels = torch.tensor([0] * 9 + [1])
    logits = torch.zeros(10, 2, requires_grad=True)
    WeightedLoss(balanced_weights(labels.numpy()))({"logits": logits}, labels).backward()
    shares = [logits.grad[labels == number].abs().sum() for number in (0, 1)]
    torch.testing.assert_close(shares[0], shares[1])


@pytest.mark.parametrize("weights", [None, torch.tensor([0.5, 2.0, 3.0])])
def test_smoothed_classes_are_targets_between_them(weights):
    logits, labels, epsilon = torch.randn(8, 3), torch.arange(8) % 3, 0.2
    targets = F.one_hot(labels, 3) * (1 - epsilon) + epsilon / 3
    expected = -(targets * logits.log_softmax(-1) * (1 if weights is None else weights)).sum() / 8
    torch.testing.assert_close(WeightedLoss(weights, epsilon)({"logits": logits}, labels), expected)


@pytest.mark.parametrize("weights", [None, torch.tensor([0.5, 2.0, 3.0])])
def test_smoothed_labels_are_nearer_to_one_half(weights):
    logits, labels = torch.randn(8, 3), torch.randint(2, (8, 3))
    targets = torch.tensor([0.1, 0.9])[labels]
    positive = 1 if weights is None else weights
    expected = -(positive * targets * F.logsigmoid(logits) + (1 - targets) * F.logsigmoid(-logits)).mean()
    torch.testing.assert_close(WeightedLoss(weights, 0.2)({"logits": logits}, labels), expected)


def test_without_weights_and_smoothing_it_is_the_plain_loss():
    logits, labels = torch.randn(8, 3), torch.arange(8) % 3
    torch.testing.assert_close(WeightedLoss()({"logits": logits}, labels), F.cross_entropy(logits, labels))


@pytest.mark.parametrize("prompt", [0, 4])
def test_the_smoothed_loss_of_a_language_model(prompt):
    """Each label belongs to the logits before it, the first one to those of the prompt."""
    logits, labels = torch.randn(2, prompt + 6, 16), torch.randint(16, (2, 6))
    labels[0, 2] = -100
    nats = []
    for row in range(2):
        for position in range(0 if prompt else 1, 6):
            if labels[row, position] != -100:
                each = -logits[row, prompt + position - 1].log_softmax(-1)
                nats.append(0.9 * each[labels[row, position]] + 0.1 * each.mean())
    loss = SmoothedCausalLoss(0.1)
    torch.testing.assert_close(loss({"logits": logits}, labels), torch.stack(nats).mean())
    torch.testing.assert_close(loss({"logits": logits}, labels, torch.tensor(50)), torch.stack(nats).sum() / 50)


class Affine(nn.Module):
    def __init__(self, outputs):
        super().__init__()
        torch.manual_seed(0)
        self.layer = nn.Linear(3, outputs)

    def forward(self, x, labels=None):
        return {"logits": self.layer(x)}


@pytest.mark.parametrize("epsilon", [0.0, 0.1])
@pytest.mark.parametrize("multi_label", [False, True])
def test_accumulated_gradients_are_those_of_the_whole_batch(tmp_path, multi_label, epsilon):
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, (8, 2)).astype(np.float32) if multi_label else rng.integers(0, 2, 8)
    rows = [{"x": rng.normal(size=3).astype(np.float32), "labels": label} for label in labels]
    ends = []
    for batch, steps in ((8, 1), (2, 4)):
        args = TrainingArguments(
            tmp_path / str(batch), per_device_train_batch_size=batch, gradient_accumulation_steps=steps, max_steps=1,
            optim="sgd", learning_rate=1.0, report_to="none", save_strategy="no", remove_unused_columns=False,
            use_cpu=True, disable_tqdm=True, max_grad_norm=0.0,
        )  # fmt: skip
        loss = WeightedLoss(balanced_weights(labels), epsilon)
        trainer = Trainer(Affine(2), args, train_dataset=rows, compute_loss_func=loss)
        trainer.train()
        ends.append(trainer.model.layer.weight.detach())
    torch.testing.assert_close(ends[0], ends[1])
    assert not torch.allclose(ends[0], Affine(2).layer.weight)
