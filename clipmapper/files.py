"""Files: only regular ones are read; atomic writes, JSON with checked fields, result files, and a run's metrics."""

from __future__ import annotations

import errno
import json
import math
import os
import platform
import re
import reprlib
import stat
import subprocess
from collections.abc import Mapping
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from clipmapper.errors import UserError
from clipmapper.process.partial import named_errors, partial_path
from clipmapper.storage.checksums import check_beside, checksums_beside, note_unsealed, sealed, unsealed
from clipmapper.text import check_texts

GIB = 1 << 30
#: Greatest size of a file in bytes, by kind: far above what people have, and below what fills a machine's memory.
LIMITS = {
    "JSON": 4 * GIB,
    "image": GIB // 2,
    "weights": 64 * GIB,
    "Parquet": 16 * GIB,
    "curves": 4 * GIB,
    "text": GIB // 16,
}


def check_regular(path: Path, kind: str) -> None:
    """Check that a path is a regular file of at most ``LIMITS[kind]`` bytes, before anything of it is read.

    Raises:
        FileNotFoundError: There is no such file.
        OSError: It is a folder, or cannot be looked up.
        UserError: It is a device, pipe or socket, or the file is larger.
    """
    found = path.stat()
    if stat.S_ISDIR(found.st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if not stat.S_ISREG(found.st_mode):
        kinds = {stat.S_IFIFO: "a pipe", stat.S_IFSOCK: "a socket"}
        other = kinds.get(stat.S_IFMT(found.st_mode), "a device")
        raise UserError(f"{path}: is {other}, not a file; give a regular file")
    if found.st_size > LIMITS[kind]:
        large, most = found.st_size / GIB, LIMITS[kind] / GIB
        raise UserError(f"{path}: has {large:.1f} GiB, more than the {most:g} GiB for {kind}; give a smaller file")


def read_bytes(path: Path, kind: str) -> bytes:
    """Return the content of a regular file of at most ``LIMITS[kind]`` bytes.

    Raises:
        OSError: The file is missing or unreadable.
        UserError: It is no regular file, or too large (:func:`check_regular`).
    """
    check_regular(path, kind)
    return path.read_bytes()


def write_atomic(path: Path, content: bytes | memoryview) -> None:
    """Write a file atomically: write a temporary file in the same folder, then rename it.

    Raises:
        OSError: Writing failed; an existing file at ``path`` is unchanged.
    """
    partial = partial_path(path)
    try:
        with named_errors(path):
            partial.write_bytes(content)
            partial.replace(path)
    except BaseException:
        with suppress(OSError):
            partial.unlink()
        raise


def read_json(path: Path, own: bool = False) -> Any:
    """Return the content of a JSON file in UTF-8, UTF-16 or UTF-32, with or without a byte order mark.

    The checksum of an object (:func:`write_json`), or of the entries of a list, is verified and left out.

    Args:
        path: The file.
        own: Whether only this project writes such files; one without a checksum is then named on stderr.

    Raises:
        UserError: The file is missing, unreadable, too large, empty, cut off or not JSON, holds text that UTF-8 cannot
            hold, or is not what was written.
    """
    try:
        content = parse_json(read_bytes(path, "JSON"), str(path))
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; correct the path or put the file there") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); give a readable JSON file") from error
    if isinstance(content, list) and own:
        return [unsealed(each, path, own) if isinstance(each, dict) else each for each in content]
    if not isinstance(content, dict):
        return content
    bare = unsealed(content, path, own)
    if own and bare is content:
        note_unsealed(path)
    return bare


# The escape of half of a surrogate pair; two of them can be one character, such as an emoji.
_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")


def parse_json(encoded: bytes, at: str) -> Any:
    """Return the content of JSON text in UTF-8, UTF-16 or UTF-32, with or without a byte order mark.

    Args:
        encoded: The text.
        at: Its place for error messages, such as ``file.json``.

    Raises:
        UserError: It is not JSON, or holds text that UTF-8 cannot hold.
    """
    try:
        text = encoded.decode(json.detect_encoding(encoded))
        content = json.loads(text, parse_constant=_refuse_constant)
    except UnicodeDecodeError as error:
        where = f"{error.reason} at byte {error.start}"
        raise UserError(
            f"{at}: not valid JSON in UTF-8 ({where}); save it in UTF-8, or copy or download it again"
        ) from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"{at}: not valid JSON ({error}); it may be cut off, so copy or download it again") from error
    if _SURROGATE.search(text):  # only then, since the check of VQAv2's millions of texts takes seconds
        check_texts(content, f"{at}: ")
    return content


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON number")


def write_json(path: Path, content: Any) -> None:
    """Write ``content`` as indented JSON with :func:`write_atomic`, and create the folder if needed.

    Undefined numbers (NaN, infinities), which JSON does not have, become null.
    An object gets the key ``checksum`` (:mod:`clipmapper.storage.checksums`), which :func:`read_json` verifies.

    Raises:
        UserError: The file cannot be written.
    """
    content = finite(content)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, indented(sealed(content) if isinstance(content, Mapping) else content).encode())
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error.strerror}); choose a writable folder") from error


def indented(content: Any) -> str:
    """Return ``content`` as JSON with an indentation of two spaces, and lists of numbers on one line."""
    return _indented(content, "\n") + "\n"


