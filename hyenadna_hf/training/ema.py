"""Exponential moving averages of weights, for the stock Trainer."""

from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file
from torch.optim.swa_utils import get_ema_multi_avg_fn
from transformers import PreTrainedModel, TrainerCallback

UNAVERAGED_FILE = "unaveraged.safetensors"


class EMACallback(TrainerCallback):
    """
    Averages the weights over the steps; evaluates, saves and ends with the averages.

    After each optimizer step `average = decay * average + (1 - decay) * weights`, from the initial weights on. The
    model of a checkpoint is the average; the weights that training goes on with lie beside it, in
    `unaveraged.safetensors`. The averages need as much memory of the device as the parameters. Not for parameters that
    are sharded (FSDP, DeepSpeed).

    Args:
        decay: Between 0 and 1.
        checkpoint: What the Trainer resumes from, made with this callback.
    """

    def __init__(self, decay: float, checkpoint: str | Path | None = None) -> None:
        self.checkpoint = checkpoint
        self._update = get_ema_multi_avg_fn(decay)
        self._other = []  # the averages while the model has the weights, and the other way round
        self._averaged = False  # whether the model has the averages

    def on_train_begin(
        self, args, state: dict[str, Any], control, model: PreTrainedModel | None = None, **kwargs: Any
    ) -> None:
        self._other = [parameter.detach().clone() for parameter in model.parameters()]
        self._averaged = False
        if self.checkpoint is not None:
            weights = load_file(Path(self.checkpoint) / UNAVERAGED_FILE)
            for name, parameter in model.named_parameters():
                parameter.data.copy_(weights[name])

    def on_step_begin(
        self, args, state: dict[str, Any], control, model: PreTrainedModel | None = None, **kwargs: Any
    ) -> None:
        self._give(model, averaged=False)

    def on_step_end(
        self, args, state: dict[str, Any], control, model: PreTrainedModel | None = None, **kwargs: Any
    ) -> None:
        self._update(self._other, list(model.parameters()), None)
        self._before_evaluation(control, model)

    def on_epoch_end(
        self, args, state: dict[str, Any], control, model: PreTrainedModel | None = None, **kwargs: Any
    ) -> None:
        self._before_evaluation(control, model)

    def on_save(
        self, args, state: dict[str, Any], control, model: PreTrainedModel | None = None, **kwargs: Any
    ) -> None:
        if args.should_save:
            weights = {name: weight.contiguous() for (name, _), weight in zip(model.named_parameters(), self._other)}
            save_file(weights, Path(args.output_dir) / f"checkpoint-{state.global_step}" / UNAVERAGED_FILE)

    def on_train_end(
        self, args, state: dict[str, Any], control, model: PreTrainedModel | None = None, **kwargs: Any
    ) -> None:
        if not (args.load_best_model_at_end and state.best_model_checkpoint):  # that is an average already
            self._give(model, averaged=True)
        self._other = []

    def _before_evaluation(self, control, model: PreTrainedModel) -> None:
        # The Trainer evaluates and saves right after these events, if it does.
        if control.should_evaluate or control.should_save:
            self._give(model, averaged=True)

    def _give(self, model: PreTrainedModel, averaged) -> None:
        if averaged != self._averaged:
            for number, parameter in enumerate(model.parameters()):
                parameter.data, self._other[number] = self._other[number], parameter.data
            self._averaged = averaged
