"""Trained models at work: likelihoods, variant effects and embeddings of many sequences in bounded memory."""
