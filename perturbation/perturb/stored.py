"""The JSON files of a perturbation run that a later run reads again: their structure, and their readers."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, NotRequired, cast

from pydantic import Field
from typing_extensions import TypedDict

from clipmapper.config.run_folder import IDENTITY
from clipmapper.errors import UserError
from clipmapper.files import read_json
from clipmapper.storage.validation import CLOSED, check

CHOSEN, CAPTIONS = "engine.json", "captions.json"  # computed once; a resumed run copies them

Identity = dict[str, Any]


class IdentityFile(TypedDict):
    """What the numbers of a run depend on; hashes of the samples have the name of their kind."""

    config: dict[str, Any]
    checkpoint: Annotated[str, Field(min_length=1)]
    records: NotRequired[int]
    versions: dict[str, str]


class PooledConfig(TypedDict):
    """The part of a run's config that its pooled report uses."""

    steps: str | list[float]
    direction: Annotated[list[str], Field(min_length=1)]
    seed: Annotated[int, Field(ge=0)]


class EngineFile(TypedDict):
    """The batch size of the engine that was the fastest."""

    __pydantic_config__ = CLOSED  # type: ignore[misc]
    engine_batch: Annotated[int, Field(ge=1, le=1 << 20)]


class CaptionEntry(TypedDict):
    """The model's caption of one image: token ids, text, words, and the words' weights by weighting."""

    __pydantic_config__ = CLOSED  # type: ignore[misc]
    ids: Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=1)]
    caption: str
    words: list[str]
    weights: dict[str, list[float]]


def read_identity(folder: Path) -> Identity:
    """Return the identity of the run in a folder.

    Raises:
        UserError: The file is missing, damaged or has another structure.
    """
    return _read(folder / IDENTITY, IdentityFile, "start the run again in another folder")


def check_pooled(folder: Path, config: Identity) -> None:
    """Raise UserError if a run's config lacks what its pooled report uses."""
    check(PooledConfig, config, f"{folder / IDENTITY}: config", "run its test again")


def read_engine_batch(run: Path) -> int:
    """Return the batch size that the file ``engine.json`` holds.

    Raises:
        UserError: The file is missing, damaged or has another structure.
    """
    return int(_read(run / CHOSEN, EngineFile, "remove it, and the batch size is measured again")["engine_batch"])


def read_captions(run: Path) -> dict[int, dict[str, Any]]:
    """Return the entries of ``captions.json`` by image id.

    Raises:
        UserError: The file is missing, damaged or has another structure.
    """
    file, fix = run / CAPTIONS, "remove it, and the images are captioned again"
    content = _read(file, dict[str, CaptionEntry], fix)
    for key, entry in content.items():
        if not (key.isascii() and key.isdecimal()):
            raise UserError(f"{file}: {key!r:.40} is no image id; {fix}")
        for name, weights in entry["weights"].items():
            if len(weights) != len(entry["words"]):
                raise UserError(f"{file}: {key}.weights.{name} does not have a weight for each word; {fix}")
    return {int(key): entry for key, entry in content.items()}


def _read(path: Path, kind: Any, fix: str) -> dict[str, Any]:
    content = read_json(path, own=True)
    check(kind, content, str(path), fix)
    return cast(dict[str, Any], content)
