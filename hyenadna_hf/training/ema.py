"""Exponential moving averages of weights, for the stock Trainer."""

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch.optim.swa_utils import get_ema_multi_avg_fn
from transformers import PreTrainedModel, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

UNAVERAGED_FILE = "unaveraged.safetensors"


class EMACallback(TrainerCallback):
    """
    Average the weights over the steps, and evaluate, save and finish with the averages.

    After each optimizer step, `average = decay * average + (1 - decay) * weights`, starting from the initial weights.
    Checkpoints contain the average as the model, and the weights to continue training from in `unaveraged.safetensors`.
    The averages take as much device memory as the parameters. Sharded parameters (FSDP, DeepSpeed) are not supported.

    Args:
        decay: Decay, between 0 and 1.
        checkpoint: Checkpoint that the Trainer resumes from, written with this callback.
    """

    def __init__(self, decay: float, checkpoint: str | Path | None = None) -> None:
        self.checkpoint = checkpoint
        self._update = get_ema_multi_avg_fn(decay)
        self._swapped_out: list[torch.Tensor] = []  # the averages while the model has the weights, and vice versa
        self._has_averages = False  # in the model

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, model: Any = None, **kwargs: Any
    ) -> None:
        self._swapped_out = [parameter.detach().clone() for parameter in model.parameters()]
        self._has_averages = False
        if self.checkpoint is not None:
            weights = load_file(Path(self.checkpoint) / UNAVERAGED_FILE)
            for name, parameter in model.named_parameters():
                parameter.data.copy_(weights[name])

    def on_step_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, model: Any = None, **kwargs: Any
    ) -> None:
        self._swap(model, averaged=False)

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, model: Any = None, **kwargs: Any
    ) -> None:
        self._update(self._swapped_out, list(model.parameters()), None)
        self._prepare_evaluation(control, model)

    def on_epoch_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, model: Any = None, **kwargs: Any
    ) -> None:
        self._prepare_evaluation(control, model)

    def on_save(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, model: Any = None, **kwargs: Any
    ) -> None:
        if args.should_save:
            weights = {
                name: weight.contiguous() for (name, _), weight in zip(model.named_parameters(), self._swapped_out)
            }
            save_file(weights, Path(args.output_dir) / f"checkpoint-{state.global_step}" / UNAVERAGED_FILE)

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, model: Any = None, **kwargs: Any
    ) -> None:
        if not (
            args.load_best_model_at_end and state.best_model_checkpoint
        ):  # the best checkpoint is an average already
            self._swap(model, averaged=True)
        self._swapped_out = []

    def _prepare_evaluation(self, control: TrainerControl, model: PreTrainedModel) -> None:
        # The Trainer evaluates and saves directly after these events.
        if control.should_evaluate or control.should_save:
            self._swap(model, averaged=True)

    def _swap(self, model: PreTrainedModel, averaged: bool) -> None:
        if averaged != self._has_averages:
            for number, parameter in enumerate(model.parameters()):
                parameter.data, self._swapped_out[number] = self._swapped_out[number], parameter.data
            self._has_averages = averaged
