"""Code files of a Hub folder, named by `auto_map` in its configuration."""

import os
import shutil
from pathlib import Path

from ..model import modeling_hyenadna

CODE_FILES = tuple(sorted(Path(modeling_hyenadna.__file__).parent.glob("*_hyenadna.py")))


def copy_code(folder: str | Path) -> None:
    """
    Copy the code files that a folder lacks. Existing ones are kept, since they may belong to an older model.

    Args:
        folder: Folder of a saved model.
    """
    for file in CODE_FILES:
        if not (Path(folder) / file.name).exists():
            shutil.copyfile(file, Path(folder) / file.name)


def link_code(folder: str | Path) -> None:
    """
    Replace the code files of a folder by relative links to those of this package.

    Args:
        folder: Folder in the repository of this package.
    """
    folder = Path(folder).resolve()
    for file in folder.glob("*_hyenadna.py"):
        file.unlink()
    for file in CODE_FILES:
        (folder / file.name).symlink_to(os.path.relpath(file.resolve(), folder))
