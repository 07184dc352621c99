"""The Python interface to trained models."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from clipmapper.checkpoint import CARD, newest_checkpoint, read_checkpoint
from clipmapper.errors import UserError
from clipmapper.tasks import TASKS


def load_checkpoint(path: str | Path) -> Any:
    """Load the trained model of a run folder or a checkpoint file.

    Args:
        path: A run folder of ``scripts/train.py``, whose newest ``best.ckpt`` is loaded, or a checkpoint file.

    Returns:
        A ``CLIPMapperVQA`` or a ``CLIPMapperCaption``, frozen and in evaluation mode.

    Raises:
        UserError: There is no checkpoint, or it is damaged.
    """
    file = Path(path)
    if file.is_dir():
        found = newest_checkpoint(file)
        if found is None:
            raise UserError(f"no checkpoint in {path}; give a run folder of scripts/train.py, or a checkpoint file")
        file = found
    task = read_checkpoint(file)[CARD]["task"]
    if task not in TASKS:
        raise UserError(f"checkpoint {file} has task={task}, which is not one of: {', '.join(TASKS)}")
    return TASKS[task].load(file)
