"""The command ``evaluate_explanations``: explanations compared with known evidence."""

from __future__ import annotations

from pathlib import Path

from omegaconf import DictConfig

from clipmapper.cli import choice, command, typed
from clipmapper.errors import UserError
from perturbation.config import LocaliseBaseConfig
from perturbation.tasks import task_in


@command("evaluate_explanations", shared=True)
def main(config: DictConfig, run: Path) -> None:
    """Measure how much of each explanation is on the evidence, and print and write the tables."""
    task = task_in(config)
    checked: LocaliseBaseConfig = typed(config, task.localise_schema)
    from clipmapper.explaining.explainers import choose_explainers
    from clipmapper.training.trainer import connect
    from perturbation.localise.deletion import DELETION
    from perturbation.localise.tables import CHANCE

    explainers = choose_explainers(config.explainer, choice("explainer"))
    if taken := {CHANCE, DELETION} & explainers.keys():
        raise UserError(f"the tables have a row {taken.pop()} already: give the explainer of this name another one")
    connect(checked.trainer)
    task.localise.run_localisation(checked, explainers, run)
