"""Command that trains the small LLaVA on conversations about ``shapes`` scenes and evaluates what it generates."""

from __future__ import annotations

from pathlib import Path

from omegaconf import DictConfig

from clipmapper.cli import command, typed
from clipmapper.llava.config import TrainLlavaConfig


@command("train_llava")
def main(config: DictConfig, run: Path) -> None:
    """Run one training."""
    checked: TrainLlavaConfig = typed(config, TrainLlavaConfig)
    from clipmapper.llava.run import run_training

    run_training(checked, run)
