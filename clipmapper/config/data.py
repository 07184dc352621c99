"""Typed schemas of the datasets."""

from __future__ import annotations

from dataclasses import dataclass

from omegaconf import MISSING

from clipmapper.config.fields import MOST_THREADS, Range, anything, choice, items, path, text, whole
from clipmapper.errors import UserError


@dataclass
class DataConfig:
    """Keys that all datasets share."""

    name: str = text()
    root: str = path()  # folder of the dataset
    on_bad_image: str = choice("fail", "skip")
    min_answer_questions: int = whole(1)  # an answer is in the vocabulary if at least this many questions have it
    answers_file: str | None = path()  # LXMERT's label file, used instead of a vocabulary built from the data
    reserved: int = whole(0)  # number of questions taken from the training data for validation
    seed: int = whole(0, 2**32 - 1)


@dataclass
class ShapesConfig(DataConfig):
    """The embedded dataset ``shapes``: the sizes of its splits and of its images."""

    train_scenes: int = whole(1)
    val_scenes: int = whole(1)
    test_scenes: int = whole(1)
    questions_per_scene: int = whole(1, 100)
    pixels: int = whole(32, 4096)  # width and height of an image
    workers: int = whole(0, MOST_THREADS)  # processes that draw the images
    extra_questions: dict[str, int] = items(Range(0, 100))  # further questions on each training scene, by kind
    extra_captions: int = whole(0, 1000)  # further captions of each training scene
    disagreement: str = choice("none", "vqav2")  # vqav2: annotators disagree as in VQA

    def __post_init__(self) -> None:
        total = self.questions_per_scene + sum(self.extra_questions.values())
        if total > 100:
            raise UserError(f"data.questions_per_scene and data.extra_questions: {total} a scene; 100 are allowed")


@dataclass
class EasyVQAConfig(DataConfig):
    """The PyPI package ``easy-vqa``, written to ``root`` on first use."""


@dataclass
class VQAv2Config(DataConfig):
    """VQAv2's official files; ``reserved`` questions of ``reserve_from`` are for validation, the rest for training."""

    train_splits: list[str] = items(anything)
    reserve_from: str = text()  # one of train_splits
    test_split: str | None = text()


@dataclass
class VQAv2HubConfig(DataConfig):
    """Data with the columns of ``lmms-lab/VQAv2``; ``root`` is a hub id or a folder of Parquet files."""

    train_splits: list[str] = items(anything)
    reserve_from: str = text()  # one of train_splits
    test_split: str | None = text()


@dataclass
class CocoConfig(DataConfig):
    """COCO captions: Karpathy's file with his splits or, if ``karpathy`` is null, COCO's own files.

    All paths are relative to ``root``.
    """

    images: str = path()  # folder that contains train2014 and val2014
    karpathy: str | None = path()  # Karpathy's dataset_coco.json
    restval: bool = MISSING  # whether Karpathy's split restval is part of the training data
    captions: str = path()  # COCO's own file of a split, with the placeholder {split}
    train_split: str = text()
    val_split: str = text()
    test_split: str | None = text()
    # Captions have no answers, so these keys are not in the YAML file.
    min_answer_questions: int = whole(1, default=9)
    answers_file: str | None = path(default=None)
    reserved: int = whole(0, default=0)

    def __post_init__(self) -> None:
        if self.karpathy is None and "{split}" not in self.captions:
            raise UserError(
                f"data.captions={self.captions} must contain {{split}}, the placeholder of the split's name"
            )


@dataclass
class TableConfig(DataConfig):
    """A CSV file with a row for each sample; ``root`` and what training needs are not in the YAML file."""

    file: str = path()
    root: str = path(default="")
    min_answer_questions: int = whole(1, default=1)
    answers_file: str | None = path(default=None)
    reserved: int = whole(0, default=0)
    seed: int = whole(0, 2**32 - 1, default=0)


DATA_SCHEMAS: dict[str, type[DataConfig]] = {
    "shapes": ShapesConfig,
    "easy_vqa": EasyVQAConfig,
    "vqav2": VQAv2Config,
    "vqav2_hub": VQAv2HubConfig,
    "coco": CocoConfig,
    "table": TableConfig,
}
