"""Whether what a command writes can be written, which it asks before minutes go by."""

from __future__ import annotations

import os
from pathlib import Path


def check_folder_of(option: str, path: Path) -> Path:
    """The folder that a file is to be in. ValueError if it is not there."""
    if not path.absolute().parent.is_dir():
        raise ValueError(f"{option}: there is no folder {path.parent}")
    return path.absolute().parent


def check_writable(option: str, folder: Path) -> None:
    """ValueError if nothing can be written to it."""
    if not os.access(folder, os.W_OK):
        raise ValueError(f"{option}: nothing can be written to {folder}")
