"""The parts of the tests of explanations that differ by task: the config schema, and the modules that read samples."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from typing import Any

from perturbation.config import PerturbBaseConfig, PerturbCaptionsConfig, PerturbConfig


@dataclass(frozen=True)
class PerturbTask:
    """One task. Its modules import torch, so each is imported only when its property is read."""

    name: str  #: name of the task and of its modules
    schema: type[PerturbBaseConfig]  #: schema of the config of ``scripts/perturb.py``

    @property
    def perturb(self) -> Any:
        """The module whose ``build_tests`` returns the perturbation tests of the drawn samples."""
        return import_module(f"perturbation.perturb.{self.name}")

    @property
    def localise(self) -> Any:
        """The module whose ``run_localisation`` compares explanations with known evidence."""
        return import_module(f"perturbation.localise.{self.name}")

    @property
    def randomise(self) -> Any:
        """The module that loads and explains the samples of the model randomisation test."""
        return import_module(f"perturbation.randomise.{self.name}")


_ALL = (PerturbTask("vqa", PerturbConfig), PerturbTask("caption", PerturbCaptionsConfig))
PERTURB_TASKS: dict[str, PerturbTask] = {task.name: task for task in _ALL}
