"""
What matters in `hyenadna finetune`: its defaults, and runs that change one of them.

    python benchmarks/finetune_ablation.py --out benchmarks/results/finetune_ablation

The data are the bundled splice sites. Figures are accuracies after the last step; the defaults were chosen on
validation. Seconds are those of training and its evaluations. Any other argument of the command goes to all rows.
"""

import argparse
import contextlib
import statistics
import tempfile
import time

from report import spread, write_table

from hyenadna_hf.training.finetune import prepare, report
from hyenadna_hf.training.finetune_arguments import parse_arguments
from hyenadna_hf.training.runs import train

SETTINGS = {
    "defaults": [],
    "1 epoch": ["--num_train_epochs", "1"],
    "3 epochs": ["--num_train_epochs", "3"],
    "AdamW": ["--muon_learning_rate", "0"],
    "AdamW, 3 epochs": ["--muon_learning_rate", "0", "--num_train_epochs", "3"],
    "learning rate 3e-4": ["--learning_rate", "3e-4"],
    "learning rate 3e-3": ["--learning_rate", "3e-3"],
    "learning rate of the filters 1e-4": ["--filter_learning_rate", "1e-4"],
    "batches of 64": ["--per_device_train_batch_size", "64"],
    "bidirectional": ["--bidirectional", "true"],
    "last position in place of the mean": ["--classifier_pooling", "last"],
    "[CLS] and [SEP]": ["--special_tokens_mode", "cls_sep"],
    "dropout of 0.1 on embeddings": ["--embed_dropout", "0.1"],
    "start: random weights": ["--model", "hyenadna-tiny-1k-seqlen"],
    "start: hyenadna-tiny-1k-chr20": ["--model", "hyenadna-tiny-1k-chr20"],
    "start: hyenadna-tiny-1k-remag": ["--model", "hyenadna-tiny-1k-remag"],
}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[42], help="a run for each (default: 42)")
    parser.add_argument("--settings", nargs="+", choices=SETTINGS, help="rows of the table (default: all)")
    parser.add_argument("--out", required=True, help="beginning of the names of the files to write")
    args, others = parser.parse_known_args()
    rows = []
    for name in args.settings or SETTINGS:
        runs = [measure([*others, *SETTINGS[name], "--seed", str(seed)]) for seed in args.seeds]
        accuracy = {split: spread([run[split] for run in runs], 4) for split in ("validation", "test")}
        rows.append({"setting": name, **accuracy, "seconds": statistics.mean(run["seconds"] for run in runs)})
        print(rows[-1], flush=True)
    write_table(rows, args.out)


def measure(options):
    """Accuracy on validation and test, and seconds, of one run."""
    with tempfile.TemporaryDirectory() as out, contextlib.redirect_stdout(None):
        command = [*options, "--no_baselines", "--save_strategy", "no", "--disable_tqdm", "true", "--output_dir", out]
        started = time.monotonic()
        run = prepare(*parse_arguments(command))
        results = report(run, train(run.trainer, run.task.saving(run.trainer.model)), started)
    evaluations = [entry["eval_accuracy"] for entry in run.trainer.state.log_history if "eval_accuracy" in entry]
    return {
        "validation": evaluations[-1],
        "test": results["test"]["model"]["accuracy"],
        "seconds": results["fit_seconds"]["model"],
    }


if __name__ == "__main__":
    main()
