"""Whose captions are explained: a trained model, and the pictures of one split of the data."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from clipmapper.checkpoint import load_found
from clipmapper.config.schema import Config
from clipmapper.data.caption_files import CaptionImage
from clipmapper.data.datasets import load_captions
from clipmapper.data.images import BadImage, FileImage, load_rgb
from clipmapper.tasks.caption.config import CaptionTaskConfig
from clipmapper.tasks.caption.data import check_length
from clipmapper.tasks.caption.decoding import greedy
from clipmapper.tasks.caption.model import CLIPMapperCaption, load_caption


@dataclass(frozen=True, eq=False)
class CaptionedBatch:
    """B pictures as the model takes them, ``pixels`` [B, 3, H, W] on its device, and what it says of them.

    ``captions`` are token ids without start and end token.
    """

    images: tuple[CaptionImage, ...]
    photos: tuple[Image.Image, ...]
    pixels: Tensor
    captions: tuple[list[int], ...]

    @property
    def ids(self) -> list[int]:
        """The images' ids, by which explainers that draw at random know them."""
        return [image.image_id for image in self.images]

    def part(self, rows: Sequence[int]) -> CaptionedBatch:
        """Only these."""
        images, photos = tuple(self.images[row] for row in rows), tuple(self.photos[row] for row in rows)
        return CaptionedBatch(images, photos, self.pixels[list(rows)], tuple(self.captions[row] for row in rows))


@dataclass(frozen=True, eq=False)
class CaptionSubject:
    """A frozen model with the pictures it captions, in ``max_length`` sub-words at most."""

    model: CLIPMapperCaption
    images: tuple[CaptionImage, ...]
    checkpoint: Path
    max_length: int
    on_bad_image: str

    @property
    def ids(self) -> list[int]:
        """The images' ids."""
        return [image.image_id for image in self.images]

    def batch(self, rows: Sequence[int]) -> CaptionedBatch | None:
        """The pictures of these rows, captioned greedily.

        Raises ``BadImage`` at a picture that can't be read; with ``on_bad_image="skip"`` it is named on stderr and left
        out: None where nothing is left.
        """
        images, photos = [], []
        for row in rows:
            try:
                photos.append(load_rgb(self.images[row].image))
                images.append(self.images[row])
            except BadImage as error:
                if self.on_bad_image == "fail":
                    raise
                print(f"skipped: {error}", file=sys.stderr)
        return self._captioned(images, photos) if images else None

    @torch.no_grad()
    def _captioned(self, images: Sequence[CaptionImage], photos: Sequence[Image.Image]) -> CaptionedBatch:
        weight = next(self.model.caption.parameters())
        pixels = self.model.encoder.pixels(list(photos)).to(weight.device, weight.dtype)
        captions = greedy(self.model, self.model.encoder.vision(pixels), self.max_length)
        return CaptionedBatch(tuple(images), tuple(photos), pixels, tuple(captions))


def load_caption_subject(config: Config, split: str, checkpoint: str | None) -> CaptionSubject:
    """The newest checkpoint that fits the config, or the one given, and a split of the config's data.

    Raises ``UserError`` as the readers and :func:`clipmapper.checkpoint.find_checkpoint` do.
    """
    model, path, max_length = _model(config, checkpoint)
    images = load_captions(config.data).part(split).images
    return CaptionSubject(model, images, path, max_length, config.data.on_bad_image)


def own_picture(config: Config, image: str, checkpoint: str | None) -> CaptionSubject:
    """The same with one picture, number 0; no data are read."""
    model, path, max_length = _model(config, checkpoint)
    return CaptionSubject(model, (CaptionImage(0, (), FileImage(Path(image))),), path, max_length, "fail")


def _model(config: Config, checkpoint: str | None) -> tuple[CLIPMapperCaption, Path, int]:
    """The model on the trainer's kind of device, its checkpoint, and how long its captions may be."""
    assert isinstance(config.task, CaptionTaskConfig)
    model, path = load_found(config, checkpoint, load_caption)
    check_length(model.encoder, config.task.max_length)
    return model, path, config.task.max_length
