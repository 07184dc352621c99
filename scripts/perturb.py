"""Tests explanations by removing tokens: ``python scripts/perturb.py task=vqa mapper=b explainer=weighted``.

``explainer=all`` (or ``paper``) compares several in one pass; ``resume=RUN_FOLDER`` takes over what a stopped run did.
"""

from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from clipmapper.cli import command
from clipmapper.config import typed
from perturbation.config import PerturbConfig


@command("perturb")
def main(config: DictConfig, run: Path) -> None:
    """One perturbation run."""
    checked: PerturbConfig = typed(config, PerturbConfig)
    from perturbation.run import perturb  # torch comes in only once the config is known to be right

    perturb(checked, HydraConfig.get().runtime.choices["explainer"], run)


if __name__ == "__main__":
    main()
