"""Tests explanations by removing tokens: ``python scripts/perturb.py task=vqa mapper=b explainer=weighted``.

``task=caption`` tests captions, by how well what is generated again fits the whole picture.
``explainer=all`` (or ``paper``) compares several in one pass; ``resume=RUN_FOLDER`` takes over what a stopped run did.
"""

from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from clipmapper.cli import command, typed
from perturbation.config import PerturbBaseConfig
from perturbation.tasks import PERTURB_TASKS


@command("perturb")
def main(config: DictConfig, run: Path) -> None:
    """One perturbation run."""
    task = PERTURB_TASKS.get(OmegaConf.select(config, "task.name"), PERTURB_TASKS["vqa"])
    checked: PerturbBaseConfig = typed(config, task.schema)  # which refuses a task of another name
    from perturbation.perturb.run import perturb  # torch comes in only once the config is known to be right

    perturb(checked, HydraConfig.get().runtime.choices["explainer"], run)


if __name__ == "__main__":
    main()
