"""
What the recipe of a data set buys: the same fine-tuning with one thing done as many scripts do it.

    python benchmarks/recipe_ablation.py prom_300_tata --epochs 10 --out benchmarks/results/recipe_ablation

The data set is what `hyenadna finetune --dataset` takes, and one that has a recipe. Any other argument of that command
(`--learning_rate 1e-3`) goes to all rows. All rows of the table but the first
begin with the recipe. The figures are those on the test split, with the weights after the last epoch, as mean and
standard deviation over the seeds; no choice was made on test.
"""

import argparse
import contextlib
import tempfile
import time
from pathlib import Path
from unittest import mock

from report import spread, write_table

from hyenadna_hf.data.named import load_labelled
from hyenadna_hf.training.finetune import finetune
from hyenadna_hf.training.finetune_arguments import parse_arguments
from hyenadna_hf.training.recipes import recipe_of

RECIPE = ["--recipe", "auto"]
LAST = ["--classifier_pooling", "last"]
NO_DROPOUT = ["--embed_dropout", "0"]
TOKENS = ["--special_tokens_mode", "cls_sep"]
# Name, arguments, and whether the stock Trainer's parameter groups are used, which decay filters.
SETTINGS = (
    ("defaults of hyenadna finetune", [], False),
    ("recipe", RECIPE, False),
    ("recipe, reverse complements", [*RECIPE, "--reverse_complement", "0.5"], False),
    ("recipe, averaged weights", [*RECIPE, "--ema_decay", "0.99"], False),
    ("recipe, but last token", [*RECIPE, *LAST], False),
    ("recipe, but filters decay", RECIPE, True),
    ("recipe, but no dropout", [*RECIPE, *NO_DROPOUT], False),
    ("recipe, but [CLS] and [SEP]", [*RECIPE, *TOKENS], False),
    ("recipe, but all four", [*RECIPE, *LAST, *NO_DROPOUT, *TOKENS], True),
)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", help="a data set that has a recipe")
    parser.add_argument("--model", default="hyenadna-tiny-1k-seqlen", help="what to start from")
    parser.add_argument("--epochs", default="10", help="passes over train, of every row of the table")
    parser.add_argument("--limit", type=int, help="sequences of each split (default: all)")
    parser.add_argument("--seeds", type=int, nargs="+", default=[2222], help="a run for each")
    parser.add_argument("--settings", nargs="+", type=int, help="rows of the table, from 0 (default: all)")
    parser.add_argument("--out", required=True, help="beginning of the names of the files to write")
    args, args.others = parser.parse_known_args()
    if recipe_of(args.dataset) is None:
        parser.error(f"{args.dataset}: there is no recipe for it")
    chosen = [SETTINGS[number] for number in args.settings or range(len(SETTINGS))]
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / recipe_of(args.dataset)
        sizes = copy_data(args.dataset, data, args.limit)
        print(
            f"{args.dataset}: {sizes}; {args.epochs} epochs from {args.model}; seeds {args.seeds}; {args.others}",
            flush=True,
        )
        rows = [measure(setting, data, args) for setting in chosen]
    write_table(rows, args.out)


def copy_data(dataset, folder, limit):
    """Write the splits as files, shuffled and cut to `limit` sequences; returns their sizes by name."""
    folder.mkdir()
    sizes = {}
    for name, split in load_labelled(dataset).items():
        split = split.shuffle(seed=0).select(range(min(limit or len(split), len(split))))
        split.to_pandas().to_csv(folder / f"{name}.csv", index=False)
        sizes[name] = len(split)
    return sizes


def measure(setting, data, args):
    name, options, stock_groups = setting
    common = ["--dataset", str(data), "--model", args.model, "--num_train_epochs", args.epochs, "--no_baselines"]
    common += ["--save_strategy", "no", "--eval_strategy", "no", "--disable_tqdm", "true", *args.others]
    groups = mock.patch("hyenadna_hf.training.finetune.optimizer_cls_and_kwargs", lambda *_: None)
    found, started = [], time.monotonic()
    for seed in args.seeds:
        with tempfile.TemporaryDirectory() as out, contextlib.ExitStack() as stack:
            if stock_groups:
                stack.enter_context(groups)
            stack.enter_context(contextlib.redirect_stdout(None))
            arguments = parse_arguments([*common, *options, "--seed", str(seed), "--output_dir", out])
            found.append(finetune(*arguments)["test"]["model"])
    row = {"setting": name}
    for metric in found[0]:
        row[metric] = spread([result[metric] for result in found], 4)
    row["seconds a run"] = (time.monotonic() - started) / len(args.seeds)
    print(row, flush=True)
    return row


if __name__ == "__main__":
    main()
