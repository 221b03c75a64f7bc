"""
Per-base annotation of splice sites: HyenaDNA beside a CNN and position weight matrices, on held-out genes.

    python benchmarks/splice_annotation.py --fasta human.fa --genes spliceai/annotations/grch37.txt \\
        --out benchmarks/results/splice_annotation

scripts/make_gene_sites.py says where the two files come from, and makes a sequence of every gene of chromosome 20 of at
most 20,000 bases with an intron, in the direction of transcription. The last base of an exon before an intron is a
donor, the first one after it an acceptor; all others are background. Genes at 31-35 Mb are for the test and those at
30-31 Mb for validation, which hyenadna-tiny-1k-human has not seen in pretraining. Of the other genes, those with at
most 1,200 bases an intron are train: many sites in little sequence, so that the run takes minutes.

All models are trained and tested on the same windows of 1,024 bases by `hyenadna finetune --task token`, with the same
epochs, batches and learning rate. Both HyenaDNA start from hyenadna-tiny-1k-human. The causal one reads the bases
before each base; it is trained on either strand at random, so that the mean with the reverse complement ("both
strands") reads all. The bidirectional one has filters over the bases after each base, of zeros at first. The CNN is the
network of SpliceAI with a receptive field of 2,001 bases, from scratch: it reads a window as a whole, too. Position
weight matrices read 41 bases. Figures are areas under the precision-recall curve over all bases of the test genes,
after the last epoch. Writes .csv, .md and .png, a picture of one held-out gene.
"""

import argparse
import contextlib
import csv
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import matplotlib
import numpy as np
import torch
from earlier import ROOT
from report import spread, write_table
from transformers import AutoModelForTokenClassification

from hyenadna_hf.baselines.position_weights import PositionWeights
from hyenadna_hf.data.base_labels import BaseLabels, LabelledWindows
from hyenadna_hf.data.fasta import Fasta
from hyenadna_hf.data.intervals import Interval
from hyenadna_hf.data.sequence import token_ids
from hyenadna_hf.inference.predictions import Predictor
from hyenadna_hf.loading import load_trained
from hyenadna_hf.training.comparison import FLANK
from hyenadna_hf.training.finetune import finetune
from hyenadna_hf.training.finetune_arguments import parse_arguments
from hyenadna_hf.training.metrics import token_metrics

matplotlib.use("Agg")
import matplotlib.pyplot as plt

LONGEST, BASES_PER_INTRON = 20_000, 1_200  # the latter of genes of train
WINDOW = 1_024
VALIDATION, TEST = (30_000_000, 31_000_000), (31_000_000, 35_000_000)
SITES = ("acceptor", "donor")
START = "hyenadna-tiny-1k-human"
FEW_INTRONS = 8  # at least, of the gene in the picture; the shortest such gene of test
COLOURS = {"acceptor": "#2f6fb5", "donor": "#c0392b"}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fasta", required=True, help="genome with chromosome 20")
    parser.add_argument("--genes", required=True, help="table of genes and exons")
    parser.add_argument("--epochs", default="6", help="passes over train (default: %(default)s)")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1], help="a run for each (default: 1)")
    parser.add_argument("--out", required=True, help="beginning of the names of the files to write")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        splits = make_data(args, folder)
        genome = Fasta(folder / "genes.fa.gz")
        labels = BaseLabels(folder / "sites.bed", genome, SITES)
        found = {}
        for seed in args.seeds:
            for name, metrics in run_seed(args, folder, splits, genome, labels, seed):
                print(f"seed {seed}: {name}", metrics, flush=True)
                found.setdefault(name, []).append(metrics)
        write_table([row(name, metrics) for name, metrics in found.items()], args.out)
        several = [gene for gene in splits["test"] if introns_of(gene) >= FEW_INTRONS]
        draw(folder, min(several, key=length_of)["gene"], genome, labels, args.out)


def make_data(args, folder):
    """Write genes and sites, and return the genes of each split."""
    command = [sys.executable, ROOT / "scripts" / "make_gene_sites.py", "--fasta", args.fasta, "--genes", args.genes]
    subprocess.run([*command, "--longest", str(LONGEST), "--out", folder], check=True)
    splits = {"train": [], "validation": [], "test": []}
    with open(folder / "genes.tsv", newline="", encoding="utf-8") as file:
        for gene in csv.DictReader(file, delimiter="\t"):
            split = split_of(gene)
            if split:
                splits[split].append(gene)
    chosen = {gene["gene"] for genes in splits.values() for gene in genes}
    lines = (folder / "sites.bed").read_text().splitlines(keepends=True)
    (folder / "sites.bed").write_text("".join(line for line in lines if line.partition("\t")[0] in chosen))
    for name, genes in splits.items():
        bases, introns = (sum(map(number, genes)) for number in (length_of, introns_of))
        print(f"{name}: {len(genes)} genes, {bases:,} bases, {introns:,} introns", flush=True)
    return splits


def length_of(gene):
    return int(gene["end"]) - int(gene["start"])


def introns_of(gene):
    return int(gene["introns"])


def split_of(gene):
    """Return the split of a gene, or `None` if it is left out."""
    start, end = int(gene["start"]), int(gene["end"])
    for name, (first, last) in (("validation", VALIDATION), ("test", TEST)):
        if first <= start and end <= last:
            return name
    is_outside = end <= VALIDATION[0] or start >= TEST[1]
    return "train" if is_outside and length_of(gene) <= BASES_PER_INTRON * introns_of(gene) else None


