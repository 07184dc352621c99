"""Trained models for use from Python."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from clipmapper.checkpoint import CARD, newest_checkpoint, read_checkpoint
from clipmapper.errors import UserError
from clipmapper.tasks import TASKS


def load_checkpoint(path: str | Path) -> Any:
    """The trained model of a run folder or a checkpoint file, frozen: a ``CLIPMapperVQA`` or a ``CLIPMapperCaption``.

    Raises ``UserError`` where there is none, or it is damaged.
    """
    file = Path(path)
    if file.is_dir():
        found = newest_checkpoint(file)
        if found is None:
            raise UserError(f"no checkpoint in {path}; give a run folder of scripts/train.py, or a checkpoint file")
        file = found
    task = read_checkpoint(file)[CARD]["task"]
    if task not in TASKS:
        raise UserError(f"checkpoint {file} has task={task}, which is none of: {', '.join(TASKS)}")
    return TASKS[task].load(file)
