"""Batches of cached features with soft targets, in an order that is a function of the seed and the step alone."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, Sampler

from clipmapper.data.answers import AnswerVocabulary, soft_targets
from clipmapper.data.records import Question, VQAData
from clipmapper.features.frozen import FrozenFeatures
from clipmapper.tokens import Tokens


@dataclass
class VQABatch:
    """``targets`` [B, answers] soft scores; ``rows`` [B] the questions' places in their data set."""

    image: Tokens
    text: Tokens
    targets: Tensor
    rows: Tensor

    def to(self, device: torch.device) -> VQABatch:
        return VQABatch(self.image.to(device), self.text.to(device), self.targets.to(device), self.rows.to(device))


class VQADataset(Dataset[VQABatch]):
    """The questions whose picture could be read; fetched a whole batch at a time."""

    def __init__(
        self,
        data: VQAData,
        images: FrozenFeatures,
        texts: FrozenFeatures,
        vocabulary: AnswerVocabulary,
        sees: str = "both",
    ):
        """``sees="question"`` shows every question with one and the same picture, ``"image"`` the reverse."""
        self.questions: tuple[Question, ...] = tuple(q for q in data.questions if q.image_id not in images.missing)
        self.left_out: tuple[Question, ...] = tuple(q for q in data.questions if q.image_id in images.missing)
        if self.left_out:
            print(f"{len(self.left_out)} questions are left out: their images could not be read", file=sys.stderr)
        self._images, self._texts = images, texts
        self._image_places = np.array([images.place[q.image_id] for q in self.questions], np.int64)
        self._text_places = np.array([texts.place[q.question] for q in self.questions], np.int64)
        if sees == "question":
            self._image_places[:] = self._image_places.min()
        if sees == "image":
            self._text_places[:] = 0
        self._targets = [soft_targets(q, vocabulary) for q in self.questions]
        self._answers = len(vocabulary)

    @property
    def without_target(self) -> int:
        """Questions none of whose answers is in the vocabulary; they train towards no answer."""
        return sum(not targets for targets in self._targets)

    def __len__(self) -> int:
        return len(self.questions)

    def __getitem__(self, rows: list[int]) -> VQABatch:
        places = np.asarray(rows, np.int64)
        targets = torch.zeros(len(rows), self._answers)
        for k, row in enumerate(rows):
            for answer, score in self._targets[row].items():
                targets[k, answer] = score
        image = self._images.gather(self._image_places[places])
        text = self._texts.gather(self._text_places[places])
        return VQABatch(image, text, targets, torch.from_numpy(places))


class StepSampler(Sampler[list[int]]):
    """One batch a training step, from step ``start`` to ``stop``; batch s is the same however training got there.

    Every epoch is a fresh permutation; a batch may span two epochs. With several processes each takes its share of
    every batch.
    """

    def __init__(self, size: int, batch_size: int, stop: int, seed: int, rank: int = 0, world: int = 1):
        self.size, self.batch_size, self.stop, self.seed = size, batch_size, stop, seed
        self.rank, self.world = rank, world
        self.start = 0

    def __len__(self) -> int:
        return self.stop

    def __iter__(self) -> Iterator[list[int]]:
        for step in range(self.start, self.stop):
            places = range(step * self.batch_size + self.rank, (step + 1) * self.batch_size, self.world)
            yield [int(self._order(place // self.size)[place % self.size]) for place in places]

    def _order(self, epoch: int) -> np.ndarray:
        if getattr(self, "_epoch", None) != epoch:
            self._epoch = epoch
            self._permutation = np.random.default_rng((self.seed, epoch)).permutation(self.size)
        return self._permutation


def in_order(size: int, batch_size: int) -> list[list[int]]:
    """Every row once, for evaluation."""
    return [list(range(start, min(start + batch_size, size))) for start in range(0, size, batch_size)]
