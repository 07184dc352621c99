"""The schemas of commands that explain a trained model; the first is what they share."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from clipmapper.config import Config
from clipmapper.config_checks import one_of
from clipmapper.errors import UserError


@dataclass
class SubjectConfig(Config):
    """Whose answers are explained, by what: ``checkpoint`` null is the newest that fits, ``split`` the data's."""

    explainer: dict[str, Any] = field(default_factory=dict)
    checkpoint: str | None = None
    split: str = "test"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.task.sees != "both":
            raise UserError(f"task.sees={self.task.sees}: only models that see both are explained; give task.sees=both")


@dataclass
class PictureConfig(SubjectConfig):
    """What is explained, and how the pictures look, for any task.

    ``select``: which ``samples`` of ``split``, or those of ``ids``; or one's own ``image``. ``overlay``: bilinear |
    patches; ``scale``: each | common; ``formats``: png, pdf.
    """

    select: str = "random"
    samples: int = 8
    ids: list[int] = field(default_factory=list)
    image: str | None = None
    overlay: Any = "bilinear"  # one of a few words: checked below
    scale: Any = "each"
    formats: list[str] = field(default_factory=lambda: ["png", "pdf"])

    def __post_init__(self) -> None:
        super().__post_init__()
        one_of("overlay", self.overlay, ("bilinear", "patches"))
        one_of("scale", self.scale, ("each", "common"))
        for name in self.formats:
            one_of("formats", name, ("png", "pdf"))
        if not self.formats:
            raise UserError("formats=[] writes no pictures; give png, pdf or both")
        if self.samples < 1:
            raise UserError(f"samples={self.samples} must be 1 or more")
        if self.image is not None and self.ids:
            raise UserError("image=… and ids=… are two choices; give one")

    def _check_ids(self, what: str) -> None:
        if (self.select == "ids") != bool(self.ids):
            missing = "ids=[…]" if not self.ids else "select=ids"
            raise UserError(f"{what} ids are taken with select=ids ids=[…]; {missing} is missing")


@dataclass
class ExplainConfig(PictureConfig):
    """Whose answers are explained, and which answer.

    ``select``: random | wrong | ids of questions; one's own ``image`` has a ``question``. ``answer``: which answer's
    logit is explained, null for the predicted one; ``against``: less this answer's. ``encoder.batch_size`` questions
    are explained at a time.
    """

    question: str | None = None
    answer: str | None = None
    against: str | None = None
    interaction: bool = False

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


@dataclass
class ExplainCaptionConfig(PictureConfig):
    """Whose captions are explained.

    ``select``: random | ids of images. ``weighting``: how much each word counts for the whole caption, equal | bleu4 |
    cider | meteor (Eq. 21). ``encoder.batch_size`` sub-words of captions are explained at a time.
    """

    weighting: Any = "equal"  # one of a few words: checked below

    def __post_init__(self) -> None:
        super().__post_init__()
        one_of("select", self.select, ("random", "ids"))
        one_of("weighting", self.weighting, ("equal", "bleu4", "cider", "meteor"))
        if self.image is not None and self.weighting != "equal":
            raise UserError(
                f"weighting={self.weighting} takes reference captions, which a picture of one's own lacks: "
                "give weighting=equal"
            )
        self._check_ids("image")


EXPLAIN_SCHEMAS: dict[str, type[PictureConfig]] = {"vqa": ExplainConfig, "caption": ExplainCaptionConfig}
