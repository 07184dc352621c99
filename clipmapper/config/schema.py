"""Typed schemas of the configs: the meaning of every key, and checks of its value.

The default values are in the YAML files, not here. Nothing here imports torch, so that errors in a config are reported
at once.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from omegaconf import MISSING

from clipmapper.config.fields import MOST, Range, anything, choice, items, path, real, ruled, text, whole
from clipmapper.errors import UserError

MOST_IN_BATCH = 10**6
MOST_THREADS = 1024  # and processes
ACCELERATORS = ("auto", "cpu", "gpu", "cuda", "mps", "tpu")
# What Lightning takes.
PRECISIONS = (
    *("32-true", "bf16-mixed", "16-mixed", "bf16-true", "16-true", "64-true"),
    *("32", "bf16", "16", "64", "transformer-engine", "transformer-engine-float16"),
)


def _devices(value: Any) -> str | None:
    """Return what ``trainer.devices`` takes, for any other value."""
    each = value if isinstance(value, list) else str(value).split(",")
    numbers = [int(str(number)) for number in each if re.fullmatch(r" *\d{1,4} *", str(number), re.ASCII)]
    if str(value) in ("auto", "-1") or (numbers and len(numbers) == len(each) and value not in (0, "0")):
        return None
    return "is not auto, a number of devices of 1 or more, or a list of their indices such as [0,2]"


def _duration(value: Any) -> str | None:
    """Return what ``trainer.max_time`` takes, for any other value."""
    if value is None or re.fullmatch(r"\d{1,3}:[0-2]?\d:[0-5]?\d:[0-5]?\d", str(value), re.ASCII):
        return None
    return "is not null or a time DAYS:HOURS:MINUTES:SECONDS, such as 00:23:30:00"


def _validation_batches(value: Any) -> str | None:
    """Return what ``trainer.limit_val_batches`` takes, for any other value."""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if value is None or (number and (0 < value <= 1 or (value == value // 1 and 1 < value <= MOST))):
        return None
    return "is not null (all), a number of batches of 1 or more, or a share above 0 and at most 1"


@dataclass
class MapperConfig:
    """A mapper: its architecture and its initial weights (docs/method.md, CLIPmapper)."""

    name: str = choice("a", "b")
    layers: int = whole(1, 1000)
    width: int = whole(1, 65536)
    heads: int = whole(1, 65536)
    positions: str = choice("none", "learnt")  # position embeddings of the mapper
    readout: str = choice("cls", "eot", "token")  # the token that the head reads; token: a learnt one
    start: str = choice("aligned", "random")  # initial weights (clipmapper.mapper.build)
    dropout: float = real(0, 1, below=True)

    def __post_init__(self) -> None:
        if self.width % self.heads:
            raise UserError(f"mapper.width={self.width} is not a multiple of mapper.heads={self.heads}")


@dataclass(kw_only=True)
class TrainedWithConfig:
    """What an open_clip model was trained with, in open_clip's terms; None: as the weights file says.

    The defaults are also in the schema, because checkpoints that were written before these keys existed lack them.
    """

    quick_gelu: bool | None = None  # the activation: QuickGELU, or GELU
    mean: list[float] | None = items(anything, repeated=True, default=None)  # of the channels, from 0 to 1
    std: list[float] | None = items(anything, repeated=True, default=None)
    interpolation: str | None = choice("bicubic", "bilinear", default=None)
    resize_mode: str | None = choice("shortest", "longest", "squash", default=None)

    def check_trained_with(self, section: str) -> None:
        """Raise UserError if a value is not valid; ``section`` is that of the config."""
        for name, values in (("mean", self.mean), ("std", self.std)):
            least = 1e-6 if name == "std" else -1e3
            if values is not None and (len(values) != 3 or not all(least <= value <= 1e3 for value in values)):
                raise UserError(
                    f"{section}.{name}={values} must be three numbers from {least:g} to 1000, for red, green, blue"
                )


@dataclass
class EncoderConfig(TrainedWithConfig):
    """An open_clip model and the cache of its features."""

    model: str = text()  # name in open_clip
    weights: str = path()  # embedded, a local file, or a hub tag such as openai
    feature_dtype: str = choice("float32", "float16")  # dtype of the cached features
    batch_size: int = whole(1, MOST_IN_BATCH)  # images encoded together

    def __post_init__(self) -> None:
        self.check_trained_with("encoder")


@dataclass
class TrainerConfig:
    """Arguments of Lightning's Trainer with the same names, ``float32_matmul`` and ``patience``."""

    max_steps: int = whole(1)
    accelerator: str = choice(*ACCELERATORS)
    devices: Any = ruled(_devices)
    num_nodes: int = whole(1, 100_000)
    strategy: str = text()  # checked by Lightning
    precision: str = choice(*PRECISIONS)
    float32_matmul: str = choice("highest", "high", "medium")  # arguments of torch.set_float32_matmul_precision
    gradient_clip_val: float | None = real(0)
    val_check_interval: int = whole(1)
    limit_val_batches: Any = ruled(_validation_batches)
    accumulate_grad_batches: int = whole(1, 10**6)
    max_time: str | None = ruled(_duration)  # of training, over all jobs that continue the run
    checkpoint_every_steps: int | None = whole(1)  # last.ckpt is also written after so many steps
    checkpoint_every_minutes: float | None = real(0, 10**6, above=True)
    num_workers: int = whole(0, MOST_THREADS)  # processes that read training batches
    log_every_n_steps: int = whole(1)
    fast_dev_run: bool = MISSING
    enable_progress_bar: bool = MISSING
    profiler: str | None = choice("simple", "advanced")
    patience: int | None = whole(0)  # validations without improvement before an early stop; None: no early stop


