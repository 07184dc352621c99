"""Content hashes, which identify images and texts, and the index that remembers those of files.

The index has one file for each folder of images, and for each file that holds several, such as Parquet. It remembers
the hash of an image with the size, times and inode of its file, and if one of these has changed, it is read again.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
from xxhash import xxh3_128_digest

from clipmapper.data.images import EncodedImage, FileImage
from clipmapper.data.records import ImageSource
from clipmapper.features.shard import KEY
from clipmapper.files import write_atomic
from clipmapper.places import real_path
from clipmapper.storage.sharing import make_folder, share

SETTLED = 2_000_000_000  #: ns after a change of a file during which another change may leave its times the same
_STAMP = ("size", "mtime", "ctime", "inode")
_SCHEMA = pa.schema([("name", pa.string()), *((name, pa.int64()) for name in _STAMP), ("key", pa.binary(KEY))])
_Stamp = tuple[int, int, int, int]  # size, times and inode


def text_key(text: str) -> bytes:
    """Return the content hash of a text."""
    return hash_of(text.encode("utf-8", "surrogatepass"))


def hash_of(content: bytes) -> bytes:
    """Return the hash of a content, 16 bytes."""
    return hashlib.blake2b(content, digest_size=KEY).digest()


class _File(NamedTuple):
    folder: Path
    name: str
    stamp: _Stamp


class Hashes:
    """The content hashes of images, remembered for image files.

    Args:
        folder: Folder of the index, which is created when there is something to remember; if it cannot be written, only
            this object remembers.
    """

    def __init__(self, folder: Path):
        self._folder = folder
        self._known: dict[Path, dict[str, tuple[_Stamp, bytes]]] = {}  # by folder and name
        self._new: dict[Path, set[str]] = {}
        self._resolved: dict[str, Path] = {}

    def known(self, source: ImageSource) -> bytes | None:
        """Return the remembered hash of an image that has not changed since, or None."""
        file = self._file(source)
        found = None if file is None else self._of(file.folder).get(file.name)
        return found[1] if file is not None and found is not None and found[0] == file.stamp else None

    def read(self, source: ImageSource) -> bytes:
        """Read an image and return its hash, which is remembered for a file.

        Raises:
            BadImage: The image is missing or cannot be read.
        """
        before = self._file(source)
        key = hash_of(source.read())
        if before is not None and before == self._file(source):
            changed = max(before.stamp[1:3])
            if time.time_ns() - changed > SETTLED:
                self._of(before.folder)[before.name] = before.stamp, key
                self._new.setdefault(before.folder, set()).add(before.name)
        return key

    def forget(self, source: ImageSource) -> None:
        """Forget the hash of an image."""
        file = self._file(source)
        if file is not None and self._of(file.folder).pop(file.name, None) is not None:
            self._new.setdefault(file.folder, set()).add(file.name)

    def save(self) -> None:
        """Write the hashes that are new, beside those that other processes have written."""
        for folder, names in self._new.items():
            mine = self._known[folder]
            kept = {name: entry for name, entry in self._load(folder).items() if name not in names}
            merged = kept | {name: mine[name] for name in names if name in mine}
            self._known[folder] = merged
            with suppress(OSError):  # read-only, or full: the files are read again next time
                make_folder(self._folder)
                path = self._path(folder)
                write_atomic(path, _encoded(merged))
                share(path)
        self._new = {}

    def forget_all(self) -> None:
        """Free the memory of the hashes; they are read again when they are asked for."""
        self.save()
        self._known = {}

    def _of(self, folder: Path) -> dict[str, tuple[_Stamp, bytes]]:
        if folder not in self._known:
            self._known[folder] = self._load(folder)
        return self._known[folder]

    def _load(self, folder: Path) -> dict[str, tuple[_Stamp, bytes]]:
        try:
            return _decoded(self._path(folder).read_bytes())
        except (OSError, ValueError, KeyError, pa.ArrowException):  # missing or damaged: the files are read again
            return {}

    def _path(self, folder: Path) -> Path:
        return self._folder / f"{hash_of(str(folder).encode('utf-8', 'surrogateescape')).hex()}.arrow"

    def _file(self, source: ImageSource) -> _File | None:
        if isinstance(source, EncodedImage) and source.place is not None:
            path, inside = source.place
        elif isinstance(source, FileImage):
            path, inside = source.name, ""
        else:
            return None
        try:
            status = os.stat(path)
        except (OSError, ValueError):
            return None
        above, name = os.path.split(path)
        if above not in self._resolved:
            self._resolved[above] = real_path(above)
        stamp = status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino
        folder = self._resolved[above]
        return _File(folder / name, inside, stamp) if inside else _File(folder, name, stamp)


def _encoded(entries: dict[str, tuple[_Stamp, bytes]]) -> bytes:
    names = sorted(entries)
    columns: Iterable[list[int]] = ([entries[name][0][k] for name in names] for k in range(4))
    arrays = [pa.array(names, pa.string()), *(pa.array(column, pa.int64()) for column in columns)]
    table = pa.table([*arrays, pa.array([entries[name][1] for name in names], pa.binary(KEY))], _SCHEMA)
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, _SCHEMA) as file:
        file.write_table(table)
    content = sink.getvalue().to_pybytes()
    return content + xxh3_128_digest(content)


def _decoded(content: bytes) -> dict[str, tuple[_Stamp, bytes]]:
    body, checksum = content[:-16], content[-16:]
    if xxh3_128_digest(body) != checksum:
        raise ValueError("the content does not have its checksum")
    table = pa.ipc.open_file(pa.py_buffer(body)).read_all()
    names, *stamps, keys = (table[name].to_pylist() for name in _SCHEMA.names)
    return {name: ((size, *rest), key) for name, size, *rest, key in zip(names, *stamps, keys, strict=True)}
