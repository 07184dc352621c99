"""Typed schemas of the configs: what every key means, and what is refused.

Hydra composes YAML; ``typed`` turns the result into these dataclasses, and an unknown key, a missing one or a value of
the wrong kind ends in one line that names the key and the valid choices. Nothing here imports torch: errors in a config
answer at once.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass, field, fields
from typing import Any

from omegaconf import MISSING, DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from clipmapper.errors import UserError


@dataclass
class MapperConfig:
    """``positions``: none | learnt; ``readout``: cls | eot | token; ``start``: aligned | random first weights
    (``clipmapper.mapper.start``)."""

    name: str = MISSING
    layers: int = MISSING
    width: int = 128
    heads: int = 4
    positions: str = "none"
    readout: str = "cls"
    start: str = "aligned"
    dropout: float = 0.0

    def __post_init__(self) -> None:
        _one_of("mapper.name", self.name, ("a", "b"))
        _one_of("mapper.positions", self.positions, ("none", "learnt"))
        _one_of("mapper.readout", self.readout, ("cls", "eot", "token"))
        _one_of("mapper.start", self.start, ("aligned", "random"))
        _at_least(1, "mapper", layers=self.layers, width=self.width, heads=self.heads)
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
        _one_of("encoder.feature_dtype", self.feature_dtype, ("float32", "float16"))
        _at_least(1, "encoder", batch_size=self.batch_size)


@dataclass
class DataConfig:
    """What every data set has; ``root`` is its folder."""

    name: str = MISSING
    root: str = MISSING
    on_bad_image: str = "fail"  # fail | skip
    min_answer_questions: int = 9  # an answer belongs to the vocabulary from this many questions on
    answers_file: str | None = None  # LXMERT's label file instead of a vocabulary built from the data
    reserved: int = 0  # examples taken from the training data for validation
    seed: int = 0

    def __post_init__(self) -> None:
        _one_of("data.on_bad_image", self.on_bad_image, ("fail", "skip"))
        _at_least(0, "data", reserved=self.reserved)
        _at_least(1, "data", min_answer_questions=self.min_answer_questions)


@dataclass
class ShapesConfig(DataConfig):
    """The embedded data set; scenes a split, questions a scene, pixels a side."""

    train_scenes: int = MISSING
    val_scenes: int = MISSING
    test_scenes: int = MISSING
    questions_per_scene: int = MISSING
    pixels: int = 128
    workers: int = 2

    def __post_init__(self) -> None:
        super().__post_init__()
        sizes = {"train_scenes": self.train_scenes, "val_scenes": self.val_scenes, "test_scenes": self.test_scenes}
        _at_least(1, "data", **sizes, questions_per_scene=self.questions_per_scene)
        _at_least(32, "data", pixels=self.pixels)
        if self.questions_per_scene > 100:
            raise UserError(f"data.questions_per_scene={self.questions_per_scene} must be 100 or less")


@dataclass
class EasyVQAConfig(DataConfig):
    """The PyPI package ``easy-vqa``, written out once."""


@dataclass
class VQAv2Config(DataConfig):
    """VQAv2's official files. ``reserved`` examples of ``reserve_from`` are kept for validation, the rest trains."""

    train_splits: list[str] = field(default_factory=lambda: ["train2014", "val2014"])
    reserve_from: str = "val2014"
    test_split: str | None = None


@dataclass
class VQAv2HubConfig(DataConfig):
    """``lmms-lab/VQAv2``-style data through ``datasets``: a hub id or a folder of Parquet files."""

    train_splits: list[str] = field(default_factory=lambda: ["train", "validation"])
    reserve_from: str = "validation"
    test_split: str | None = None


DATA_SCHEMAS: dict[str, type[DataConfig]] = {
    "shapes": ShapesConfig,
    "easy_vqa": EasyVQAConfig,
    "vqav2": VQAv2Config,
    "vqav2_hub": VQAv2HubConfig,
}


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
        _one_of("task.optim.name", self.name, ("adam", "muon"))
        steps = {"warmup_steps": self.warmup_steps, "decay_start": self.decay_start}
        _at_least(0, "task.optim", lr=self.lr, weight_decay=self.weight_decay, **steps)
        _at_least(1, "task.optim", batch_size=self.batch_size)


