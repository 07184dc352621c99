"""Command that pre-trains the embedded encoder on ``shapes`` scenes and reports what its tokens encode."""

from __future__ import annotations

from pathlib import Path

from omegaconf import DictConfig

from clipmapper.cli import command, typed
from clipmapper.encoder.pretraining.config import PretrainConfig


@command("pretrain_clip")
def main(config: DictConfig, run: Path) -> None:
    """Run one pre-training."""
    checked: PretrainConfig = typed(config, PretrainConfig)
    from clipmapper.encoder.pretraining.run import run_pretraining

    run_pretraining(checked, run)
