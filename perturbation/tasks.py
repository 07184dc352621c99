"""What differs by task in the perturbation tests: the schema of the config, and who builds the tests."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any

from perturbation.config import PerturbBaseConfig, PerturbCaptionsConfig, PerturbConfig

if TYPE_CHECKING:
    from perturbation.measures.base import Measure
    from perturbation.perturb.candidates import Candidate
    from perturbation.perturb.lightning import ExplanationTests

Builder = Callable[[Any, "Sequence[Candidate]", "Mapping[str, Measure]"], "ExplanationTests[Any]"]


@dataclass(frozen=True)
class PerturbTask:
    """One task: ``tests`` is the module whose ``build_tests`` builds its tests, which bring in torch, when asked."""

    schema: type[PerturbBaseConfig]
    tests: str

    @property
    def build(self) -> Builder:
        """(config, candidates, measures) → the tests of the samples that are drawn."""
        builder: Builder = import_module(self.tests).build_tests
        return builder


PERTURB_TASKS: dict[str, PerturbTask] = {
    "vqa": PerturbTask(PerturbConfig, "perturbation.perturb.vqa"),
    "caption": PerturbTask(PerturbCaptionsConfig, "perturbation.perturb.caption"),
}
