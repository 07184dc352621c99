"""Typed schemas of the configs: the meaning of every key, and checks of its value.

The default values are in the YAML files, not here. Nothing here imports torch, so that errors in a config are reported
at once.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from omegaconf import MISSING

from clipmapper.config.checks import at_least, one_of
from clipmapper.errors import UserError


@dataclass
class MapperConfig:
    """A mapper: its architecture and its initial weights (docs/method.md, CLIPmapper)."""

    name: str = MISSING  # a | b
    layers: int = MISSING
    width: int = MISSING
    heads: int = MISSING
    positions: str = MISSING  # position embeddings of the mapper: none | learnt
    readout: str = MISSING  # the token that the head reads: cls | eot | token (an additional learnt token)
    start: str = MISSING  # initial weights: aligned | random (clipmapper.mapper.build)
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


@dataclass(kw_only=True)
class TrainedWithConfig:
    """What an open_clip model was trained with, in open_clip's terms; None: as the weights file says.

    The defaults are also in the schema, because checkpoints that were written before these keys existed lack them.
    """

    quick_gelu: bool | None = None  # the activation: QuickGELU, or GELU
    mean: list[float] | None = None  # of the channels, from 0 to 1
    std: list[float] | None = None
    interpolation: str | None = None  # bicubic | bilinear
    resize_mode: str | None = None  # shortest | longest | squash

    def check_trained_with(self, section: str) -> None:
        """Raise UserError if a value is not valid; ``section`` is that of the config."""
        for name, values in (("mean", self.mean), ("std", self.std)):
            least = 1e-6 if name == "std" else -1e3
            if values is not None and (len(values) != 3 or not all(least <= value <= 1e3 for value in values)):
                raise UserError(
                    f"{section}.{name}={values} must be three numbers from {least:g} to 1000, for red, green, blue"
                )
        if self.interpolation is not None:
            one_of(f"{section}.interpolation", self.interpolation, ("bicubic", "bilinear"))
        if self.resize_mode is not None:
            one_of(f"{section}.resize_mode", self.resize_mode, ("shortest", "longest", "squash"))


@dataclass
class EncoderConfig(TrainedWithConfig):
    """An open_clip model and the cache of its features."""

    model: str = MISSING  # name in open_clip
    weights: str = MISSING  # embedded, a local file, or a hub tag such as openai
    feature_dtype: str = MISSING  # dtype of the cached features: float32 | float16
    batch_size: int = MISSING  # images encoded together

    def __post_init__(self) -> None:
        self.check_trained_with("encoder")
        one_of("encoder.feature_dtype", self.feature_dtype, ("float32", "float16"))
        at_least(1, "encoder", batch_size=self.batch_size)


@dataclass
class TrainerConfig:
    """Arguments of Lightning's Trainer with the same names, and ``patience``."""

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
    profiler: str | None = MISSING  # simple | advanced
    patience: int | None = MISSING  # validations without improvement before an early stop; None: no early stop

    def __post_init__(self) -> None:
        intervals = {"val_check_interval": self.val_check_interval, "log_every_n_steps": self.log_every_n_steps}
        at_least(1, "trainer", max_steps=self.max_steps, **intervals)
        at_least(0, "trainer", patience=self.patience, gradient_clip_val=self.gradient_clip_val)
        if self.profiler is not None:
            one_of("trainer.profiler", self.profiler, ("simple", "advanced"))
        if self.limit_val_batches == 0:
            raise UserError("trainer.limit_val_batches=0: the best checkpoint is chosen by validation; give 1 or more")


@dataclass
class LoggerConfig:
    """The logger of a training run."""

    name: str = MISSING  # csv | wandb | tensorboard
    project: str = MISSING
    offline: bool = MISSING  # wandb without an account

    def __post_init__(self) -> None:
        one_of("logger.name", self.name, ("csv", "wandb", "tensorboard"))


@dataclass
class ModelConfig:
    """A model other than CLIPmapper."""

    name: str = MISSING


