"""Config schema of the training of the small LLaVA."""

from __future__ import annotations

from dataclasses import dataclass

from omegaconf import MISSING

from clipmapper.config.checks import at_least
from clipmapper.config.schema import DataConfig, PathsConfig, ShapesConfig
from clipmapper.errors import UserError


@dataclass
class DecoderConfig:
    """The Llama decoder, whose width is that of the embedded encoder's shared space."""

    layers: int = MISSING
    heads: int = MISSING
    mlp_width: int = MISSING

    def __post_init__(self) -> None:
        at_least(1, "decoder", layers=self.layers, heads=self.heads, mlp_width=self.mlp_width)


@dataclass
class TrainLlavaConfig:
    """Config of the training of the small LLaVA."""

    data: DataConfig = MISSING
    decoder: DecoderConfig = MISSING
    steps: int = MISSING
    batch_size: int = MISSING
    questions: int = MISSING  # questions in a conversation
    lr: float = MISSING
    warmup_steps: int = MISSING
    validate_every: int = MISSING
    blind: bool = MISSING  # every image is the same: the baseline that knows only the texts
    threads: int | None = MISSING
    seed: int = MISSING
    output: str | None = MISSING  # a folder to which the model is also written
    paths: PathsConfig = MISSING

    def __post_init__(self) -> None:
        if not isinstance(self.data, ShapesConfig):
            raise UserError(f"data={self.data.name}: the conversations are about shapes; leave data out")
        sizes = {"steps": self.steps, "batch_size": self.batch_size, "validate_every": self.validate_every}
        at_least(1, "", **sizes, warmup_steps=self.warmup_steps, questions=self.questions)
        if self.questions > self.data.questions_per_scene:
            raise UserError(
                f"questions={self.questions} is more than data.questions_per_scene={self.data.questions_per_scene}; "
                "correct one of them"
            )
