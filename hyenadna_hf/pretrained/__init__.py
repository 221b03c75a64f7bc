"""Checkpoints that ship with the package."""

from pathlib import Path

BUNDLED_CHECKPOINTS = {
    name: Path(__file__).parent / name
    for name in (
        "hyenadna-tiny-16k-genomes",
        "hyenadna-tiny-1k-chr20",
        "hyenadna-tiny-1k-human",
        "hyenadna-tiny-1k-remag",
    )
}
