"""
Does a language model find real DNA likelier than the same DNA shuffled?

A HyenaDNA language model is trained for some minutes on the first part of a FASTA file, and then scores windows of the
rest, each as it is and shuffled with its dinucleotides kept. What tells the two apart is more than composition: codons,
repeats, motifs. The train and held-out parts are separated by a gap of 100,000 bases.

    python benchmarks/likelihood_sanity.py human_chr20_30M-33M.fa.gz --minutes 4
"""

import argparse
import random
import time

import numpy as np
import torch

from hyenadna_hf import HyenaDNAConfig, HyenaDNAForCausalLM, HyenaDNATokenizer
from hyenadna_hf.data.fasta import Fasta
from hyenadna_hf.data.shuffle import dinucleotide_shuffle
from hyenadna_hf.inference.likelihood import sequence_log_likelihood

GAP = 100_000


def train(model, tokenizer, sequence, length, batch_size, learning_rate, steps=None, seconds=None, seed=0):
    """Next-base training on random windows of a `str`, for so many steps or seconds; returns steps and last loss."""
    ids = torch.tensor(tokenizer(sequence, add_special_tokens=False)["input_ids"])
    rng = random.Random(seed)
    optimizer = torch.optim.AdamW(model.parameters(), lr=learning_rate, weight_decay=0.1)
    done, start = 0, time.monotonic()
    model.train()
    while (share := done / steps if steps else (time.monotonic() - start) / seconds) < 1:
        for group in optimizer.param_groups:  # warm-up, then down to a tenth
            group["lr"] = learning_rate * min(1, 20 * share + 0.01, 1.1 - share)
        starts = [rng.randrange(len(ids) - length) for _ in range(batch_size)]
        batch = torch.stack([ids[start : start + length] for start in starts])
        loss = model(batch, labels=batch.masked_fill(batch == tokenizer.convert_tokens_to_ids("N"), -100)).loss
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        done += 1
    return done, loss.item()


def compare(model, tokenizer, windows, seed=0):
    """
    Mean log-likelihood a base, in nats, of windows as they are and shuffled.

    Returns:
        `tuple[float]`: of the real ones, of the shuffled ones, and the standard error of the mean difference.
    """
    rng = random.Random(seed)

    def means(sequences):
        return np.array([s.log_likelihood / s.scored for s in sequence_log_likelihood(model, tokenizer, sequences)])

    real, shuffled = means(windows), means(dinucleotide_shuffle(window, rng) for window in windows)
    return real.mean(), shuffled.mean(), (real - shuffled).std(ddof=1) / len(windows) ** 0.5


def held_out_windows(sequence, length, number, seed=0):
    """Random windows without N, in upper case."""
    rng = random.Random(seed)
    windows = []
    while len(windows) < number:
        start = rng.randrange(len(sequence) - length)
        window = sequence[start : start + length].upper()
        if set(window) <= set("ACGT"):
            windows.append(window)
    return windows


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("fasta", help="real sequence; its first record is used")
    parser.add_argument("--minutes", type=float, default=4, help="of training")
    parser.add_argument("--held_out", type=float, default=0.2, help="share of the sequence, at its end")
    parser.add_argument("--windows", type=int, default=400, help="held-out windows to score")
    parser.add_argument("--length", type=int, default=1024, help="bases in a window, in training too")
    parser.add_argument("--save", help="folder for the trained model")
    args = parser.parse_args()
    with Fasta(args.fasta) as fasta:
        sequence = fasta.fetch(next(iter(fasta.lengths)))
    border = int(len(sequence) * (1 - args.held_out))
    torch.manual_seed(0)
    # The size of hyenadna-tiny-1k-seqlen.
    model = HyenaDNAForCausalLM(HyenaDNAConfig(d_model=128, n_layer=2, max_seq_len=args.length + 2))
    tokenizer = HyenaDNATokenizer()
    windows = held_out_windows(sequence[border:], args.length, args.windows)
    print(f"untrained: {compare(model, tokenizer, windows[:50])[0]:.4f} nats a base (log 1/4 = {np.log(0.25):.4f})")
    settings = {"length": args.length, "batch_size": 8, "learning_rate": 2e-3, "seconds": 60 * args.minutes}
    steps, loss = train(model, tokenizer, sequence[: border - GAP], **settings)
    real, shuffled, error = compare(model, tokenizer, windows)
    print(f"trained for {args.minutes:g} minutes: {steps:,} steps, last training loss {loss:.4f}")
    print(f"{len(windows):,} held-out windows of {args.length:,} bases, mean log-likelihood in nats a base:")
    print(f"  real      {real:.4f}")
    print(f"  shuffled  {shuffled:.4f}  (dinucleotides kept)")
    print(f"  difference {real - shuffled:.4f} +- {error:.4f} (standard error)")
    if args.save:
        model.save_pretrained(args.save)
        tokenizer.save_pretrained(args.save)


if __name__ == "__main__":
    main()
