"""Typed schemas of the perturbation commands' configs."""

from __future__ import annotations

from dataclasses import dataclass, field
from numbers import Real
from typing import Any

from omegaconf import MISSING

from clipmapper.config.explain import SubjectConfig
from clipmapper.config.schema import PathsConfig
from clipmapper.errors import UserError
from clipmapper.tasks.caption.config import WEIGHTINGS
from perturbation.removal.steps import parse_steps


@dataclass
class ImageRemovalConfig:
    """What removing a patch means: ``perturbation.removal.engine.Removal``."""

    image: str = "mask"

    def __post_init__(self) -> None:
        _among("removal.image", [self.image], ("mask", "mean"))


@dataclass
class RemovalConfig(ImageRemovalConfig):
    """And removing a sub-word."""

    text: str = "mask"

    def __post_init__(self) -> None:
        super().__post_init__()
        _among("removal.text", [self.text], ("mask", "drop"))


@dataclass
class CeilingConfig:
    """``samples``: how many are searched for the best removals; ``words``: the most sub-words a question may have."""

    samples: int = 0
    words: int = 8

    def __post_init__(self) -> None:
        if self.samples < 0:
            raise UserError(f"ceiling.samples={self.samples} must be 0 or more")
        if not 1 <= self.words <= 12:
            raise UserError(f"ceiling.words={self.words} must be 1 to 12: n sub-words take 2^n readings")


@dataclass
class TestsConfig(SubjectConfig):
    """What the perturbation tests of every task have; ``configs/perturb.yaml`` says what each value means."""

    samples: int | None = 1000
    controls: list[str] = field(default_factory=lambda: ["random", "input_x_gradient"])
    random_seeds: int = 3
    direction: list[str] = field(default_factory=lambda: ["positive", "negative"])
    steps: Any = "paper"
    removal: ImageRemovalConfig = field(default_factory=ImageRemovalConfig)
    batch_samples: int = 32
    engine_batch: int | None = None
    resume: str | None = None

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
class PerturbConfig(TestsConfig):
    """The tests of answers; ``configs/tests/vqa.yaml`` says what each value means."""

    target: str = "predicted"
    modality: list[str] = field(default_factory=lambda: ["image", "text"])
    removal: RemovalConfig = field(default_factory=RemovalConfig)
    eraser: list[float] = field(default_factory=lambda: [0.05, 0.1, 0.2, 0.5])
    faithfulness: bool = True
    ceiling: CeilingConfig = field(default_factory=CeilingConfig)

    def __post_init__(self) -> None:
        super().__post_init__()
        _among("modality", self.modality, ("image", "text"))
        _among("target", [self.target], ("predicted", "margin"))
        if any(not isinstance(share, Real) or not 0 < share <= 1 for share in self.eraser):
            raise UserError(f"eraser={self.eraser}: the shares must be above 0 and at most 1")


@dataclass
class PerturbCaptionsConfig(TestsConfig):
    """The tests of captions; ``configs/tests/caption.yaml`` says what each value means."""

    weightings: list[str] = field(default_factory=lambda: list(WEIGHTINGS))

    def __post_init__(self) -> None:
        super().__post_init__()
        _among("weightings", self.weightings, WEIGHTINGS)


PERTURB_SCHEMAS: dict[str, type[TestsConfig]] = {"vqa": PerturbConfig, "caption": PerturbCaptionsConfig}  #: by task


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
class LocaliseConfig(SubjectConfig):
    """Explanations against ground truth; ``configs/evaluate_explanations.yaml`` says what each value means."""

    samples: int = 1000
    batch_size: int = 64
    patch_share: float = 0.25

    def __post_init__(self) -> None:
        super().__post_init__()
        _two_or_more(samples=self.samples, batch_size=self.batch_size)
        if not 0 < self.patch_share <= 1:
            raise UserError(f"patch_share={self.patch_share} must be above 0 and at most 1")


@dataclass
class SanityConfig(SubjectConfig):
    """The model randomisation test; ``configs/sanity_check.yaml`` says what each value means."""

    samples: int = 200
    batch_size: int = 64

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.task.name != "vqa":
            raise UserError(f"task={self.task.name}: only the answers of task=vqa are explained here")
        _two_or_more(samples=self.samples, batch_size=self.batch_size)


def _two_or_more(**sizes: int) -> None:
    """The explainer ``shuffled`` takes another sample's weights: every batch holds two or more."""
    for name, value in sizes.items():
        if value < 2:
            raise UserError(f"{name}={value} must be 2 or more")
