"""`hyenadna finetune --task token` and `--task track`: classes or values of every base of a genome."""

from abc import abstractmethod
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import torch
from rich.markup import escape
from transformers import AutoModelForTokenClassification, PreTrainedModel, PreTrainedTokenizerBase

from ..data.base_labels import BaseLabels, LabelledWindows
from ..data.collators import TokenCollator
from ..data.fasta import Fasta
from ..data.intervals import Interval, parse_region, training_intervals
from ..data.sequence import IGNORED
from ..data.track_labels import TrackLabels
from ..errors import InputError
from .classifier import has_nucleotide_tokens, longest_input
from .comparison import compare_bases, count_labels
from .finetune_task import Baselines, Task
from .loss import weights_of_counts
from .metrics import REGRESSION_METRICS, regression_metrics, token_metric_names, token_metrics
from .regression import prepare_outputs


class BaseTask(Task):
    """
    Labels of every base of a genome.

    Attributes:
        genome: Genome.
        labels: Labels of its bases.
        regions: Regions of each split.
        window: Bases in a window.
        windows: Windows of each split.
        counts: Bases of train with each label, or sums of its values.
        bases: Labelled bases of train.
    """

    auto_class = AutoModelForTokenClassification
    labels: BaseLabels | TrackLabels
    window: int
    windows: dict[str, LabelledWindows]
    counts: np.ndarray
    bases: int

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        args = self.data_args
        self._check_files()
        self.genome = Fasta(str(args.fasta))
        self.labels = self._read_labels()
        self.source, self.names = str(self.labels.path), self.labels.names
        self.regions = split_regions(self.genome, self.labels, args.validation, args.test)
        self.config_fields = {"problem_type": self.labels.problem_type}
        self.longest = args.window

    @abstractmethod
    def _check_files(self) -> None:
        """Raise an `InputError` if an argument that names a file is missing."""

    @abstractmethod
    def _read_labels(self) -> BaseLabels | TrackLabels: ...

    def prepare_model(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, origin: str) -> str:
        if not has_nucleotide_tokens(tokenizer):
            raise InputError(
                f"--model {self.model_args.model}: --task {self.data_args.task} needs HyenaDNA's tokens, one per "
                "nucleotide."
            )
        self.window = self._choose_window(longest_input(model.config, tokenizer))
        self.windows = {split: self._cut(regions) for split, regions in self.regions.items()}
        empty = next((split for split, pieces in self.windows.items() if not len(pieces)), None)
        if empty:
            raise InputError(
                f"{self.genome.path}: the {empty} regions have no window of {self.window:,} bases that is not mostly "
                "N; change them."
            )
        self.counts, self.bases = count_labels(self.windows["train"])
        absent = [name for name, count in zip(self.names, self.counts) if not count]
        if absent:
            raise InputError(f"{self.source}: the train regions have no {absent[0]}; omit it, or choose other regions.")
        return origin

    def _choose_window(self, limit: int | None) -> int:
        """Return the number of bases in a window, of which a model reads at most `limit`."""
        window = limit if self.data_args.window is None else self.data_args.window
        if window is None:
            raise InputError(f"--model {self.model_args.model}: it reads windows of any length; give --window.")
        if not 1 <= window <= (limit or window):
            raise InputError(
                f"--window {window}: give "
                + (f"1 to {limit:,} bases, the limit of {self.model_args.model}." if limit else "at least 1 base.")
            )
        return window

    def _cut(self, regions: list[Interval]) -> LabelledWindows:
        return LabelledWindows(self.genome, self.labels, regions, self.window)

    def collators(self, tokenizer: PreTrainedTokenizerBase) -> tuple[Any, Any]:
        probability = self.data_args.reverse_complement
        return TokenCollator(tokenizer), TokenCollator(tokenizer, reverse_complement=probability)

    def print_data(self) -> None:
        counts = ", ".join(f"{len(pieces):,} {split}" for split, pieces in self.windows.items())
        means = ", ".join(
            f"{escape(name)} {self._describe_mean(count / self.bases)}" for name, count in zip(self.names, self.counts)
        )
        self.console.print(
            f"[bold]Data[/bold] {escape(self.source)}: {counts} windows of {self.window:,} bases; in train: {means}"
        )

    @abstractmethod
    def _describe_mean(self, mean: float) -> str:
        """Format the fraction of the bases of a class, or the mean of a track."""

    def examples(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> Mapping[str, Any]:
        return self.windows

    def sizes(self) -> dict[str, Any]:
        return {"windows": {name: len(pieces) for name, pieces in self.windows.items()}, "labels": self.names}

    def compare(self, device: torch.device, seed: int) -> Baselines:
        return compare_bases(self.windows, self.counts, self.bases, self.measure, device, seed)

    def title(self) -> str:
        return f"Held-out test regions: {len(self.windows['test']):,} windows"

    def first_inputs(self, tokenizer: PreTrainedTokenizerBase) -> Mapping[str, torch.Tensor]:
        text = self.genome.fetch(*self.windows["test"].windows[0][:3])
        return tokenizer(text, add_special_tokens=False, return_tensors="pt")

    def describe_first(self, outputs: torch.Tensor) -> str:
        first = self.windows["test"].windows[0]
        return f"its logits of {first.name}:{first.start + 1:,}-{first.end:,}"


class TokenTask(BaseTask):
    """One class, or several labels, per base."""

    shown_metrics = ("f1", "auprc")
    labels: BaseLabels

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.metric_names = token_metric_names(self.names, self.labels.multi_label)

    def _check_files(self) -> None:
        if self.data_args.fasta is None or self.data_args.annotation is None:
            raise InputError("--task token: give the genome with --fasta and the intervals with --annotation.")

    def _read_labels(self) -> BaseLabels:
        args = self.data_args
        return BaseLabels(str(args.annotation), self.genome, args.features, args.multi_label)

    def _describe_mean(self, mean: float) -> str:
        return f"{mean:.2%}"

    def class_weights(self) -> torch.Tensor:
        return weights_of_counts(self.counts, self.bases, self.labels.multi_label)

    def measure(self, outputs: np.ndarray, labels: np.ndarray) -> dict[str, float]:
        return token_metrics(outputs, labels, self.names)

    def purpose(self) -> str:
        return f"predict classes {', '.join(self.names)} at every base"


class TrackTask(BaseTask):
    """Counts or coverage of one or several tracks at every base, as means of bins."""

    shown_metrics = REGRESSION_METRICS
    labels: TrackLabels

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.metric_names = list(REGRESSION_METRICS[:-1])
        self.config_fields |= {"regression_loss": "poisson"}

    def _check_files(self) -> None:
        if self.data_args.fasta is None:
            raise InputError("--task track: give the genome with --fasta and the bigWig files with --bigwig.")
        if not self.data_args.bigwig:
            raise InputError("--task track: give the bigWig files with --bigwig.")

    def _read_labels(self) -> TrackLabels:
        args = self.data_args
        if args.bin_size < 1:
            raise InputError(f"--bin_size {args.bin_size}: give at least 1.")
        return TrackLabels(args.bigwig, self.genome, args.bin_size)

    def prepare_model(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, origin: str) -> str:
        origin = super().prepare_model(model, tokenizer, origin)
        rates, source = (self.counts / self.bases)[None], self.model_args.model
        _, origin = prepare_outputs(model, "poisson", rates, self.names, source, origin)  # rates keep their units
        return origin

    def _choose_window(self, limit: int | None) -> int:
        window, bin_size = super()._choose_window(limit), self.labels.bin_size
        if window % bin_size and self.data_args.window is not None:
            raise InputError(f"--window {window}: give a multiple of --bin_size {bin_size}.")
        return window - window % bin_size

    def _cut(self, regions: list[Interval]) -> LabelledWindows:
        return LabelledWindows(self.genome, self.labels, regions, self.window, only_whole=True)

    def _describe_mean(self, mean: float) -> str:
        return f"{mean:.4g}"

    def class_weights(self) -> torch.Tensor:
        raise NotImplementedError("tracks have no classes")  # check_arguments rejects --class_weights

    def measure(self, outputs: np.ndarray, labels: np.ndarray) -> dict[str, float]:
        """Compute the metrics of the means of bins."""
        outputs, labels = (values.reshape(-1, self.labels.bin_size, len(self.names)) for values in (outputs, labels))
        is_used = labels[..., 0] != IGNORED
        weights = is_used / np.maximum(is_used.sum(1, keepdims=True), 1)
        predicted, true = (np.einsum("bp,bpt->bt", weights, values)[is_used.any(1)] for values in (outputs, labels))
        return regression_metrics(predicted, true, self.names)

    def purpose(self) -> str:
        return f"predict rates of {', '.join(self.names)} at every base"


def split_regions(
    genome: Fasta, labels: BaseLabels | TrackLabels, validation: Iterable[str], test: Iterable[str]
) -> dict[str, list[Interval]]:
    """
    Divide the annotated sequences of a genome into splits.

    Args:
        genome: Genome.
        labels: Labels; sequences without labels are used only if they are in `validation` or `test`.
        validation: Sequences or regions of validation.
        test: Sequences or regions of test.

    Returns:
        Regions of `train`, `validation` and `test`.

    Raises:
        InputError: If a split is empty, or validation and test overlap.
    """
    held_out = {}
    for name, places in (("validation", validation), ("test", test)):
        held_out[name] = [parse_region(place, genome) for place in places]
        if not held_out[name]:
            raise InputError(f"--{name}: give the sequences or regions of the {name} split (chr7 chr9:1-5000000).")
    contigs = [Interval(contig, 0, genome.lengths[contig]) for contig in labels.contigs]
    return {"train": training_intervals(contigs, **held_out), **held_out}