@dataclass
class TaskConfig:
    """``sees``: both | question | image; the two blind baselines see one constant in place of the other modality."""

    name: str = MISSING
    sees: str = "both"
    optim: OptimConfig = field(default_factory=OptimConfig)

    def __post_init__(self) -> None:
        _one_of("task.name", self.name, ("vqa",))
        _one_of("task.sees", self.sees, ("both", "question", "image"))


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
        _at_least(1, "trainer", max_steps=self.max_steps, **intervals)
        _at_least(0, "trainer", patience=self.patience, gradient_clip_val=self.gradient_clip_val)
        if self.limit_val_batches == 0:
            raise UserError("trainer.limit_val_batches=0: the best checkpoint is chosen by validation; give 1 or more")


@dataclass
class LoggerConfig:
    """``csv``, ``wandb`` or ``tensorboard``."""

    name: str = MISSING
    project: str = "clipmapper"
    offline: bool = False

    def __post_init__(self) -> None:
        _one_of("logger.name", self.name, ("csv", "wandb", "tensorboard"))


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

    task: TaskConfig = field(default_factory=TaskConfig)
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
    """``split`` of the data, with the newest fitting checkpoint or the one given; or anyone's three official files."""

    split: str = "test"
    checkpoint: str | None = None
    predictions: str | None = None
    questions: str | None = None
    annotations: str | None = None


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


def _one_of(key: str, value: str, choices: tuple[str, ...]) -> None:
    if value != MISSING and value not in choices:
        raise UserError(f"{key}={value} is not one of: {', '.join(choices)}")


def _at_least(bound: int, section: str, **values: float | None) -> None:
    for name, value in values.items():
        if value not in (None, MISSING) and value < bound:
            raise UserError(f"{section}.{name}={value} must be {bound} or more")


def typed(config: DictConfig, schema: type[Any] = Config) -> Any:
    """The composed config as dataclasses of ``schema`` (a subclass of :class:`Config`).

    Raises ``UserError`` naming the key where one is unknown, missing or of the wrong kind.
    """
    sections = [f.name for f in fields(schema)]
    unknown = [str(key) for key in config if key not in sections]
    if unknown:
        raise UserError(_unknown_key(unknown[0], sections))
    shaped = OmegaConf.structured(schema)
    if "data" in sections:
        shaped.data = _data_schema(config)
    try:
        merged = OmegaConf.merge(shaped, config)
        missing = sorted(OmegaConf.missing_keys(merged))
        if missing:
            raise UserError(f"config key {missing[0]} has no value: give {missing[0]}=…")
        return OmegaConf.to_object(merged)
    except OmegaConfBaseException as error:
        raise UserError(key_problem(error)) from error


def _data_schema(config: DictConfig) -> Any:
    name = OmegaConf.select(config, "data.name")
    if name not in DATA_SCHEMAS:
        raise UserError(f"data.name={name} is not one of: {', '.join(DATA_SCHEMAS)}")
    return OmegaConf.structured(DATA_SCHEMAS[name])


def key_problem(error: OmegaConfBaseException) -> str:
    """One line for a key that OmegaConf refused, with what would have been right."""
    key = str(error.full_key or error.key or "")
    first = str(error.msg or error).splitlines()[0]
    parent = error.parent_node
    if parent is not None and "not in" in first and hasattr(parent, "keys"):
        prefix = key.rpartition(".")[0]
        return _unknown_key(key, [f"{prefix}.{name}" if prefix else str(name) for name in parent])
    return f"config key {key}: {first}" if key else first


def _unknown_key(key: str, valid: list[str]) -> str:
    close = difflib.get_close_matches(key, valid, n=1)
    hint = f"did you mean {close[0]}? " if close else ""
    return f"unknown config key {key}; {hint}valid here: {', '.join(sorted(valid))}"
