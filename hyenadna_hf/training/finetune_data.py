"""Data of `hyenadna finetune`: labelled sequences, and groups of their labels."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path

from datasets import DatasetDict

from ..data.chromatin import CHROMATIN_GROUPS
from ..data.files import find_published
from ..data.labelled import BUNDLED
from ..data.multilabel import is_saved_dataset, load_multilabel_sequences, load_regression_sequences
from ..data.named import BENCHMARKS, load_labelled
from ..errors import InputError
from .finetune_arguments import DataArguments

LABEL_GROUPS = {"deepsea": CHROMATIN_GROUPS}


def load_data(args: DataArguments, seed: int) -> tuple[DatasetDict, list[str]]:
    """Load the data set, with a column `label` or `labels`, and the names of the classes, labels or targets."""
    fractions = (args.validation_fraction, args.test_fraction, seed)
    columns = (args.label_column or "").split(",")
    if args.task == "regression":
        if find_published(args.dataset, BENCHMARKS) is not None or args.dataset in BUNDLED:
            raise InputError(f"--task regression: {args.dataset} has classes, not numbers; omit it.")
        columns = [] if args.label_column is None else columns
        return load_regression_sequences(args.dataset, columns, args.sequence_column, *fractions)
    if len(columns) > 1 or is_saved_dataset(args.dataset):
        return load_multilabel_sequences(args.dataset, columns, args.sequence_column, *fractions)
    data = load_labelled(args.dataset, args.sequence_column, args.label_column, *fractions)
    return data, data["train"].features["label"].names


def label_columns(source: str | None, names: list[str], multi_label: bool) -> Mapping[str, Iterable[int]] | None:
    """Return the columns of each group of labels, or `None` without `--label_groups`."""
    if source is None:
        return None
    if not multi_label:
        raise InputError(f"--label_groups {source}: these sequences have one class each; omit it.")
    if source in LABEL_GROUPS:
        deepsea_groups = LABEL_GROUPS[source]
        if len(names) != sum(map(len, deepsea_groups.values())):
            raise InputError(f"--label_groups {source}: this data set has {len(names):,} labels, not those of DeepSEA.")
        return deepsea_groups
    try:
        label_groups = json.loads(Path(source).read_text(encoding="utf-8"))
        return {group: [names.index(label) for label in labels] for group, labels in label_groups.items()}
    except (OSError, ValueError, AttributeError, TypeError) as error:  # missing file, not JSON, or unknown label
        raise InputError(
            f'--label_groups {source}: give a JSON file {{"group": ["label", ...]}} of the labels ({error}).'
        ) from error
