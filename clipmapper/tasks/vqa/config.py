"""Typed schemas of VQA's configs."""

from __future__ import annotations

from dataclasses import dataclass

from omegaconf import MISSING

from clipmapper.config.checks import one_of
from clipmapper.config.explain import PictureConfig
from clipmapper.config.schema import TaskConfig
from clipmapper.errors import UserError


@dataclass
class VQATaskConfig(TaskConfig):
    """``sees``: both | question | image."""

    def __post_init__(self) -> None:
        super().__post_init__()
        one_of("task.sees", self.sees, ("both", "question", "image"))


@dataclass
class ExplainConfig(PictureConfig):
    """Whose answers are explained, and which answer.

    ``select``: random | wrong | ids of questions; one's own ``image`` has a ``question``. ``answer``: which answer's
    logit is explained, null for the predicted one; ``against``: less this answer's. ``batch_size`` questions
    are explained at a time.
    """

    question: str | None = MISSING
    answer: str | None = MISSING
    against: str | None = MISSING
    interaction: bool = MISSING

    def __post_init__(self) -> None:
        super().__post_init__()
        one_of("select", self.select, ("random", "wrong", "ids"))
        if self.answer is not None and self.answer == self.against:
            raise UserError(f"answer={self.answer} against={self.against} are one answer; give two, or one of them")
        if (self.image is None) != (self.question is None):
            given, lacking = ("image", "question") if self.question is None else ("question", "image")
            raise UserError(f"{given}=… without {lacking}=…; give both")
        if self.question is not None and not self.question.strip():
            raise UserError("question= is empty; ask something")
        self._check_ids("question")
