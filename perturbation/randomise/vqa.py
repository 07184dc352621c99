"""Answers in the model randomisation test.

The answers of the original model are explained throughout, also after layers are randomised.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from clipmapper.choice import describe
from clipmapper.config.explain import ExplainedConfig
from clipmapper.tasks.vqa.explaining import explain
from clipmapper.tasks.vqa.model import CLIPMapperVQA
from clipmapper.tasks.vqa.tracing import trace_vqa
from clipmapper.tasks.vqa.trained import QuestionBatch, TrainedVQA, load_trained, question_batch
from explain import AttentionTrace, Explainer, Needs
from explain.targets import given
from perturbation.measures.base import ScoredBy, TokenScores
from perturbation.randomise.layers import layers_from_the_top

MODALITIES = ("image", "text")
UNIT = "questions"  # word for the samples in messages


@dataclass(frozen=True, eq=False)
class FixedAnswers:
    """A batch of questions, and the answers to explain, int [B]."""

    batch: QuestionBatch
    answers: Tensor

    @property
    def ids(self) -> list[int]:
        """Ids of the questions."""
        return self.batch.ids

    @property
    def picture_ids(self) -> list[int]:
        """Image id of each question."""
        return self.batch.picture_ids

    @property
    def items(self) -> list[int]:
        """Ids of the questions, each of which is one item of a trace."""
        return self.batch.ids


layers = layers_from_the_top


def name_of(trained: TrainedVQA) -> str:
    """Return the checkpoint, with what is known about its training."""
    return f"checkpoint: {describe(trained.checkpoint)}"


def load(config: ExplainedConfig) -> TrainedVQA:
    """Load the model and the questions of the config's split."""
    return load_trained(config, config.split, config.checkpoint)


def usable(
    trained: TrainedVQA, chosen: Sequence[FixedAnswers], explainers: Mapping[str, Explainer]
) -> Mapping[str, Explainer]:
    """Return the explainers that can explain the model: all."""
    return explainers


@torch.no_grad()
def fixed(trained: TrainedVQA, rows: Sequence[int]) -> FixedAnswers | None:
    """Return the questions of these rows with the model's answers, or None if none of their images is readable."""
    batch = trained.batch(rows)
    return None if batch is None else FixedAnswers(batch, trained.model(batch.pixels, batch.text).argmax(1))


def explained(
    model: CLIPMapperVQA, samples: FixedAnswers, explainers: Mapping[str, Explainer], names: Sequence[int | str]
) -> dict[str, TokenScores]:
    """Explain the answers and return the tokens' scores by modality.

    Args:
        model: The VQA model.
        samples: The questions and the answers to explain.
        explainers: Explainers by name.
        names: Names of the samples, from which explainers seed their random draws.
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


def trace(model: CLIPMapperVQA, chosen: Sequence[FixedAnswers], ids: Sequence[int], needs: Needs) -> AttentionTrace:
    """Trace the questions with these ids, which may be of several batches."""
    places = {number: (batch, place) for batch in chosen for place, number in enumerate(batch.ids)}
    found = [places[number] for number in ids]
    questions, images = zip(*((each.batch.questions[k], each.batch.images[k]) for each, k in found), strict=True)
    answers = torch.stack([each.answers[k] for each, k in found])
    batch = question_batch(model, questions, images)
    return trace_vqa(model, batch.pixels, batch.text, given(answers), needs, batch.ids, batch.picture_ids).trace
