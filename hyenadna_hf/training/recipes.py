"""
Published fine-tuning settings, one recipe per data set, for `hyenadna finetune --recipe`.

The values are those of the HyenaDNA paper (Nguyen, Poli, Faizi et al. 2023) and its configurations. If the paper gives
a range, the recipe has the value of the configuration; the unpublished number of epochs for species is that of the
other data sets. The published schedule warms up from 1e-6, ours from 0. Biotypes and soft prompts have no recipe: the
former use embeddings without training, the latter train no weight of the model.
"""

import os
from dataclasses import asdict, dataclass, fields, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from ..data.genomic_benchmarks import GENOMIC_BENCHMARKS
from ..data.nucleotide_transformer import GUE_TASKS, NUCLEOTIDE_TRANSFORMER_TASKS
from ..errors import InputError


@dataclass(frozen=True)
class Recipe:
    """
    Settings for one data set. Each field is the argument of `hyenadna finetune` with the same name.

    Attributes:
        max_length: Longest input, in tokens; the rest is truncated.
        metric_for_best_model: Reported metric: `accuracy`, `mcc`, `f1` (macro) or `auroc` (median over the labels). It
            selects the epoch only with `--load_best_model_at_end` or `--early_stopping_patience`.
        learning_rate: Peak learning rate of AdamW.
        filter_learning_rate: Peak learning rate of the implicit filters. Defaults to `learning_rate`.
        muon_learning_rate: Peak learning rate of Muon; 0 for AdamW alone, as published.
        weight_decay: Weight decay, except for filters, biases and norms.
        embed_dropout: Dropout on the embeddings.
        resid_dropout: Dropout on the output of each mixer and MLP.
        per_device_train_batch_size: Sequences per step, over all devices.
        num_train_epochs: Number of epochs.
        lr_scheduler_type: Learning rate schedule.
        warmup_steps: Fraction of all steps for warm-up.
        min_lr_rate: Final learning rate, as a fraction of the peak.
        max_grad_norm: Norm to which gradients are clipped.
        reverse_complement: Probability of reverse-complementing a training sequence.
        classifier_pooling: Pooling of the classification head.
        special_tokens_mode: Special tokens that the tokenizer adds.
        padding_side: Padding side of the tokenizer.
        seed: Random seed.
    """

    max_length: int
    metric_for_best_model: str = "accuracy"
    learning_rate: float = 6e-4
    filter_learning_rate: float | None = None
    muon_learning_rate: float = 0.0
    weight_decay: float = 0.1
    embed_dropout: float = 0.1
    resid_dropout: float = 0.0
    per_device_train_batch_size: int = 128
    num_train_epochs: float = 100
    lr_scheduler_type: str = "cosine_with_min_lr"
    warmup_steps: float = 0.01
    min_lr_rate: float = 0.1
    max_grad_norm: float = 1.0
    reverse_complement: float = 0.0
    classifier_pooling: str = "mean"
    special_tokens_mode: str = "none"
    padding_side: str = "left"
    seed: int = 2222

    def arguments(self, devices: int | None = None) -> dict[str, Any]:
        """
        Convert the recipe to arguments of `hyenadna finetune`, with its batch divided among the devices.

        Args:
            devices: Number of devices. Defaults to the number of processes started by `torchrun`.

        Returns:
            Values by argument name.
        """
        devices = devices or int(os.environ.get("WORLD_SIZE", 1))
        return {**asdict(self), "per_device_train_batch_size": max(1, self.per_device_train_batch_size // devices)}


_GENOMIC_BENCHMARKS_LENGTHS = {
    "dummy_mouse_enhancers_ensembl": 1024,
    "demo_coding_vs_intergenomic_seqs": 200,
    "demo_human_or_worm": 200,
    "human_enhancers_cohn": 500,
    "human_enhancers_ensembl": 512,
    "human_ensembl_regulatory": 512,
    "human_nontata_promoters": 251,
    "human_ocr_ensembl": 512,
}
_SPECIES_LENGTHS = {"1k": 1_024, "32k": 32_768, "250k": 250_000, "450k": 450_000, "1m": 1_000_000}
_CHROMATIN = Recipe(1_000, "auroc", per_device_train_batch_size=64, num_train_epochs=50)

GENOMIC_BENCHMARKS_RECIPES = {
    name: Recipe(length, GENOMIC_BENCHMARKS[name].metric) for name, length in _GENOMIC_BENCHMARKS_LENGTHS.items()
}
NUCLEOTIDE_TRANSFORMER_RECIPES = {
    name: Recipe(600 if name.startswith("splice") else task.length, task.metric)
    for name, task in NUCLEOTIDE_TRANSFORMER_TASKS.items()
}
# GUE is newer than the paper; it uses the recipe of the Nucleotide Transformer tasks.
GUE_RECIPES = {name: Recipe(task.length, task.metric) for name, task in GUE_TASKS.items()}
CHROMATIN_RECIPES = {
    "chromatin_1k": _CHROMATIN,
    "chromatin_8k": replace(_CHROMATIN, max_length=8_000, classifier_pooling="last"),
}
SPECIES_RECIPES = {
    f"species_{name}": Recipe(length, classifier_pooling="mean" if length < 250_000 else "last")
    for name, length in _SPECIES_LENGTHS.items()
}
COLLECTIONS = {
    "GenomicBenchmarks": GENOMIC_BENCHMARKS_RECIPES,
    "Nucleotide Transformer": NUCLEOTIDE_TRANSFORMER_RECIPES,
    "GUE (not published: as Nucleotide Transformer)": GUE_RECIPES,
    "Chromatin profiles": CHROMATIN_RECIPES,
    "Species": SPECIES_RECIPES,
}
RECIPES = {name: recipe for recipes in COLLECTIONS.values() for name, recipe in recipes.items()}


def recipe_of(dataset: str | Path) -> str | None:
    """Return the name of the recipe for a data set (name, Hub id, or a path that ends in the name), or `None`."""
    name = Path(dataset).name.partition(".")[0].removeprefix("Genomic_Benchmarks_")
    return name if name in RECIPES else None


def find_recipe(name: str) -> Recipe:
    """
    Return the recipe with a name.

    Raises:
        InputError: If there is none. The error lists similar names.
    """
    if name not in RECIPES:
        similar = get_close_matches(name, RECIPES, n=5, cutoff=0.5)
        hint = f"similar names are {', '.join(similar)}; " if similar else ""
        raise InputError(f"--recipe {name}: unknown recipe; {hint}--recipe list prints all names.")
    return RECIPES[name]


def print_recipes(console: Console) -> None:
    """Print all recipes, one table per collection, with the common settings below each table."""
    for title, recipes in COLLECTIONS.items():
        values = {field.name: {getattr(recipe, field.name) for recipe in recipes.values()} for field in fields(Recipe)}
        varied = [name for name, options in values.items() if len(options) > 1]
        common = (
            f"{name} {options.pop()}" for name, options in values.items() if len(options) == 1 and options != {None}
        )
        table = Table(title=title, title_justify="left", box=None)
        for number, name in enumerate(["recipe", *varied]):
            table.add_column(name, justify="right" if number else "left", no_wrap=True)
        for name, recipe in recipes.items():
            table.add_row(name, *(str(getattr(recipe, column)) for column in varied))
        console.print(table)
        console.print(f"All: {', '.join(common)}.\n", highlight=False)
