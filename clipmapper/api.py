"""Trained models as modules of PyTorch; :func:`clipmapper.load` returns them with what is known about them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import clipmapper.tasks.caption.explaining
import clipmapper.tasks.vqa.explaining  # noqa: F401 - both let explain.explain trace their models
from clipmapper.checkpoint import CARD, read_checkpoint
from clipmapper.choice import newest_checkpoint
from clipmapper.errors import UserError
from clipmapper.pretrained import pretrained_file
from clipmapper.tasks import TASKS


def load_pretrained(task: str = "vqa", mapper: str = "b") -> Any:
    """Load a trained model that the package contains.

    Args:
        task: ``vqa`` or ``caption``.
        mapper: ``a`` (single-stream) or ``b`` (dual-stream).

    Returns:
        A ``CLIPMapperVQA`` or a ``CLIPMapperCaption``, frozen and in evaluation mode.

    Raises:
        UserError: The package has no such model.
    """
    path = pretrained_file(task, mapper)
    if path is None:
        raise UserError(f"no model of task={task} mapper={mapper} is shipped; train one with scripts/train.py")
    return load_checkpoint(path)


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
