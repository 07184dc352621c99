"""Typed schemas of the configs: what every key means, and what is refused; values come from the YAML alone.

Nothing here imports torch: errors in a config answer at once.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from omegaconf import MISSING

from clipmapper.config.checks import at_least, one_of
from clipmapper.errors import UserError


@dataclass
class MapperConfig:
    """``positions``: none | learnt; ``readout``: cls | eot | token; ``start``: aligned | random first weights
    (``clipmapper.mapper.build``)."""

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
class OptimConfig:
    """``adam`` (the paper's) or ``muon`` (``clipmapper.training.module``), with a linear warm-up, a constant
    stretch, and a cosine decay from ``decay_start`` to the last step."""

    name: str = MISSING
    lr: float = MISSING
    batch_size: int = MISSING
    warmup_steps: int = MISSING
    decay_start: int = MISSING
    weight_decay: float = MISSING

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
    sees: str = MISSING
    steps: int = MISSING
    validate_every: int = MISSING
    optim: OptimConfig = MISSING

    def __post_init__(self) -> None:
        at_least(1, "task", steps=self.steps, validate_every=self.validate_every)

    def identity(self) -> dict[str, Any]:
        """The keys in which a checkpoint and a config that is run with it must agree, with their values."""
        return {"task": self.name, "sees": self.sees}


@dataclass
class DataConfig:
    """What every data set has; ``root`` is its folder."""

    name: str = MISSING
    root: str = MISSING
    on_bad_image: str = MISSING  # fail | skip
    min_answer_questions: int = MISSING  # an answer belongs to the vocabulary from this many questions on
    answers_file: str | None = MISSING  # LXMERT's label file instead of a vocabulary built from the data
    reserved: int = MISSING  # examples taken from the training data for validation
    seed: int = MISSING

    def __post_init__(self) -> None:
        one_of("data.on_bad_image", self.on_bad_image, ("fail", "skip"))
        at_least(0, "data", reserved=self.reserved)
        at_least(1, "data", min_answer_questions=self.min_answer_questions)


@dataclass
class ShapesConfig(DataConfig):
    """The embedded data set; scenes a split, questions a scene, pixels a side."""

    train_scenes: int = MISSING
    val_scenes: int = MISSING
    test_scenes: int = MISSING
    questions_per_scene: int = MISSING
    pixels: int = MISSING
    workers: int = MISSING

    def __post_init__(self) -> None:
        super().__post_init__()
        sizes = {"train_scenes": self.train_scenes, "val_scenes": self.val_scenes, "test_scenes": self.test_scenes}
        at_least(1, "data", **sizes, questions_per_scene=self.questions_per_scene)
        at_least(32, "data", pixels=self.pixels)
        if self.questions_per_scene > 100:
            raise UserError(f"data.questions_per_scene={self.questions_per_scene} must be 100 or less")


@dataclass
class EasyVQAConfig(DataConfig):
    """The PyPI package ``easy-vqa``, written out once."""


@dataclass
class VQAv2Config(DataConfig):
    """VQAv2's official files. ``reserved`` examples of ``reserve_from`` are kept for validation, the rest trains."""

    train_splits: list[str] = MISSING
    reserve_from: str = MISSING
    test_split: str | None = MISSING


@dataclass
class VQAv2HubConfig(DataConfig):
    """``lmms-lab/VQAv2``-style data through ``datasets``: a hub id or a folder of Parquet files."""

    train_splits: list[str] = MISSING
    reserve_from: str = MISSING
    test_split: str | None = MISSING


@dataclass
class CocoConfig(DataConfig):
    """COCO captions below ``root``; photos are in ``root/{images}/{train2014, val2014}``.

    ``karpathy`` is Karpathy's file with his splits, ``restval`` among the training photos unless it is false. Where
    ``karpathy`` is null, ``captions`` names COCO's own files, one a split.
    """

    images: str = MISSING
    karpathy: str | None = MISSING
    restval: bool = MISSING
    captions: str = MISSING
    train_split: str = MISSING
    val_split: str = MISSING
    test_split: str | None = MISSING
    # Captions have no answers, and no YAML gives these.
    min_answer_questions: int = 9
    answers_file: str | None = None
    reserved: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.karpathy is None and "{split}" not in self.captions:
            raise UserError(f"data.captions={self.captions} must hold {{split}}, which stands for the split's name")


DATA_SCHEMAS: dict[str, type[DataConfig]] = {
    "shapes": ShapesConfig,
    "easy_vqa": EasyVQAConfig,
    "vqav2": VQAv2Config,
    "vqav2_hub": VQAv2HubConfig,
    "coco": CocoConfig,
}
