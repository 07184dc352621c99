"""Typed schemas of the tasks' configs."""

from __future__ import annotations

from dataclasses import dataclass, field

from omegaconf import MISSING

from clipmapper.config_checks import at_least, one_of
from clipmapper.errors import UserError


@dataclass
class OptimConfig:
    """``adam`` (the paper's) or ``muon`` (``clipmapper.optimizer``), with a linear warm-up, a constant stretch, and a
    cosine decay from ``decay_start`` to the last step."""

    name: str = "adam"
    lr: float = MISSING
    batch_size: int = MISSING
    warmup_steps: int = MISSING
    decay_start: int = MISSING
    weight_decay: float = 0.0

    def __post_init__(self) -> None:
        one_of("task.optim.name", self.name, ("adam", "muon"))
        steps = {"warmup_steps": self.warmup_steps, "decay_start": self.decay_start}
        at_least(0, "task.optim", lr=self.lr, weight_decay=self.weight_decay, **steps)
        at_least(1, "task.optim", batch_size=self.batch_size)


@dataclass
class TaskConfig:
    """What every task has.

    ``sees`` is both, or the one modality that a blind baseline sees, with one constant in place of the other.
    ``steps`` and ``validate_every`` are the trainer's ``max_steps`` and ``val_check_interval`` unless it has its own.
    """

    name: str = MISSING
    sees: str = "both"
    steps: int = MISSING
    validate_every: int = MISSING
    optim: OptimConfig = field(default_factory=OptimConfig)

    def __post_init__(self) -> None:
        at_least(1, "task", steps=self.steps, validate_every=self.validate_every)


@dataclass
class VQATaskConfig(TaskConfig):
    """``sees``: both | question | image."""

    def __post_init__(self) -> None:
        super().__post_init__()
        one_of("task.sees", self.sees, ("both", "question", "image"))


@dataclass
class CaptionTaskConfig(TaskConfig):
    """``sees``: both | text, a language model that looks at one constant image.

    ``vocabulary``: training, the tokens of the training captions, or all of CLIP's; ``max_length``: sub-words of a
    generated caption at most; ``val_images``: images that are captioned at every validation, whose CIDEr chooses the
    best checkpoint.
    """

    vocabulary: str = "training"
    max_length: int = 30
    label_smoothing: float = 0.0
    val_images: int = 500

    def __post_init__(self) -> None:
        super().__post_init__()
        one_of("task.sees", self.sees, ("both", "text"))
        one_of("task.vocabulary", self.vocabulary, ("training", "all"))
        at_least(1, "task", max_length=self.max_length, val_images=self.val_images)
        if not 0 <= self.label_smoothing < 1:
            raise UserError(f"task.label_smoothing={self.label_smoothing} must be 0 or more and less than 1")


TASK_SCHEMAS: dict[str, type[TaskConfig]] = {"vqa": VQATaskConfig, "caption": CaptionTaskConfig}
