"""Content hashes, which identify images and texts, and the index that remembers those of files.

The index has one file for each folder of images, and for each file that holds several, such as Parquet. It remembers
the hash of an image with the size, times and inode of its file, and if one of these has changed, it is read again.

Several processes share out the images that have no hash: a process claims those that it is going to read
(:mod:`~clipmapper.features.claims`), in the folder of the index. The others take other images, and find the hashes in
the index when the claim has ended. A claim has path, size, times and inode as well: where a process sees other files,
it reads its own.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
from xxhash import xxh3_128_digest

from clipmapper.data.images import EncodedImage, FileImage
from clipmapper.data.records import ImageSource
from clipmapper.features.claims import Claims
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
        self.folder = folder
        self._known: dict[Path, dict[str, tuple[_Stamp, bytes]]] = {}  # by folder and name
        self._versions: dict[Path, tuple[int, int] | None] = {}  # of the files of the index, by folder
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
        return self.content(source)[0]

    def content(self, source: ImageSource) -> tuple[bytes, bytes]:
        """Read an image and return its hash, which is remembered for a file, and its bytes.

        Raises:
            BadImage: The image is missing or cannot be read.
        """
        before = self._file(source)
        content = source.read()
        key = hash_of(content)
        if before is not None and before == self._file(source):
            changed = max(before.stamp[1:3])
            if time.time_ns() - changed > SETTLED:
                self._of(before.folder)[before.name] = before.stamp, key
                self._new.setdefault(before.folder, set()).add(before.name)
        return key, content

    @contextmanager
    def claimed(self, images: Mapping[int, ImageSource]) -> Iterator[dict[int, str]]:
        """Claim images that are to be read while the body runs, except those that another process has claimed.

        In the body, the index has what other processes have saved before. Images that are in no file are never claimed;
        if the folder of the index cannot be written, no image is.

        Args:
            images: Images by id.

        Yields:
            The ids of the images that another process has claimed, each with its process.
        """
        states = {i: _state(file) for i, source in images.items() if (file := self._file(source)) is not None}
        claims, claim, others = Claims(self.folder), None, dict[bytes, str]()
        if states:
            with suppress(OSError, NotImplementedError):  # read-only, full, or without locks
                make_folder(self.folder)
                with claims.locked():
                    others = claims.of_others()
                    if mine := [state for state in states.values() if state not in others]:
                        claim = claims.claim(mine)
        self._refresh()
        with nullcontext() if claim is None else claims.claimed(claim):
            yield {i: others[state] for i, state in states.items() if state in others}

    def forget(self, source: ImageSource) -> None:
        """Forget the hash of an image."""
        file = self._file(source)
        if file is not None and self._of(file.folder).pop(file.name, None) is not None:
            self._new.setdefault(file.folder, set()).add(file.name)

    def save(self) -> None:
        """Write the hashes that are new, beside those that other processes have written."""
        # Read-only, full, or without locks: the files are read again next time.
        with suppress(OSError, NotImplementedError):
            if self._new:
                make_folder(self.folder)
                with Claims(self.folder).locked():
                    for folder in self._new:
                        self._merge(folder)
        self._new = {}

    def forget_all(self) -> None:
        """Free the memory of the hashes; they are read again when they are asked for."""
        self.save()
        self._known = {}

    def _of(self, folder: Path) -> dict[str, tuple[_Stamp, bytes]]:
        if folder not in self._known:
            self._known[folder] = self._load(folder)
        return self._known[folder]

    def _refresh(self) -> None:
        """Read what other processes have saved since, when it is asked for."""
        for folder in [folder for folder in self._known if folder not in self._new]:
            if self._versions[folder] != _version(self._path(folder)):
                del self._known[folder]

    def _merge(self, folder: Path) -> None:
        mine, names, path = self._known[folder], self._new[folder], self._path(folder)
        kept = {name: entry for name, entry in self._load(folder).items() if name not in names}
        merged = kept | {name: mine[name] for name in names if name in mine}
        self._known[folder] = merged
        write_atomic(path, _encoded(merged))
        share(path)
        self._versions[folder] = _version(path)

    def _load(self, folder: Path) -> dict[str, tuple[_Stamp, bytes]]:
        self._versions[folder] = _version(self._path(folder))
        try:
            return _decoded(self._path(folder).read_bytes())
        except (OSError, ValueError, KeyError, pa.ArrowException):  # missing or damaged: the files are read again
            return {}

    def _path(self, folder: Path) -> Path:
        return self.folder / f"{hash_of(str(folder).encode('utf-8', 'surrogateescape')).hex()}.arrow"

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


def _state(file: _File) -> bytes:
    """Return a hash of what an entry of the index is about."""
    return hash_of(f"{file.folder}\0{file.name}\0{file.stamp}".encode("utf-8", "surrogatepass"))


def _version(path: Path) -> tuple[int, int] | None:
    """Return what changes when a file is replaced; None if there is none."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_ino, status.st_mtime_ns


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
