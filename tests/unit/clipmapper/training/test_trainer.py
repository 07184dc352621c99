"""Lightning's Trainer is what the config says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
from tiny_runs import Tiny


def test_lightning_is_told_what_the_config_says(tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told: dict[str, Any] = {}
    original = pl.Trainer.__init__

    def init(self: pl.Trainer, **values: Any) -> None:
        told.update(values)
        original(self, **values)

    monkeypatch.setattr(pl.Trainer, "__init__", init)
    tiny.train(tmp_path / "run", "trainer.precision=bf16-mixed", "trainer.gradient_clip_val=null")
    assert told["precision"] == "bf16-mixed"
    assert told["gradient_clip_val"] is None
    assert told["accelerator"] == "cpu"
