"""Compares explanations with what they should show."""

from __future__ import annotations

from pathlib import Path

from omegaconf import DictConfig

from clipmapper.cli import choice, command, typed
from perturbation.config import LocaliseConfig


@command("evaluate_explanations")
def main(config: DictConfig, run: Path) -> None:
    """How much of each explanation lies on the evidence, printed and written."""
    checked: LocaliseConfig = typed(config, LocaliseConfig)
    from clipmapper.explaining.explainers import choose_explainers
    from perturbation.localise.caption import run_word_localisation
    from perturbation.localise.vqa import run_localisation

    explainers = choose_explainers(config.explainer, choice("explainer"))
    run_task = run_word_localisation if checked.task.name == "caption" else run_localisation
    run_task(checked, explainers, run)
