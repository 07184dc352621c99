"""The captions a config names, read and split: training, validation, and test where there is one."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from clipmapper.data.caption_files import CaptionData, CaptionImage, read_coco_captions, read_karpathy
from clipmapper.data.config import CocoConfig, DataConfig, ShapesConfig
from clipmapper.data.records import ImageSource
from clipmapper.errors import UserError


@dataclass(frozen=True)
class CaptionSplits:
    """``val`` chooses checkpoints; ``test`` chooses nothing, and is None where the data has none."""

    train: CaptionData
    val: CaptionData
    test: CaptionData | None

    @property
    def parts(self) -> dict[str, CaptionData]:
        named = {"train": self.train, "val": self.val, "test": self.test}
        return {name: part for name, part in named.items() if part is not None}

    @property
    def images(self) -> dict[int, ImageSource]:
        """Every picture of every part, by image id."""
        return {entry.image_id: entry.image for part in self.parts.values() for entry in part.images}

    def part(self, name: str) -> CaptionData:
        """Raises ``UserError`` where the data has no such part."""
        if name not in self.parts:
            raise UserError(f"split={name}: this data has {', '.join(self.parts)}")
        return self.parts[name]


def load_captions(config: DataConfig) -> CaptionSplits:
    """Reads (and, for the generated set, first writes) the data.

    Raises ``UserError`` as the readers do, where the data set has no captions, where an image is in two splits, and
    where nothing is left to train on or to choose by.
    """
    splits = _read(config)
    owner: dict[int, str] = {}
    for name, part in splits.parts.items():
        for entry in part.images:
            if (first := owner.setdefault(entry.image_id, name)) != name:
                raise UserError(f"image {entry.image_id} is in {first} and in {name}; give splits that share no image")
    for name in ("train", "val"):
        if not splits.parts[name].captioned:
            raise UserError(f"data {config.name}: no image of the {name} split has a caption; check the caption file")
    return splits


def _read(config: DataConfig) -> CaptionSplits:
    if isinstance(config, ShapesConfig):
        from clipmapper.data.shapes.write import SPLITS, write_shapes

        folder = write_shapes(config)
        named = ((folder / f"captions_shapes_{split}.json", folder / "images" / split) for split in SPLITS)
        return CaptionSplits(*(read_coco_captions(file, images) for file, images in named))
    if not isinstance(config, CocoConfig):
        raise UserError(f"data={config.name} has no captions; give data=shapes or data=coco, or task=vqa")
    root, images = Path(config.root), Path(config.root) / config.images
    if config.karpathy is not None:
        file = root / config.karpathy
        return CaptionSplits(*(read_karpathy(file, images, s, config.restval) for s in ("train", "val", "test")))
    train, val, test = (
        None if split is None else read_coco_captions(root / config.captions.replace("{split}", split), images / split)
        for split in (config.train_split, config.val_split, config.test_split)
    )
    assert train is not None
    assert val is not None
    return CaptionSplits(train, val, test)


def captions_of(images: tuple[CaptionImage, ...]) -> list[str]:
    """Every caption of every image."""
    return [caption for image in images for caption in image.captions]