@dataclass
class HuggingFaceConfig(ModelConfig):
    """A model of transformers with its processor."""

    path: str = MISSING  # a folder, or a name on the hub


@dataclass
class OpenClipConfig(ModelConfig, TrainedWithConfig):
    """A dual encoder of open_clip."""

    architecture: str = MISSING  # name in open_clip
    weights: str = MISSING  # embedded, a local file, or a tag such as openai

    def __post_init__(self) -> None:
        self.check_trained_with("model")


MODEL_SCHEMAS: dict[str, type[ModelConfig]] = {"huggingface": HuggingFaceConfig, "open_clip": OpenClipConfig}


@dataclass
class PathsConfig:
    """The folders to which the project writes; by default the others are under ``root``."""

    root: str = MISSING
    runs: str = MISSING  # run folders with results
    data: str = MISSING  # datasets
    cache: str = MISSING  # frozen features


@dataclass
class BaseConfig:
    """The config of a command that uses a model and data."""

    data: DataConfig = MISSING
    trainer: TrainerConfig = MISSING
    logger: LoggerConfig = MISSING
    paths: PathsConfig = MISSING
    seed: int = MISSING
    threads: int | None = MISSING  # CPU threads; None: torch's default

    def __post_init__(self) -> None:
        if not 0 <= self.seed < 2**32:
            raise UserError(f"seed={self.seed} must be 0 or more and less than 2^32")
        if self.threads is not None and self.threads < 1:
            raise UserError(f"threads={self.threads} must be 1 or more")


@dataclass
class Config(BaseConfig):
    """The config of a command that uses CLIPmapper."""

    task: TaskConfig = MISSING
    mapper: MapperConfig = MISSING
    encoder: EncoderConfig = MISSING


@dataclass
class TrainConfig(Config):
    """The config of the train command."""

    resume: str | None = MISSING  # the run folder of a stopped training, which is continued
    output: str | None = MISSING  # a weights file, which is also written

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.output is not None and not self.output.endswith(".safetensors"):
            raise UserError(f"output={self.output}: weights are written as safetensors; give NAME.safetensors")


@dataclass
class EvaluateConfig(Config):
    """The config of the evaluate command.

    The command evaluates a checkpoint on a split of the data, or it scores a result file in the official format: for
    VQA with ``predictions``, ``questions`` and ``annotations``, for captions with ``predictions`` and ``references``.
    """

    split: str = MISSING
    checkpoint: str | None = MISSING  # None: found by find_checkpoint
    predictions: str | None = MISSING
    questions: str | None = MISSING
    annotations: str | None = MISSING
    references: str | None = MISSING


@dataclass
class OptimConfig:
    """The optimizer and its schedule.

    The learning rate has a linear warm-up, stays constant, and has a cosine decay from ``decay_start`` to the last
    step.
    """

    name: str = MISSING  # adam (the paper's) | muon (clipmapper.training.module)
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
    """Keys that all tasks share."""

    name: str = MISSING
    sees: str = MISSING  # both, or the only modality of a blind baseline, which gets a constant as the other one
    steps: int = MISSING  # default of trainer.max_steps
    validate_every: int = MISSING  # default of trainer.val_check_interval
    optim: OptimConfig = MISSING

    def __post_init__(self) -> None:
        at_least(1, "task", steps=self.steps, validate_every=self.validate_every)

    @property
    def monitor(self) -> str:
        """The logged value whose maximum chooses the best checkpoint."""
        return "val/accuracy"

    def identity(self) -> dict[str, Any]:
        """Return the keys, with their values, in which a config must agree with the checkpoint that it uses."""
        return {"task": self.name, "sees": self.sees}


