"""Typed schemas of the data sets' configs."""

from __future__ import annotations

from dataclasses import dataclass

from omegaconf import MISSING

from clipmapper.config.checks import at_least, one_of
from clipmapper.errors import UserError


@dataclass
class DataConfig:
    """What every data set has; ``root`` is its folder."""

    name: str = MISSING
    root: str = MISSING
    on_bad_image: str = MISSING  # fail | skip
    min_answer_questions: int = MISSING  # an answer belongs to the vocabulary from this many questions on
    answers_file: str | None = MISSING  # LXMERT's label file instead of a vocabulary built from the data
    reserved: int = MISSING  # examples taken from the training data for validation
    seed: int = MISSING

    def __post_init__(self) -> None:
        one_of("data.on_bad_image", self.on_bad_image, ("fail", "skip"))
        at_least(0, "data", reserved=self.reserved)
        at_least(1, "data", min_answer_questions=self.min_answer_questions)


@dataclass
class ShapesConfig(DataConfig):
    """The embedded data set; scenes a split, questions a scene, pixels a side."""

    train_scenes: int = MISSING
    val_scenes: int = MISSING
    test_scenes: int = MISSING
    questions_per_scene: int = MISSING
    pixels: int = MISSING
    workers: int = MISSING

    def __post_init__(self) -> None:
        super().__post_init__()
        sizes = {"train_scenes": self.train_scenes, "val_scenes": self.val_scenes, "test_scenes": self.test_scenes}
        at_least(1, "data", **sizes, questions_per_scene=self.questions_per_scene)
        at_least(32, "data", pixels=self.pixels)
        if self.questions_per_scene > 100:
            raise UserError(f"data.questions_per_scene={self.questions_per_scene} must be 100 or less")


@dataclass
class EasyVQAConfig(DataConfig):
    """The PyPI package ``easy-vqa``, written out once."""


@dataclass
class VQAv2Config(DataConfig):
    """VQAv2's official files. ``reserved`` examples of ``reserve_from`` are kept for validation, the rest trains."""

    train_splits: list[str] = MISSING
    reserve_from: str = MISSING
    test_split: str | None = MISSING


@dataclass
class VQAv2HubConfig(DataConfig):
    """``lmms-lab/VQAv2``-style data through ``datasets``: a hub id or a folder of Parquet files."""

    train_splits: list[str] = MISSING
    reserve_from: str = MISSING
    test_split: str | None = MISSING


@dataclass
class CocoConfig(DataConfig):
    """COCO captions below ``root``; photos are in ``root/{images}/{train2014, val2014}``.

    ``karpathy`` is Karpathy's file with his splits, ``restval`` among the training photos unless it is false. Where
    ``karpathy`` is null, ``captions`` names COCO's own files, one a split.
    """

    images: str = MISSING
    karpathy: str | None = MISSING
    restval: bool = MISSING
    captions: str = MISSING
    train_split: str = MISSING
    val_split: str = MISSING
    test_split: str | None = MISSING
    # Captions have no answers, and no YAML gives these.
    min_answer_questions: int = 9
    answers_file: str | None = None
    reserved: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.karpathy is None and "{split}" not in self.captions:
            raise UserError(f"data.captions={self.captions} must hold {{split}}, which stands for the split's name")


DATA_SCHEMAS: dict[str, type[DataConfig]] = {
    "shapes": ShapesConfig,
    "easy_vqa": EasyVQAConfig,
    "vqav2": VQAv2Config,
    "vqav2_hub": VQAv2HubConfig,
    "coco": CocoConfig,
}
