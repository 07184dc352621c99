"""The datasets by name: functions that read their questions or captions, split into training, validation and test.

To add a dataset, add a function here for its questions, its captions or both, a schema in
:mod:`clipmapper.config.schema`, and a config in ``configs/data``.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from clipmapper.config.data import CocoConfig, DataConfig, EasyVQAConfig, ShapesConfig, VQAv2Config, VQAv2HubConfig
from clipmapper.data.caption_files import CaptionData, coco_file, read_coco_captions, read_karpathy
from clipmapper.data.kept_parts import kept_parts
from clipmapper.data.records import Splits, VQAData
from clipmapper.data.splitting import merge, reserve
from clipmapper.data.vqa_files import VQAFiles, read_vqav2
from clipmapper.errors import UserError
from clipmapper.process.together import first_alone

Questions = Splits[VQAData]
Captions = Splits[CaptionData]


def load_data(config: DataConfig, cache: Path | None = None) -> Questions:
    """Read the questions of a dataset; a generated dataset is written first if it does not exist.

    Args:
        config: The dataset.
        cache: The folder ``paths.cache``, in which what was read from large files is kept; None keeps nothing.

    Raises:
        UserError: The data cannot be read, or the dataset or one of its splits has no questions.
    """
    if config.name == "table":
        raise UserError("data=table is for other models than CLIPmapper: give model=huggingface or model=open_clip")
    if config.name not in QUESTIONS:
        raise UserError(f"data={config.name} has captions, but no questions; give task=caption, or other data")
    splits = QUESTIONS[config.name](config, cache)
    for name, part in splits.parts.items():
        if not part.questions:
            raise UserError(f"data {config.name}: the {name} split has no questions; check data.root and data.reserved")
    return splits


def load_captions(config: DataConfig, cache: Path | None = None) -> Captions:
    """Read the captions of a dataset; a generated dataset is written first if it does not exist.

    Args:
        config: The dataset.
        cache: The folder ``paths.cache``, in which what was read from large files is kept; None keeps nothing.

    Raises:
        UserError: The data cannot be read, the dataset has no captions, an image is in two splits, or no image of the
            training or validation split has a caption.
    """
    if config.name not in CAPTIONS:
        raise UserError(f"data={config.name} has no captions; give data=shapes or data=coco, or task=vqa")
    splits = CAPTIONS[config.name](config, cache)
    owner: dict[int, str] = {}
    for name, part in splits.parts.items():
        for entry in part.images:
            if (first := owner.setdefault(entry.image_id, name)) != name:
                raise UserError(f"image {entry.image_id} is in {first} and in {name}; give splits that share no image")
    for name in ("train", "val"):
        if not splits.parts[name].captioned:
            raise UserError(f"data {config.name}: no image of the {name} split has a caption; check the caption file")
    return splits


def load_questions_of(config: DataConfig, split: str, cache: Path | None = None) -> VQAData:
    """Read the questions of one split; of the generated dataset ``shapes``, only this split is written.

    Raises:
        UserError: The data cannot be read, or has no such split.
    """
    if isinstance(config, ShapesConfig):
        return _shapes_part(config, split)
    return load_data(config, cache).part(split)


def load_captions_of(config: DataConfig, split: str, cache: Path | None = None) -> CaptionData:
    """Read the captions of one split; of the generated dataset ``shapes``, only this split is written.

    Raises:
        UserError: The data cannot be read, has no captions, or has no such split.
    """
    if isinstance(config, ShapesConfig):
        return _shapes_caption_part(config, split)
    return load_captions(config, cache).part(split)


def _shapes_questions(config: ShapesConfig, cache: Path | None) -> Questions:
    return Splits(*(_shapes_part(config, split) for split in ("train", "val", "test")))


def _shapes_captions(config: ShapesConfig, cache: Path | None) -> Captions:
    return Splits(*(_shapes_caption_part(config, split) for split in ("train", "val", "test")))


def _shapes_part(config: ShapesConfig, split: str) -> VQAData:
    from clipmapper.data.shapes.write import LAYOUT, write_shapes

    with first_alone():
        folder = write_shapes(config, split)
    return read_vqav2(folder, [split], LAYOUT)


def _shapes_caption_part(config: ShapesConfig, split: str) -> CaptionData:
    from clipmapper.data.shapes.write import write_shapes

    with first_alone():
        folder = write_shapes(config, split)
    return read_coco_captions(folder / f"captions_shapes_{split}.json", folder / "images" / split)


def _easy_vqa(config: EasyVQAConfig, cache: Path | None) -> Questions:
    from clipmapper.data.easy_vqa import EASY_VQA, write_easy_vqa

    root = Path(config.root)
    with first_alone():
        write_easy_vqa(root)
    train, val = reserve(read_vqav2(root, ["train"], EASY_VQA), config.reserved, config.seed)
    return Splits(train, val, read_vqav2(root, ["test"], EASY_VQA))


def _vqav2(config: VQAv2Config, cache: Path | None) -> Questions:
    root = Path(config.root)
    _check_reserve_from(config)
    train, val = kept_parts(
        [VQAFiles.of(root, split) for split in config.train_splits],
        lambda: _reserve_validation(config, lambda splits: read_vqav2(root, splits, cache=cache)),
        f"{config.train_splits} {config.reserve_from} {config.reserved} {config.seed}",
        cache,
    )
    test = None if config.test_split is None else read_vqav2(root, [config.test_split], cache=cache)
    return Splits(train, val, test)


def _vqav2_hub(config: VQAv2HubConfig, cache: Path | None) -> Questions:
    from clipmapper.data.hub import read_hub, read_parquet

    root = Path(config.root)
    local = root.exists()

    def read(splits: list[str]) -> VQAData:
        return merge(*(read_parquet(root, s) if local else read_hub(config.root, s) for s in splits))

    _check_reserve_from(config)
    train, val = _reserve_validation(config, read)
    return Splits(train, val, None if config.test_split is None else read([config.test_split]))


def _check_reserve_from(config: VQAv2Config | VQAv2HubConfig) -> None:
    if config.reserve_from not in config.train_splits:
        raise UserError(
            f"data.reserve_from={config.reserve_from} is not one of data.train_splits={config.train_splits}"
        )


def _reserve_validation(
    config: VQAv2Config | VQAv2HubConfig, read: Callable[[list[str]], VQAData]
) -> tuple[VQAData, VQAData]:
    """Reserve questions of the split ``reserve_from`` for validation, as in the paper (Huang et al. 2023).

    Returns:
        The questions for training and those for validation.
    """
    rest, val = reserve(read([config.reserve_from]), config.reserved, config.seed)
    others = [split for split in config.train_splits if split != config.reserve_from]
    return (merge(read(others), rest) if others else rest), val


def _coco(config: CocoConfig, cache: Path | None) -> Captions:
    root, images = Path(config.root), Path(config.root) / config.images
    if config.karpathy is not None:
        file = root / config.karpathy
        return Splits(*(read_karpathy(file, images, s, config.restval, cache) for s in ("train", "val", "test")))

    def read(split: str) -> CaptionData:
        return read_coco_captions(coco_file(config, split), images / split, cache)

    test = None if config.test_split is None else read(config.test_split)
    return Splits(read(config.train_split), read(config.val_split), test)


QUESTIONS: dict[str, Callable[[Any, Path | None], Questions]] = {
    "shapes": _shapes_questions,
    "easy_vqa": _easy_vqa,
    "vqav2": _vqav2,
    "vqav2_hub": _vqav2_hub,
}
CAPTIONS: dict[str, Callable[[Any, Path | None], Captions]] = {"shapes": _shapes_captions, "coco": _coco}
