import numpy as np
import pytest
import torch
from sklearn.utils.class_weight import compute_class_weight
from torch import nn
from transformers import Trainer, TrainingArguments

from hyenadna_hf.training.loss import WeightedLoss, balanced_weights


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


class Affine(nn.Module):
    def __init__(self, outputs):
        super().__init__()
        torch.manual_seed(0)
        self.layer = nn.Linear(3, outputs)

    def forward(self, x, labels=None):
        return {"logits": self.layer(x)}


@pytest.mark.parametrize("multi_label", [False, True])
def test_accumulated_gradients_are_those_of_the_whole_batch(tmp_path, multi_label):
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
        loss = WeightedLoss(balanced_weights(labels))
        trainer = Trainer(Affine(2), args, train_dataset=rows, compute_loss_func=loss)
        trainer.train()
        ends.append(trainer.model.layer.weight.detach())
    torch.testing.assert_close(ends[0], ends[1])
    assert not torch.allclose(ends[0], Affine(2).layer.weight)
