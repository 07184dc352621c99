"""Typed schemas of the configs: what every key means, and what is refused.

Hydra composes YAML; ``typed`` turns the result into these dataclasses, and an unknown key, a missing one or a value of
the wrong kind ends in one line that names the key and the valid choices. Nothing here imports torch: errors in a config
answer at once. The defaults are in ``configs/``, and nowhere else.
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
    width: int = MISSING
    heads: int = MISSING
    positions: str = MISSING
    readout: str = MISSING
    start: str = MISSING
    dropout: float = MISSING

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
    feature_dtype: str = MISSING
    batch_size: int = MISSING

    def __post_init__(self) -> None:
        one_of("encoder.feature_dtype", self.feature_dtype, ("float32", "float16"))
        at_least(1, "encoder", batch_size=self.batch_size)


@dataclass
class TrainerConfig:
    """Passed to Lightning's Trainer by the same names, but for ``patience`` (None: no early stop)."""

    max_steps: int = MISSING
    accelerator: str = MISSING
    devices: Any = MISSING
    strategy: str = MISSING
    precision: str = MISSING
    gradient_clip_val: float | None = MISSING
    val_check_interval: int = MISSING
    limit_val_batches: Any = MISSING
    log_every_n_steps: int = MISSING
    fast_dev_run: bool = MISSING
    enable_progress_bar: bool = MISSING
    patience: int | None = MISSING

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
    project: str = MISSING
    offline: bool = MISSING

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
    seed: int = MISSING
    threads: int | None = MISSING  # None: torch decides

    def __post_init__(self) -> None:
        if not 0 <= self.seed < 2**32:
            raise UserError(f"seed={self.seed} must be 0 or more and less than 2^32")
        if self.threads is not None and self.threads < 1:
            raise UserError(f"threads={self.threads} must be 1 or more")


@dataclass
class TrainConfig(Config):
    """``resume``: the folder of a run that was stopped, whose training goes on."""

    resume: str | None = MISSING


@dataclass
class EvaluateConfig(Config):
    """``split`` of the data, with the newest fitting checkpoint or the one given; or anyone's official files: VQA takes
    ``predictions``, ``questions`` and ``annotations``, captions ``predictions`` and ``references``."""

    split: str = MISSING
    checkpoint: str | None = MISSING
    predictions: str | None = MISSING
    questions: str | None = MISSING
    annotations: str | None = MISSING
    references: str | None = MISSING


@dataclass
class PretrainConfig:
    """Pre-training of the embedded encoder. Weights of 0 and the two switches take parts of the recipe out.

    ``caption_weight``: open_clip's contrastive loss on pictures and captions; ``patch_weight``: linear heads that read
    attributes and relations off each patch token; ``prompt_weight``: the same through the text encoder.
    """

    steps: int = MISSING
    batch_size: int = MISSING
    lr: float = MISSING
    warmup_steps: int = MISSING
    caption_weight: float = MISSING
    patch_weight: float = MISSING
    prompt_weight: float = MISSING
    twins: bool = MISSING
    caption_kinds: bool = MISSING
    pool_scenes: int = MISSING
    workers: int = MISSING
    threads: int | None = MISSING
    seed: int = MISSING
    output: str | None = MISSING  # where the weights go besides the run folder; null: nowhere
    probe_scenes: int = MISSING
    save_every: int = MISSING
    paths: PathsConfig = MISSING
