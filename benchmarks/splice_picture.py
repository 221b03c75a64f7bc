"""
Draw what models learn about splice sites: bits by position, and what a fine-tuned classifier looks at.

    hyenadna finetune --output_dir splice-classifier
    python benchmarks/splice_picture.py splice-classifier --out benchmarks/results/splice_sites.png

On the test windows of splice_sites_chr20, above: the bits that the language model needs at each position, as the mean
over donors, acceptors and decoys. Below: gradient times input of the classifier's logit of the true class, less the
mean of the others, on the centred embeddings of A, C, G and T, as the mean over windows; a letter above the line speaks
for the class. Needs logomaker (pip install logomaker).
"""

import argparse
import math

import logomaker
import matplotlib
import numpy as np
import pandas as pd
import torch
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

from hyenadna_hf.data.labelled import load_labelled_sequences
from hyenadna_hf.data.sequence import BASES, NUCLEOTIDE_IDS, token_ids
from hyenadna_hf.inference.likelihood import sequence_log_likelihood
from hyenadna_hf.loading import load_trained

matplotlib.use("Agg")
import matplotlib.pyplot as plt

SHOWN = 30  # bases on either side of the site
BATCH = 256


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("classifier", help="fine-tuned on splice_sites_chr20")
    parser.add_argument("--model", default="hyenadna-tiny-1k-human", help="language model")
    parser.add_argument("--out", required=True, help="picture to write")
    args = parser.parse_args()
    split = load_labelled_sequences("splice_sites_chr20")["test"]
    names, labels = split.features["label"].names, np.array(split["label"])
    ids = torch.from_numpy(np.stack([token_ids(text) for text in split["sequence"]]))
    likelihoods = sequence_log_likelihood(
        *load_trained(AutoModelForCausalLM, args.model), split["sequence"], per_base=True
    )
    bits = -np.stack([found.per_base for found in likelihoods]) / math.log(2)  # NaN at the first base
    classifier, _ = load_trained(AutoModelForSequenceClassification, args.classifier)
    logos = attributions(classifier, ids, labels)

    middle = ids.shape[1] // 2
    window = slice(middle - SHOWN, middle + SHOWN)
    places = np.arange(-SHOWN, SHOWN)  # 0 and -1 are the two bases of the site
    figure, axes = plt.subplots(2, 2, figsize=(11, 6), sharex=True, layout="constrained")
    for panel, name in zip(axes.T, ("donor", "acceptor")):
        for shown, colour in ((name, "#2f6fb5"), ("neither", "#9aa5b1")):
            mean = bits[labels == names.index(shown)].mean(0)
            panel[0].plot(places, mean[window], color=colour, label="decoys" if shown == "neither" else f"{name}s")
        panel[0].set(title=f"Bits at {name}s", ylabel="bits a base")
        panel[0].legend()
        heights = logos[labels == names.index(name)].mean(0)[window]
        logomaker.Logo(pd.DataFrame(heights, index=places, columns=list(BASES)), ax=panel[1], flip_below=False)
        panel[1].set(title=f"Evidence for {name}s", xlabel="base, 5' to 3'", ylabel="gradient times input")
        low, high = panel[1].get_ylim()
        panel[1].set_ylim(1.05 * low, 1.05 * high)
        for part in panel:
            part.axvline(-0.5, color="#c9d1d8", zorder=0)
    figure.savefig(args.out, dpi=150, metadata={"Software": None})


def attributions(model, ids, labels):
    """Gradient times input at each position, in the column of its base: `(windows, length, 4)`."""
    table = model.get_input_embeddings().weight.detach()
    centre = table[list(NUCLEOTIDE_IDS[: len(BASES)])].mean(0)
    found = np.zeros((*ids.shape, len(BASES)))
    for start in range(0, len(ids), BATCH):
        rows, truth = ids[start : start + BATCH], torch.from_numpy(labels[start : start + BATCH])
        embeds = table[rows].requires_grad_()
        logits = model(inputs_embeds=embeds).logits
        own = logits.gather(1, truth[:, None])[:, 0]
        others = (logits.sum(1) - own) / (logits.shape[1] - 1)
        (gradient,) = torch.autograd.grad((own - others).sum(), embeds)
        values = (gradient * (embeds - centre)).sum(-1).detach().numpy()
        here = found[start : start + BATCH]
        np.put_along_axis(here, rows.numpy()[..., None] - NUCLEOTIDE_IDS[0], values[..., None], axis=-1)
    return found


if __name__ == "__main__":
    main()
