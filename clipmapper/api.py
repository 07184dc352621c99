"""Trained models for use from Python."""

from __future__ import annotations

from pathlib import Path

from clipmapper.errors import UserError
from clipmapper.tasks.vqa.model import CLIPMapperVQA, load_vqa


def load_checkpoint(path: str | Path) -> CLIPMapperVQA:
    """The trained model of a run folder or a checkpoint file, frozen, for use from Python.

    Raises ``UserError`` where there is none, or it is damaged.
    """
    folder = Path(path)
    found = sorted(folder.rglob("best.ckpt"), key=lambda p: p.stat().st_mtime_ns) if folder.is_dir() else [folder]
    if not found:
        raise UserError(f"no checkpoint in {folder}; give a run folder of scripts/train.py, or a checkpoint file")
    return load_vqa(found[-1])