def run_seed(args, folder, splits, genome, labels, seed):
    """Train all models with one seed, and yield the name and test metrics of each."""
    names = {split: [gene["gene"] for gene in genes] for split, genes in splits.items()}
    windows = {
        split: LabelledWindows(genome, labels, [Interval(gene, 0, genome.lengths[gene]) for gene in genes], WINDOW)
        for split, genes in names.items()
    }
    truth = np.concatenate([example["labels"] for example in iterate(windows["test"])])

    def train(name, model, *options):
        out = folder / name
        shutil.rmtree(out, ignore_errors=True)
        common = ["--task", "token", "--fasta", folder / "genes.fa.gz", "--annotation", folder / "sites.bed"]
        common += ["--features", *SITES, "--validation", *names["validation"], "--test", *names["test"]]
        common += ["--window", WINDOW, "--num_train_epochs", args.epochs, "--per_device_train_batch_size", 4]
        common += ["--seed", seed, "--no_baselines"]
        common += ["--save_strategy", "no", "--eval_strategy", "no", "--disable_tqdm", "true"]
        arguments = parse_arguments([*map(str, [*common, "--model", model, "--output_dir", out, *options])])
        with contextlib.redirect_stdout(None):
            results = finetune(*arguments)
        return {**results["test"]["model"], "seconds": results["fit_seconds"]["model"]}

    causal = train("causal", START, "--reverse_complement", "0.5")
    yield "HyenaDNA, causal, one strand", causal
    predictor = Predictor(*load_trained(None, folder / "causal"), strands="both")
    probabilities = predict(predictor, windows["test"])
    yield "HyenaDNA, causal, both strands", {**causal, **token_metrics(np.log(probabilities), truth, labels.names)}
    yield "HyenaDNA, bidirectional", train("bidirectional", START, "--bidirectional", "true")
    yield "CNN, 2,001 bases", train("cnn", "cnn")
    started = time.monotonic()
    matrices = PositionWeights(len(labels.names), FLANK)
    matrices.fit((example["input_ids"], example["labels"]) for example in iterate(windows["train"]))
    seconds = time.monotonic() - started
    scores = np.concatenate([matrices.predict(example["input_ids"]) for example in iterate(windows["test"])])
    yield f"position weights, {2 * FLANK + 1} bases", {**token_metrics(scores, truth, labels.names), "seconds": seconds}
    chance = {f"auprc_{name}": float((truth == number).mean()) for number, name in enumerate(labels.names)}
    yield "chance", {**chance, "seconds": 0.0}


def iterate(windows):
    return (windows[number] for number in range(len(windows)))


def predict(predictor, windows):
    """Return the probabilities of the classes at the bases of windows, shape `(bases, classes)`."""
    return np.concatenate([*predictor.predict(windows.fasta.fetch(*tile[:3]) for tile in windows.windows)])


def row(name, metrics):
    columns = {"donor AUPRC": "auprc_donor", "acceptor AUPRC": "auprc_acceptor"}
    cells = {column: spread([found[key] for found in metrics], 3) for column, key in columns.items()}
    return {
        "model": name,
        **cells,
        "seeds": len(metrics),
        "training, s": statistics.mean(m["seconds"] for m in metrics),
    }


def draw(folder, gene, genome, labels, out):
    """Draw the probabilities of the models of the last seed along a gene, and its sites."""
    length = genome.lengths[gene]
    windows = LabelledWindows(genome, labels, [Interval(gene, 0, length)], WINDOW)
    truth = labels.fetch(gene, 0, length)
    predictor = Predictor(*load_trained(None, folder / "bidirectional"))
    cnn = AutoModelForTokenClassification.from_pretrained(folder / "cnn").eval()
    with torch.no_grad():
        texts = [genome.fetch(*tile[:3]) for tile in windows.windows]
        logits = torch.cat([cnn(torch.from_numpy(token_ids(text))[None]).logits[0] for text in texts])
    panels = {
        "HyenaDNA, bidirectional": predict(predictor, windows),
        "CNN, 2,001 bases": logits.softmax(-1).numpy(),
    }
    figure, axes = plt.subplots(len(panels), figsize=(10, 4.5), sharex=True, sharey=True, layout="constrained")
    for axis, (name, probabilities) in zip(axes, panels.items()):
        for number, site in enumerate(labels.names):
            if site in SITES:
                sign = 1 if site == "donor" else -1  # acceptors below
                axis.vlines(
                    np.arange(length), 0, sign * probabilities[:, number], color=COLOURS[site], lw=1.2, label=site
                )
                places = np.flatnonzero(truth == number)
                marker = "v" if sign > 0 else "^"
                axis.plot(
                    places, np.full(len(places), 1.08 * sign), marker, color=COLOURS[site], ms=5, label=f"true {site}"
                )
        axis.axhline(0, color="black", lw=0.6)
        axis.set(title=name, ylim=(-1.2, 1.2), ylabel="probability")
        axis.set_yticks([-1, -0.5, 0, 0.5, 1], ["1", "0.5", "0", "0.5", "1"])
    axes[0].legend(loc="upper right", ncols=4, fontsize=8, bbox_to_anchor=(1, 1.35), frameon=False)
    axes[-1].set(xlabel=f"base of {gene}, in the direction of transcription", xlim=(0, length))
    figure.savefig(f"{out}.png", dpi=130, metadata={"Software": None})


if __name__ == "__main__":
    main()
