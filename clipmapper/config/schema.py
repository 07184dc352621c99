"""Typed schemas of the configs: the meaning of every key, and checks of its value.

The default values are in the YAML files, not here. Nothing here imports torch, so that errors in a config are reported
at once.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from omegaconf import MISSING

from clipmapper.config.data import DataConfig
from clipmapper.config.fields import (
    MOST_IN_BATCH,
    MOST_THREADS,
    Range,
    anything,
    choice,
    items,
    path,
    real,
    ruled,
    text,
    whole,
)
from clipmapper.config.trainer import LoggerConfig, TrainerConfig
from clipmapper.errors import UserError


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

    model: str = text()  # name in open_clip, or a folder: FOLDER, local-dir:FOLDER or hf-hub:ORG/NAME
    weights: str | None = path()  # embedded, a local file, or a hub tag such as openai; None: those of the folder
    feature_dtype: str = choice("float32", "float16")  # dtype of the cached features
    batch_size: int | None = whole(1, MOST_IN_BATCH)  # images encoded together; None: by the device
    precision: str = choice("float32", "bfloat16", "float16", default="float32")  # of matrix products

    def __post_init__(self) -> None:
        self.check_trained_with("encoder")


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

    architecture: str = text()  # as encoder.model
    weights: str | None = path()  # as encoder.weights

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


def _file_name(value: Any) -> str | None:
    """Return what ``submission`` takes, for any other value."""
    return None if re.fullmatch(r"[A-Za-z0-9.-]+", value) else "is not a name of letters, digits, dots and hyphens"


@dataclass
class EvaluateConfig(Config):
    """The config of the evaluate command.

    The command evaluates a checkpoint on a split of the data, or it scores a result file in the official format: for
    VQA with ``predictions``, ``questions`` and ``annotations``, for captions with ``predictions`` and ``references``.
    Where people's answers or captions are missing, it checks the file for the evaluation server.
    """

    split: str = text()
    checkpoint: str | None = path()  # None: found by find_checkpoint
    submission: str | None = ruled(_file_name)  # the model's name in the file for the evaluation server; None: no file
    predictions: str | None = path()
    questions: str | None = path()
    annotations: str | None = path()
    references: str | None = path()

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.predictions is not None and self.checkpoint is not None:
            raise UserError("predictions=… and checkpoint=…: a result file is scored without a model; leave one out")


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
