"""Typed schemas of the perturbation commands' configs."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from omegaconf import MISSING

from clipmapper.config.explain import AnyModelConfig, BaseExplainedConfig, ExplainedConfig
from clipmapper.config.fields import (
    MOST_IN_BATCH,
    MOST_THREADS,
    Choice,
    Range,
    anything,
    choice,
    items,
    path,
    real,
    ruled,
    text,
    whole,
)
from clipmapper.config.schema import PathsConfig
from clipmapper.errors import UserError
from clipmapper.tasks.caption.config import WEIGHTINGS
from perturbation.removal.steps import parse_steps

FILLS = ("mean", "zero", "blur", "noise", "noisy_linear")
CONTROLS = ("random", "first_to_last", "last_to_first", "centre_first")  # of the tests of any model


@dataclass
class ImageRemovalConfig:
    """How a patch is removed; see ``perturbation.removal.engine.Removal``."""

    image: str = choice("mask", *FILLS)


@dataclass
class RemovalConfig(ImageRemovalConfig):
    """How a patch and a sub-word are removed; see ``perturbation.removal.engine.Removal``."""

    text: str = choice("mask", "drop")


@dataclass
class PairRemovalConfig:
    """How a cell of the image and a word of the text are removed; see ``perturbation.test``."""

    image: str = choice(*FILLS, "mask")
    text: str = choice("drop", "mask", "pad")


@dataclass
class CeilingConfig:
    """Options of the measure ``ceiling``.

    ``samples`` is the number of samples whose best removals are searched; ``words`` is the maximum number of sub-words
    of a question that is searched.
    """

    samples: int = whole(0)
    words: int = whole(1, 12)


#: File that jobs write to their common run folder before all others, with the number of shards in its name.
MARK = "parts/shards-of-{}"
SHARD = re.compile(r"([1-9]\d{0,5})/([1-9]\d{0,5})", re.ASCII)


def _shard(value: Any) -> str | None:
    """Return what ``shard`` takes, for any other value."""
    found = SHARD.fullmatch(str(value))
    if value is None or (found and int(found[1]) <= int(found[2])):
        return None
    return "is not null or NUMBER/SHARDS such as 3/64, counted from 1/64 to 64/64"


@dataclass
class PerturbBaseConfig(BaseExplainedConfig):
    """Options of the perturbation tests of every model; ``configs/perturb.yaml`` explains each value."""

    samples: int | None = whole(1)
    controls: list[str] = items(anything, empty=True)
    random_seeds: int = whole(1, 1000)
    direction: list[str] = items(Choice(("positive", "negative")))
    steps: Any = MISSING
    measure: dict[str, Any] = MISSING
    eraser: list[float] = items(Range(0, 1, above=True), empty=True, repeated=True)
    faithfulness: bool = MISSING
    ceiling: CeilingConfig = MISSING
    batch_samples: int = whole(1, MOST_IN_BATCH)
    resume: str | None = path()
    shard: str | None = ruled(_shard)
    merge: str | None = path()
    dry_run: bool = MISSING  # read and check everything, and say what the tests need, without making them

    @property
    def tested(self) -> list[str]:
        """The modalities whose tokens are removed."""
        return ["image", "text"]

    def __post_init__(self) -> None:
        super().__post_init__()
        parse_steps(self.steps)
        given = [name for name in ("resume", "shard", "merge") if getattr(self, name) is not None]
        if "merge" in given and len(given) > 1:
            raise UserError(f"{given[0]} and merge: give one of them; merge computes nothing")


@dataclass
class PerturbMapperConfig(PerturbBaseConfig, ExplainedConfig):
    """Options of the perturbation tests of CLIPmapper; ``configs/perturb/clipmapper.yaml`` explains each value."""

    removal: ImageRemovalConfig = MISSING
    engine_batch: int | None = whole(1, MOST_IN_BATCH)


@dataclass
class PerturbModelConfig(PerturbBaseConfig, AnyModelConfig):
    """Options of the perturbation tests of any model; ``configs/perturb/huggingface.yaml`` explains each value."""

    removal: PairRemovalConfig = MISSING
    batch_size: int = whole(1, MOST_IN_BATCH)
    controls: list[str] = items(Choice(CONTROLS), empty=True)


@dataclass
class PerturbConfig(PerturbMapperConfig):
    """Options of the perturbation tests of answers; ``configs/perturb/vqa.yaml`` explains each value."""

    target: str = choice("predicted", "margin")
    modality: list[str] = items(Choice(("image", "text")))
    removal: RemovalConfig = MISSING

    @property
    def tested(self) -> list[str]:
        """The modalities whose tokens are removed."""
        return self.modality


@dataclass
class PerturbCaptionsConfig(PerturbMapperConfig):
    """Options of the perturbation tests of captions; ``configs/perturb/caption.yaml`` explains each value."""

    weightings: list[str] = items(Choice(WEIGHTINGS))

    @property
    def tested(self) -> list[str]:
        """The modalities whose tokens are removed."""
        return ["image"]


@dataclass
class PoolConfig:
    """Options of ``pool_seeds``; ``runs`` are the folders of finished perturbation runs of several training seeds."""

    runs: list[str] = items(anything, repeated=True)
    paths: PathsConfig = MISSING


@dataclass
class ReportConfig:
    """Options of ``report``; ``configs/report.yaml`` explains each value."""

    runs: list[str] | None = items(anything, empty=True, repeated=True)
    samples: int = whole(0)
    paths: PathsConfig = MISSING


@dataclass
class ReproduceConfig:
    """Options of ``reproduce``; ``configs/reproduce.yaml`` explains each value."""

    name: str = text()
    stages: dict[str, Any] = MISSING
    shared: list[str] = items(anything, empty=True, repeated=True)
    jobs: int = whole(1, MOST_THREADS)
    samples: int = whole(0)
    paths: PathsConfig = MISSING


@dataclass
class DemoConfig(BaseExplainedConfig):
    """Options of ``demo``; ``configs/demo.yaml`` explains each value."""

    models: list[str] = items(anything, empty=True, repeated=True)
    scenes: int = whole(1, 100)
    host: str = text()
    port: int = whole(0, 65535)


@dataclass
class LocaliseBaseConfig(BaseExplainedConfig):
    """Options of ``evaluate_explanations``; ``configs/evaluate_explanations.yaml`` explains each value."""

    samples: int = whole(2)
    batch_size: int = whole(1, MOST_IN_BATCH)
    patch_share: float = real(0, 1, above=True)
    prompt: str | None = path()


@dataclass
class LocaliseConfig(LocaliseBaseConfig, ExplainedConfig):
    """Options of ``evaluate_explanations`` for CLIPmapper."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.prompt is not None:
            raise UserError(f"prompt={self.prompt}: CLIPmapper's captions have no prompt; give task=caption for them")


@dataclass
class LocaliseModelConfig(LocaliseBaseConfig, AnyModelConfig):
    """Options of ``evaluate_explanations`` for any model."""


@dataclass
class SanityBaseConfig(BaseExplainedConfig):
    """Options of the model randomisation test; ``configs/sanity_check.yaml`` explains each value."""

    samples: int = whole(2)
    batch_size: int = whole(1, MOST_IN_BATCH)


@dataclass
class SanityConfig(SanityBaseConfig, ExplainedConfig):
    """Options of the model randomisation test for CLIPmapper."""


@dataclass
class SanityModelConfig(SanityBaseConfig, AnyModelConfig):
    """Options of the model randomisation test for any model."""
