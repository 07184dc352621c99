"""Reads a model again without some of its tokens: every distinct subset once, and only the tokens that stay.

This saves cost and changes nothing else: the results equal, to rounding, those of one full forward pass a sample and
subset in which nothing attends to a removed token.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from clipmapper.data.records import Question
from clipmapper.encoder.load import TextBatch
from clipmapper.encoder.towers import VisionTower
from clipmapper.mapper.blocks import Stream
from clipmapper.metrics.vqa import vqa_accuracy
from clipmapper.nn import Tokens, TokenSubset
from clipmapper.tasks.vqa.model import CLIPMapperVQA
from clipmapper.tasks.vqa.trained import QuestionBatch
from perturbation.arrays import Array
from perturbation.removal.reader import SubsetOutputs, Subsets


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
class CachedInputs:
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
class SubsetAnswers:
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
    def cache(self, pixels: Tensor, questions: TextBatch) -> CachedInputs:
        """Reads the samples as they are."""
        encoder, mapper = self.model.encoder, self.model.trained.mapper
        image_embedded, text_embedded = encoder.vision.embed(pixels), encoder.text.embed(questions.ids)
        parts = []
        for rows in torch.arange(len(pixels)).split(self.batch_size):
            image = mapper.begin_image(encoder.vision.encode(image_embedded[rows]))
            words = TokenSubset.all_of(questions.valid[rows])
            text = mapper.begin_text(encoder.text.encode(text_embedded[rows], words))
            parts.append((image, text, self._finish(image, text)))
        images, texts, logits = zip(*parts, strict=True)
        return CachedInputs(
            pixels, questions, image_embedded, text_embedded, _joined(images), _joined(texts), torch.cat(logits)
        )

    @torch.inference_mode()
    def read(self, inputs: CachedInputs, image: Tensor | None, text: Tensor | None, asked: Tensor) -> SubsetAnswers:
        """Reads the samples on M subsets each of their tokens.

        A modality from which a subset removes nothing is not computed again.

        Args:
            inputs: The samples.
            image: bool [B, M, 1 + P] over class token and patches, true where a token stays; None leaves all of them.
            text: bool [B, M, n_t] over the text stream; its padding is not read. None as for the image.
            asked: int [B], the answers whose probability is wanted.
        """
        valid = inputs.questions.valid
        image, text = _filled(image, text, inputs.image_embedded.shape[:2], valid)
        owners, subsets, places = distinct(torch.cat([image, text], 2))
        image, text = subsets.split([image.shape[2], text.shape[2]], 1)
        answers, probability = inputs.answers[owners], _probability(inputs.logits, asked)[owners]
        of_image, of_text = (~image).any(1), (~text & valid[owners]).any(1)
        for removed, seen, read in (
            (of_image & ~of_text, image, None),
            (of_text & ~of_image, None, text),
            (of_image & of_text, image, text),
        ):
            for rows in self._batches(removed, seen, text):
                kept = (None if each is None else each[rows] for each in (seen, read))
                logits = self._logits(inputs, owners[rows], *kept)
                answers[rows], probability[rows] = logits.argmax(1), _probability(logits, asked[owners[rows]])
        return SubsetAnswers(answers[places], probability[places])

    def _logits(self, inputs: CachedInputs, owner: Tensor, image: Tensor | None, text: Tensor | None) -> Tensor:
        """[U, answers] of U subsets of the samples ``owner`` [U]; a modality that is None is taken whole."""
        mapper = self.model.trained.mapper
        seen = _rows(inputs.image, owner) if image is None else mapper.begin_image(self._image(inputs, owner, image))
        read = _rows(inputs.text, owner) if text is None else mapper.begin_text(self._text(inputs, owner, text))
        return self._finish(seen, read)

    def _finish(self, image: Stream, text: Stream) -> Tensor:
        return self.model.trained.head(self.model.trained.mapper.finish(image, text))

    def _image(self, inputs: CachedInputs, owner: Tensor, kept: Tensor) -> Tokens:
        vision = self.model.encoder.vision
        return image_without(vision, inputs.pixels, inputs.image_embedded, owner, kept, self.removal.image)

    def _text(self, inputs: CachedInputs, owner: Tensor, kept: Tensor) -> Tokens:
        text, subset = self.model.encoder.text, TokenSubset.from_mask(kept)
        if self.removal.text == "mask":
            return text.encode(inputs.text_embedded[owner], subset)
        ids = inputs.questions.ids[owner].gather(1, subset.index)
        return text.encode(text.embed(ids), TokenSubset.all_of(subset.valid))

    def _batches(self, chosen: Tensor, image: Tensor | None, text: Tensor) -> Iterator[Tensor]:
        """Places of the chosen subsets, in batches that keep equally many patches, or of a whole image, sub-words.

        Subsets of equally many patches go by the length of their text, so that batches hold little padding.
        """
        words = text.sum(1)
        count = words if image is None else image.sum(1)
        order = torch.from_numpy(np.lexsort((words.cpu().numpy(), count.cpu().numpy()))).to(chosen.device)
        order = order[chosen[order]]
        lengths = count[order].unique_consecutive(return_counts=True)[1].tolist() if len(order) else []
        for alike in order.split(lengths):
            size = self.batch_size if image is None else self.together(image.shape[1], int(count[alike[0]]))
            yield from alike.split(size)

    def together(self, tokens: int, kept: int) -> int:
        """How many subsets of ``kept`` image tokens are read at once: fewer tokens leave room for more subsets."""
        return self.batch_size if self.removal.image == "mean" else self.batch_size * tokens // kept


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


def _filled(image: Tensor | None, text: Tensor | None, image_shape: torch.Size, valid: Tensor) -> tuple[Tensor, Tensor]:
    """Masks of both modalities, [B, M, 1 + P] and [B, M, n_t], without the text's padding."""
    several = next((mask.shape[1] for mask in (image, text) if mask is not None), 1)
    if image is None:
        image = valid.new_ones(image_shape)[:, None].expand(-1, several, -1)
    words = valid[:, None].expand(-1, several, -1)
    return image, words if text is None else words & text


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