@dataclass
class DataConfig:
    """Keys that all datasets share."""

    name: str = MISSING
    root: str = MISSING  # folder of the dataset
    on_bad_image: str = MISSING  # fail | skip
    min_answer_questions: int = MISSING  # an answer is in the vocabulary if at least this many questions have it
    answers_file: str | None = MISSING  # LXMERT's label file, used instead of a vocabulary built from the data
    reserved: int = MISSING  # number of questions taken from the training data for validation
    seed: int = MISSING

    def __post_init__(self) -> None:
        one_of("data.on_bad_image", self.on_bad_image, ("fail", "skip"))
        at_least(0, "data", reserved=self.reserved)
        at_least(1, "data", min_answer_questions=self.min_answer_questions)


@dataclass
class ShapesConfig(DataConfig):
    """The embedded dataset ``shapes``: the sizes of its splits and of its images."""

    train_scenes: int = MISSING
    val_scenes: int = MISSING
    test_scenes: int = MISSING
    questions_per_scene: int = MISSING
    pixels: int = MISSING  # width and height of an image
    workers: int = MISSING  # processes that draw the images
    extra_questions: dict[str, int] = MISSING  # further questions on each training scene, by kind
    extra_captions: int = MISSING  # further captions of each training scene
    disagreement: str = MISSING  # none, or vqav2: annotators disagree as in VQA

    def __post_init__(self) -> None:
        super().__post_init__()
        sizes = {"train_scenes": self.train_scenes, "val_scenes": self.val_scenes, "test_scenes": self.test_scenes}
        at_least(1, "data", **sizes, questions_per_scene=self.questions_per_scene)
        at_least(0, "data", extra_captions=self.extra_captions)
        at_least(32, "data", pixels=self.pixels)
        at_least(0, "data.extra_questions", **self.extra_questions)
        one_of("data.disagreement", self.disagreement, ("none", "vqav2"))
        total = self.questions_per_scene + sum(self.extra_questions.values())
        if total > 100:
            raise UserError(f"data.questions_per_scene and data.extra_questions: {total} a scene; 100 are allowed")


@dataclass
class EasyVQAConfig(DataConfig):
    """The PyPI package ``easy-vqa``, written to ``root`` on first use."""


@dataclass
class VQAv2Config(DataConfig):
    """VQAv2's official files; ``reserved`` questions of ``reserve_from`` are for validation, the rest for training."""

    train_splits: list[str] = MISSING
    reserve_from: str = MISSING  # one of train_splits
    test_split: str | None = MISSING


@dataclass
class VQAv2HubConfig(DataConfig):
    """Data with the columns of ``lmms-lab/VQAv2``; ``root`` is a hub id or a folder of Parquet files."""

    train_splits: list[str] = MISSING
    reserve_from: str = MISSING  # one of train_splits
    test_split: str | None = MISSING


@dataclass
class CocoConfig(DataConfig):
    """COCO captions: Karpathy's file with his splits or, if ``karpathy`` is null, COCO's own files.

    All paths are relative to ``root``.
    """

    images: str = MISSING  # folder that contains train2014 and val2014
    karpathy: str | None = MISSING  # Karpathy's dataset_coco.json
    restval: bool = MISSING  # whether Karpathy's split restval is part of the training data
    captions: str = MISSING  # COCO's own file of a split, with the placeholder {split}
    train_split: str = MISSING
    val_split: str = MISSING
    test_split: str | None = MISSING
    # Captions have no answers, so these keys are not in the YAML file.
    min_answer_questions: int = 9
    answers_file: str | None = None
    reserved: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.karpathy is None and "{split}" not in self.captions:
            raise UserError(
                f"data.captions={self.captions} must contain {{split}}, the placeholder of the split's name"
            )


@dataclass
class TableConfig(DataConfig):
    """A CSV file with a row for each sample; ``root`` and what training needs are not in the YAML file."""

    file: str = MISSING
    root: str = ""
    min_answer_questions: int = 1
    answers_file: str | None = None
    reserved: int = 0
    seed: int = 0


DATA_SCHEMAS: dict[str, type[DataConfig]] = {
    "shapes": ShapesConfig,
    "easy_vqa": EasyVQAConfig,
    "vqav2": VQAv2Config,
    "vqav2_hub": VQAv2HubConfig,
    "coco": CocoConfig,
    "table": TableConfig,
}
