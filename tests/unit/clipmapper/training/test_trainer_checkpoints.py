"""Tests that a checkpoint file is complete or absent."""

from __future__ import annotations

from pathlib import Path

import pytest
from small_disk import small_disk

from clipmapper.training.trainer import AtomicCheckpointIO


def test_a_checkpoint_that_cannot_be_written_does_not_change_the_old_one(tmp_path: Path) -> None:
    place = tmp_path / "checkpoints" / "last.ckpt"
    AtomicCheckpointIO().save_checkpoint({"step": 1}, place)
    with small_disk(40), pytest.raises(OSError, match="File too large"):
        AtomicCheckpointIO().save_checkpoint({"step": 2}, place)
    assert AtomicCheckpointIO().load_checkpoint(place) == {"step": 1}
    assert list(place.parent.iterdir()) == [place]
