"""What the weights in a local file were trained with: the activation and the preprocessing, which are not weights.

They are read from ``open_clip_config.json`` beside the file, as the Hugging Face hub has it, or follow from the file or
the architecture. Where nothing is known, they are assumed, and a warning names them with the config keys that set them.
"""

from __future__ import annotations

import functools
import json
import sys
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import open_clip
from open_clip.constants import OPENAI_DATASET_MEAN, OPENAI_DATASET_STD
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from clipmapper.config.schema import EncoderConfig, OpenClipConfig, TrainedWithConfig
from clipmapper.encoder.shapes_tiny import EMBEDDED_MODEL
from clipmapper.errors import UserError

BESIDE = "open_clip_config.json"
KEYS = tuple(field.name for field in fields(TrainedWithConfig))
# Fields of open_clip's architectures that do not change what a loaded model computes.
_IRRELEVANT = {"patch_dropout", "output_tokens", "hf_tokenizer_name", "tokenizer_kwargs"}
_LARGEST = 1 << 20  # bytes of the JSON file


@dataclass(frozen=True)
class Source:
    """An open_clip model that a section of the config names."""

    section: str  #: ``encoder`` or ``model``
    name: str  #: of the architecture, or of a folder (:mod:`clipmapper.encoder.folders`)
    weights: str | None  #: None: those of the folder
    given: TrainedWithConfig  #: what the config says about the training
    typed: str | None = None  #: the name in the config, if it is that of a folder

    @classmethod
    def of(cls, config: EncoderConfig | OpenClipConfig) -> Source:
        """Return what a config names."""
        given = TrainedWithConfig(**{key: getattr(config, key) for key in KEYS})
        if isinstance(config, EncoderConfig):
            return cls("encoder", config.model, config.weights, given)
        return cls("model", config.architecture, config.weights, given)

    @property
    def model(self) -> str:
        """The name of the architecture with its config key, for messages."""
        name = self.typed or self.name
        return f"encoder.model={name}" if self.section == "encoder" else f"model.architecture={name}"

    @property
    def file(self) -> str:
        """The weights with their config key, for messages."""
        return f"{self.section}.weights={'null' if self.weights is None else self.weights}"


def trained_with(source: Source, openai: bool) -> TrainedWithConfig:
    """Return what a file's weights were trained with; no value is None.

    Args:
        source: The architecture, its weights file, and what the config says.
        openai: Whether OpenAI's own code wrote the file.

    Raises:
        UserError: ``open_clip_config.json`` beside the file is damaged or describes another architecture.
    """
    quick_gelu = bool((open_clip.get_model_config(source.name) or {}).get("quick_gelu", False))
    usual = TrainedWithConfig(
        quick_gelu=openai or quick_gelu,
        mean=list(OPENAI_DATASET_MEAN),
        std=list(OPENAI_DATASET_STD),
        interpolation="bicubic",
        resize_mode="shortest",
    )
    beside = Path(source.weights or "").parent / BESIDE
    if openai or source.name == EMBEDDED_MODEL:
        found = usual
    elif beside.is_file():
        found = _read(beside, source)
    else:
        found = TrainedWithConfig()
    given = {key: value for key, value in asdict(source.given).items() if value is not None}
    known = replace(found, **given)
    assumed = {key: value for key, value in asdict(usual).items() if getattr(known, key) is None}
    if assumed:
        _warn(
            f"warning: {source.file}: no {BESIDE} beside it says what it was trained with, so this is assumed: "
            + ", ".join(f"{source.section}.{key}={_typed(value)}" for key, value in assumed.items())
            + "; give these keys if it was trained with something else"
        )
    return replace(known, **assumed)


@functools.cache  # once in a process, however often the model is loaded
def _warn(line: str) -> None:
    print(line, file=sys.stderr)


def _typed(value: Any) -> str:
    """Return a value as it is typed on the command line."""
    return json.dumps(value, separators=(",", ":")).replace('"', "")


class _Part(BaseModel):
    model_config = ConfigDict(strict=True, extra="ignore", frozen=True)


_Mean = Annotated[float, Field(ge=-1e3, le=1e3)]
_Std = Annotated[float, Field(ge=1e-6, le=1e3)]


class _Preprocessing(_Part):
    mean: tuple[_Mean, _Mean, _Mean]
    std: tuple[_Std, _Std, _Std]
    interpolation: Literal["bicubic", "bilinear", "random"] = "bicubic"  # random: in training; bicubic afterwards
    resize_mode: Literal["shortest", "longest", "squash"] = "shortest"
    mode: Literal["RGB"] = "RGB"
    fill_color: Literal[0] = 0


class _Architecture(_Part):
    model_config = ConfigDict(strict=True, extra="allow", frozen=True)  # open_clip has more keys

    embed_dim: int
    vision_cfg: dict[str, Any]
    text_cfg: dict[str, Any]
    quick_gelu: bool = False


class About(_Part):
    """The content of ``open_clip_config.json``."""

    model_cfg: _Architecture
    preprocess_cfg: _Preprocessing


def read_beside(path: Path, source: Source) -> About:
    """Read the file that describes an architecture and how its weights were trained.

    Raises:
        UserError: The file is damaged.
    """
    advice = f"correct or remove it, and give {source.section}.quick_gelu, {source.section}.mean and so on instead"
    try:
        if path.stat().st_size > _LARGEST:
            raise UserError(f"{path}: has more than {_LARGEST} bytes, so it is no {BESIDE}; {advice}")
        return About.model_validate_json(path.read_bytes())
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        field = ".".join(map(str, first["loc"]))
        raise UserError(f"{path}: {f'{field}: ' if field else ''}{first['msg']}; {advice}") from error
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); {advice}") from error


def _read(path: Path, source: Source) -> TrainedWithConfig:
    about = read_beside(path, source)
    _check_architecture(about.model_cfg, path, source)
    shown = about.preprocess_cfg
    return TrainedWithConfig(
        quick_gelu=about.model_cfg.quick_gelu,
        mean=list(shown.mean),
        std=list(shown.std),
        interpolation="bilinear" if shown.interpolation == "bilinear" else "bicubic",
        resize_mode=shown.resize_mode,
    )


def _check_architecture(about: _Architecture, path: Path, source: Source) -> None:
    """Raise UserError if a file describes another architecture, some of which have weights of the same shapes."""
    named = open_clip.get_model_config(source.name)
    pairs = {"embed_dim": ({"embed_dim": about.embed_dim}, {"embed_dim": named["embed_dim"]})}
    for part, kind in (("vision_cfg", open_clip.CLIPVisionCfg), ("text_cfg", open_clip.CLIPTextCfg)):
        try:
            pairs[part] = asdict(kind(**getattr(about, part))), asdict(kind(**named[part]))
        except TypeError as error:
            raise UserError(f"{path}: model_cfg.{part}: {' '.join(str(error).split())[:160]}; correct it") from error
    for part, (theirs, ours) in pairs.items():
        differing = [key for key in ours if key not in _IRRELEVANT and theirs[key] != ours[key]]
        if differing:
            key = differing[0]
            raise UserError(
                f"{path}: model_cfg.{part if part == key else f'{part}.{key}'} is {theirs[key]!r}, that of "
                f"{source.model} is {ours[key]!r}: choose the model that the file describes"
            )
