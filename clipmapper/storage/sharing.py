"""Folders and files that a group shares: the group may write what is created below a folder that it may write."""

from __future__ import annotations

import stat
from contextlib import suppress
from pathlib import Path


def make_folder(path: Path) -> Path:
    """Create a folder and those above it; each has the group's right to write, and its group, if its parent has them.

    Raises:
        OSError: It cannot be created.
    """
    missing = [folder for folder in (path, *path.parents) if not folder.exists()]
    for folder in reversed(missing):
        folder.mkdir(exist_ok=True)
        share(folder)
    if not path.is_dir():
        path.mkdir()  # raises the error that names what is there
    return path


def share(path: Path) -> None:
    """Give the group the right to write a new file or folder if it may write the folder that contains it."""
    with suppress(OSError):  # a file system without permissions
        above, mode = path.parent.stat().st_mode, path.stat().st_mode
        more = above & stat.S_IWGRP
        if path.is_dir() and more:
            more |= above & stat.S_ISGID
        if more and mode | more != mode:
            path.chmod(stat.S_IMODE(mode | more))
