"""The parts of the tests of explanations that differ by task and model: config schemas, and modules."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from typing import Any

from omegaconf import DictConfig

from clipmapper.cli import named
from clipmapper.config.explain import BaseExplainedConfig, ExplainedConfig
from perturbation.config import (
    LocaliseBaseConfig,
    LocaliseConfig,
    LocaliseModelConfig,
    PerturbBaseConfig,
    PerturbCaptionsConfig,
    PerturbConfig,
    PerturbModelConfig,
    SanityBaseConfig,
    SanityConfig,
    SanityModelConfig,
)


@dataclass(frozen=True)
class PerturbTask:
    """A task of CLIPmapper, or any other model. Its modules import torch, so each is imported when it is needed."""

    name: str  #: name of the task and of its modules
    perturb_schema: type[PerturbBaseConfig]  #: schema of the config of ``scripts/perturb.py``
    localise_schema: type[LocaliseBaseConfig] = LocaliseConfig  #: that of ``scripts/evaluate_explanations.py``
    randomise_schema: type[SanityBaseConfig] = SanityConfig  #: that of ``scripts/sanity_check.py``

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
ANY_MODEL = PerturbTask("any_model", PerturbModelConfig, LocaliseModelConfig, SanityModelConfig)


def task_in(config: DictConfig) -> PerturbTask:
    """Return the task that a composed config names, or ``ANY_MODEL`` if it names another model than CLIPmapper.

    Raises:
        UserError: There is no such task.
    """
    return ANY_MODEL if "model" in config else named(config, "task", PERTURB_TASKS)


def task_of(config: BaseExplainedConfig) -> PerturbTask:
    """Return the task of a checked config."""
    return PERTURB_TASKS[config.task.name] if isinstance(config, ExplainedConfig) else ANY_MODEL
