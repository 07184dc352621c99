"""Config schema of the training of the small LLaVA."""

from __future__ import annotations

from dataclasses import dataclass

from omegaconf import MISSING

from clipmapper.config.data import DataConfig, ShapesConfig
from clipmapper.config.fields import MOST_IN_BATCH, MOST_THREADS, path, real, whole
from clipmapper.config.schema import PathsConfig
from clipmapper.errors import UserError


@dataclass
class DecoderConfig:
    """The Llama decoder, whose width is that of the embedded encoder's shared space."""

    layers: int = whole(1, 100)
    heads: int = whole(1, 128)
    mlp_width: int = whole(1, 2**16)


@dataclass
class TrainLlavaConfig:
    """Config of the training of the small LLaVA."""

    data: DataConfig = MISSING
    decoder: DecoderConfig = MISSING
    steps: int = whole(1)
    batch_size: int = whole(1, MOST_IN_BATCH)  # images in a batch
    questions: int = whole(1)  # questions about each image of a batch
    lr: float = real(0, 100)
    warmup_steps: int = whole(1)
    validate_every: int = whole(1)
    blind: bool = MISSING  # every image is the same: the baseline that knows only the texts
    threads: int | None = whole(1, MOST_THREADS)
    seed: int = whole(0, 2**32 - 1)
    output: str | None = path()  # a folder to which the model is also written
    paths: PathsConfig = MISSING

    def __post_init__(self) -> None:
        if not isinstance(self.data, ShapesConfig):
            raise UserError(f"data={self.data.name}: the model is trained on shapes; leave data out")
        if self.questions > self.data.questions_per_scene:
            raise UserError(
                f"questions={self.questions} is more than data.questions_per_scene={self.data.questions_per_scene}; "
                "correct one of them"
            )
        if (width := 128) % (2 * self.decoder.heads):
            raise UserError(f"decoder.heads={self.decoder.heads}: give a divisor of {width // 2}")
