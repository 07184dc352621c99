"""Compares explanations before and after the layers of the model are made random."""

from __future__ import annotations

from pathlib import Path

from omegaconf import DictConfig

from clipmapper.cli import choice, command, typed
from perturbation.config import SanityConfig


@command("sanity_check")
def main(config: DictConfig, run: Path) -> None:
    """Curves of rank correlation, written as JSON, CSV and a figure."""
    checked: SanityConfig = typed(config, SanityConfig)
    from clipmapper.explaining.explainers import choose_explainers
    from perturbation.randomise.run import run_sanity

    explainers = choose_explainers(config.explainer, choice("explainer"))
    run_sanity(checked, explainers, run)
