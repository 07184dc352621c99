"""Answers under the randomisation test: the untouched model's answers are explained, whatever becomes of the model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from clipmapper.config.explain import SubjectConfig
from clipmapper.tasks.vqa.explaining import explain
from clipmapper.tasks.vqa.model import CLIPMapperVQA
from clipmapper.tasks.vqa.trained import QuestionBatch, Subject, load_subject
from explain import Explainer
from explain.targets import given
from perturbation.measures.base import ScoredBy, TokenScores

MODALITIES = ("image", "text")
UNIT = "questions"  # what messages call the samples


@dataclass(frozen=True, eq=False)
class FixedAnswers:
    """Questions, and the answers [B] that are explained."""

    batch: QuestionBatch
    answers: Tensor

    @property
    def ids(self) -> list[int]:
        """The questions' ids."""
        return self.batch.ids


def load(config: SubjectConfig) -> Subject:
    """The model, and the questions of the config's split."""
    return load_subject(config, config.split, config.checkpoint)


@torch.no_grad()
def fixed(trained: Subject, rows: Sequence[int]) -> FixedAnswers | None:
    """The questions of these rows with the model's answers; None where none of their pictures can be read."""
    batch = trained.batch(rows)
    return None if batch is None else FixedAnswers(batch, trained.model(batch.pixels, batch.text).argmax(1))


def explained(
    model: CLIPMapperVQA, samples: FixedAnswers, explainers: Mapping[str, Explainer], names: Sequence[int | str]
) -> dict[str, TokenScores]:
    """By modality, which tokens take part and their scores by explainer.

    ``names`` are those of the samples, for what is drawn at random.
    """
    found = explain(model, samples.batch, explainers, given(samples.answers), names)
    traced = found.traced
    return {
        modality: TokenScores(
            traced.scores(traced.removable, modality).cpu().numpy(),
            {
                ScoredBy(name): traced.scores(each, modality).cpu().double().numpy()
                for name, each in found.scores.items()
            },
        )
        for modality in MODALITIES
    }
