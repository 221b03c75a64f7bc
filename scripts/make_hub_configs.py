"""
Write hub_configs/: a complete Hub folder for each published size, without weights.

    python scripts/make_hub_configs.py

Here the code files are links to the package's own, so that there is one copy of them in this repository.
"""

from pathlib import Path

from hyenadna_hf.hub.sizes import SIZE_NAMES, write_size_folder

ROOT = Path(__file__).parents[1]


def main():
    for name in SIZE_NAMES:
        folder = ROOT / "hub_configs" / name
        for file in folder.glob("*_hyenadna.py"):
            file.unlink()
        write_size_folder(name, folder)
        for file in folder.glob("*_hyenadna.py"):
            file.unlink()
            file.symlink_to(Path("../../hyenadna_hf/model") / file.name)


if __name__ == "__main__":
    main()
