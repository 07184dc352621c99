"""Typed schemas of the configs for captioning."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, get_args

from clipmapper.config.explain import PictureConfig
from clipmapper.config.fields import choice, real, text, whole
from clipmapper.config.schema import TaskConfig
from clipmapper.errors import UserError

Weighting = Literal["equal", "bleu4", "cider", "meteor"]
WEIGHTINGS: tuple[str, ...] = get_args(Weighting)


@dataclass
class CaptionTaskConfig(TaskConfig):
    """Config group ``task`` for captioning.

    - ``sees``: what the model gets, both | text; with text, all captions get the same image.
    - ``vocabulary``: tokens that can be generated: training (those of the training captions) | all (all of CLIP's).
    - ``max_length``: greatest number of sub-words of a generated caption.
    - ``label_smoothing``: label smoothing of the training loss, at least 0 and less than 1.
    - ``val_images``: number of images captioned at every validation, for their CIDEr.
    - ``best_by``: what chooses the best checkpoint at validation: accuracy (of the next token) | CIDEr.
    """

    sees: str = choice("both", "text")
    vocabulary: str = choice("training", "all")
    max_length: int = whole(1, 1000)
    label_smoothing: float = real(0, 1, below=True)
    val_images: int = whole(1)
    best_by: str = choice("accuracy", "CIDEr")

    @property
    def monitor(self) -> str:
        """The logged value whose maximum chooses the best checkpoint."""
        return f"val/{self.best_by}"

    def identity(self) -> dict[str, Any]:
        """Return what identifies the task in a checkpoint: what all tasks share, and the kind of vocabulary."""
        return {**super().identity(), "vocabulary": self.vocabulary}


@dataclass
class ExplainCaptionConfig(PictureConfig):
    """Config of ``scripts/explain.py`` for captions.

    - ``select``: which images' captions are explained: random | ids.
    - ``weighting``: weights of the words in the explanation of the whole caption (Huang et al. 2023, Eq. 21): equal |
      bleu4 | cider | meteor.
    - ``against``: a word whose logit is subtracted from that of each word, to explain why the word and not this one;
      null for none.
    - ``batch_size``: approximate number of sub-words explained at a time.
    """

    select: str = choice("random", "ids")
    weighting: Any = choice(*WEIGHTINGS)
    against: str | None = text()

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.image is not None and self.weighting != "equal":
            raise UserError(
                f"weighting={self.weighting} needs reference captions, which image=… does not have; "
                "give weighting=equal"
            )
        self._check_ids("image")
