"""The reader of any model: cells of the image and words of the text are removed, and the model reads the new pair."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import numpy as np
import torch
from PIL import Image

from clipmapper.errors import UserError
from perturbation.arrays import Array, Mask
from perturbation.pairs.samples import Pair
from perturbation.pairs.scorers.base import PartOfImage, Scored, Scorer
from perturbation.pairs.units import Units, without_words
from perturbation.removal.filling import Fill, Filler, check_fill
from perturbation.removal.reader import SubsetOutputs, Subsets

CellRemoval = Fill | Literal["mask"]
WordRemoval = Literal["drop", "mask", "pad"]
Kept = tuple[int, bytes, bytes]  #: a sample's place, and its kept cells and words


@dataclass(frozen=True, eq=False)
class ReadPairs:
    """B samples with their removable parts, and what was read of them so far."""

    pairs: Sequence[Pair]
    units: Sequence[Units]
    fillers: Sequence[Filler | None]  #: None without an image, or if its tokens are removed
    found: dict[Kept, tuple[str, float]] = field(default_factory=dict)


class PairReader:
    """A model that reads subsets of cells and words; implements ``Reader``.

    Its first value is ``correct``, the accuracy of the model's answer, if people's answers are known and the model
    gives answers. Its response is the scorer's value.

    Args:
        scorer: The model.
        fill: What is seen in the place of removed cells; or ``mask``, if the model reads only the tokens of the others.
        words: ``drop`` leaves removed words out; ``mask`` and ``pad`` put the tokenizer's token in their places.
        batch_size: Number of pairs that are read together. It is halved when they do not fit into memory.
        correct: Whether people's answers to all samples are known.

    Raises:
        UserError: The tokenizer has no such token, or the model cannot read some patches of an image alone.
    """

    def __init__(self, scorer: Scorer, fill: CellRemoval, words: WordRemoval, batch_size: int, correct: bool) -> None:
        if fill == "mask" and not scorer.drops:
            raise UserError("removal of cells: this model cannot read an image without some of its tokens; choose mean")
        if fill != "mask":
            check_fill(fill)
        if words not in get_args(WordRemoval):
            raise UserError(f"removal of words: {words} is not one of: {', '.join(get_args(WordRemoval))}")
        if words != "drop" and words not in scorer.tokens:
            raise UserError(f"removal of words: the tokenizer has no {words} token; choose drop")
        self.scorer, self.fill, self.batch_size = scorer, fill, batch_size
        self.correct = correct and scorer.answers
        self.replacement = None if words == "drop" else scorer.tokens[words]

    def ask(self, pairs: Sequence[Pair]) -> list[Any]:
        """Return what is asked about each complete pair, such as the answer whose probability is read.

        Raises:
            UserError: The model fails.
        """
        with _failures_told(pairs):
            return self.scorer.ask(pairs)

    def samples(self, pairs: Sequence[Pair], units: Sequence[Units], seed: int) -> ReadPairs:
        """Return samples with the means to remove parts of them, of which nothing was read so far."""
        self.scorer.keep(pairs)
        fillers = [self._filler(pair, each, seed) for pair, each in zip(pairs, units, strict=True)]
        return ReadPairs(pairs, units, fillers)

    def _filler(self, pair: Pair, units: Units, seed: int) -> Filler | None:
        if pair.image is None or self.fill == "mask":
            return None
        return Filler(_colours(pair.image), units.boxes, self.fill, f"{seed}/{pair.id}")

    def read(self, samples: ReadPairs, subsets: Subsets, asked: Sequence[Any]) -> SubsetOutputs:
        """Read every subset; one that was read before is not read again.

        Args:
            samples: B samples, from :meth:`samples`.
            subsets: M subsets of the cells and words of each; those of padding are ignored.
            asked: What the scorer's ``ask`` returned for each sample.

        Raises:
            UserError: The model fails, or its value of a pair is NaN or infinite.
        """
        wanted = [self._kept(samples, subsets, b) for b in range(len(samples.pairs))]
        new = list(dict.fromkeys(key for row in wanted for key in row if key not in samples.found))
        images: dict[tuple[int, bytes], Image.Image | PartOfImage | None] = {}
        while new:
            batch = new[: self.batch_size]
            scored = self._scored(samples, batch, asked, images)
            if scored is None:
                continue
            samples.found.update(zip(batch, zip(scored.said, scored.value.tolist(), strict=True), strict=True))
            new = new[len(batch) :]
        said = np.array([[samples.found[key][0] for key in row] for row in wanted], dtype=object)
        values = {self.scorer.value: np.array([[samples.found[key][1] for key in row] for row in wanted])}
        if self.correct:
            values = {"correct": _accuracies(samples.pairs, said), **values}
        return SubsetOutputs(said, values, self.scorer.value)

    def _kept(self, samples: ReadPairs, subsets: Subsets, b: int) -> list[Kept]:
        """Return the key of each subset of one sample."""
        units = samples.units[b]
        cells = _rows(subsets.image, b, len(units.boxes), subsets.count)
        words = _rows(subsets.text, b, len(units.words), subsets.count)
        return [(b, seen.tobytes(), read.tobytes()) for seen, read in zip(cells, words, strict=True)]

    def _scored(
        self,
        samples: ReadPairs,
        batch: Sequence[Kept],
        asked: Sequence[Any],
        images: dict[tuple[int, bytes], Image.Image | PartOfImage | None],
    ) -> Scored | None:
        """Return the model's answers and values for a batch of subsets; None if the batch was halved (memory)."""
        for b, seen, _ in batch:
            if (b, seen) not in images:
                images[b, seen] = _without_cells(samples, b, seen)
        shown = [images[b, seen] for b, seen, _ in batch]
        texts = [self._text(samples, b, read) for b, _, read in batch]
        with _failures_told(samples.pairs[b] for b, *_ in batch):
            try:
                scored = self.scorer.score(shown, texts, [asked[b] for b, *_ in batch], self.correct)
            except torch.OutOfMemoryError as error:
                if self.batch_size == 1:
                    raise UserError("the model does not fit into memory, even with one pair at a time") from error
                self.batch_size = max(1, self.batch_size // 2)
                print(f"out of memory: from here on, {self.batch_size} pairs are read together", file=sys.stderr)
                return None
        if not np.isfinite(scored.value).all():
            b = batch[int(np.argmin(np.isfinite(scored.value)))][0]
            raise UserError(f"sample {samples.pairs[b].id}: the model's {self.scorer.value} is NaN or infinite")
        return scored

    def _text(self, samples: ReadPairs, b: int, read: bytes) -> str | None:
        text = samples.units[b].text
        if text is None:
            return None
        return without_words(text, samples.units[b].words, np.frombuffer(read, dtype=np.bool_), self.replacement)


@contextmanager
def _failures_told(pairs: Iterable[Pair]) -> Iterator[None]:
    """Turn any error of a model into a UserError that names the pairs which it read."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:  # models raise whatever they like
        numbers = sorted({pair.id for pair in pairs})
        line = str(error).strip().split("\n")[0]
        raise UserError(f"samples {numbers}: the model failed: {type(error).__name__}: {line}") from error


def _colours(image: Image.Image) -> Array:
    """Return the colours of an RGB image from 0 to 1, [H, W, 3]."""
    return np.asarray(image, dtype=np.float64) / 255


def _without_cells(samples: ReadPairs, b: int, seen: bytes) -> Image.Image | PartOfImage | None:
    image, filler, kept = samples.pairs[b].image, samples.fillers[b], np.frombuffer(seen, dtype=np.bool_)
    if image is None or kept.all():
        return image
    return PartOfImage(image, kept) if filler is None else filler.image_without(kept)


def _rows(masks: Mask | None, b: int, count: int, subsets: int) -> Mask:
    """Return one sample's kept masks without padding, [M, count]."""
    return np.ones((subsets, count), dtype=np.bool_) if masks is None else masks[b, :, :count]


def _accuracies(pairs: Sequence[Pair], said: np.ndarray) -> Array:
    """Return the accuracy of every answer, [B, M]."""
    known = [{answer: pair.accuracy(answer) for answer in set(row)} for pair, row in zip(pairs, said, strict=True)]
    return np.array([[of[answer] for answer in row] for of, row in zip(known, said, strict=True)], dtype=np.float64)