@dataclass
class LoggerConfig:
    """The logger of a training run."""

    name: str = choice("csv", "wandb", "tensorboard")
    project: str = text()
    offline: bool = MISSING  # wandb without an account


@dataclass
class ModelConfig:
    """A model other than CLIPmapper."""

    name: str = text()
    layers: dict[str, list[int]] | None = items(Range(0))  # the layers that explanations read, by stack; null: all


@dataclass
class HuggingFaceConfig(ModelConfig):
    """A model of transformers with its processor."""

    path: str = path()  # a folder, a name on the hub, or embedded
    max_new_tokens: int = whole(1)  # of a generated answer


@dataclass
class OpenClipConfig(ModelConfig, TrainedWithConfig):
    """A dual encoder of open_clip."""

    architecture: str = text()  # name in open_clip
    weights: str = path()  # embedded, a local file, or a tag such as openai

    def __post_init__(self) -> None:
        self.check_trained_with("model")


MODEL_SCHEMAS: dict[str, type[ModelConfig]] = {"huggingface": HuggingFaceConfig, "open_clip": OpenClipConfig}


@dataclass
class PathsConfig:
    """The folders to which the project writes; by default the others are under ``root``."""

    root: str = path()
    runs: str = path()  # run folders with results
    data: str = path()  # datasets
    cache: str = path()  # frozen features


@dataclass
class BaseConfig:
    """The config of a command that uses a model and data."""

    data: DataConfig = MISSING
    trainer: TrainerConfig = MISSING
    logger: LoggerConfig = MISSING
    paths: PathsConfig = MISSING
    seed: int = whole(0, 2**32 - 1)
    threads: int | None = whole(1, MOST_THREADS)  # CPU threads; None: torch's default

    def __post_init__(self) -> None:
        """Check what depends on several keys; sub-classes do."""


@dataclass
class Config(BaseConfig):
    """The config of a command that uses CLIPmapper."""

    task: TaskConfig = MISSING
    mapper: MapperConfig = MISSING
    encoder: EncoderConfig = MISSING


@dataclass
class TrainConfig(Config):
    """The config of the train command."""

    resume: str | None = path()  # the run folder of a stopped training, which is continued
    output: str | None = path()  # a weights file, which is also written
    dry_run: bool = MISSING  # read and check everything, and say what training needs, without training

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

    split: str = text()
    checkpoint: str | None = path()  # None: found by find_checkpoint
    predictions: str | None = path()
    questions: str | None = path()
    annotations: str | None = path()
    references: str | None = path()


@dataclass
class OptimConfig:
    """The optimizer and its schedule.

    The learning rate has a linear warm-up, stays constant, and has a cosine decay from ``decay_start`` to the last
    step.
    """

    name: str = choice("adam", "muon")  # adam is the paper's; muon: clipmapper.training.module
    lr: float = real(0, 100)
    batch_size: int = whole(1, MOST_IN_BATCH)
    warmup_steps: int = whole(0)
    decay_start: int = whole(0)
    weight_decay: float = real(0, 100)


