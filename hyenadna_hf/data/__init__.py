"""Sequences in: files, the Hub, and the small set that ships with the package."""
