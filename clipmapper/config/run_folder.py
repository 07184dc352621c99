"""The run folder of a command: whose it is, so that no command writes into the results of another run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from clipmapper.errors import UserError
from clipmapper.places import real_path

CONFIG = "config.yaml"  # the resolved config, in the run folder
IDENTITY = "identity.json"  # what the numbers of a training or a perturbation run depend on
# Files that a run called from Python has, which writes no config.
_RESULTS = (IDENTITY, "metrics.json", "split.json", "perturbation.json")


def has_run(folder: Path) -> bool:
    """Return whether a folder contains files of a run, besides the config of one that wrote nothing else."""
    if any((folder / name).is_file() for name in _RESULTS):
        return True
    config = folder / CONFIG
    return config.is_file() and any(path.is_file() and path != config for path in folder.rglob("[!.]*"))


def may_write(folder: Path, resume: str | None, continued: Sequence[str]) -> bool:
    """Return whether a command may write its config into a run folder before it starts.

    Args:
        folder: The run folder of the command.
        resume: The run that the command continues; None for a new one; ``auto`` for that in the folder, if any.
        continued: Patterns of files of a run that the command continues in its own folder without ``resume``, after it
            has checked that the run is its own.

    Returns:
        True for a folder without a run; False if the command continues the run in it.

    Raises:
        UserError: The folder contains another run.
    """
    if not has_run(folder):
        return True
    if resume == "auto" and (folder / IDENTITY).is_file():
        return False
    if resume is not None and real_path(resume) == real_path(folder):
        return False
    if any(path.is_file() for pattern in continued for path in folder.glob(pattern)):
        return False
    raise UserError(f"hydra.run.dir={folder} contains the files of another run; give a new folder, or remove it")