@dataclass
class TaskConfig:
    """Keys that all tasks share."""

    name: str = text()
    sees: str = text()  # both, or the only modality of a blind baseline, which gets a constant as the other one
    steps: int = whole(1)  # default of trainer.max_steps
    validate_every: int = whole(1)  # default of trainer.val_check_interval
    optim: OptimConfig = MISSING

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

    name: str = text()
    root: str = path()  # folder of the dataset
    on_bad_image: str = choice("fail", "skip")
    min_answer_questions: int = whole(1)  # an answer is in the vocabulary if at least this many questions have it
    answers_file: str | None = path()  # LXMERT's label file, used instead of a vocabulary built from the data
    reserved: int = whole(0)  # number of questions taken from the training data for validation
    seed: int = whole(0, 2**32 - 1)


@dataclass
class ShapesConfig(DataConfig):
    """The embedded dataset ``shapes``: the sizes of its splits and of its images."""

    train_scenes: int = whole(1)
    val_scenes: int = whole(1)
    test_scenes: int = whole(1)
    questions_per_scene: int = whole(1, 100)
    pixels: int = whole(32, 4096)  # width and height of an image
    workers: int = whole(0, MOST_THREADS)  # processes that draw the images
    extra_questions: dict[str, int] = items(Range(0, 100))  # further questions on each training scene, by kind
    extra_captions: int = whole(0, 1000)  # further captions of each training scene
    disagreement: str = choice("none", "vqav2")  # vqav2: annotators disagree as in VQA

    def __post_init__(self) -> None:
        total = self.questions_per_scene + sum(self.extra_questions.values())
        if total > 100:
            raise UserError(f"data.questions_per_scene and data.extra_questions: {total} a scene; 100 are allowed")


@dataclass
class EasyVQAConfig(DataConfig):
    """The PyPI package ``easy-vqa``, written to ``root`` on first use."""


@dataclass
class VQAv2Config(DataConfig):
    """VQAv2's official files; ``reserved`` questions of ``reserve_from`` are for validation, the rest for training."""

    train_splits: list[str] = items(anything)
    reserve_from: str = text()  # one of train_splits
    test_split: str | None = text()


@dataclass
class VQAv2HubConfig(DataConfig):
    """Data with the columns of ``lmms-lab/VQAv2``; ``root`` is a hub id or a folder of Parquet files."""

    train_splits: list[str] = items(anything)
    reserve_from: str = text()  # one of train_splits
    test_split: str | None = text()


@dataclass
class CocoConfig(DataConfig):
    """COCO captions: Karpathy's file with his splits or, if ``karpathy`` is null, COCO's own files.

    All paths are relative to ``root``.
    """

    images: str = path()  # folder that contains train2014 and val2014
    karpathy: str | None = path()  # Karpathy's dataset_coco.json
    restval: bool = MISSING  # whether Karpathy's split restval is part of the training data
    captions: str = path()  # COCO's own file of a split, with the placeholder {split}
    train_split: str = text()
    val_split: str = text()
    test_split: str | None = text()
    # Captions have no answers, so these keys are not in the YAML file.
    min_answer_questions: int = whole(1, default=9)
    answers_file: str | None = path(default=None)
    reserved: int = whole(0, default=0)

    def __post_init__(self) -> None:
        if self.karpathy is None and "{split}" not in self.captions:
            raise UserError(
                f"data.captions={self.captions} must contain {{split}}, the placeholder of the split's name"
            )


@dataclass
class TableConfig(DataConfig):
    """A CSV file with a row for each sample; ``root`` and what training needs are not in the YAML file."""

    file: str = path()
    root: str = path(default="")
    min_answer_questions: int = whole(1, default=1)
    answers_file: str | None = path(default=None)
    reserved: int = whole(0, default=0)
    seed: int = whole(0, 2**32 - 1, default=0)


DATA_SCHEMAS: dict[str, type[DataConfig]] = {
    "shapes": ShapesConfig,
    "easy_vqa": EasyVQAConfig,
    "vqav2": VQAv2Config,
    "vqav2_hub": VQAv2HubConfig,
    "coco": CocoConfig,
    "table": TableConfig,
}
