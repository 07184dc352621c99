"""Files that are whole or not there, and JSON."""

from __future__ import annotations

import json
import os
from contextlib import suppress
from pathlib import Path
from typing import Any

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
