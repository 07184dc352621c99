"""Config schemas of the commands that explain a trained model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from omegaconf import MISSING

from clipmapper.config.checks import one_of
from clipmapper.config.schema import Config
from clipmapper.errors import UserError


@dataclass
class ExplainedConfig(Config):
    """Keys that all commands that explain a trained model share."""

    explainer: dict[str, Any] = MISSING
    checkpoint: str | None = MISSING  # null: found by find_checkpoint
    split: str = MISSING  # of the data

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.task.sees != "both":
            raise UserError(
                f"task.sees={self.task.sees}: only models that see both image and text can be explained; "
                "give task.sees=both"
            )


@dataclass
class PictureConfig(ExplainedConfig):
    """Keys of the explain command for any task: the samples to explain, and the style of the figures."""

    select: str = MISSING  # how samples of the split are chosen; the choices depend on the task
    samples: int = MISSING  # number of samples, unless ids are given
    batch_size: int = MISSING  # questions, or sub-words of captions, that are explained together
    ids: list[int] = MISSING  # with select=ids
    image: str | None = MISSING  # the user's own image, explained instead of samples of the split
    overlay: Any = MISSING  # bilinear | patches
    scale: Any = MISSING  # each | common
    formats: list[str] = MISSING  # png | pdf

    def __post_init__(self) -> None:
        super().__post_init__()
        one_of("overlay", self.overlay, ("bilinear", "patches"))
        one_of("scale", self.scale, ("each", "common"))
        for name in self.formats:
            one_of("formats", name, ("png", "pdf"))
        if not self.formats:
            raise UserError("formats=[] writes no figures; give png, pdf or both")
        for name, value in (("samples", self.samples), ("batch_size", self.batch_size)):
            if value < 1:
                raise UserError(f"{name}={value} must be 1 or more")
        if self.image is not None and self.ids:
            raise UserError("image=… and ids=… cannot be given together; give one of them")

    def _check_ids(self, what: str) -> None:
        if (self.select == "ids") != bool(self.ids):
            missing = "ids=[…]" if not self.ids else "select=ids"
            raise UserError(f"{what} ids are taken with select=ids ids=[…]; {missing} is missing")
