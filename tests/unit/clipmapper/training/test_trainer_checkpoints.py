"""Checkpoints are whole or not there."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from clipmapper.training.trainer import AtomicCheckpointIO


def test_a_checkpoint_that_cannot_be_written_leaves_the_old_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "checkpoints" / "last.ckpt"
    AtomicCheckpointIO().save_checkpoint({"step": 1}, place)
    original = type(place).write_bytes

    def full(self, content) -> None:
        original(self, bytes(content)[:40])
        raise OSError(28, "No space left on device", str(self))

    monkeypatch.setattr(type(place), "write_bytes", full)
    with pytest.raises(OSError, match="No space left"):
        AtomicCheckpointIO().save_checkpoint({"step": 2}, place)
    assert torch.load(place, weights_only=True) == {"step": 1}
    assert list(place.parent.iterdir()) == [place]
