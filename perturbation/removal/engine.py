"""The VQA model without some tokens: it answers questions again from the kept tokens.

Every distinct subset of tokens is read once, and removed tokens are not computed. This only saves time: the results are
equal, up to rounding, to those of a separate full forward pass for each sample and subset in which nothing attends to
the removed tokens.
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
from perturbation.removal.pixels import ImageRemoval, PatchFiller, patch_filler
from perturbation.removal.reader import SubsetOutputs, Subsets


@dataclass(frozen=True)
class Removal:
    """The way in which a token is removed (docs/method.md, Perturbation tests).

    - ``mask``: nothing attends to the token, from the input of its encoder onwards; kept tokens keep their positions.
    - ``mean``, ``zero``, ``blur``, ``noise`` and ``noisy_linear`` (only for images): the pixels of the patch get other
      colours (:class:`~perturbation.removal.filling.Filler`), those of the photo as the encoder sees it
      (:class:`~perturbation.removal.pixels.PatchFiller`).
    - ``drop`` (only for text): the sub-word is deleted, and the positions of the others are numbered again.

    Random colours and noise depend only on ``seed`` and the id of the sample.
    """

    image: ImageRemoval = "mask"
    text: Literal["mask", "drop"] = "mask"
    seed: int = 0


@dataclass(frozen=True, eq=False)
class CachedInputs:
    """B samples read with nothing removed; the subsets of these samples are computed from the parts stored here."""

    pixels: Tensor  #: [B, 3, H, W]
    questions: TextBatch
    image_embedded: Tensor  #: [B, F + P, D_v], the input of the image encoder
    text_embedded: Tensor  #: [B, n_t, D_t], the input of the text encoder
    image: Stream  #: after the encoder and the part of the mapper that does not read the text
    text: Stream  #: after the encoder and the part of the mapper that does not read the image
    logits: Tensor  #: [B, answers]
    filler: PatchFiller | None  #: the fills of removed patches; None if nothing attends to removed patches

    @property
    def answers(self) -> Tensor:
        """The predicted answers, int [B]."""
        return self.logits.argmax(1)


@dataclass(frozen=True, eq=False)
class SubsetAnswers:
    """The model's outputs for M subsets of each of B samples."""

    answers: Tensor  #: the predicted answers, int [B, M]
    probability: Tensor  #: the probability of the answer asked about, [B, M]


