"""Explanations of CLIPmapper's answers: the explainers that a config names, on batches of questions."""

from __future__ import annotations

import difflib
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from clipmapper.errors import UserError
from clipmapper.tasks.vqa.config import ExplainConfig
from clipmapper.tasks.vqa.model import CLIPMapperVQA
from clipmapper.tasks.vqa.tracing import Traced, trace_vqa
from clipmapper.tasks.vqa.trained import QuestionBatch
from explain import Explainer, Needs, TraceError
from explain.targets import Target, given, margin, predicted


@dataclass(frozen=True, eq=False)
class Explained:
    """A traced batch and the scores [B, N] of its read-out tokens, by explainer."""

    traced: Traced
    scores: Mapping[str, Tensor]


def explain(
    model: CLIPMapperVQA,
    batch: QuestionBatch,
    explainers: Mapping[str, Explainer],
    target: Target = predicted,
    sample_ids: Sequence[int | str] | None = None,
    checkpoint: Path | None = None,
    more: Needs | None = None,
) -> Explained:
    """Compute the scores of every explainer from one trace of the batch.

    Args:
        model: In evaluation mode.
        batch: B questions.
        explainers: By name.
        target: The logit that is explained.
        sample_ids: Names of the questions, for what is drawn at random; by default their ids.
        checkpoint: Where the model came from, for the error; None names the questions.
        more: What the trace holds besides what the explainers need.

    Raises:
        UserError: the trace holds NaN or Inf, or lacks what an explainer needs.
    """
    needs = Needs.of(explainers.values()) | (more or Needs())
    names = batch.ids if sample_ids is None else sample_ids
    try:
        traced = trace_vqa(model, batch.pixels, batch.text, target, needs, names, batch.picture_ids)
        return Explained(traced, {name: each(traced.trace, traced.rows) for name, each in explainers.items()})
    except TraceError as error:
        what = checkpoint or f"questions {batch.ids[0]} to {batch.ids[-1]}"
        raise UserError(f"{what} can't be explained: {error}") from error


@dataclass(frozen=True)
class Aim:
    """Which logit is explained: that of ``answer``, None for the predicted one; less that of ``against``."""

    answer: int | None = None
    against: int | None = None

    @classmethod
    def of(cls, config: ExplainConfig, answers: tuple[str, ...]) -> Aim:
        """Raises ``UserError`` for an answer that the model does not know."""
        return cls(_place(answers, "answer", config.answer), _place(answers, "against", config.against))

    def target(self, model: CLIPMapperVQA, batch: QuestionBatch) -> Target:
        """The same answers in every pass; where the predicted one is ``against`` itself, y is 0."""
        if self.against is None:
            return predicted if self.answer is None else given(self.answer)
        if self.answer is not None:
            return margin(self.answer, self.against)
        with torch.no_grad():
            answers = model(batch.pixels, batch.text).argmax(1)
        for row in (answers == self.against).nonzero()[:, 0].tolist():
            what = f"question {batch.ids[row]}: the answer is {model.answers[self.against]} itself"
            print(f"{what}, so against={model.answers[self.against]} leaves nothing to explain", file=sys.stderr)
        return margin(answers, self.against)


def _place(answers: tuple[str, ...], key: str, answer: str | None) -> int | None:
    if answer is None or answer in answers:
        return None if answer is None else answers.index(answer)
    close = difflib.get_close_matches(answer.lower(), answers, n=3)
    hint = f"close to it: {', '.join(close)}" if close else f"it knows {', '.join(answers[:5])}, …"
    raise UserError(f"{key}={answer} is none of the model's {len(answers)} answers; {hint}")