def _indented(value: Any, line: str) -> str:
    inner = f"{line}  "
    if isinstance(value, Mapping) and value:
        entries = (f"{json.dumps({key: 0})[1:-2]}{_indented(each, inner)}" for key, each in value.items())
        return f"{{{inner}{f',{inner}'.join(entries)}{line}}}"
    if isinstance(value, list | tuple) and any(isinstance(each, str | list | tuple | Mapping) for each in value):
        return f"[{inner}{f',{inner}'.join(_indented(each, inner) for each in value)}{line}]"
    return json.dumps(value, allow_nan=False)


def finite(value: Any) -> Any:
    """Replace every NaN or infinite number in nested dicts, lists and tuples by None; tuples become lists."""
    if isinstance(value, Mapping):
        return {key: finite(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [finite(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


_T = TypeVar("_T", int, str, list)
_KINDS = {int: "a whole number", str: "a string", list: "a list"}


def read_field(entry: Any, name: str, kind: type[_T], at: str) -> _T:
    """Return ``entry[name]`` after checking its type.

    Args:
        entry: Any value read from JSON.
        name: Name of the field.
        kind: Expected type: int, str or list. A bool does not count as an int.
        at: Place of the entry for error messages, such as ``file.json: images[3]``.

    Raises:
        UserError: ``entry`` is not a JSON object, has no such field, or the field has another type.
    """
    value = entry.get(name) if isinstance(entry, dict) else None
    if type(value) is kind:  # isinstance would accept a bool as an int
        return value
    if not isinstance(entry, dict):
        raise UserError(f'{at}: is {reprlib.repr(entry)}, not an object with "{name}"; correct or remove it')
    if name not in entry:
        found = ", ".join(map(repr, entry)) or "nothing"
        raise UserError(f'{at}: has no "{name}" (found: {found:.80}); add it or give a file that has it')
    raise UserError(f'{at}: "{name}" is {reprlib.repr(value)}, not {_KINDS[kind]}; correct it')


def read_id(entry: Any, name: str, at: str) -> int:
    """Return a field that is an id: a whole number of 64 bits with sign, as all files of results can hold it.

    Raises:
        UserError: The field is missing, has another type (see :func:`read_field`), or has more bits.
    """
    value = read_field(entry, name, int, at)
    if not -(2**63) <= value < 2**63:
        raise UserError(f'{at}: "{name}" is {reprlib.repr(value)}, but ids have at most 63 bits; give a smaller number')
    return value


def read_text(entry: Any, name: str, at: str) -> str:
    """Return a string field that is not blank.

    Raises:
        UserError: The field is missing, has another type (see :func:`read_field`) or is blank.
    """
    value = read_field(entry, name, str, at)
    if not value.strip():
        raise UserError(f'{at}: "{name}" is empty; fill it in or remove the entry')
    return value


class ResultFields(NamedTuple):
    """Names of the two fields of an entry in a result file."""

    id: str
    text: str


ANSWERS = ResultFields("question_id", "answer")
CAPTIONS = ResultFields("image_id", "caption")


def read_results(path: Path, fields: ResultFields) -> dict[int, str]:
    """Read a result file and return its texts by id, in the order of the file.

    Raises:
        UserError: The file is missing or not a list, an entry lacks a field or has a field of the wrong type, an id
            occurs twice, or the file is not what the run wrote whose ``metrics.json`` is beside it.
    """
    content = read_json(path)
    check_beside(path, read_bytes(path, "JSON"), _metrics_beside(path))
    if not isinstance(content, list):
        raise UserError(f'{path}: not a result file; give a list [{{"{fields.id}": 1, "{fields.text}": "…"}}]')
    results: dict[int, str] = {}
    for number, entry in enumerate(content):
        at = f"{path}: [{number}]"
        id_ = read_id(entry, fields.id, at)
        if id_ in results:
            raise UserError(f"{at}: {fields.id} {id_} occurs twice; remove one of the two")
        results[id_] = read_field(entry, fields.text, str, at)
    return results


def _metrics_beside(path: Path) -> Any:
    """Return the content of the ``metrics.json`` beside a file; None if there is none, or another program's."""
    with suppress(UserError):
        return read_json(path.with_name("metrics.json"))
    return None


def write_results(path: Path, fields: ResultFields, results: Mapping[int, str]) -> None:
    """Write texts by id as a result file, in the format of the evaluation servers.

    Raises:
        UserError: The file cannot be written.
    """
    write_json(path, [{fields.id: id_, fields.text: text} for id_, text in results.items()])


_PACKAGES = ("torch", "open_clip_torch", "pytorch-lightning", "numpy")


def write_metrics(path: Path, metrics: dict[str, Any], config: dict[str, Any]) -> None:
    """Write the metrics together with the resolved config and the versions of the software."""
    beside = checksums_beside(path.parent, *(f"{name}_*.json" for name in ("captions", "predictions", "submission")))
    write_json(path, {**metrics, "config": config, "versions": versions(), **beside})


_GIT = 10.0  # seconds that git may take


def versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that affect results, and the commit if git can report it."""
    found = {"python": platform.python_version(), **{name: version(name) for name in _PACKAGES}}
    here = str(Path(__file__).parent)
    try:
        line = ["git", "-C", here, "rev-parse", "HEAD"]
        head = subprocess.run(line, capture_output=True, text=True, check=True, timeout=_GIT, stdin=subprocess.DEVNULL)
    except (OSError, ValueError, subprocess.SubprocessError):  # none, broken, no repository, or it does not answer
        return found
    return found | {"commit": head.stdout.strip()}
