"""JSON and other files: whole or not there, with checked fields, and what runs and evaluation servers take."""

from __future__ import annotations

import json
import os
import platform
import reprlib
import subprocess
from collections.abc import Mapping
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from clipmapper.errors import UserError


def write_atomic(path: Path, content: bytes | memoryview) -> None:
    """Writes beside the place and renames, so that nobody meets half a file.

    Raises ``OSError`` where that fails; what was there stays.
    """
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        partial.write_bytes(content)
        partial.replace(path)
    except BaseException:
        with suppress(OSError):
            partial.unlink()
        raise


def read_json(path: Path) -> Any:
    """The content of a JSON file (UTF-8, -16 or -32, with or without a byte order mark).

    Raises ``UserError`` where the file is missing, unreadable, empty, cut off or no JSON.
    """
    try:
        return json.loads(path.read_bytes())
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; correct the path or put the file there") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); give a readable JSON file") from error
    except (ValueError, RecursionError) as error:  # a decoding error of JSON or of its text is a ValueError
        raise UserError(f"{path}: not valid JSON ({error}); it may be cut off, so copy or download it again") from error


def write_json(path: Path, content: Any) -> None:
    """Writes ``content`` whole or not at all.

    Raises ``UserError`` where the folder cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, json.dumps(content).encode())
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error.strerror}); choose a writable folder") from error


_T = TypeVar("_T", int, str, list)
_KINDS = {int: "a whole number", str: "a text", list: "a list"}


def read_field(entry: Any, name: str, kind: type[_T], at: str) -> _T:
    """``entry[name]``, a value of ``kind``.

    Args:
        entry: what stands in the file; anything that JSON can hold.
        name: the field's name.
        kind: int, str or list; a bool is no int.
        at: where the entry is, for messages: ``file.json: images[3]``.

    Raises:
        UserError: ``entry`` is no object, has no such field, or has one of another kind.
    """
    value = entry.get(name) if isinstance(entry, dict) else None
    if type(value) is kind:  # not isinstance: a bool is no id
        return value
    if not isinstance(entry, dict):
        raise UserError(f'{at}: is {reprlib.repr(entry)}, not an object with "{name}"; correct or remove it')
    if name not in entry:
        found = ", ".join(map(repr, entry)) or "nothing"
        raise UserError(f'{at}: has no "{name}" (found: {found:.80}); add it or give a file that has it')
    raise UserError(f'{at}: "{name}" is {reprlib.repr(value)}, not {_KINDS[kind]}; correct it')


def read_text(entry: Any, name: str, at: str) -> str:
    """A field with a text that says something; raises ``UserError`` as ``read_field``, and where it is blank."""
    value = read_field(entry, name, str, at)
    if not value.strip():
        raise UserError(f'{at}: "{name}" is empty; fill it in or remove the entry')
    return value


class ResultFields(NamedTuple):
    """What the two fields of an entry are called."""

    id: str
    text: str


ANSWERS = ResultFields("question_id", "answer")
CAPTIONS = ResultFields("image_id", "caption")


def read_results(path: Path, fields: ResultFields) -> dict[int, str]:
    """Texts by id, in the file's order.

    Raises ``UserError`` where the file is missing or holds no list, an entry lacks a field or has one of a wrong type,
    or an id occurs twice.
    """
    content = read_json(path)
    if not isinstance(content, list):
        raise UserError(f'{path}: not a result file; give a list [{{"{fields.id}": 1, "{fields.text}": "…"}}]')
    results: dict[int, str] = {}
    for number, entry in enumerate(content):
        at = f"{path}: [{number}]"
        id_ = read_field(entry, fields.id, int, at)
        if id_ in results:
            raise UserError(f"{at}: {fields.id} {id_} occurs twice; remove one of the two")
        results[id_] = read_field(entry, fields.text, str, at)
    return results


def write_results(path: Path, fields: ResultFields, results: Mapping[int, str]) -> None:
    """Writes texts by id in their order; raises ``UserError`` where the folder cannot be written."""
    write_json(path, [{fields.id: id_, fields.text: text} for id_, text in results.items()])


_PACKAGES = ("torch", "open_clip_torch", "pytorch-lightning", "numpy")


def write_metrics(path: Path, metrics: dict[str, Any], config: dict[str, Any]) -> None:
    """Writes the metrics beside the resolved config and the versions of what computed them."""
    write_json(path, {**metrics, "config": config, "versions": versions()})


def versions() -> dict[str, str]:
    """Python, the packages that numbers depend on, and the project's commit where it is a checkout and git is there."""
    found = {"python": platform.python_version(), **{name: version(name) for name in _PACKAGES}}
    here = str(Path(__file__).parent)
    try:
        head = subprocess.run(["git", "-C", here, "rev-parse", "HEAD"], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return found
    return found | {"commit": head.stdout.strip()}
