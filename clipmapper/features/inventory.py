"""What the feature cache contains: its stores, the index of image files, and what can be removed."""

from __future__ import annotations

import re
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
from xxhash import xxh3_128_digest

from clipmapper.errors import UserError
from clipmapper.features.catalogue import Catalogue
from clipmapper.features.folders import HASHES, STORES
from clipmapper.features.shard import DamagedShard
from clipmapper.process.partial import is_left_over
from clipmapper.storage.kept import TABLES

_EARLIER = re.compile(r"(images|texts)-[0-9a-f]{24}")  # one store for each dataset
_DAY = 24 * 3600.0
_CHECKSUM = 16  # bytes


@dataclass(frozen=True)
class Entry:
    """A part of the cache."""

    path: Path
    #: store; index of image files; table of what was read from large files; earlier: a store of an earlier version;
    #: left over: by a process that has ended.
    kind: str
    items: int | None  #: number of features; None if it has none
    bytes: int  #: size of its files
    days: float  #: since it was last used

    def row(self, cache: Path) -> tuple[str, ...]:
        """Return the cells of a table: path, kind, items, size and age."""
        items = "" if self.items is None else str(self.items)
        return str(self.path.relative_to(cache)), self.kind, items, size(self.bytes), f"{self.days:.0f}"


HEADS = ("path", "kind", "items", "size", "days unused")


def size(count: int) -> str:
    """Return a number of bytes as a text, such as 1.5 GiB."""
    for unit, name in ((30, "GiB"), (20, "MiB"), (10, "KiB")):
        if count >= 1 << unit:
            return f"{count / (1 << unit):.1f} {name}"
    return f"{count} B"


def entries(cache: Path) -> list[Entry]:
    """Return all parts of a cache, by path.

    Raises:
        UserError: The cache is no folder.
    """
    if cache.exists() and not cache.is_dir():
        raise UserError(f"paths.cache={cache} is not a folder; give the folder of the feature cache")
    found = [_entry(path, "store") for path in _folders(cache / STORES)]
    found += [_entry(path, "index") for path in _folders(cache) if path.name == HASHES]
    found += [_entry(path, "table") for path in sorted((cache / TABLES).glob("*.arrow"))]
    found += [
        _entry(path, "earlier") for top in _folders(cache) for path in _folders(top) if _EARLIER.fullmatch(path.name)
    ]
    places = (cache / HASHES, *_folders(cache / STORES), *_folders(cache))
    temporary = {path for place in places for path in place.glob(".*.partial") if is_left_over(path)}
    found += [_entry(path, "left over") for path in temporary]
    return sorted(found, key=lambda entry: entry.path)


def unused(found: list[Entry], days: int | None) -> list[Entry]:
    """Return what no command needs: stores of earlier versions, temporary files, and what was unused for ``days``."""
    return [
        entry
        for entry in found
        if entry.kind in ("earlier", "left over")
        or (entry.kind in ("store", "table") and days is not None and entry.days >= days)
    ]


def remove(found: list[Entry]) -> None:
    """Remove parts of the cache.

    Raises:
        OSError: One cannot be removed.
    """
    for entry in found:
        if entry.path.is_dir():
            shutil.rmtree(entry.path)
        else:
            entry.path.unlink(missing_ok=True)


def verify(catalogue: Catalogue) -> int:
    """Verify all items of a store, remove damaged shards, and return the number of items that are lost with them."""
    lost = 0
    for shard in list(catalogue.shards):
        try:
            shard.verify()
        except DamagedShard as error:
            catalogue.drop(shard, error)
            lost += len(shard.keys)
    return lost


def damaged(folder: Path) -> list[Path]:
    """Return the files of a folder of tables, or of the index of image files, that lack the checksum at their end."""
    return [path for path in sorted(folder.glob("*.arrow")) if not _is_intact(path)]


def _is_intact(path: Path) -> bool:
    if path.stat().st_size < _CHECKSUM:
        return False
    with pa.memory_map(str(path)) as mapped:
        whole = mapped.read_buffer()
    end = whole.size - _CHECKSUM
    return bool(xxh3_128_digest(whole.slice(0, end)) == whole.slice(end).to_pybytes())


def _entry(path: Path, kind: str) -> Entry:
    files = [each for each in path.rglob("*") if each.is_file()] if path.is_dir() else [path]
    statuses = [each.stat() for each in files]
    last = max(status.st_mtime for status in (path.stat(), *statuses))
    return Entry(path, kind, _count(path) if kind == "store" else None, sum(s.st_size for s in statuses), _age(last))


def _age(then: float) -> float:
    return max(0.0, time.time() - then) / _DAY


def _count(folder: Path) -> int:
    catalogue = Catalogue(folder)
    catalogue.refresh()
    return sum(len(shard.keys) for shard in catalogue.shards)


def _folders(folder: Path) -> Iterator[Path]:
    if folder.is_dir():
        yield from (path for path in sorted(folder.iterdir()) if path.is_dir())
