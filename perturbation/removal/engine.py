"""Reads a model again without some of its tokens: every distinct subset once, and only the tokens that stay.

This saves cost and changes nothing else: the results equal, to rounding, those of one full forward pass a sample and
subset in which nothing attends to a removed token.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from clipmapper.encoder.load import TextBatch
from clipmapper.encoder.towers import VisionTower
from clipmapper.mapper.blocks import Stream
from clipmapper.nn.tokens import Tokens, TokenSubset
from clipmapper.tasks.vqa.model import CLIPMapperVQA

Modality = Literal["image", "text"]


@dataclass(frozen=True)
class Removal:
    """What removing a token means (METHOD: perturbation tests).

    ``mask``: nothing attends to it, from its encoder's input onwards; the tokens that stay keep their positions.
    ``mean`` (image): the patch's pixels become the picture's mean colour. ``drop`` (text): the sub-word is deleted and
    the rest numbered anew.
    """

    image: Literal["mask", "mean"] = "mask"
    text: Literal["mask", "drop"] = "mask"


@dataclass(frozen=True, eq=False)
class Whole:
    """B samples read with nothing removed: what every reading of their subsets starts from."""

    pixels: Tensor  #: [B, 3, H, W]
    questions: TextBatch
    image_embedded: Tensor  #: [B, 1 + P, D_v], before the encoder
    text_embedded: Tensor  #: [B, n_t, D_t]
    image: Stream  #: after the encoder, and as far into the mapper as the text does not matter
    text: Stream
    logits: Tensor  #: [B, answers]

    @property
    def answers(self) -> Tensor:
        """The preferred answers, [B]."""
        return self.logits.argmax(1)


@dataclass(frozen=True, eq=False)
class Reading:
    """M subsets a sample: the preferred answer, int [B, M], and the probability [B, M] of the answer asked about."""

    answers: Tensor
    probability: Tensor


@dataclass(frozen=True)
class Engine:
    """Sends ``batch_size`` samples through the model at once, or as many subsets as have the same number of tokens."""

    model: CLIPMapperVQA
    batch_size: int
    removal: Removal = Removal()

    @torch.inference_mode()
    def whole(self, pixels: Tensor, questions: TextBatch) -> Whole:
        """Reads the samples as they are."""
        encoder, mapper = self.model.encoder, self.model.vqa.mapper
        image_embedded, text_embedded = encoder.vision.embed(pixels), encoder.text.embed(questions.ids)
        parts = []
        for rows in torch.arange(len(pixels)).split(self.batch_size):
            image = mapper.begin_image(encoder.vision.encode(image_embedded[rows]))
            words = TokenSubset.all_of(questions.valid[rows])
            text = mapper.begin_text(encoder.text.encode(text_embedded[rows], words))
            parts.append((image, text, self._finish(image, text)))
        images, texts, logits = zip(*parts, strict=True)
        return Whole(
            pixels, questions, image_embedded, text_embedded, _joined(images), _joined(texts), torch.cat(logits)
        )

    @torch.inference_mode()
    def read(self, whole: Whole, modality: Modality, kept: Tensor, asked: Tensor) -> Reading:
        """Reads the samples on M subsets each of one modality's tokens; the other modality stays whole.

        Args:
            whole: The samples.
            modality: Whose tokens are removed.
            kept: bool [B, M, n] over class token and patches, or over the text stream with its padding; true where a
                token stays.
            asked: int [B], the answers whose probability is wanted.
        """
        owners, subsets, places = distinct(kept)
        answers = whole.answers[owners]
        probability = _probability(whole.logits, asked)[owners]
        removed = (~subsets & _present(whole, modality)[owners]).any(1)
        for rows in self._alike(whole, modality, owners, subsets, removed):
            owner = owners[rows]
            logits = self._logits(whole, modality, owner, subsets[rows])
            answers[rows], probability[rows] = logits.argmax(1), _probability(logits, asked[owner])
        return Reading(answers[places], probability[places])

    def _logits(self, whole: Whole, modality: Modality, owner: Tensor, kept: Tensor) -> Tensor:
        """[U, answers] of U subsets, bool [U, n], of the samples ``owner`` [U]."""
        mapper = self.model.vqa.mapper
        if modality == "image":
            return self._finish(mapper.begin_image(self._image(whole, owner, kept)), _rows(whole.text, owner))
        return self._finish(_rows(whole.image, owner), mapper.begin_text(self._text(whole, owner, kept)))

    def _finish(self, image: Stream, text: Stream) -> Tensor:
        return self.model.vqa.head(self.model.vqa.mapper.finish(image, text))

    def _image(self, whole: Whole, owner: Tensor, kept: Tensor) -> Tokens:
        vision = self.model.encoder.vision
        return image_without(vision, whole.pixels, whole.image_embedded, owner, kept, self.removal.image)

    def _text(self, whole: Whole, owner: Tensor, kept: Tensor) -> Tokens:
        text, subset = self.model.encoder.text, TokenSubset.from_mask(kept)
        if self.removal.text == "mask":
            return text.encode(whole.text_embedded[owner], subset)
        ids = whole.questions.ids[owner].gather(1, subset.index)
        return text.encode(text.embed(ids), TokenSubset.all_of(subset.valid))

    def _alike(
        self, whole: Whole, modality: Modality, owners: Tensor, subsets: Tensor, removed: Tensor
    ) -> Iterator[Tensor]:
        """Places of subsets from which something is removed, in batches that keep equally many tokens each."""
        count = subsets.sum(1)
        other = whole.questions.valid.sum(1)[owners] if modality == "image" else torch.zeros_like(count)
        order = torch.from_numpy(np.lexsort((other.cpu().numpy(), count.cpu().numpy())))
        order = order.to(removed.device)
        order = order[removed[order]]
        lengths = count[order].unique_consecutive(return_counts=True)[1].tolist() if len(order) else []
        for equally_many in order.split(lengths):
            yield from equally_many.split(self.together(whole, modality, int(count[equally_many[0]])))

    def together(self, whole: Whole, modality: Modality, kept: int) -> int:
        """How many subsets of so many tokens are read at once: fewer tokens leave room for more subsets."""
        if modality == "text" or self.removal.image == "mean":
            return self.batch_size
        return self.batch_size * whole.image_embedded.shape[1] // kept


def image_without(
    vision: VisionTower, pixels: Tensor, embedded: Tensor, owner: Tensor, kept: Tensor, removal: str
) -> Tokens:
    """The encoder's tokens of U subsets of some pictures' patches.

    Args:
        vision: The encoder.
        pixels: [B, 3, H, W].
        embedded: [B, 1 + P, D], the pictures' tokens before the encoder.
        owner: int [U], whose subset it is.
        kept: bool [U, 1 + P].
        removal: ``Removal.image``.
    """
    x = embedded[owner]
    if removal == "mask":
        return vision.encode(x, TokenSubset.from_mask(kept))
    whole = pixels[owner]
    blank = vision.embed(whole.mean((2, 3), keepdim=True).expand_as(whole))
    return vision.encode(torch.where(kept[:, :, None], x, blank))


def distinct(kept: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Every distinct (sample, subset) once: owners [U], subsets bool [U, n], and each request's place, [B, M]."""
    batch, several, n = kept.shape
    packed = np.packbits(kept.cpu().numpy().reshape(batch * several, n), axis=1)
    owners = np.repeat(np.arange(batch, dtype=np.int32), several)
    keys = np.concatenate([owners[:, None].view(np.uint8), packed], axis=1)
    _, first, places = np.unique(keys, axis=0, return_index=True, return_inverse=True)
    at = torch.from_numpy(first).to(kept.device)
    return (
        torch.from_numpy(owners).to(kept.device).long()[at],
        kept.flatten(0, 1)[at],
        torch.from_numpy(places.reshape(batch, several)).to(kept.device),
    )


def _present(whole: Whole, modality: Modality) -> Tensor:
    """bool [B, n]: the tokens that there are."""
    if modality == "text":
        return whole.questions.valid
    return torch.ones(whole.image_embedded.shape[:2], dtype=torch.bool, device=whole.pixels.device)


def _probability(logits: Tensor, answers: Tensor) -> Tensor:
    """The sigmoid of one answer's logit a sample: [B, answers], int [B] → [B]."""
    return logits.gather(1, answers[:, None])[:, 0].float().sigmoid()


def _rows(stream: Stream, rows: Tensor) -> Stream:
    """Samples by number, padding no longer than they need."""
    valid = stream.valid[rows]
    longest = int(valid.sum(1).max())
    return Stream(stream.x[rows, :longest], valid[:, :longest])


def _joined(parts: tuple[Stream, ...]) -> Stream:
    return Stream(torch.cat([part.x for part in parts]), torch.cat([part.valid for part in parts]))
