"""Tests explanations by removing tokens."""

from __future__ import annotations

from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from clipmapper.cli import choice, command, typed
from perturbation.config import PERTURB_SCHEMAS, PerturbConfig, TestsConfig


@command("perturb")
def main(config: DictConfig, run: Path) -> None:
    """One perturbation run."""
    schema = PERTURB_SCHEMAS.get(OmegaConf.select(config, "task.name"), PerturbConfig)
    checked: TestsConfig = typed(config, schema)  # which refuses a task of another name
    from perturbation.perturb.run import perturb  # torch comes in only once the config is known to be right

    perturb(checked, choice("explainer"), run)
