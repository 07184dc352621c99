"""Tests explanations by removing tokens."""

from __future__ import annotations

from pathlib import Path

from omegaconf import DictConfig

from clipmapper.cli import choice, command, named, typed
from perturbation.config import PerturbBaseConfig
from perturbation.tasks import PERTURB_TASKS


@command("perturb")
def main(config: DictConfig, run: Path) -> None:
    """One perturbation run."""
    checked: PerturbBaseConfig = typed(config, named(config, "task", PERTURB_TASKS).schema)
    from perturbation.perturb.run import perturb  # torch comes in only once the config is known to be right

    perturb(checked, choice("explainer"), run)
