"""What differs by task in the tests of explanations: config schemas, and the modules that know the task's samples."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from typing import Any

from perturbation.config import PerturbBaseConfig, PerturbCaptionsConfig, PerturbConfig


@dataclass(frozen=True)
class PerturbTask:
    """One task. Its modules, which bring in torch, are imported when they are asked for."""

    name: str  #: the task's, and that of its modules
    schema: type[PerturbBaseConfig]  #: of ``scripts/perturb.py``

    @property
    def perturb(self) -> Any:
        """The module whose ``build_tests`` gives the perturbation tests of the samples that are drawn."""
        return import_module(f"perturbation.perturb.{self.name}")

    @property
    def localise(self) -> Any:
        """The module whose ``run_localisation`` compares explanations with known evidence."""
        return import_module(f"perturbation.localise.{self.name}")

    @property
    def randomise(self) -> Any:
        """The module that fixes and explains samples while a model is randomised."""
        return import_module(f"perturbation.randomise.{self.name}")


_ALL = (PerturbTask("vqa", PerturbConfig), PerturbTask("caption", PerturbCaptionsConfig))
PERTURB_TASKS: dict[str, PerturbTask] = {task.name: task for task in _ALL}
