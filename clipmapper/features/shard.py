"""A shard: one file with the features of up to 4,096 items, which is written once and never changed.

A shard is a safetensors file, which holds any dtype of PyTorch, and of which single items are read. Its tensors are the
items' keys (content hashes), the numbers of their rows, a checksum for each item, and the rows of all items. The
metadata have the name of the store and a checksum of everything but the rows, which is verified when a shard is opened.
An item's own checksum is verified when the item is first read.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import lru_cache
from io import FileIO
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor
from xxhash import xxh3_64_intdigest, xxh3_128_hexdigest

from clipmapper.process.partial import named_errors, partial_path
from clipmapper.storage.sharing import share

ITEMS = 4096  #: most items of a shard
BYTES = 1 << 28  #: size of the rows after which a shard ends
KEY = 16  #: bytes of a key
SUFFIX = ".safetensors"
_OPEN = 256  # files that are open at a time


class DamagedShard(Exception):
    """Error for a file that is not a complete shard of the store."""


def as_keys(keys: Sequence[bytes]) -> np.ndarray:
    """Return keys as an array, uint64 [n, 2]."""
    return np.frombuffer(b"".join(keys), "<u8").reshape(-1, 2)


def bytes_of(rows: Tensor) -> memoryview:
    """Return the memory of a contiguous tensor as bytes, without a copy."""
    if not rows.numel():
        return memoryview(bytearray())
    flat: memoryview = rows.view(torch.uint8).flatten().numpy().data
    return flat


def write_shard(folder: Path, store: str, keys: Sequence[bytes], items: Sequence[Tensor]) -> Path:
    """Write a new shard, completely or not at all.

    Args:
        folder: Folder of the store.
        store: Name of the store.
        keys: Keys of the items.
        items: Features of the items on the CPU, [rows, D] each, all of one dtype.

    Raises:
        OSError: The shard cannot be written; nothing of it stays.
    """
    rows = torch.cat(list(items))
    lengths = torch.tensor([len(item) for item in items], dtype=torch.int64)
    sums = torch.from_numpy(np.array([xxh3_64_intdigest(bytes_of(item)) for item in items], "<u8").view("<i8"))
    head = {"keys": torch.from_numpy(as_keys(keys).view("<i8").copy()), "lengths": lengths, "sums": sums}
    partial = partial_path(folder / f"shard{SUFFIX}")
    path = folder / f"shard-{partial.name.split('.')[-2]}{SUFFIX}"  # as unique as the temporary name
    about = {"store": store, "head": _checksum(store, head, rows)}
    try:
        with named_errors(path):
            _save(partial, {**head, "rows": rows}, about)
            share(partial)
            partial.rename(path)
    finally:
        partial.unlink(missing_ok=True)
    return path


def _save(path: Path, tensors: dict[str, Tensor], about: dict[str, str]) -> None:
    path.touch()
    mode = path.stat().st_mode & 0o777
    try:
        save_file(tensors, path, about)
        path.chmod(mode)  # the library's file is for its owner alone
    except SafetensorError as error:  # such as of a full disk
        raise OSError(f"{error}") from error
    opened = os.open(path, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)


def _checksum(store: str, head: dict[str, Tensor], rows: Tensor) -> str:
    about = f"{store} {rows.dtype} {tuple(rows.shape)} "
    return xxh3_128_hexdigest(about.encode() + b"".join(bytes_of(head[name]) for name in sorted(head)))


@lru_cache(_OPEN)
def _opened(path: Path, version: tuple[int, int]) -> FileIO:
    """Open a file; ``version``, its number and time, tells it from another file with its name."""
    return FileIO(path)


class Shard:
    """A shard from which items are read; they are not memory-mapped, since a process would seem to need all it read."""

    def __init__(self, path: Path, store: str):
        """Open a shard and verify everything but its rows.

        Args:
            path: The file.
            store: Name of the store that it must belong to.

        Raises:
            DamagedShard: The file is not a complete shard, or belongs to another store.
            OSError: It cannot be read.
        """
        self.path = path
        try:
            with safe_open(path, "pt") as file:
                about = file.metadata() or {}
                found = {name: file.get_tensor(name) for name in ("keys", "lengths", "sums", "rows")}
        except SafetensorError as error:
            raise DamagedShard(" ".join(str(error).split())) from error
        rows = found.pop("rows")
        if about.get("head") != _checksum(about.get("store", ""), found, rows):
            raise DamagedShard("its content does not have the checksum that is written in it")
        if about["store"] != store:
            raise DamagedShard(f"it belongs to the store {about['store']}, not to this one")
        #: Keys of the items, uint64 [n, 2].
        self.keys: np.ndarray = found["keys"].numpy().view("<u8").reshape(-1, 2)
        lengths = found["lengths"].numpy()
        #: First row of every item and, at the end, the number of rows, int64 [n + 1].
        self.offsets: np.ndarray = np.concatenate([[0], np.cumsum(lengths)])
        self.dtype = rows.dtype
        self.width = int(rows.shape[1])
        self._sums = found["sums"].numpy().view("<u8")
        state = path.stat()
        self._version = state.st_ino, state.st_mtime_ns
        self._start = state.st_size - rows.nbytes  # the format has the smallest numbers last
        self._row = self.width * rows.element_size()
        self._verified = bytearray(len(lengths))

    def size(self, number: int) -> int:
        """Return the size of an item's rows in bytes."""
        return int(self.offsets[number + 1] - self.offsets[number]) * self._row

    def read(self, number: int, into: memoryview) -> None:
        """Read an item's rows, and verify them when they are first read.

        Args:
            number: Number of the item.
            into: Memory of :meth:`size` bytes.

        Raises:
            DamagedShard: They are not what was written, or the file has been removed.
        """
        try:
            file = _opened(self.path, self._version)
        except FileNotFoundError:
            raise DamagedShard("it has been removed") from None
        start, done = self._start + int(self.offsets[number]) * self._row, 0
        while done < len(into) and (count := os.preadv(file.fileno(), [into[done:]], start + done)):
            done += count
        if not self._verified[number] or done < len(into):
            if xxh3_64_intdigest(into) != int(self._sums[number]):
                raise DamagedShard("its rows do not have the checksum that is written in it")
            self._verified[number] = 1

    def verify(self) -> None:
        """Verify all items.

        Raises:
            DamagedShard: One of them is not what was written.
        """
        for number in range(len(self.keys)):
            self.read(number, memoryview(bytearray(self.size(number))))
