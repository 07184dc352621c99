"""Compares explanations with what the answers depend on: ``python scripts/evaluate_explanations.py mapper=b``."""

from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from clipmapper.cli import command
from clipmapper.config import typed
from perturbation.config import LocaliseConfig


@command("evaluate_explanations")
def main(config: DictConfig, run: Path) -> None:
    """How much of each explanation lies on the evidence, printed and written."""
    checked: LocaliseConfig = typed(config, LocaliseConfig)
    from clipmapper.explaining import choose_explainers
    from perturbation.localisation_run import run_localisation

    explainers = choose_explainers(config.explainer, HydraConfig.get().runtime.choices["explainer"])
    run_localisation(checked, explainers, run)


if __name__ == "__main__":
    main()
