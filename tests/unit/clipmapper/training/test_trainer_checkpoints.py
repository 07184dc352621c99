"""Tests that a checkpoint file is complete or absent."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from small_disk import small_disk

from clipmapper.errors import UserError
from clipmapper.training.trainer import AtomicCheckpointIO


def test_a_checkpoint_that_cannot_be_written_does_not_change_the_old_one(tmp_path: Path) -> None:
    place = tmp_path / "checkpoints" / "last.ckpt"
    AtomicCheckpointIO().save_checkpoint({"step": 1}, place)
    with small_disk(40), pytest.raises(OSError, match="File too large"):
        AtomicCheckpointIO().save_checkpoint({"step": 2}, place)
    assert AtomicCheckpointIO().load_checkpoint(place) == {"step": 1}
    assert list(place.parent.iterdir()) == [place]


def test_an_edited_checkpoint_is_refused_though_its_archive_is_intact(tmp_path: Path) -> None:
    place = tmp_path / "last.ckpt"
    AtomicCheckpointIO().save_checkpoint({"step": 1, "weights": torch.ones(3)}, place)
    content = torch.load(place, weights_only=True)
    content["weights"][1] = 2
    torch.save(content, place)
    with pytest.raises(UserError, match=r"last\.ckpt: damaged or edited"):
        AtomicCheckpointIO().load_checkpoint(place)
