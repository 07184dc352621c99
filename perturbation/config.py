"""Typed schemas of the perturbation commands' configs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from omegaconf import MISSING

from clipmapper.config.explain import AnyModelConfig, BaseExplainedConfig, ExplainedConfig
from clipmapper.config.schema import PathsConfig
from clipmapper.errors import UserError
from clipmapper.tasks.caption.config import WEIGHTINGS
from perturbation.removal.steps import parse_steps

FILLS = ("mean", "zero", "blur", "noise", "noisy_linear")
CONTROLS = ("random", "first_to_last", "last_to_first", "centre_first")  # of the tests of any model


@dataclass
class ImageRemovalConfig:
    """How a patch is removed; see ``perturbation.removal.engine.Removal``."""

    image: str = MISSING

    def __post_init__(self) -> None:
        _check_choices("removal.image", [self.image], ("mask", *FILLS))


@dataclass
class RemovalConfig(ImageRemovalConfig):
    """How a patch and a sub-word are removed; see ``perturbation.removal.engine.Removal``."""

    text: str = MISSING

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_choices("removal.text", [self.text], ("mask", "drop"))


@dataclass
class PairRemovalConfig:
    """How a cell of the image and a word of the text are removed; see ``perturbation.test``."""

    image: str = MISSING
    text: str = MISSING

    def __post_init__(self) -> None:
        _check_choices("removal.image", [self.image], (*FILLS, "mask"))
        _check_choices("removal.text", [self.text], ("drop", "mask", "pad"))


@dataclass
class CeilingConfig:
    """Options of the measure ``ceiling``.

    ``samples`` is the number of samples whose best removals are searched; ``words`` is the maximum number of sub-words
    of a question that is searched.
    """

    samples: int = MISSING
    words: int = MISSING


@dataclass
class PerturbBaseConfig(BaseExplainedConfig):
    """Options of the perturbation tests of every model; ``configs/perturb.yaml`` explains each value."""

    samples: int | None = MISSING
    controls: list[str] = MISSING
    random_seeds: int = MISSING
    direction: list[str] = MISSING
    steps: Any = MISSING
    measure: dict[str, Any] = MISSING
    eraser: list[float] = MISSING
    faithfulness: bool = MISSING
    ceiling: CeilingConfig = MISSING
    batch_samples: int = MISSING
    resume: str | None = MISSING

    @property
    def tested(self) -> list[str]:
        """The modalities whose tokens are removed."""
        return ["image", "text"]

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_choices("direction", self.direction, ("positive", "negative"))
        parse_steps(self.steps)
        sizes = {"random_seeds": self.random_seeds, "batch_samples": self.batch_samples}
        for name, value in {**sizes, "samples": self.samples}.items():
            if value is not None and value < 1:
                every = "; null takes all samples" if name == "samples" else ""
                raise UserError(f"{name}={value} must be 1 or more{every}")


@dataclass
class PerturbMapperConfig(PerturbBaseConfig, ExplainedConfig):
    """Options of the perturbation tests of CLIPmapper; ``configs/perturb/clipmapper.yaml`` explains each value."""

    removal: ImageRemovalConfig = MISSING
    engine_batch: int | None = MISSING

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.engine_batch is not None and self.engine_batch < 1:
            raise UserError(f"engine_batch={self.engine_batch} must be 1 or more")


@dataclass
class PerturbModelConfig(PerturbBaseConfig, AnyModelConfig):
    """Options of the perturbation tests of any model; ``configs/perturb/huggingface.yaml`` explains each value."""

    removal: PairRemovalConfig = MISSING
    batch_size: int = MISSING

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.batch_size < 1:
            raise UserError(f"batch_size={self.batch_size} must be 1 or more")
        for name in self.controls:
            if name not in CONTROLS:
                raise UserError(f"controls: {name} is not one of: {', '.join(CONTROLS)}")


@dataclass
class PerturbConfig(PerturbMapperConfig):
    """Options of the perturbation tests of answers; ``configs/perturb/vqa.yaml`` explains each value."""

    target: str = MISSING
    modality: list[str] = MISSING
    removal: RemovalConfig = MISSING

    @property
    def tested(self) -> list[str]:
        """The modalities whose tokens are removed."""
        return self.modality

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_choices("modality", self.modality, ("image", "text"))
        _check_choices("target", [self.target], ("predicted", "margin"))


@dataclass
class PerturbCaptionsConfig(PerturbMapperConfig):
    """Options of the perturbation tests of captions; ``configs/perturb/caption.yaml`` explains each value."""

    weightings: list[str] = MISSING

    @property
    def tested(self) -> list[str]:
        """The modalities whose tokens are removed."""
        return ["image"]

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_choices("weightings", self.weightings, WEIGHTINGS)


@dataclass
class PoolConfig:
    """Options of ``pool_seeds``; ``runs`` are the folders of finished perturbation runs of several training seeds."""

    runs: list[str] = MISSING
    paths: PathsConfig = MISSING


@dataclass
class ReportConfig:
    """Options of ``report``; ``configs/report.yaml`` explains each value."""

    runs: list[str] | None = MISSING
    samples: int = MISSING
    paths: PathsConfig = MISSING

    def __post_init__(self) -> None:
        if self.samples < 0:
            raise UserError(f"samples={self.samples} must be 0 or more")


@dataclass
class ReproduceConfig:
    """Options of ``reproduce``; ``configs/reproduce.yaml`` explains each value."""

    name: str = MISSING
    stages: dict[str, Any] = MISSING
    shared: list[str] = MISSING
    jobs: int = MISSING
    samples: int = MISSING
    paths: PathsConfig = MISSING

    def __post_init__(self) -> None:
        if self.jobs < 1:
            raise UserError(f"jobs={self.jobs} must be 1 or more")
        if self.samples < 0:
            raise UserError(f"samples={self.samples} must be 0 or more")


def _check_choices(key: str, values: list[str], choices: tuple[str, ...]) -> None:
    if not values:
        raise UserError(f"{key} is an empty list: choose at least one of: {', '.join(choices)}")
    for value in values:
        if value not in choices:
            raise UserError(f"{key}: {value} is not one of: {', '.join(choices)}")
    if len(set(values)) < len(values):
        raise UserError(f"{key}={values} contains a value twice: name each value once")


@dataclass
class LocaliseBaseConfig(BaseExplainedConfig):
    """Options of ``evaluate_explanations``; ``configs/evaluate_explanations.yaml`` explains each value."""

    samples: int = MISSING
    batch_size: int = MISSING
    patch_share: float = MISSING

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_sizes(self.samples, self.batch_size)
        if not 0 < self.patch_share <= 1:
            raise UserError(f"patch_share={self.patch_share} must be above 0 and at most 1")


@dataclass
class LocaliseConfig(LocaliseBaseConfig, ExplainedConfig):
    """Options of ``evaluate_explanations`` for CLIPmapper."""


@dataclass
class LocaliseModelConfig(LocaliseBaseConfig, AnyModelConfig):
    """Options of ``evaluate_explanations`` for any model."""


@dataclass
class SanityBaseConfig(BaseExplainedConfig):
    """Options of the model randomisation test; ``configs/sanity_check.yaml`` explains each value."""

    samples: int = MISSING
    batch_size: int = MISSING

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_sizes(self.samples, self.batch_size)


@dataclass
class SanityConfig(SanityBaseConfig, ExplainedConfig):
    """Options of the model randomisation test for CLIPmapper."""


@dataclass
class SanityModelConfig(SanityBaseConfig, AnyModelConfig):
    """Options of the model randomisation test for any model."""


def _check_sizes(samples: int, batch_size: int) -> None:
    """Raise UserError for fewer than two samples, which have no interval, and for an empty batch."""
    for name, value, least in (("samples", samples, 2), ("batch_size", batch_size, 1)):
        if value < least:
            raise UserError(f"{name}={value} must be {least} or more")
