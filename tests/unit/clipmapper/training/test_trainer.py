"""Tests that Lightning's Trainer gets the config's settings."""

from __future__ import annotations

from pathlib import Path

from pytorch_lightning.accelerators import CPUAccelerator
from tiny_runs import Tiny

from clipmapper.training.trainer import build_trainer


def test_the_trainer_has_the_settings_of_the_config(tiny: Tiny, tmp_path: Path) -> None:
    config = tiny.config("trainer.precision=bf16-mixed", "trainer.gradient_clip_val=null")
    trainer = build_trainer(config, tmp_path, "val/accuracy")
    assert trainer.precision == "bf16-mixed"
    assert trainer.gradient_clip_val is None
    assert isinstance(trainer.accelerator, CPUAccelerator)
    assert (trainer.max_steps, trainer.val_check_interval) == (8, 4)
    assert (
        build_trainer(tiny.config("trainer.gradient_clip_val=0.5"), tmp_path, "val/accuracy").gradient_clip_val == 0.5
    )
