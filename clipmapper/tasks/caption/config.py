"""Typed schemas of captioning's configs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, get_args

from omegaconf import MISSING

from clipmapper.config.checks import at_least, one_of
from clipmapper.config.explain import PictureConfig
from clipmapper.config.schema import TaskConfig
from clipmapper.errors import UserError

Weighting = Literal["equal", "bleu4", "cider", "meteor"]
WEIGHTINGS: tuple[str, ...] = get_args(Weighting)


@dataclass
class CaptionTaskConfig(TaskConfig):
    """``sees``: both | text, a language model that looks at one constant image.

    ``vocabulary``: training, the tokens of the training captions, or all of CLIP's; ``max_length``: sub-words of a
    generated caption at most; ``val_images``: images that are captioned at every validation, whose CIDEr chooses the
    best checkpoint.
    """

    vocabulary: str = MISSING
    max_length: int = MISSING
    label_smoothing: float = MISSING
    val_images: int = MISSING

    def __post_init__(self) -> None:
        super().__post_init__()
        one_of("task.sees", self.sees, ("both", "text"))
        one_of("task.vocabulary", self.vocabulary, ("training", "all"))
        at_least(1, "task", max_length=self.max_length, val_images=self.val_images)
        if not 0 <= self.label_smoothing < 1:
            raise UserError(f"task.label_smoothing={self.label_smoothing} must be 0 or more and less than 1")

    def identity(self) -> dict[str, Any]:
        """What every task has, and the tokens that a caption can be made of."""
        return {**super().identity(), "vocabulary": self.vocabulary}


@dataclass
class ExplainCaptionConfig(PictureConfig):
    """Whose captions are explained.

    ``select``: random | ids of images. ``weighting``: how much each word counts for the whole caption, equal | bleu4 |
    cider | meteor (Eq. 21). ``against``: each word is explained less this one, why it and not that. Some
    ``batch_size`` sub-words of captions are explained at a time.
    """

    weighting: Any = MISSING  # one of a few words: checked below
    against: str | None = MISSING

    def __post_init__(self) -> None:
        super().__post_init__()
        one_of("select", self.select, ("random", "ids"))
        one_of("weighting", self.weighting, WEIGHTINGS)
        if self.image is not None and self.weighting != "equal":
            raise UserError(
                f"weighting={self.weighting} takes reference captions, which a picture of one's own lacks: "
                "give weighting=equal"
            )
        self._check_ids("image")