@dataclass(frozen=True)
class Engine:
    """A VQA model that reads subsets of its tokens.

    It reads ``batch_size`` full samples at once, or more if patches are removed, so that a batch always has about the
    same number of tokens.
    """

    model: CLIPMapperVQA
    batch_size: int
    removal: Removal = Removal()

    @torch.inference_mode()
    def cache(self, pixels: Tensor, questions: TextBatch, ids: Sequence[int] = ()) -> CachedInputs:
        """Read the samples with nothing removed.

        Args:
            pixels: [B, 3, H, W].
            questions: B questions.
            ids: Ids of the B samples; the removals ``mask`` and ``mean`` need none.
        """
        encoder, mapper = self.model.encoder, self.model.trained.mapper
        image_embedded, text_embedded = encoder.vision.embed(pixels), encoder.text.embed(questions.ids)
        parts = []
        for rows in torch.arange(len(pixels)).split(self.batch_size):
            image = mapper.begin_image(encoder.vision.encode(image_embedded[rows]))
            words = TokenSubset.all_of(questions.valid[rows])
            text = mapper.begin_text(encoder.text.encode(text_embedded[rows], words))
            parts.append((image, text, self._finish(image, text)))
        images, texts, logits = zip(*parts, strict=True)
        streams = _concatenate(images), _concatenate(texts)
        filler = patch_filler(encoder.vision, pixels, self.removal.image, self.removal.seed, ids)
        return CachedInputs(pixels, questions, image_embedded, text_embedded, *streams, torch.cat(logits), filler)

    @torch.inference_mode()
    def read(self, inputs: CachedInputs, image: Tensor | None, text: Tensor | None, asked: Tensor) -> SubsetAnswers:
        """Read M subsets of the tokens of each sample.

        A modality from which a subset removes nothing is not computed again.

        Args:
            inputs: The samples, from ``cache``.
            image: Kept image tokens, bool [B, M, F + P]: the F tokens that are no patches, and P patches; None keeps
                all.
            text: Kept text tokens, bool [B, M, n_t]; values at padding are ignored; None keeps all.
            asked: int [B], the answers whose probability is returned.
        """
        valid = inputs.questions.valid
        image, text = _complete_masks(image, text, inputs.image_embedded.shape[:2], valid)
        owners, subsets, places = distinct(torch.cat([image, text], 2))
        image, text = subsets.split([image.shape[2], text.shape[2]], 1)
        answers, probability = inputs.answers[owners], _probability(inputs.logits, asked)[owners]
        image_removed, text_removed = (~image).any(1), (~text & valid[owners]).any(1)
        for removed, seen, read in (
            (image_removed & ~text_removed, image, None),
            (text_removed & ~image_removed, None, text),
            (image_removed & text_removed, image, text),
        ):
            for rows in self._batches(removed, seen, text):
                kept = (None if each is None else each[rows] for each in (seen, read))
                logits = self._logits(inputs, owners[rows], *kept)
                answers[rows], probability[rows] = logits.argmax(1), _probability(logits, asked[owners[rows]])
        return SubsetAnswers(answers[places], probability[places])

    def _logits(self, inputs: CachedInputs, owner: Tensor, image: Tensor | None, text: Tensor | None) -> Tensor:
        """Return the logits [U, answers] of U subsets; ``owner`` [U] are their samples; None keeps a modality whole."""
        mapper = self.model.trained.mapper
        if image is None:
            seen = _select_rows(inputs.image, owner)
        else:
            seen = mapper.begin_image(self._encode_image(inputs, owner, image))
        if text is None:
            read = _select_rows(inputs.text, owner)
        else:
            read = mapper.begin_text(self._encode_text(inputs, owner, text))
        return self._finish(seen, read)

    def _finish(self, image: Stream, text: Stream) -> Tensor:
        return self.model.trained.head(self.model.trained.mapper.finish(image, text))

    def _encode_image(self, inputs: CachedInputs, owner: Tensor, kept: Tensor) -> Tokens:
        return image_without(self.model.encoder.vision, inputs.image_embedded, owner, kept, inputs.filler)

    def _encode_text(self, inputs: CachedInputs, owner: Tensor, kept: Tensor) -> Tokens:
        text, subset = self.model.encoder.text, TokenSubset.from_mask(kept)
        if self.removal.text == "mask":
            return text.encode(inputs.text_embedded[owner], subset)
        left = self.model.encoder.closed_up(inputs.questions.ids[owner].gather(1, subset.index), subset.valid)
        return text.encode(text.embed(left.ids), TokenSubset.all_of(left.valid))

    def _batches(self, chosen: Tensor, image: Tensor | None, text: Tensor) -> Iterator[Tensor]:
        """Yield the indices of the chosen subsets in batches.

        The subsets of a batch keep the same number of patches, or the same number of sub-words if ``image`` is None.
        Subsets with the same number of patches are sorted by the length of their text, so that batches contain little
        padding.
        """
        words = text.sum(1)
        count = words if image is None else image.sum(1)
        order = torch.from_numpy(np.lexsort((words.cpu().numpy(), count.cpu().numpy()))).to(chosen.device)
        order = order[chosen[order]]
        lengths = count[order].unique_consecutive(return_counts=True)[1].tolist() if len(order) else []
        for same_count in order.split(lengths):
            size = self.batch_size if image is None else self.together(image.shape[1], int(count[same_count[0]]))
            yield from same_count.split(size)

    def together(self, tokens: int, kept: int) -> int:
        """Return how many subsets are read at once if each keeps ``kept`` of ``tokens`` image tokens.

        A batch has room for more subsets if each has fewer tokens; filled patches keep their number.
        """
        return self.batch_size * tokens // max(kept, 1) if self.removal.image == "mask" else self.batch_size


