"""Likelihoods, variant effects and embeddings of many sequences, in bounded memory."""
