"""Reads CLIPmapper's answers on token subsets for the measures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from clipmapper.data.records import Question
from clipmapper.metrics.vqa import vqa_accuracy
from clipmapper.tasks.vqa.trained import QuestionBatch
from perturbation.arrays import Array
from perturbation.removal.engine import CachedInputs, Engine
from perturbation.removal.reader import SubsetOutputs, Subsets


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
