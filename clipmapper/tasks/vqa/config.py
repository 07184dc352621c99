"""Typed schemas of the configs for VQA."""

from __future__ import annotations

from dataclasses import dataclass

from omegaconf import MISSING

from clipmapper.config.explain import PictureConfig
from clipmapper.config.fields import choice, text
from clipmapper.config.schema import TaskConfig
from clipmapper.errors import UserError


@dataclass
class VQATaskConfig(TaskConfig):
    """Config group ``task`` for VQA.

    ``sees``: what the model gets, both | question | image; the other input is then the same for all questions.
    """

    sees: str = choice("both", "question", "image")


@dataclass
class ExplainConfig(PictureConfig):
    """Config of ``scripts/explain.py`` for VQA.

    - ``select``: which questions are explained: random | wrong | ids.
    - ``question``: the question about the user's ``image``.
    - ``answer``: the answer whose logit is explained; null for the predicted answer.
    - ``against``: an answer whose logit is subtracted from it; null for none.
    - ``interaction``: whether figures of the modality interaction are drawn.
    - ``batch_size``: number of questions explained at a time.
    """

    select: str = choice("random", "wrong", "ids")
    question: str | None = text()
    answer: str | None = text()
    against: str | None = text()
    interaction: bool = MISSING

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.answer is not None and self.answer == self.against:
            raise UserError(
                f"answer={self.answer} against={self.against} are the same answer; give two different ones, or only one"
            )
        if (self.image is None) != (self.question is None):
            given, lacking = ("image", "question") if self.question is None else ("question", "image")
            raise UserError(f"{given}=… without {lacking}=…; give both")
        if self.question is not None and not self.question.strip():
            raise UserError("question= is empty; give a question")
        self._check_ids("question")
