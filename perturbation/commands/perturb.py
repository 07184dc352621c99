"""Tests explanations by removing tokens."""

from __future__ import annotations

from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from clipmapper.cli import choice, command, typed
from perturbation.config import PerturbBaseConfig
from perturbation.tasks import PERTURB_TASKS


@command("perturb")
def main(config: DictConfig, run: Path) -> None:
    """One perturbation run."""
    task = PERTURB_TASKS.get(OmegaConf.select(config, "task.name"), PERTURB_TASKS["vqa"])
    checked: PerturbBaseConfig = typed(config, task.schema)  # which refuses a task of another name
    from perturbation.perturb.run import perturb  # torch comes in only once the config is known to be right

    perturb(checked, choice("explainer"), run)
