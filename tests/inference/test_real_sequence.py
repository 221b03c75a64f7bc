"""Likelihoods of real sequence, by a model that was trained on other real sequence for seconds."""

import importlib.util
from pathlib import Path

import pytest
import torch

from hyenadna_hf import HyenaDNAConfig, HyenaDNAForCausalLM, HyenaDNATokenizer
from hyenadna_hf.data.fasta import Fasta
from hyenadna_hf.inference.variants import Variant, score_variants

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "likelihood_sanity.py"
TOKENIZER = HyenaDNATokenizer()


@pytest.fixture(scope="module")
def benchmark():
    spec = importlib.util.spec_from_file_location("likelihood_sanity", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def genome(shared):
    with Fasta(shared / "data/genomes/human_chr20_30M-33M.fa.gz") as fasta:
        yield fasta


def test_real_sequence_is_likelier_than_shuffled(benchmark, genome):
    (name,) = genome.lengths
    torch.manual_seed(0)
    config = HyenaDNAConfig(d_model=32, n_layer=1, max_seq_len=130, filter_order=16, embed_dropout=0.0)
    model = HyenaDNAForCausalLM(config)
    steps = {"length": 128, "batch_size": 32, "learning_rate": 1e-2}
    benchmark.train(model, TOKENIZER, genome.fetch(name, 0, 500_000), steps=150, **steps)
    held_out = benchmark.held_out_windows(genome.fetch(name, 2_000_000, 2_500_000), 128, 400)
    real, shuffled, error = benchmark.compare(model, TOKENIZER, held_out)
    assert real > -1.375  # log(1/4) is -1.386
    assert real - shuffled > 5 * error

    # A CpG is rare in human sequence: on average, making one is less likely than making a CpA.
    ratios = {"G": [], "A": []}
    sequence = genome.fetch(name, 2_000_000, 2_004_000).upper()
    for at in [i for i in range(200, len(sequence)) if sequence[i - 1 : i + 1] in ("CT", "CC")][:60]:
        variants = [Variant(name, 2_000_000 + at, sequence[at], base) for base in ratios]
        for score in score_variants(model, TOKENIZER, variants, genome, window=100):
            ratios[score.variant.alternate].append(score.llr)
    assert sum(ratios["G"]) / 60 < sum(ratios["A"]) / 60 - 0.5
