"""Trains CLIPmapper on frozen features: ``python scripts/train.py task=vqa mapper=b``."""

from pathlib import Path

from omegaconf import DictConfig

from clipmapper.cli import command, typed
from clipmapper.config.schema import TrainConfig


@command("train")
def main(config: DictConfig, run: Path) -> None:
    """One training run."""
    checked = typed(config, TrainConfig)
    from clipmapper.commands.train import train  # torch comes in only once the config is known to be right

    train(checked, run)


if __name__ == "__main__":
    main()