def image_without(
    vision: VisionTower, embedded: Tensor, owner: Tensor, kept: Tensor, filler: PatchFiller | None
) -> Tokens:
    """Encode U subsets of the patches of B images.

    Args:
        vision: The image encoder.
        embedded: [B, F + P, D], the input tokens of the encoder for the full images.
        owner: int [U], the image of each subset.
        kept: Kept tokens, bool [U, F + P].
        filler: The fills of removed patches; None if nothing attends to removed patches.
    """
    x = embedded[owner]
    if filler is None:
        return vision.encode(x, TokenSubset.from_mask(kept))
    filled = vision.embed(filler.fills(owner, kept[:, vision.first :]))
    return vision.encode(torch.where(kept[:, :, None], x, filled))


def with_first(kept: Tensor, vision: VisionTower) -> Tensor:
    """Put the tokens before the patches, such as the class token, which stay in every subset, in front of the patches.

    Args:
        kept: Kept patches, bool [..., P].
        vision: The image encoder.
    """
    return torch.cat([kept.new_ones(*kept.shape[:-1], vision.first), kept], -1)


def distinct(kept: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Find the distinct subsets of each sample.

    Args:
        kept: bool [B, M, n].

    Returns:
        For the U distinct pairs of a sample and a subset: the samples, int [U], and the subsets, bool [U, n]. The third
        tensor, int [B, M], is the index of each requested subset among them.
    """
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


def _complete_masks(
    image: Tensor | None, text: Tensor | None, image_shape: torch.Size, valid: Tensor
) -> tuple[Tensor, Tensor]:
    """Return kept masks of both modalities, [B, M, F + P] and [B, M, n_t]; the text's padding is False."""
    several = next((mask.shape[1] for mask in (image, text) if mask is not None), 1)
    if image is None:
        image = valid.new_ones(image_shape)[:, None].expand(-1, several, -1)
    words = valid[:, None].expand(-1, several, -1)
    return image, words if text is None else words & text


def _probability(logits: Tensor, answers: Tensor) -> Tensor:
    """Return the sigmoid of one answer's logit per sample: logits [B, answers], answers int [B] → [B]."""
    return logits.gather(1, answers[:, None])[:, 0].float().sigmoid()


def _select_rows(stream: Stream, rows: Tensor) -> Stream:
    """Return the samples with these indices, with the padding shortened to the longest of them."""
    valid = stream.valid[rows]
    longest = int(valid.sum(1).max())
    return Stream(stream.x[rows, :longest], valid[:, :longest])


def _concatenate(parts: tuple[Stream, ...]) -> Stream:
    return Stream(torch.cat([part.x for part in parts]), torch.cat([part.valid for part in parts]))


@dataclass(frozen=True, eq=False)
class QuestionSamples:
    """B questions, read with nothing removed."""

    questions: Sequence[Question]
    inputs: CachedInputs
    #: Cache of the accuracies computed so far, by the indices of question and answer.
    accuracies: dict[tuple[int, int], float] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class VQAReader:
    """The reader of a VQA model; implements ``Reader``.

    Its values are ``correct``, the soft VQA accuracy of the predicted answer, and ``probability``, the probability of
    the answer asked about. The response is ``probability``.
    """

    engine: Engine

    def samples(self, batch: QuestionBatch) -> QuestionSamples:
        """Read the questions with nothing removed."""
        return QuestionSamples(batch.questions, self.engine.cache(batch.pixels, batch.text, batch.ids))

    def read(self, samples: QuestionSamples, subsets: Subsets, asked: Tensor) -> SubsetOutputs:
        """Answer the questions on every subset.

        Args:
            samples: B questions.
            subsets: M subsets of the tokens of each.
            asked: int [B], the answers whose probability is returned.
        """
        device = samples.inputs.pixels.device
        image, text = (None if m is None else torch.from_numpy(m).to(device) for m in (subsets.image, subsets.text))
        if image is not None:
            image = with_first(image, self.engine.model.encoder.vision)
        found = self.engine.read(samples.inputs, image, text, asked)
        preferred = found.answers.cpu().numpy()
        values: Mapping[str, Array] = {
            "correct": self._accuracies(samples, preferred),
            "probability": found.probability.double().cpu().numpy(),
        }
        return SubsetOutputs(np.array(self.engine.model.answers, dtype=object)[preferred], values, "probability")

    def _accuracies(self, samples: QuestionSamples, preferred: NDArray[np.intp]) -> Array:
        """Return the soft accuracy of every predicted answer, [B, M]."""
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
