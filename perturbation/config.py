"""Typed schemas of the perturbation commands' configs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from omegaconf import MISSING

from clipmapper.config.explain import ExplainedConfig
from clipmapper.config.schema import PathsConfig
from clipmapper.errors import UserError
from clipmapper.tasks.caption.config import WEIGHTINGS
from perturbation.removal.steps import parse_steps


@dataclass
class ImageRemovalConfig:
    """What removing a patch means: ``perturbation.removal.engine.Removal``."""

    image: str = MISSING

    def __post_init__(self) -> None:
        _among("removal.image", [self.image], ("mask", "mean"))


@dataclass
class RemovalConfig(ImageRemovalConfig):
    """And removing a sub-word."""

    text: str = MISSING

    def __post_init__(self) -> None:
        super().__post_init__()
        _among("removal.text", [self.text], ("mask", "drop"))


@dataclass
class CeilingConfig:
    """``samples``: how many are searched for the best removals; ``words``: the most sub-words a question may have."""

    samples: int = MISSING
    words: int = MISSING


@dataclass
class PerturbBaseConfig(ExplainedConfig):
    """What the perturbation tests of every task have; ``configs/perturb.yaml`` says what each value means."""

    samples: int | None = MISSING
    controls: list[str] = MISSING
    random_seeds: int = MISSING
    direction: list[str] = MISSING
    steps: Any = MISSING
    measure: dict[str, Any] = MISSING
    eraser: list[float] = MISSING
    faithfulness: bool = MISSING
    ceiling: CeilingConfig = MISSING
    removal: ImageRemovalConfig = MISSING
    batch_samples: int = MISSING
    engine_batch: int | None = MISSING
    resume: str | None = MISSING

    def __post_init__(self) -> None:
        super().__post_init__()
        _among("direction", self.direction, ("positive", "negative"))
        parse_steps(self.steps)
        sizes = {"random_seeds": self.random_seeds, "batch_samples": self.batch_samples}
        for name, value in {**sizes, "samples": self.samples, "engine_batch": self.engine_batch}.items():
            if value is not None and value < 1:
                every = "; null takes them all" if name == "samples" else ""
                raise UserError(f"{name}={value} must be 1 or more{every}")


@dataclass
class PerturbConfig(PerturbBaseConfig):
    """The tests of answers; ``configs/perturb/vqa.yaml`` says what each value means."""

    target: str = MISSING
    modality: list[str] = MISSING
    removal: RemovalConfig = MISSING

    def __post_init__(self) -> None:
        super().__post_init__()
        _among("modality", self.modality, ("image", "text"))
        _among("target", [self.target], ("predicted", "margin"))


@dataclass
class PerturbCaptionsConfig(PerturbBaseConfig):
    """The tests of captions; ``configs/perturb/caption.yaml`` says what each value means."""

    weightings: list[str] = MISSING

    def __post_init__(self) -> None:
        super().__post_init__()
        _among("weightings", self.weightings, WEIGHTINGS)


@dataclass
class PoolConfig:
    """``runs``: finished perturbation runs of several training seeds."""

    runs: list[str] = MISSING
    paths: PathsConfig = MISSING


def _among(key: str, values: list[str], choices: tuple[str, ...]) -> None:
    if not values:
        raise UserError(f"{key} is an empty list: choose of {', '.join(choices)}")
    for value in values:
        if value not in choices:
            raise UserError(f"{key}: {value} is not one of: {', '.join(choices)}")
    if len(set(values)) < len(values):
        raise UserError(f"{key}={values} names one twice: name each once")


@dataclass
class LocaliseConfig(ExplainedConfig):
    """Explanations against ground truth; ``configs/evaluate_explanations.yaml`` says what each value means."""

    samples: int = MISSING
    batch_size: int = MISSING
    patch_share: float = MISSING

    def __post_init__(self) -> None:
        super().__post_init__()
        _two_or_more(samples=self.samples, batch_size=self.batch_size)
        if not 0 < self.patch_share <= 1:
            raise UserError(f"patch_share={self.patch_share} must be above 0 and at most 1")


@dataclass
class SanityConfig(ExplainedConfig):
    """The model randomisation test; ``configs/sanity_check.yaml`` says what each value means."""

    samples: int = MISSING
    batch_size: int = MISSING

    def __post_init__(self) -> None:
        super().__post_init__()
        _two_or_more(samples=self.samples, batch_size=self.batch_size)


def _two_or_more(**sizes: int) -> None:
    """The explainer ``shuffled`` takes another sample's weights: every batch holds two or more."""
    for name, value in sizes.items():
        if value < 2:
            raise UserError(f"{name}={value} must be 2 or more")
