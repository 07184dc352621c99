"""What is trained on, pairs of a picture and one of its captions, and what is captioned, the pictures of a split."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from clipmapper.checkpoint import card
from clipmapper.config.schema import Config, TrainConfig
from clipmapper.data.caption_files import CaptionData, CaptionImage
from clipmapper.data.datasets import Captions, load_captions
from clipmapper.encoder.features import FrozenFeatures, image_features, ready_encoder, text_features
from clipmapper.encoder.load import FrozenClip
from clipmapper.errors import UserError
from clipmapper.files import write_json
from clipmapper.nn import Tokens
from clipmapper.tasks.caption.config import CaptionTaskConfig
from clipmapper.tasks.caption.vocabulary import IGNORED, CaptionVocabulary, build_vocabulary

_AT_ONCE = 1000


@dataclass
class CaptionBatch:
    """``text`` [B, N, D] is the captions without their last token, ``targets`` [B, N] the class of the token that
    follows each of theirs, ``IGNORED`` where there is none."""

    image: Tokens
    text: Tokens
    targets: Tensor

    def to(self, device: torch.device) -> CaptionBatch:
        return CaptionBatch(self.image.to(device), self.text.to(device), self.targets.to(device))


class CaptionedImages:
    """The images of a split that could be read, with their frozen tokens."""

    def __init__(self, data: CaptionData, features: FrozenFeatures, sees: str = "both"):
        """``sees="text"`` shows every caption with one and the same picture."""
        self.images: tuple[CaptionImage, ...] = tuple(i for i in data.images if i.image_id not in features.missing)
        self.left_out: tuple[CaptionImage, ...] = tuple(i for i in data.images if i.image_id in features.missing)
        if self.left_out:
            print(f"{len(self.left_out)} images are left out: they could not be read", file=sys.stderr)
        self._store = features.store
        self._places = np.array([features.place[i.image_id] for i in self.images], np.int64)
        self._shown = np.full_like(self._places, self._places.min(initial=0)) if sees == "text" else self._places

    def __len__(self) -> int:
        return len(self.images)

    def shown(self, rows: Sequence[int]) -> Tokens:
        """The image tokens [B, N, D] that a model is shown."""
        return self._store.gather(self._shown[np.asarray(rows, np.int64)])

    def tokens(self, rows: Sequence[int]) -> Tokens:
        """The images' own tokens [B, N, D]."""
        return self._store.gather(self._places[np.asarray(rows, np.int64)])


class CaptionDataset(Dataset[CaptionBatch]):
    """Every caption of every image, with its image; fetched a whole batch at a time."""

    def __init__(
        self,
        images: CaptionedImages,
        texts: FrozenFeatures,
        encoded: Mapping[str, np.ndarray],
        vocabulary: CaptionVocabulary,
    ):
        """``encoded`` holds each caption's token ids, from the start to the end token."""
        self._images, self._texts = images, texts.store
        pairs = [(row, caption) for row, image in enumerate(images.images) for caption in image.captions]
        self.captions = tuple(caption for _, caption in pairs)
        self.image_rows = np.array([row for row, _ in pairs], np.int64)
        self._text_places = np.array([texts.place[caption] for caption in self.captions], np.int64)
        targets = {caption: vocabulary.classes(encoded[caption][1:]) for caption in set(self.captions)}
        self._targets = [targets[caption] for caption in self.captions]

    def __len__(self) -> int:
        return len(self.captions)

    def __getitem__(self, rows: list[int]) -> CaptionBatch:
        text = self._texts.gather(self._text_places[rows])
        targets = torch.full((len(rows), text.valid.shape[1] - 1), IGNORED)
        for k, row in enumerate(rows):
            targets[k, : len(self._targets[row])] = torch.from_numpy(self._targets[row])
        # The end token predicts nothing. It is the last valid one, so the mask moves up by one.
        before = Tokens(text.features[:, :-1], text.valid[:, 1:], text.index[:, :-1])
        return CaptionBatch(self._images.shown(self.image_rows[rows].tolist()), before, targets)


