import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from transformers import Trainer, TrainerCallback, TrainingArguments

from hyenadna_hf.training.ema import UNAVERAGED_FILE, EMACallback

DECAY = 0.9
DATA = [{"x": float(i), "labels": 2.0 * i + 1} for i in range(6)]


class Line(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.tensor([0.5])), nn.Parameter(torch.tensor([-0.5]))

    def forward(self, x, labels):
        predicted = self.weight * x + self.bias
        return {"loss": ((predicted - labels) ** 2).mean(), "logits": predicted}


class Recorder(TrainerCallback):
    """The weights after each step, and the losses on evaluation."""

    def __init__(self):
        self.weights, self.losses = [], []

    def on_step_end(self, args, state, control, model=None, **kwargs):
        self.weights.append(weights_of(model))

    def on_evaluate(self, args, state, control, metrics=None, **kwargs):
        self.losses.append(metrics["eval_loss"])


def weights_of(model):
    return torch.cat([model.weight, model.bias]).detach().clone()


def loss_at(weights):
    x, y = (torch.tensor([row[name] for row in DATA]) for name in ("x", "labels"))
    return float(((weights[0] * x + weights[1] - y) ** 2).mean())


def by_hand(weights):
    averages = [weights_of(Line())]
    for value in weights:
        averages.append(DECAY * averages[-1] + (1 - DECAY) * value)
    return averages[1:]


def train(folder, averaged=True, resume=None, **kwargs):
    """Six steps of AdamW, a checkpoint and an evaluation every second step."""
    args = TrainingArguments(
        folder, per_device_train_batch_size=1, num_train_epochs=1, learning_rate=0.1, report_to="none",
        save_strategy="steps", save_steps=2, eval_strategy="steps", eval_steps=2, remove_unused_columns=False,
        use_cpu=True, disable_tqdm=True, per_device_eval_batch_size=6, **kwargs,
    )  # fmt: skip
    recorder = Recorder()
    callbacks = [recorder, EMACallback(DECAY, resume)] if averaged else [recorder]
    trainer = Trainer(Line(), args, train_dataset=DATA, eval_dataset=DATA, callbacks=callbacks)
    trainer.train(resume_from_checkpoint=resume)
    return trainer, recorder


def test_the_average_is_that_of_the_formula_and_training_does_not_notice(tmp_path):
    trainer, recorder = train(tmp_path / "averaged")
    _, plain = train(tmp_path / "plain", averaged=False)
    torch.testing.assert_close(torch.stack(recorder.weights), torch.stack(plain.weights), rtol=0, atol=0)
    averages = by_hand(recorder.weights)
    torch.testing.assert_close(weights_of(trainer.model), averages[-1])
    # What is evaluated is the average, and so is the model of a checkpoint; beside it lie the weights.
    assert recorder.losses == pytest.approx([loss_at(averages[step]) for step in (1, 3, 5)], rel=1e-5)
    assert recorder.losses != pytest.approx(plain.losses, rel=1e-2)
    checkpoint = tmp_path / "averaged" / "checkpoint-4"
    for name, expected in (("model.safetensors", averages[3]), (UNAVERAGED_FILE, recorder.weights[3])):
        found = load_file(checkpoint / name)
        torch.testing.assert_close(torch.cat([found["weight"], found["bias"]]), expected)


def test_a_resumed_run_ends_with_the_same_average(tmp_path):
    whole, recorder = train(tmp_path / "whole")
    again, resumed = train(tmp_path / "again", resume=str(tmp_path / "whole" / "checkpoint-4"))
    torch.testing.assert_close(torch.stack(resumed.weights), torch.stack(recorder.weights[4:]), rtol=0, atol=0)
    torch.testing.assert_close(weights_of(again.model), weights_of(whole.model), rtol=0, atol=0)


def test_the_best_average_is_taken(tmp_path):
    trainer, recorder = train(
        tmp_path, load_best_model_at_end=True, metric_for_best_model="loss", lr_scheduler_type="constant"
    )
    best = recorder.losses.index(min(recorder.losses))
    torch.testing.assert_close(weights_of(trainer.model), by_hand(recorder.weights)[2 * best + 1])