@dataclass(frozen=True, eq=False)
class QuestionSamples:
    """B questions, read as they are; ``accuracies`` are those known so far, by question and answer."""

    questions: Sequence[Question]
    inputs: CachedInputs
    accuracies: dict[tuple[int, int], float] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class VQAReader:
    """Implements ``Reader``.

    Its values are ``correct``, the soft VQA accuracy of the answer given, and ``probability``, that of the answer asked
    about.
    """

    engine: Engine

    def samples(self, batch: QuestionBatch) -> QuestionSamples:
        """Reads the questions as they are."""
        return QuestionSamples(batch.questions, self.engine.cache(batch.pixels, batch.text))

    def read(self, samples: QuestionSamples, subsets: Subsets, asked: Tensor) -> SubsetOutputs:
        """The answers to every subset; ``asked``: int [B]."""
        device = samples.inputs.pixels.device
        image, text = (None if m is None else torch.from_numpy(m).to(device) for m in (subsets.image, subsets.text))
        if image is not None:  # the class token stays in every subset
            image = torch.cat([image.new_ones(*image.shape[:2], 1), image], 2)
        found = self.engine.read(samples.inputs, image, text, asked)
        preferred = found.answers.cpu().numpy()
        values: Mapping[str, Array] = {
            "correct": self._correct(samples, preferred),
            "probability": found.probability.double().cpu().numpy(),
        }
        return SubsetOutputs(np.array(self.engine.model.answers, dtype=object)[preferred], values, "probability")

    def _correct(self, samples: QuestionSamples, preferred: NDArray[np.intp]) -> Array:
        """The soft accuracy of every answer given, [B, M]."""
        correct = np.empty(preferred.shape)
        for b, answers in enumerate(preferred):
            for answer in np.unique(answers):
                correct[b, answers == answer] = self._accuracy(samples, b, int(answer))
        return correct

    def _accuracy(self, samples: QuestionSamples, b: int, answer: int) -> float:
        if (b, answer) not in samples.accuracies:
            spelt = self.engine.model.answers[answer]
            samples.accuracies[b, answer] = vqa_accuracy(spelt, samples.questions[b].answers)
        return samples.accuracies[b, answer]
