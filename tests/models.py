"""Small models for tests, and folders with them."""

import torch
from reference import randomise

from hyenadna_hf import HyenaDNAConfig, HyenaDNAForCausalLM, HyenaDNATokenizer


def small_model(model_class=HyenaDNAForCausalLM, **fields):
    """A model of at most 40 positions, without dropout, with weights that make every part of it matter."""
    torch.manual_seed(fields.pop("seed", 0))
    sizes = {"d_model": 12, "n_layer": 2, "max_seq_len": 40, "filter_order": 16, "embed_dropout": 0.0}
    return randomise(model_class(HyenaDNAConfig(**{**sizes, **fields}))).eval()


def save_model(folder, *model_class, **fields):
    """Save a [`small_model`] and its tokenizer."""
    model = small_model(*model_class, **fields)
    model.save_pretrained(folder)
    HyenaDNATokenizer(model_max_length=model.config.max_seq_len).save_pretrained(folder)


def save_untrained(folder, max_seq_len=64):
    """Write a folder with a small configuration and a tokenizer, but no weights, and return it."""
    HyenaDNAConfig(d_model=16, filter_order=16, max_seq_len=max_seq_len).save_pretrained(folder)
    HyenaDNATokenizer(model_max_length=max_seq_len).save_pretrained(folder)
    return folder
