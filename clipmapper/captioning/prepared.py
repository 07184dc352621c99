"""What training and evaluation of captions both start from: the data, the frozen encoder and its image features."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from clipmapper.captioning.batches import CaptionDataset, CaptionedImages, encode_captions
from clipmapper.captioning.data import CaptionSplits, captions_of, load_captions
from clipmapper.captioning.vocabulary import CaptionVocabulary, build_vocabulary
from clipmapper.config import Config
from clipmapper.encoder.load import FrozenClip
from clipmapper.errors import UserError
from clipmapper.features.frozen import FrozenFeatures, image_features, text_features
from clipmapper.prepared import ready_encoder


@dataclass(frozen=True)
class PreparedImages:
    """The images of every split, with their frozen features: all that captioning them takes."""

    splits: CaptionSplits
    encoder: FrozenClip
    features: FrozenFeatures
    device: torch.device
    cache: Path
    sees: str

    def images(self, part: str) -> CaptionedImages:
        """Raises ``UserError`` where the data has no such part, or no picture of it could be read."""
        images = CaptionedImages(self.splits.part(part), self.features, self.sees)
        if not len(images):
            raise UserError(f"no image of the {part} split could be read; check the image folder in data.root")
        return images


@dataclass(frozen=True)
class PreparedCaptions:
    """The captions of training and validation, with their frozen features; ``truncated`` of them were cut off."""

    vocabulary: CaptionVocabulary
    texts: FrozenFeatures
    encoded: Mapping[str, np.ndarray]
    truncated: int

    def dataset(self, images: CaptionedImages, part: str) -> CaptionDataset:
        """Raises ``UserError`` where no image that could be read has a caption."""
        dataset = CaptionDataset(images, self.texts, self.encoded, self.vocabulary)
        if not len(dataset):
            raise UserError(f"no image of the {part} split that could be read has a caption; check data.root")
        return dataset


def prepare_images(config: Config) -> PreparedImages:
    """Reads the data and computes the image features, or finds them in the cache; raises ``UserError`` as the readers
    and ``ready_encoder`` do."""
    splits = load_captions(config.data)
    encoder, device, cache = ready_encoder(config)
    images = image_features(encoder, config.encoder, splits.images, cache, config.data.on_bad_image, device)
    return PreparedImages(splits, encoder, images, device, cache, config.task.sees)


def prepare_captions(config: Config, prepared: PreparedImages, vocabulary: str) -> PreparedCaptions:
    """Encodes the captions of training and validation; ``vocabulary`` as in :func:`build_vocabulary`."""
    train, val = (captions_of(prepared.splits.part(part).images) for part in ("train", "val"))
    encoded, truncated = encode_captions(prepared.encoder, [*train, *val])
    built = build_vocabulary(
        vocabulary, (encoded[caption].tolist() for caption in set(train)), prepared.encoder.tokenizer
    )
    texts = text_features(prepared.encoder, config.encoder, [*train, *val], prepared.cache, prepared.device)
    return PreparedCaptions(built, texts, encoded, truncated)
