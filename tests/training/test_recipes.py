import io

import pytest
from rich.console import Console

from hyenadna_hf.data.genomic_benchmarks import GENOMIC_BENCHMARKS
from hyenadna_hf.data.named import BENCHMARKS
from hyenadna_hf.data.nucleotide_transformer import REVISED_NUCLEOTIDE_TRANSFORMER_TASKS
from hyenadna_hf.errors import InputError
from hyenadna_hf.training.finetune_arguments import FinetuneArguments, parse_arguments
from hyenadna_hf.training.recipes import RECIPES, find_recipe, print_recipes, recipe_of


def values_of(argv):
    merged = {}
    for arguments in parse_arguments(["--output_dir", "out", *argv]):
        merged.update(vars(arguments))
    return merged


# Data set: learning rate, weight decay, dropout on embeddings and residuals, batch, epochs, length, pooling, metric.
PUBLISHED = {
    "dummy_mouse_enhancers_ensembl": (6e-4, 0.1, 0.1, 0.0, 128, 100, 1024, "mean", "accuracy"),
    "demo_coding_vs_intergenomic_seqs": (6e-4, 0.1, 0.1, 0.0, 128, 100, 200, "mean", "accuracy"),
    "demo_human_or_worm": (6e-4, 0.1, 0.1, 0.0, 128, 100, 200, "mean", "accuracy"),
    "human_enhancers_cohn": (6e-4, 0.1, 0.1, 0.0, 128, 100, 500, "mean", "accuracy"),
    "human_enhancers_ensembl": (6e-4, 0.1, 0.1, 0.0, 128, 100, 512, "mean", "accuracy"),
    "human_ensembl_regulatory": (6e-4, 0.1, 0.1, 0.0, 128, 100, 512, "mean", "accuracy"),
    "human_nontata_promoters": (6e-4, 0.1, 0.1, 0.0, 128, 100, 251, "mean", "accuracy"),
    "human_ocr_ensembl": (6e-4, 0.1, 0.1, 0.0, 128, 100, 512, "mean", "accuracy"),
    "enhancers_types": (6e-4, 0.1, 0.1, 0.0, 128, 100, 200, "mean", "mcc"),
    "H3K4me3": (6e-4, 0.1, 0.1, 0.0, 128, 100, 500, "mean", "mcc"),
    "promoter_tata": (6e-4, 0.1, 0.1, 0.0, 128, 100, 300, "mean", "f1"),
    "splice_sites_all": (6e-4, 0.1, 0.1, 0.0, 128, 100, 600, "mean", "f1"),
    "chromatin_1k": (6e-4, 0.1, 0.1, 0.0, 64, 50, 1_000, "mean", "auroc"),
    "chromatin_8k": (6e-4, 0.1, 0.1, 0.0, 64, 50, 8_000, "last", "auroc"),
    "species_450k": (6e-4, 0.1, 0.1, 0.0, 128, 100, 450_000, "last", "accuracy"),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_what_the_command_trains_with_is_what_is_published(name):
    found = values_of(["--dataset", "my/data", "--recipe", name])
    names = ("learning_rate", "weight_decay", "embed_dropout", "resid_dropout", "per_device_train_batch_size")
    names += ("num_train_epochs", "max_length", "classifier_pooling", "metric_for_best_model")
    assert tuple(found[field] for field in names) == PUBLISHED[name]
    assert found["recipe"] == name and found["seed"] == 2222 and found["max_grad_norm"] == 1.0
    assert found["special_tokens_mode"] == "none" and found["padding_side"] == "left"
    assert found["filter_learning_rate"] is None and found["reverse_complement"] == 0
    assert found.get("warmup_ratio") == 0.01 or found["warmup_steps"] == 0.01
    assert found["lr_scheduler_type"] == "cosine_with_min_lr" and found["lr_scheduler_kwargs"] == {"min_lr_rate": 0.1}


def test_every_published_set_has_a_recipe():
    newer = {"drosophila_enhancers_stark", *REVISED_NUCLEOTIDE_TRANSFORMER_TASKS}  # not of the paper
    assert set(BENCHMARKS) - set(RECIPES) == newer
    assert len([name for name in RECIPES if name in GENOMIC_BENCHMARKS]) == 8


def test_given_goes_before_recipe_and_recipe_before_default():
    default = values_of([])
    assert default["learning_rate"] == FinetuneArguments.learning_rate != 6e-4 and default["recipe"] is None
    recipe = values_of(["--recipe", "H3"])
    given = values_of(["--learning_rate", "2e-4", "--recipe", "H3", "--resid_dropout", "0.2", "--seed", "1"])
    assert (given["learning_rate"], given["resid_dropout"], given["seed"]) == (2e-4, 0.2, 1)
    # Even where what is given is the default.
    same = values_of(["--recipe", "H3", "--learning_rate", str(default["learning_rate"])])
    assert same["learning_rate"] == default["learning_rate"]
    changed = {name for name in recipe if recipe[name] != given[name]}
    assert changed - {"distributed_state"} == {"learning_rate", "resid_dropout", "seed"}
    assert recipe["logging_steps"] == default["logging_steps"]


def test_auto_takes_the_recipe_of_the_data_set():
    assert values_of(["--recipe", "auto", "--dataset", "x/human_enhancers_cohn"])["max_length"] == 500
    assert values_of(["--recipe", "auto"])["recipe"] is None
    assert recipe_of("katarinagresova/Genomic_Benchmarks_human_ocr_ensembl") == "human_ocr_ensembl"
    assert recipe_of("data/H3.csv.gz") == "H3" and recipe_of("my_data") is None


def test_the_batch_is_that_of_all_devices_together(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "4")
    assert find_recipe("H3").arguments()["per_device_train_batch_size"] == 32
    assert find_recipe("H3").arguments(devices=1000)["per_device_train_batch_size"] == 1


def test_an_unknown_recipe_is_answered_by_near_names():
    with pytest.raises(InputError, match="unknown recipe; similar names are human_enhancers_cohn"):
        parse_arguments(["--recipe", "human_enhancer_chon"])


def test_the_list_names_every_recipe():
    output = io.StringIO()
    print_recipes(Console(file=output, width=200))
    printed = output.getvalue().split()
    assert set(RECIPES) <= set(printed) and "learning_rate 0.0006" in output.getvalue()
