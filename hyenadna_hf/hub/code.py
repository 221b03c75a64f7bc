"""The code files of a Hub folder, which `auto_map` in its configuration names."""

import os
import shutil
from pathlib import Path

from ..model import modeling_hyenadna

CODE_FILES = tuple(sorted(Path(modeling_hyenadna.__file__).parent.glob("*_hyenadna.py")))


def copy_code(folder: str | Path):
    """
    Copy the code files that a folder lacks. Those that it has are kept: they may belong to an older model.

    Args:
        folder (`str` or `Path`): The folder of a saved model.
    """
    for file in CODE_FILES:
        if not (Path(folder) / file.name).exists():
            shutil.copyfile(file, Path(folder) / file.name)


def link_code(folder: str | Path):
    """
    Replace the code files of a folder by relative links to those of this package.

    Args:
        folder (`str` or `Path`): A folder in the repository of this package.
    """
    folder = Path(folder).resolve()
    for file in folder.glob("*_hyenadna.py"):
        file.unlink()
    for file in CODE_FILES:
        (folder / file.name).symlink_to(os.path.relpath(file.resolve(), folder))
