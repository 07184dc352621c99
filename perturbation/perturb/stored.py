"""The JSON files of a perturbation run that a later run reads again: their structure, their writers and readers.

What a run computes once, or batch by batch, has the key ``run``: the name of the run, which is a hash of its identity.
A file of another run, which was copied into the folder, is recognised by it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, NotRequired, cast

from pydantic import Field
from typing_extensions import TypedDict

from clipmapper.config.run_folder import IDENTITY
from clipmapper.errors import UserError
from clipmapper.files import read_json, write_json
from clipmapper.storage.checksums import checksum
from clipmapper.storage.validation import CLOSED, check

CHOSEN, CAPTIONS = "engine.json", "captions.json"  # computed once; a resumed run copies them

RUN = "run"  #: the key of the name of the run

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
    run: NotRequired[str]  # not in files of earlier versions


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


def name_of_run(run: Path) -> str:
    """Return a hash of the identity that a run folder holds; empty if it holds none.

    Raises:
        UserError: The identity is damaged or has another structure.
    """
    if not (run / IDENTITY).is_file():
        return ""
    return checksum([json.dumps(read_identity(run), sort_keys=True).encode()])


def write_engine_batch(run: Path, size: int) -> None:
    """Write the file ``engine.json``."""
    write_json(run / CHOSEN, {"engine_batch": size, RUN: name_of_run(run)})


def read_engine_batch(run: Path) -> int:
    """Return the batch size that the file ``engine.json`` holds.

    Raises:
        UserError: The file is missing, damaged, of another run, or has another structure.
    """
    fix = "remove it, and the batch size is measured again"
    content = _read(run / CHOSEN, EngineFile, fix)
    _check_own(run, CHOSEN, content, fix)
    return int(content["engine_batch"])


def write_captions(run: Path, entries: Mapping[int, Mapping[str, Any]]) -> None:
    """Write the file ``captions.json``."""
    write_json(run / CAPTIONS, {**entries, RUN: name_of_run(run)})


def read_captions(run: Path) -> dict[int, dict[str, Any]]:
    """Return the entries of ``captions.json`` by image id.

    Raises:
        UserError: The file is missing, damaged, of another run, or has another structure.
    """
    file, fix = run / CAPTIONS, "remove it, and the images are captioned again"
    content = read_json(file, own=True)
    if isinstance(content, dict):
        _check_own(run, CAPTIONS, content, fix)
        content = {key: entry for key, entry in content.items() if key != RUN}
    check(dict[str, CaptionEntry], content, str(file), fix)
    for key, entry in content.items():
        if not (key.isascii() and key.isdecimal()):
            raise UserError(f"{file}: {key!r:.40} is no image id; {fix}")
        for name, weights in entry["weights"].items():
            if len(weights) != len(entry["words"]):
                raise UserError(f"{file}: {key}.weights.{name} does not have a weight for each word; {fix}")
    return {int(key): entry for key, entry in content.items()}


def _check_own(run: Path, name: str, content: Mapping[str, Any], fix: str) -> None:
    """Check that a file was written for the run in its folder; files of earlier versions do not say that."""
    if content.get(RUN, own := name_of_run(run)) != own:
        raise UserError(f"{run / name}: is of another run; {fix}")


def _read(path: Path, kind: Any, fix: str) -> dict[str, Any]:
    content = read_json(path, own=True)
    check(kind, content, str(path), fix)
    return cast(dict[str, Any], content)
