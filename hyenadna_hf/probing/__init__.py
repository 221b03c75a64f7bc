"""Probes: classifiers on frozen embeddings of any Hugging Face model."""
