"""Config schemas of the commands that explain a trained model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from omegaconf import MISSING

from clipmapper.config.fields import MOST_IN_BATCH, Choice, Range, choice, items, path, text, whole
from clipmapper.config.schema import BaseConfig, Config, ModelConfig
from clipmapper.errors import UserError


@dataclass
class BaseExplainedConfig(BaseConfig):
    """Keys that all commands that explain a model share."""

    explainer: dict[str, Any] = MISSING
    split: str = text()  # of the data

    @property
    def about(self) -> dict[str, str]:
        """The columns of tables that name the model."""
        raise NotImplementedError


@dataclass
class ExplainedConfig(BaseExplainedConfig, Config):
    """Keys that all commands that explain CLIPmapper share."""

    checkpoint: str | None = path()  # null: found by find_checkpoint

    @property
    def about(self) -> dict[str, str]:
        """The task and the mapper."""
        return {"task": self.task.name, "mapper": self.mapper.name}

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.task.sees != "both":
            raise UserError(
                f"task.sees={self.task.sees}: only models that see both image and text can be explained; "
                "give task.sees=both"
            )


@dataclass
class AnyModelConfig(BaseExplainedConfig):
    """Keys that all commands that explain another model than CLIPmapper share."""

    model: ModelConfig = MISSING

    @property
    def about(self) -> dict[str, str]:
        """The kind of model."""
        return {"model": self.model.name}


@dataclass
class BasePictureConfig(BaseExplainedConfig):
    """Keys of the explain command for any model: the samples to explain, and the style of the figures."""

    samples: int = whole(1)  # number of samples, unless ids are given
    ids: list[int] = items(Range(-(2**63), 2**63 - 1), empty=True, repeated=True)  # the samples to explain
    image: str | None = path()  # the user's own image, explained instead of samples of the data
    overlay: Any = choice("bilinear", "patches")
    scale: Any = choice("each", "common")
    formats: list[str] = items(Choice(("png", "pdf")))

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.image is not None and self.ids:
            raise UserError("image=… and ids=… cannot be given together; give one of them")


@dataclass
class PictureConfig(BasePictureConfig, ExplainedConfig):
    """Keys of the explain command for CLIPmapper, for any task."""

    select: str = text()  # how samples of the split are chosen; the choices depend on the task
    batch_size: int | None = whole(1, MOST_IN_BATCH)  # questions, or sub-words of captions, explained together

    @property
    def at_once(self) -> int:
        """Number of questions, or sub-words of captions, that are explained together."""
        return self.batch_size or 8

    def _check_ids(self, what: str) -> None:
        if (self.select == "ids") != bool(self.ids):
            missing = "ids=[…]" if not self.ids else "select=ids"
            raise UserError(f"{what} ids are taken with select=ids ids=[…]; {missing} is missing")


@dataclass
class ModelPictureConfig(BasePictureConfig, AnyModelConfig):
    """Keys of the explain command for another model than CLIPmapper."""

    question: str | None = text()  # the text about the user's own image
    answer: str | None = text()  # the answer to explain; null: the model's own
    against: str | None = text()  # an answer: why the model does not prefer this one
