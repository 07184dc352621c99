"""The schemas of commands that explain a trained model; the first is what they share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from omegaconf import MISSING

from clipmapper.config.checks import one_of
from clipmapper.config.schema import Config
from clipmapper.errors import UserError


@dataclass
class SubjectConfig(Config):
    """Whose answers are explained, by what: ``checkpoint`` null is the newest that fits, ``split`` the data's."""

    explainer: dict[str, Any] = MISSING
    checkpoint: str | None = MISSING
    split: str = MISSING

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.task.sees != "both":
            raise UserError(f"task.sees={self.task.sees}: only models that see both are explained; give task.sees=both")


@dataclass
class PictureConfig(SubjectConfig):
    """What is explained, and how the pictures look, for any task.

    ``select``: which ``samples`` of ``split``, or those of ``ids``; or one's own ``image``. ``batch_size``: how many
    questions, or sub-words of captions, are explained at a time. ``overlay``: bilinear |
    patches; ``scale``: each | common; ``formats``: png, pdf.
    """

    select: str = MISSING
    samples: int = MISSING
    batch_size: int = MISSING
    ids: list[int] = MISSING
    image: str | None = MISSING
    overlay: Any = MISSING  # one of a few words: checked below
    scale: Any = MISSING
    formats: list[str] = MISSING

    def __post_init__(self) -> None:
        super().__post_init__()
        one_of("overlay", self.overlay, ("bilinear", "patches"))
        one_of("scale", self.scale, ("each", "common"))
        for name in self.formats:
            one_of("formats", name, ("png", "pdf"))
        if not self.formats:
            raise UserError("formats=[] writes no pictures; give png, pdf or both")
        for name, value in (("samples", self.samples), ("batch_size", self.batch_size)):
            if value < 1:
                raise UserError(f"{name}={value} must be 1 or more")
        if self.image is not None and self.ids:
            raise UserError("image=… and ids=… are two choices; give one")

    def _check_ids(self, what: str) -> None:
        if (self.select == "ids") != bool(self.ids):
            missing = "ids=[…]" if not self.ids else "select=ids"
            raise UserError(f"{what} ids are taken with select=ids ids=[…]; {missing} is missing")
