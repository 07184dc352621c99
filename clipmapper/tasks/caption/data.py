"""Captioning's data: pairs of an image and one of its captions for training, and the images of a split to caption."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
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
from clipmapper.encoder.load import FrozenClip, check_encoder
from clipmapper.encoder.released import release_images
from clipmapper.errors import UserError
from clipmapper.explaining.familiarity import describe
from clipmapper.features.folders import ready_encoder
from clipmapper.features.images import image_features
from clipmapper.features.store import FrozenFeatures
from clipmapper.features.texts import text_features
from clipmapper.features.tokens import CaptionTokens, caption_tokens
from clipmapper.files import write_json
from clipmapper.nn import Tokens, on_device
from clipmapper.process.together import check_agreed
from clipmapper.tasks.caption.config import CaptionTaskConfig
from clipmapper.tasks.caption.vocabulary import IGNORED, CaptionVocabulary, build_vocabulary
from clipmapper.training.identity import digest


@dataclass
class CaptionBatch:
    """A batch of images with one caption each, for next-token prediction."""

    image: Tokens
    text: Tokens  #: the captions without their last token, [B, N, D]
    targets: Tensor  #: class of the token that follows each text token, [B, N]; ``IGNORED`` at padding

    def to(self, device: torch.device) -> CaptionBatch:
        """Return the batch on a device."""
        return CaptionBatch(self.image.to(device), self.text.to(device), on_device(self.targets, device))

    def pin_memory(self) -> CaptionBatch:
        """Return the batch in pinned memory, from which a GPU copies it while it computes."""
        return CaptionBatch(self.image.pin_memory(), self.text.pin_memory(), self.targets.pin_memory())


class CaptionedImages:
    """The images of a split that could be read, with their frozen tokens.

    Args:
        data: The split's images and captions.
        features: Frozen features of the images.
        sees: ``both``; ``text`` gives every caption the same image.
    """

    def __init__(self, data: CaptionData, features: FrozenFeatures, sees: str = "both"):
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
        """Return the image tokens that the model gets, [B, N, D]: those of one constant image with ``sees="text"``."""
        return self._store.gather(self._shown[np.asarray(rows, np.int64)])

    def tokens(self, rows: Sequence[int]) -> Tokens:
        """Return the tokens of the images themselves, [B, N, D], for any ``sees``."""
        return self._store.gather(self._places[np.asarray(rows, np.int64)])


class CaptionDataset(Dataset[CaptionBatch]):
    """All captions of all images of a split; indexed by a list of rows, which returns a whole batch.

    Args:
        images: The images.
        texts: Frozen features of the captions.
        encoded: Token ids of the captions, in the order of their features.
        vocabulary: The tokens that can be generated.
    """

    def __init__(
        self,
        images: CaptionedImages,
        texts: FrozenFeatures,
        encoded: CaptionTokens,
        vocabulary: CaptionVocabulary,
    ):
        self._images, self._texts, self._encoded, self._vocabulary = images, texts.store, encoded, vocabulary
        self.captions = tuple(caption for image in images.images for caption in image.captions)
        counts = [len(image.captions) for image in images.images]
        self.image_rows = np.repeat(np.arange(len(counts)), counts)
        self._text_places = np.array([texts.place[caption] for caption in self.captions], np.int64)

    def __len__(self) -> int:
        return len(self.captions)

    def __getitem__(self, rows: list[int]) -> CaptionBatch:
        text = self._texts.gather(self._text_places[rows])
        targets = torch.full((len(rows), text.valid.shape[1] - 1), IGNORED)
        for k, place in enumerate(self._text_places[rows].tolist()):
            classes = self._vocabulary.classes(self._encoded[place][1:])
            targets[k, : len(classes)] = torch.from_numpy(classes)
        # The end token is not an input, since nothing follows it. It is the last valid token of each caption, so a mask
        # without its first column marks the tokens before it.
        before = Tokens(text.features[:, :-1], text.valid[:, 1:], text.index[:, :-1])
        return CaptionBatch(self._images.shown(self.image_rows[rows].tolist()), before, targets)


@dataclass(frozen=True)
class PreparedImages:
    """The captions of all splits, and the frozen features of images, which is all that captioning them needs."""

    splits: Captions
    encoder: FrozenClip
    features: FrozenFeatures
    device: torch.device
    cache: Path
    sees: str  #: what the model gets: both, or text

    def images(self, part: str) -> CaptionedImages:
        """Return the images of a split.

        Raises:
            UserError: The data has no such split, or none of its images could be read.
        """
        images = CaptionedImages(self.splits.part(part), self.features, self.sees)
        if not len(images):
            raise UserError(f"no image of the {part} split could be read; check the image folder in data.root")
        return images


@dataclass(frozen=True)
class PreparedCaptions:
    """The captions of training and validation, with their frozen features."""

    vocabulary: CaptionVocabulary
    texts: FrozenFeatures
    encoded: CaptionTokens  #: token ids of the captions, in the order of their features

    def dataset(self, images: CaptionedImages, part: str) -> CaptionDataset:
        """Return the dataset of a split.

        Raises:
            UserError: None of the readable images has a caption.
        """
        dataset = CaptionDataset(images, self.texts, self.encoded, self.vocabulary)
        if not len(dataset):
            raise UserError(f"none of the readable images of the {part} split has a caption; check data.root")
        return dataset


def _content(splits: Captions) -> dict[str, str]:
    """Return hashes of the captions of each split."""
    return {
        f"{name} captions": digest((image.image_id, image.captions) for image in part.images)
        for name, part in splits.parts.items()
    }


def prepare_images(config: Config, split: str | None = None) -> PreparedImages:
    """Read the data and compute the image features of one split or of all, or read them from the cache.

    Raises:
        UserError: The data or the encoder can't be loaded, or the data has no such split.
    """
    check_encoder(config.encoder, generates=True)
    splits = load_captions(config.data, Path(config.paths.cache))
    encoder, device, cache = ready_encoder(config)
    sources = splits.images if split is None else splits.part(split).sources
    check_agreed(lambda: {"encoder weights": encoder.fingerprint(), **_content(splits)})
    images = image_features(encoder, config.encoder, sources, cache, config.data.on_bad_image, device)
    check_agreed(lambda: {"images": images.content})
    return PreparedImages(splits, encoder, images, device, cache, config.task.sees)


def prepare_captions(config: Config, prepared: PreparedImages, vocabulary: str) -> PreparedCaptions:
    """Encode the captions of training and validation; ``vocabulary`` is the ``kind`` of :func:`build_vocabulary`."""
    train, val = (captions_of(prepared.splits.part(part).images) for part in ("train", "val"))
    texts = text_features(prepared.encoder, config.encoder, [*train, *val], prepared.cache, prepared.device)
    encoded = caption_tokens(prepared.encoder, list(texts.place), prepared.cache)
    occurring = encoded.occurring(np.array([texts.place[caption] for caption in train], np.int64))
    return PreparedCaptions(build_vocabulary(vocabulary, [occurring], prepared.encoder.tokenizer), texts, encoded)


@dataclass(frozen=True)
class TaskData:
    """The data of a captioning run: images of all splits, and the captions of training and validation."""

    prepared: PreparedImages
    captions: PreparedCaptions
    images: Mapping[str, CaptionedImages]  #: by split
    train: CaptionDataset
    val: CaptionDataset

    def card(self, config: TrainConfig) -> dict[str, Any]:
        """Return the description stored in checkpoints.

        It names the model, and everything that the order of the batches and the loss depend on.
        """
        assert isinstance(config.task, CaptionTaskConfig)
        return card(config, self.prepared.encoder) | {
            "tokens": list(self.captions.vocabulary.ids),
            "seed": config.seed,
            "optim": asdict(config.task.optim),
            "label_smoothing": config.task.label_smoothing,
            "training captions": self._training_captions,
        }

    @cached_property
    def _training_captions(self) -> str:
        """Hash of the training captions in their order."""
        digest = hashlib.blake2b(digest_size=16)
        for image in self.images["train"].images:
            for caption in image.captions:
                digest.update(f"{image.image_id} {caption}".encode("utf-8", "surrogatepass") + b"\0")
        return digest.hexdigest()

    @property
    def content(self) -> dict[str, str]:
        """Hashes of the encoder, the images, and the captions of each split."""
        return {
            "encoder weights": self.prepared.encoder.fingerprint(),
            "images": self.prepared.features.content,
            **_content(self.prepared.splits),
        }

    @cached_property
    def familiarity(self) -> dict[str, Any]:
        """The statistics of the training images, for warnings about others."""
        ids = [image.image_id for image in self.images["train"].images]
        return describe(None, self.prepared.features, ids, self.prepared.encoder.vision.first)

    def write_split(self, path: Path) -> None:
        """Write the image ids of each split to a JSON file."""
        parts = self.prepared.splits.parts.items()
        write_json(path, {name: [image.image_id for image in part.images] for name, part in parts})

    def describe(self) -> None:
        """Print the number of captions and of tokens in the vocabulary."""
        context = self.prepared.encoder.text.context_length
        cut = f", {self.captions.encoded.truncated} of them cut off at the encoder's {context} tokens"
        sizes = f"{len(self.train)} train, {len(self.val)} val{cut if self.captions.encoded.truncated else ''}"
        print(f"captions: {sizes}; tokens to choose from: {len(self.captions.vocabulary)}", flush=True)
        for part in (self.prepared.splits.train, self.prepared.splits.val):
            if part.left_out:
                print(part.left_out, file=sys.stderr)


def prepare(config: TrainConfig) -> TaskData:
    """Read the data and compute all features, or read them from the cache.

    Raises:
        UserError: The data or the encoder can't be loaded, or ``task.max_length`` exceeds the encoder's context.
    """
    assert isinstance(config.task, CaptionTaskConfig)
    prepared = prepare_images(config)
    check_length(prepared.encoder, config.task.max_length)
    images = {part: prepared.images(part) for part in prepared.splits.parts}
    captions = prepare_captions(config, prepared, config.task.vocabulary)
    release_images(prepared.encoder.cpu())
    train, val = (captions.dataset(images[part], part) for part in ("train", "val"))
    return TaskData(prepared, captions, images, train, val)


def check_length(encoder: FrozenClip, max_length: int) -> None:
    """Check that captions of ``max_length`` sub-words fit into the encoder's context.

    Raises:
        UserError: The context is too short.
    """
    longest = encoder.text.context_length - 2  # a training caption also has a start and an end token
    if max_length > longest:
        raise UserError(
            f"task.max_length={max_length}: the encoder's context holds {longest} sub-words; give at most {longest}"
        )


def captions_of(images: tuple[CaptionImage, ...]) -> list[str]:
    """Return all captions of all images, in order."""
    return [caption for image in images for caption in image.captions]
