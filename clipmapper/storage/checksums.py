"""Checksums of content, by one rule for every kind of file that a later command reads again.

A checksum is a hash of what a file says (numbers, texts, tensors, columns), not of its bytes. It is stored in the file:
as the last key of a JSON object, as a key of a checkpoint, in the metadata of a Parquet file, as the last line of a
text. A file without one was
written by an earlier version: it is read, and one line on stderr says that damage would not be noticed.
"""

from __future__ import annotations

import hashlib
import json
import re
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from clipmapper.errors import UserError

KEY = "checksum"
FILES = "files"  #: the key of the checksums of other files of the folder, in the file that a run writes last
_START = "blake2b:"
_LINE = "# checksum: "


def checksum(content: Iterable[bytes | memoryview]) -> str:
    """Return the checksum of a content that is given in pieces of bytes."""
    digest = hashlib.blake2b(digest_size=16)
    for piece in content:
        digest.update(piece)
    return _START + digest.hexdigest()


def is_checksum(value: object) -> bool:
    """Return whether a value is written as :func:`checksum` writes one."""
    return isinstance(value, str) and value.startswith(_START)


def _was_one(value: object) -> bool:
    """Return whether a value is a checksum whose beginning is damaged."""
    return isinstance(value, str) and re.fullmatch(r".{8}[0-9a-f]{32}", value, re.DOTALL) is not None


def sealed(content: Mapping[Any, Any]) -> dict[Any, Any]:
    """Return a JSON object with its checksum as the last key; one that it has already is replaced."""
    bare = {key: value for key, value in content.items() if key != KEY}
    return {**bare, KEY: checksum([json.dumps(bare).encode()])}


def unsealed(content: dict[str, Any], path: Path, own: bool) -> dict[str, Any]:
    """Return a JSON object without its checksum; an object without one is returned unchanged.

    Args:
        content: The object.
        path: Its file, for messages.
        own: Whether only this project writes such files.

    Raises:
        UserError: The checksum is not that of the object, or its key or its beginning is damaged.
    """
    if not is_checksum(content.get(KEY)):
        values = content.values()
        if any(map(is_checksum, values)) or (own and (KEY in content or any(map(_was_one, values)))):
            raise damaged(path)
        return content
    bare = {key: value for key, value in content.items() if key != KEY}
    if sealed(bare)[KEY] != content[KEY]:
        raise damaged(path)
    return bare


def sealed_text(text: str) -> str:
    """Return a text of YAML with its checksum in a last line, which is a comment."""
    return f"{text}{_LINE}{checksum([text.encode()])}\n"


def unsealed_text(text: str, path: Path) -> str:
    """Return a text without the checksum in its last line; a text without one is returned unchanged.

    Raises:
        UserError: The checksum is not that of the text, or is damaged.
    """
    bare, line, held = text.rpartition(_LINE)
    if line and (held.removesuffix("\n") != checksum([bare.encode()]) or not held.endswith("\n")):
        raise damaged(path)
    if not line and _was_one(text[-41:-1]):
        raise damaged(path)
    return bare if line else text


def checksums_beside(folder: Path, *patterns: str) -> dict[str, dict[str, str]]:
    """Return the entry ``files``: checksums of the bytes of files that were written before, by name."""
    paths = sorted(path for pattern in patterns for path in folder.glob(pattern))
    found = {path.name: checksum([path.read_bytes()]) for path in paths}
    return {FILES: found} if found else {}


def check_beside(path: Path, encoded: bytes, content: object) -> None:
    """Compare the bytes of a file with the checksum that the entry ``files`` of a content has of it, if any.

    Raises:
        UserError: The checksum is another.
    """
    listed = content.get(FILES) if isinstance(content, dict) else None
    held = listed.get(path.name) if isinstance(listed, dict) else None
    if held is not None and checksum([encoded]) != held:
        raise damaged(path)


def damaged(path: Path) -> UserError:
    """Return the error for a file whose content is not what was written."""
    return UserError(
        f"{path}: damaged or edited: its content does not have the checksum that is written in it; "
        "copy it again from an intact place, or run the command again that wrote it"
    )


def note_unsealed(path: Path) -> None:
    """Say on stderr that a file has no checksum."""
    print(f"{path} has no checksum, as an earlier version wrote it: damage would not be noticed", file=sys.stderr)
