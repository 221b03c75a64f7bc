"""Checkpoints that ship with the package."""

from pathlib import Path

BUNDLED_CHECKPOINTS = {"hyenadna-tiny-1k-remag": Path(__file__).parent / "hyenadna-tiny-1k-remag"}