def encode_captions(encoder: FrozenClip, captions: Sequence[str]) -> tuple[dict[str, np.ndarray], int]:
    """Each distinct caption's token ids, from the start to the end token, and how many were cut off."""
    encoded: dict[str, np.ndarray] = {}
    distinct, truncated = sorted(set(captions)), 0
    for start in range(0, len(distinct), _AT_ONCE):
        texts = distinct[start : start + _AT_ONCE]
        batch = encoder.tokenize(texts)
        truncated += batch.truncated
        lengths = batch.valid.sum(1).tolist()
        encoded |= {text: ids[:n] for text, ids, n in zip(texts, batch.ids.numpy(), lengths, strict=True)}
    return encoded, truncated


@dataclass(frozen=True)
class PreparedImages:
    """The images of every split, with their frozen features: all that captioning them takes."""

    splits: Captions
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


@dataclass(frozen=True)
class TaskData:
    """What captioning is trained on and evaluated on."""

    prepared: PreparedImages
    captions: PreparedCaptions
    images: Mapping[str, CaptionedImages]  #: of each part
    train: CaptionDataset
    val: CaptionDataset

    def card(self, config: TrainConfig) -> dict[str, Any]:
        """What a checkpoint says of itself: the model, and what the order of the batches and their loss follow from."""
        assert isinstance(config.task, CaptionTaskConfig)
        digest = hashlib.blake2b(digest_size=16)
        rows = self.images["train"].images
        for row, caption in zip(self.train.image_rows.tolist(), self.train.captions, strict=True):
            digest.update(f"{rows[row].image_id} {caption}".encode("utf-8", "surrogatepass") + b"\0")
        return card(config, self.prepared.encoder) | {
            "tokens": list(self.captions.vocabulary.ids),
            "seed": config.seed,
            "optim": asdict(config.task.optim),
            "label_smoothing": config.task.label_smoothing,
            "training captions": digest.hexdigest(),
        }

    def write_split(self, path: Path) -> None:
        """Notes the image ids of each part."""
        parts = self.prepared.splits.parts.items()
        write_json(path, {name: [image.image_id for image in part.images] for name, part in parts})

    def describe(self) -> None:
        """Prints how many captions and tokens there are."""
        context = self.prepared.encoder.text.context_length
        cut = f", {self.captions.truncated} of them cut off at the encoder's {context} tokens"
        sizes = f"{len(self.train)} train, {len(self.val)} val{cut if self.captions.truncated else ''}"
        print(f"captions: {sizes}; tokens to choose from: {len(self.captions.vocabulary)}", flush=True)
        for part in (self.prepared.splits.train, self.prepared.splits.val):
            if part.left_out:
                print(part.left_out, file=sys.stderr)


def prepare(config: TrainConfig) -> TaskData:
    """Reads the data and computes its features, or finds them in the cache.

    Raises ``UserError`` as :func:`prepare_images` does, and for a length that the encoder's context can't hold.
    """
    assert isinstance(config.task, CaptionTaskConfig)
    prepared = prepare_images(config)
    check_length(prepared.encoder, config.task.max_length)
    images = {part: prepared.images(part) for part in prepared.splits.parts}
    captions = prepare_captions(config, prepared, config.task.vocabulary)
    prepared.encoder.cpu()
    train, val = (captions.dataset(images[part], part) for part in ("train", "val"))
    return TaskData(prepared, captions, images, train, val)


def check_length(encoder: FrozenClip, max_length: int) -> None:
    """Raises ``UserError`` where the encoder's context is too short for captions of ``max_length`` sub-words."""
    longest = encoder.text.context_length - 2  # a training caption has its start and end token there too
    if max_length > longest:
        raise UserError(
            f"task.max_length={max_length}: the encoder's context holds {longest} sub-words; give at most {longest}"
        )


def captions_of(images: tuple[CaptionImage, ...]) -> list[str]:
    """Every caption of every image."""
    return [caption for image in images for caption in image.captions]
