"""Typed schemas of the configs: what every key means, and what is refused.

Hydra composes YAML; ``typed`` turns the result into these dataclasses, and an unknown key, a missing one or a value of
the wrong kind ends in one line that names the key and the valid choices. Nothing here imports torch: errors in a config
answer at once.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from omegaconf import MISSING

from clipmapper.config.checks import at_least, one_of
from clipmapper.config.data import DataConfig
from clipmapper.config.tasks import TaskConfig
from clipmapper.errors import UserError


@dataclass
class MapperConfig:
    """``positions``: none | learnt; ``readout``: cls | eot | token; ``start``: aligned | random first weights
    (``clipmapper.mapper.initialisation``)."""

    name: str = MISSING
    layers: int = MISSING
    width: int = 128
    heads: int = 4
    positions: str = "none"
    readout: str = "cls"
    start: str = "aligned"
    dropout: float = 0.0

    def __post_init__(self) -> None:
        one_of("mapper.name", self.name, ("a", "b"))
        one_of("mapper.positions", self.positions, ("none", "learnt"))
        one_of("mapper.readout", self.readout, ("cls", "eot", "token"))
        one_of("mapper.start", self.start, ("aligned", "random"))
        at_least(1, "mapper", layers=self.layers, width=self.width, heads=self.heads)
        if not 0 <= self.dropout < 1:
            raise UserError(f"mapper.dropout={self.dropout} must be 0 or more and less than 1")
        if self.width % self.heads:
            raise UserError(f"mapper.width={self.width} is not a multiple of mapper.heads={self.heads}")


@dataclass
class EncoderConfig:
    """An open_clip model: ``weights`` is ``embedded``, a local file, or a hub tag such as ``openai``."""

    model: str = MISSING
    weights: str = MISSING
    feature_dtype: str = "float32"
    batch_size: int = 64

    def __post_init__(self) -> None:
        one_of("encoder.feature_dtype", self.feature_dtype, ("float32", "float16"))
        at_least(1, "encoder", batch_size=self.batch_size)


@dataclass
class TrainerConfig:
    """Passed to Lightning's Trainer by the same names, but for ``patience`` (None: no early stop)."""

    max_steps: int = MISSING
    accelerator: str = "auto"
    devices: Any = 1
    strategy: str = "auto"
    precision: str = "32-true"
    gradient_clip_val: float | None = 1.0
    val_check_interval: int = MISSING
    limit_val_batches: Any = None
    log_every_n_steps: int = 50
    fast_dev_run: bool = False
    enable_progress_bar: bool = True
    patience: int | None = None

    def __post_init__(self) -> None:
        intervals = {"val_check_interval": self.val_check_interval, "log_every_n_steps": self.log_every_n_steps}
        at_least(1, "trainer", max_steps=self.max_steps, **intervals)
        at_least(0, "trainer", patience=self.patience, gradient_clip_val=self.gradient_clip_val)
        if self.limit_val_batches == 0:
            raise UserError("trainer.limit_val_batches=0: the best checkpoint is chosen by validation; give 1 or more")


@dataclass
class LoggerConfig:
    """``csv``, ``wandb`` or ``tensorboard``."""

    name: str = MISSING
    project: str = "clipmapper"
    offline: bool = False

    def __post_init__(self) -> None:
        one_of("logger.name", self.name, ("csv", "wandb", "tensorboard"))


@dataclass
class PathsConfig:
    """``runs``: results; ``data``: data sets written here; ``cache``: frozen features; all under ``root``."""

    root: str = MISSING
    runs: str = MISSING
    data: str = MISSING
    cache: str = MISSING


@dataclass
class Config:
    """What every command composes."""

    task: TaskConfig = MISSING
    mapper: MapperConfig = MISSING
    encoder: EncoderConfig = MISSING
    data: DataConfig = MISSING
    trainer: TrainerConfig = MISSING
    logger: LoggerConfig = MISSING
    paths: PathsConfig = MISSING
    seed: int = 0
    threads: int | None = None  # None: torch decides

    def __post_init__(self) -> None:
        if not 0 <= self.seed < 2**32:
            raise UserError(f"seed={self.seed} must be 0 or more and less than 2^32")
        if self.threads is not None and self.threads < 1:
            raise UserError(f"threads={self.threads} must be 1 or more")


@dataclass
class TrainConfig(Config):
    """``resume``: the folder of a run that was stopped, whose training goes on."""

    resume: str | None = None


@dataclass
class EvaluateConfig(Config):
    """``split`` of the data, with the newest fitting checkpoint or the one given; or anyone's official files: VQA takes
    ``predictions``, ``questions`` and ``annotations``, captions ``predictions`` and ``references``."""

    split: str = "test"
    checkpoint: str | None = None
    predictions: str | None = None
    questions: str | None = None
    annotations: str | None = None
    references: str | None = None


@dataclass
class PretrainConfig:
    """Pre-training of the embedded encoder. Weights of 0 and the two switches take parts of the recipe out.

    ``caption_weight``: open_clip's contrastive loss on pictures and captions; ``patch_weight``: linear heads that read
    attributes and relations off each patch token; ``prompt_weight``: the same through the text encoder.
    """

    steps: int = MISSING
    batch_size: int = 64
    lr: float = 6.0e-3
    warmup_steps: int = 100
    caption_weight: float = 1.0
    patch_weight: float = 1.0
    prompt_weight: float = 0.5
    twins: bool = True
    caption_kinds: bool = True
    pool_scenes: int = 40000
    workers: int = 2
    threads: int | None = None
    seed: int = 0
    output: str | None = None  # where the weights go besides the run folder; null: nowhere
    probe_scenes: int = 3000
    save_every: int = 1000
    paths: PathsConfig = MISSING
