"""The command ``pool_seeds``: one report of the perturbation runs of several training seeds."""

from __future__ import annotations

from pathlib import Path

from omegaconf import DictConfig

from clipmapper.cli import command, typed
from perturbation.config import PoolConfig


@command("pool_seeds")
def main(config: DictConfig, run: Path) -> None:
    """Write one set of tables and figures for all runs, with intervals over samples and training seeds."""
    checked: PoolConfig = typed(config, PoolConfig)
    from perturbation.perturb.results import pool

    pool([Path(folder) for folder in checked.runs], run)
