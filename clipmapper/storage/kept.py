"""Tables that are kept: what was read from large files, or computed from it, is memory-mapped by later commands.

A kept table remembers the paths, sizes, times and inodes of its files; if one of them has changed, they are read again.
A table that follows from some content remembers the hash of this content. In a run of several processes, the first one
makes it.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

import pyarrow as pa
from xxhash import xxh3_128_digest

from clipmapper.files import write_atomic
from clipmapper.places import real_path
from clipmapper.process.together import first_alone
from clipmapper.storage.sharing import make_folder, share

TABLES = "tables"  #: folder of the tables in ``paths.cache``
SMALLEST = 4 << 20  #: bytes of the files from which on their table is kept
SETTLED = 2.0  #: seconds after a change of a file during which another change may leave its times the same
_VERSION = 2  # of what is kept
_KEY = b"files"


def kept(
    cache: Path | None, what: str, files: Sequence[Path], read: Callable[[], pa.Table], settings: str = ""
) -> pa.Table:
    """Return the table that was read from files, or read it and keep it.

    Args:
        cache: The folder ``paths.cache``; None keeps nothing.
        what: What the table has; part of its file's name.
        files: The files that ``read`` reads.
        read: Reads the table.
        settings: What the table depends on beside the files.
    """
    if cache is None:
        return read()
    names = json.dumps([what, settings, *(str(real_path(path)) for path in files)])
    path = _path(cache, what, names)
    with first_alone():
        known = _stamps(files)
        return read() if known is None else _kept(path, known, read, lambda: known == _stamps(files))


def kept_of(cache: Path, what: str, content: str, make: Callable[[], pa.Table]) -> pa.Table:
    """Return the table that follows from a content, or make it and keep it if it is large.

    Args:
        cache: The folder ``paths.cache``.
        what: What the table has; part of its file's name.
        content: Hash of all that the table depends on.
        make: Makes the table.
    """
    known = json.dumps([_VERSION, content]).encode()
    with first_alone():
        return _kept(_path(cache, what, content), known, make, lambda: True, SMALLEST)


def _path(cache: Path, what: str, names: str) -> Path:
    return cache / TABLES / f"{what}-{hashlib.blake2b(names.encode(), digest_size=8).hexdigest()}.arrow"


def _kept(
    path: Path, known: bytes, make: Callable[[], pa.Table], still: Callable[[], bool], smallest: int = 0
) -> pa.Table:
    with suppress(OSError, ValueError, pa.ArrowException):  # missing, old or damaged
        found = _opened(path, known)
        with suppress(OSError):
            os.utime(path)  # when it was last used
        return found
    table = make()
    if table.nbytes >= smallest and still():
        with suppress(OSError):  # read-only, or full
            make_folder(path.parent)
            write_atomic(path, _encoded(table, known))
            share(path)
            return _opened(path, known)
    return table


def _stamps(files: Sequence[Path]) -> bytes | None:
    """Return what a change of the files changes; None if they are small, missing, or changed a moment ago."""
    try:
        found = [path.stat() for path in files]
    except OSError:
        return None
    newest = max(max(status.st_mtime, status.st_ctime) for status in found)
    if sum(status.st_size for status in found) < SMALLEST or time.time() - newest < SETTLED:
        return None
    return json.dumps([_VERSION, *([s.st_size, s.st_mtime_ns, s.st_ctime_ns, s.st_ino] for s in found)]).encode()


def _encoded(table: pa.Table, known: bytes) -> bytes:
    table = table.replace_schema_metadata({_KEY: known})
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, table.schema) as file:
        file.write_table(table)
    content = sink.getvalue().to_pybytes()
    return content + xxh3_128_digest(content)


def _opened(path: Path, known: bytes) -> pa.Table:
    with pa.memory_map(str(path)) as mapped:
        whole = mapped.read_buffer()
    body = whole.slice(0, whole.size - 16)
    table = pa.ipc.open_file(body).read_all()
    if (table.schema.metadata or {}).get(_KEY) != known:
        raise ValueError("of other files")
    if xxh3_128_digest(body) != whole.slice(whole.size - 16).to_pybytes():
        raise ValueError("damaged")
    return table.replace_schema_metadata(None)
