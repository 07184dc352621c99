"""The card of a checkpoint, and the structure of the checkpoint's content."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from math import isqrt
from pathlib import Path
from typing import Annotated, Any, NotRequired

from pydantic import AfterValidator, Field
from torch import Tensor
from typing_extensions import TypedDict

from clipmapper.config.schema import EncoderConfig, MapperConfig
from clipmapper.errors import UserError
from clipmapper.storage.validation import CLOSED, check

CARD = "clipmapper"  #: the key of a checkpoint's card
_FIX = "give a checkpoint that scripts/train.py wrote"
_Size = Annotated[int, Field(ge=1, le=1 << 16)]


class MapperEntry(TypedDict):
    """The config of the mapper."""

    __pydantic_config__ = CLOSED  # type: ignore[misc]
    name: str
    layers: _Size
    width: _Size
    heads: _Size
    positions: str
    readout: str
    start: str
    dropout: Annotated[float, Field(ge=0, lt=1)]


class EncoderEntry(TypedDict):
    """The config of the encoder; keys that later versions added may be missing."""

    model: str
    weights: str | None
    feature_dtype: NotRequired[str]
    batch_size: NotRequired[int | None]


def _packed(text: str) -> str:
    if len(base64.b64decode(text, validate=True)) % 4:  # errors of the decoder are ValueErrors
        raise ValueError("it does not hold float32 numbers in base64")
    return text


def _triangle(entry: Mapping[str, str]) -> Mapping[str, str]:
    width, packed = (len(base64.b64decode(entry[name])) // 4 for name in ("mean", "whitening"))
    if width != (isqrt(8 * packed + 1) - 1) // 2 or packed != width * (width + 1) // 2:
        raise ValueError("its parts mean and whitening do not fit")
    return entry


class StatisticsEntry(TypedDict):
    """Mean and covariance of the training images: float32 in base64."""

    mean: Annotated[str, AfterValidator(_packed)]
    whitening: Annotated[str, AfterValidator(_packed)]


class FamiliarityEntry(TypedDict):
    """What is known about the training data."""

    words: NotRequired[list[str] | None]
    images: NotRequired[Annotated[StatisticsEntry, AfterValidator(_triangle)] | None]


class Scores(TypedDict):
    """The scores of a split that compare checkpoints."""

    accuracy: NotRequired[float | None]
    true_captions: NotRequired[float | None]
    CIDEr: NotRequired[float | None]


class Metrics(TypedDict):
    """Scores by split, as ``metrics.json`` and the card of a weights file hold them."""

    val: NotRequired[Scores]
    test: NotRequired[Scores]


class Card(TypedDict):
    """The description of the model and its training."""

    task: str
    data: str
    mapper: MapperEntry
    encoder: EncoderEntry
    encoder_fingerprint: str
    sees: NotRequired[str]
    answers: NotRequired[Annotated[list[str], Field(min_length=1)]]
    tokens: NotRequired[Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=1)]]
    familiarity: NotRequired[FamiliarityEntry]
    seed: NotRequired[int]
    steps: NotRequired[Annotated[int, Field(ge=0)]]
    metrics: NotRequired[Metrics]


class CheckpointContent(TypedDict):
    """What every checkpoint and weights file holds."""

    clipmapper: Card
    state_dict: Annotated[dict[str, Any], Field(min_length=1)]


def check_content(content: Mapping[str, Any], path: Path) -> None:
    """Check the structure of a checkpoint.

    Raises:
        UserError: A field is missing, unknown or of another kind, or a weight is no tensor.
    """
    at = f"checkpoint {path}"
    check(CheckpointContent, content, at, _FIX)
    about, weights = content[CARD], content["state_dict"]
    for name, known in (("mapper", MapperConfig), ("encoder", EncoderConfig)):
        if unknown := about[name].keys() - known.__dataclass_fields__.keys():
            raise UserError(f"{at}: {CARD}.{name}.{min(unknown)} is unknown; {_FIX}")
    if odd := [name for name, value in weights.items() if not isinstance(value, Tensor)]:
        raise UserError(f"{at}: state_dict.{odd[0]} is not a tensor; {_FIX}")


def check_sizes(about: Mapping[str, Any], weights: Mapping[str, Tensor], path: Path) -> None:
    """Check the sizes in a card before a model of these sizes is built, which takes memory.

    Raises:
        UserError: No weight has one of these sizes.
    """
    sizes = {size for tensor in weights.values() for size in tensor.shape}
    outputs = [len(about[name]) for name in ("answers", "tokens") if name in about]
    if about["mapper"]["layers"] > len(weights) or not {about["mapper"]["width"], *outputs} <= sizes:
        raise UserError(f"checkpoint {path}: its weights do not fit its own description; it is damaged")
