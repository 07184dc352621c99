"""The command ``sanity_check``: explanations compared before and after the model's layers are randomised."""

from __future__ import annotations

from pathlib import Path

from omegaconf import DictConfig

from clipmapper.cli import choice, command, typed
from perturbation.config import SanityBaseConfig
from perturbation.tasks import task_in


@command("sanity_check")
def main(config: DictConfig, run: Path) -> None:
    """Compute the curves of rank correlation and write them as JSON, CSV and a figure."""
    checked: SanityBaseConfig = typed(config, task_in(config).randomise_schema)
    from clipmapper.explaining.explainers import choose_explainers
    from perturbation.randomise.run import run_sanity

    explainers = choose_explainers(config.explainer, choice("explainer"))
    run_sanity(checked, explainers, run)
