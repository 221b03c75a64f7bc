"""
Write hub_configs/, a complete Hub folder without weights for each published size, and complete hyenadna_hf/pretrained/.

    python scripts/make_hub_configs.py

In the repository the code files are links to those in hyenadna_hf/model/, so that there is one copy of them.
"""

from pathlib import Path

from hyenadna_hf.hub.code import link_code
from hyenadna_hf.hub.sizes import SIZE_NAMES, write_size_folder
from hyenadna_hf.pretrained import BUNDLED_CHECKPOINTS

ROOT = Path(__file__).parents[1]


def main():
    for name in SIZE_NAMES:
        folder = ROOT / "hub_configs" / name
        write_size_folder(name, folder)
        link_code(folder)
    for folder in BUNDLED_CHECKPOINTS.values():
        link_code(folder)


if __name__ == "__main__":
    main()
