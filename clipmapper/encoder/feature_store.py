"""A folder of token features: one flat array on disk, read by memory map, gathered into padded batches.

Every item (a picture, a question) is a run of rows. A store is written beside its place and moved there when it is
whole, and a checksum is verified when it is opened, so a half-written or damaged one is never read.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import zlib
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch

from clipmapper.nn.tokens import Tokens

_CHUNK = 1 << 24


class DamagedStore(Exception):
    """The folder holds no store, or not a whole one."""


class FeatureStore:
    """Rows [total, D] of all items, item i at ``offsets[i]:offsets[i + 1]``; an item without rows is missing."""

    def __init__(self, folder: Path):
        """Opens and verifies; raises ``DamagedStore``."""
        try:
            written = json.loads((folder / "meta.json").read_text())
            meta = written["meta"]
            found = {"rows": _checksum(folder / "rows.bin"), "offsets": _checksum(folder / "offsets.npy")}
            if written["checksums"] != {**found, "meta": _checksum_of(meta)}:
                raise DamagedStore(f"{folder} is not what was written")
            rows, self.offsets = folder / "rows.bin", np.load(folder / "offsets.npy")
            shape = (int(self.offsets[-1]), int(meta["width"]))
            self._rows = (
                np.memmap(rows, meta["dtype"], "r", shape=shape) if shape[0] else np.empty(shape, meta["dtype"])
            )
        except (OSError, ValueError, KeyError, TypeError, EOFError) as error:
            raise DamagedStore(f"{folder}: {error}") from error

    @property
    def lengths(self) -> np.ndarray:
        """Rows of every item, int64 [items]."""
        return np.diff(self.offsets)

    @property
    def width(self) -> int:
        return int(self._rows.shape[1])

    def gather(self, items: np.ndarray) -> Tokens:
        """A padded float32 batch of items [B]."""
        starts, lengths = self.offsets[items], self.offsets[items + 1] - self.offsets[items]
        steps = np.arange(int(lengths.max()))
        valid = steps < lengths[:, None]
        rows = np.where(valid, starts[:, None] + steps, 0)
        features = torch.from_numpy(np.asarray(self._rows[rows.ravel()], np.float32)).unflatten(0, rows.shape)
        mask = torch.from_numpy(valid)
        if not valid.all():
            features = features * mask[..., None]
        return Tokens(features, mask, torch.from_numpy(steps).expand(rows.shape))


def write_store(folder: Path, batches: Iterable[list[np.ndarray]], dtype: str) -> None:
    """Writes items, each [rows, D], as they come; the folder appears only when all of them are there."""
    half = folder.with_name(f".{folder.name}.{os.getpid()}")
    shutil.rmtree(half, ignore_errors=True)
    half.mkdir(parents=True)
    try:
        offsets, width = [0], 0
        with (half / "rows.bin").open("wb") as rows:
            for batch in batches:
                for item in batch:
                    offsets.append(offsets[-1] + len(item))
                    width = item.shape[1]
                    rows.write(np.ascontiguousarray(item, dtype).data)
        np.save(half / "offsets.npy", np.array(offsets, np.int64))
        meta = {"dtype": dtype, "width": width}
        checksums = {"rows": _checksum(half / "rows.bin"), "offsets": _checksum(half / "offsets.npy")}
        written = {"meta": meta, "checksums": {**checksums, "meta": _checksum_of(meta)}}
        (half / "meta.json").write_text(json.dumps(written))
        shutil.rmtree(folder, ignore_errors=True)
        half.rename(folder)
    except BaseException:
        shutil.rmtree(half, ignore_errors=True)
        raise


def open_or_none(folder: Path) -> FeatureStore | None:
    """The store in a folder, or None where there is none; a damaged one is named on stderr and counts as none."""
    if not folder.exists():
        return None
    try:
        return FeatureStore(folder)
    except DamagedStore as error:
        print(f"feature cache is damaged and is made anew: {error}", file=sys.stderr)
        return None


def _checksum(path: Path) -> int:
    value = 0
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            value = zlib.crc32(chunk, value)
    return value


def _checksum_of(meta: dict[str, object]) -> int:
    return zlib.crc32(json.dumps(meta, sort_keys=True).encode())
