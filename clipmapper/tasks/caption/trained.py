"""A trained captioning model, and the images of one split to caption."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from clipmapper.choice import load_found
from clipmapper.config.schema import Config
from clipmapper.data.caption_files import CaptionImage
from clipmapper.data.datasets import load_captions_of
from clipmapper.data.images import BadImage, FileImage, load_rgb
from clipmapper.tasks.caption.config import CaptionTaskConfig
from clipmapper.tasks.caption.data import check_length
from clipmapper.tasks.caption.decoding import greedy
from clipmapper.tasks.caption.model import CLIPMapperCaption, load_caption
from clipmapper.text import printable


@dataclass(frozen=True, eq=False)
class CaptionedBatch:
    """B images with the model's input and the captions that it generated."""

    images: tuple[CaptionImage, ...]
    photos: tuple[Image.Image, ...]
    pixels: Tensor  #: preprocessed images on the model's device, [B, 3, H, W]
    captions: tuple[list[int], ...]  #: token ids of the generated captions, without start and end token

    @property
    def ids(self) -> list[int]:
        """The images' ids, which also seed the random draws of explainers."""
        return [image.image_id for image in self.images]

    @property
    def picture_ids(self) -> list[int]:
        """The images' ids."""
        return self.ids

    @property
    def items(self) -> list[int]:
        """The image's id for each sub-word of all captions."""
        return [number for number, caption in zip(self.ids, self.captions, strict=True) for _ in caption]

    def part(self, rows: Sequence[int]) -> CaptionedBatch:
        """Return the batch of only these rows."""
        images, photos = tuple(self.images[row] for row in rows), tuple(self.photos[row] for row in rows)
        return CaptionedBatch(images, photos, self.pixels[list(rows)], tuple(self.captions[row] for row in rows))


@dataclass(frozen=True, eq=False)
class TrainedCaptioner:
    """A frozen captioning model with the images to caption."""

    model: CLIPMapperCaption
    images: tuple[CaptionImage, ...]
    checkpoint: Path
    max_length: int  #: greatest number of sub-words of a caption
    on_bad_image: str  #: fail, or skip images that can't be read

    @property
    def ids(self) -> list[int]:
        """Id of each image."""
        return [image.image_id for image in self.images]

    def batch(self, rows: Sequence[int]) -> CaptionedBatch | None:
        """Return the images of these rows with their greedy captions, or None if all of them are skipped.

        With ``on_bad_image="skip"``, images that can't be read are skipped and reported on stderr.

        Raises:
            BadImage: An image can't be read, and ``on_bad_image`` is ``fail``.
        """
        images, photos = [], []
        for row in rows:
            try:
                photos.append(load_rgb(self.images[row].image))
                images.append(self.images[row])
            except BadImage as error:
                if self.on_bad_image == "fail":
                    raise
                print(f"skipped: {printable(str(error))}", file=sys.stderr)
        return self._caption(images, photos) if images else None

    @torch.no_grad()
    def _caption(self, images: Sequence[CaptionImage], photos: Sequence[Image.Image]) -> CaptionedBatch:
        weight = next(self.model.trained.parameters())
        pixels = self.model.encoder.pixels(list(photos)).to(weight.device, weight.dtype)
        captions = greedy(self.model, self.model.encoder.vision(pixels), self.max_length)
        return CaptionedBatch(tuple(images), tuple(photos), pixels, tuple(captions))


def load_trained(config: Config, split: str, checkpoint: str | None) -> TrainedCaptioner:
    """Load a checkpoint, and a split of the config's data.

    Args:
        config: The command's config.
        split: Name of the split.
        checkpoint: The checkpoint; None finds the newest one that fits the config.

    Raises:
        UserError: No checkpoint fits, the data can't be read, or ``task.max_length`` exceeds the encoder's context.
    """
    model, path, max_length = _load_model(config, checkpoint)
    images = load_captions_of(config.data, split, Path(config.paths.cache)).images
    return TrainedCaptioner(model, images, path, max_length, config.data.on_bad_image)


def own_picture(config: Config, image: str, checkpoint: str | None) -> TrainedCaptioner:
    """Load a checkpoint with the user's image, which gets the id 0; no dataset is read."""
    model, path, max_length = _load_model(config, checkpoint)
    return TrainedCaptioner(model, (CaptionImage(0, (), FileImage(Path(image))),), path, max_length, "fail")


def _load_model(config: Config, checkpoint: str | None) -> tuple[CLIPMapperCaption, Path, int]:
    """Return the model on the trainer's kind of device, its checkpoint, and the greatest length of its captions."""
    assert isinstance(config.task, CaptionTaskConfig)
    model, path = load_found(config, checkpoint, load_caption)
    check_length(model.encoder, config.task.max_length)
    return model, path, config.task.max_length
