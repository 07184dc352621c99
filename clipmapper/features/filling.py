"""Filling a store: the items that it lacks are encoded and appended, shared with all processes that fill it."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Generic, TypeVar

import torch
from torch import Tensor

from clipmapper.console import Advance
from clipmapper.errors import UserError
from clipmapper.features.catalogue import Catalogue
from clipmapper.features.claims import Claims
from clipmapper.features.shard import BYTES, ITEMS, as_keys, write_shard
from clipmapper.process import together
from clipmapper.process.partial import remove_left_over
from clipmapper.storage.sharing import make_folder

_WAIT = 0.05, 1.0  # seconds between two looks at the work of others, at first and at most

Source = TypeVar("Source")
#: A function that yields the key and the features, [rows, D], of every item of a list that can be encoded.
Encode = Callable[[Mapping[bytes, Source]], Iterator[tuple[bytes, Tensor]]]


class Writer:
    """A writer of new shards.

    Args:
        catalogue: The store.
        dtype: Precision of the features: float32 or float16.
    """

    def __init__(self, catalogue: Catalogue, dtype: str):
        self._folder, self._name = catalogue.folder, catalogue.name
        self._dtype: torch.dtype = getattr(torch, dtype)
        self._keys: list[bytes] = []
        self._items: list[Tensor] = []
        self._bytes = 0

    def add(self, key: bytes, features: Tensor) -> None:
        """Add the features of an item, [rows, D], and write a shard if there are enough.

        Raises:
            UserError: A value is NaN or infinite, or too large for the dtype.
        """
        stored = features.to(self._dtype).cpu().contiguous()
        if not stored.isfinite().all():
            name = str(self._dtype).removeprefix("torch.")
            raise UserError(
                f"the encoder's features are NaN or infinite in {name}; "
                "give encoder.feature_dtype=float32, or other encoder.weights"
            )
        self._keys.append(key)
        self._items.append(stored)
        self._bytes += stored.nbytes
        if self._bytes >= BYTES or len(self._keys) == ITEMS:
            self.flush()

    def flush(self) -> None:
        """Write what was added since the last shard."""
        if self._keys:
            write_shard(self._folder, self._name, self._keys, self._items)
        self._keys, self._items, self._bytes = [], [], 0


class Waiting:
    """Pauses of growing length, while other processes work.

    Args:
        advance: Called at each pause, so that a signal stops the waiting.
    """

    def __init__(self, advance: Advance):
        self._advance, self._pause, self._told = advance, _WAIT[0], ""

    def pause(self, who: str, count: int, doing: str) -> None:
        """Pause, and say once for which process of another run.

        Args:
            who: The process.
            count: Number of items that are waited for.
            doing: What is done with them.
        """
        if self._told != who:
            self._told = who
            if together.world() == 1:  # otherwise it is most likely another process of this run
                print(f"waiting for {who}, which is {doing} {count} of the items", file=sys.stderr)
        self._advance(0)
        time.sleep(self._pause)
        self._pause = min(2 * self._pause, _WAIT[1])


class Filling(Generic[Source]):
    """The work of this process on a store.

    Args:
        catalogue: The store.
        encode: The encoder.
        dtype: Precision of the features.
        advance: Counts finished items.
        step: Number of items that are encoded together; shards end after a multiple of it.
    """

    def __init__(self, catalogue: Catalogue, encode: Encode[Source], dtype: str, advance: Advance, step: int):
        self._catalogue, self._encode, self._dtype, self._advance = catalogue, encode, dtype, advance
        self.window = -(-ITEMS // step) * step if step < ITEMS else step  #: items of a claim
        self._claims: Claims | None = None

    def run(self, windows: Iterable[Mapping[bytes, Source]]) -> None:
        """Encode the items of all windows that the store lacks, and wait for those that others are encoding.

        Raises:
            UserError: The store is in a read-only folder and lacks an item, or an item cannot be encoded.
            OSError: The store cannot be written; what was written before stays.
        """
        waiting: dict[bytes, Source] = {}
        for window in windows:
            waiting |= self._take(window)[0]
        others = Waiting(self._advance)
        while waiting:
            size, who = len(waiting), ""
            for keys in _split(list(waiting), self.window):
                left, who = self._take({key: waiting[key] for key in keys})
                for key in [key for key in keys if key not in left]:
                    del waiting[key]
            if len(waiting) == size:
                others.pause(who, size, "encoding")

    def _take(self, window: Mapping[bytes, Source]) -> tuple[dict[bytes, Source], str]:
        """Encode the items of a window that the store lacks and no other process is encoding.

        Returns:
            The items that others are encoding, and one of their processes.
        """
        missing = self._lacking(window)
        if not missing:
            self._advance(len(window))
            return {}, ""
        claims = self._claims = self._claims or self._prepare(len(missing))
        with claims.locked():
            others = claims.of_others()  # before the shards: a shard is there before its claim ends
            self._catalogue.refresh()
            missing = self._lacking(missing)
            mine = {key: source for key, source in missing.items() if key not in others}
            claim = claims.claim(mine) if mine else None
        theirs = {key: source for key, source in missing.items() if key in others}
        self._advance(len(window) - len(mine) - len(theirs))
        if claim is not None:
            with claims.claimed(claim):
                self._write(mine)
        return theirs, next((others[key] for key in theirs), "")

    def _write(self, items: Mapping[bytes, Source]) -> None:
        writer = Writer(self._catalogue, self._dtype)
        try:
            for key, features in self._encode(items):
                writer.add(key, features)
        except UserError:
            with suppress(OSError):
                writer.flush()  # what was encoded before
            raise
        writer.flush()
        self._catalogue.refresh()

    def _lacking(self, items: Mapping[bytes, Source]) -> dict[bytes, Source]:
        keys = list(items)
        found = self._catalogue.has(as_keys(keys))
        return {key: items[key] for key, there in zip(keys, found.tolist(), strict=True) if not there}

    def _prepare(self, lacking: int) -> Claims:
        folder = self._catalogue.folder
        try:
            make_folder(folder)
        except PermissionError:
            raise read_only(folder, lacking) from None
        if not os.access(folder, os.W_OK):
            raise read_only(folder, lacking)
        remove_left_over(path for path in folder.glob(".*.partial") if not path.name.startswith(".claim."))
        return Claims(folder)


def read_only(folder: Path, lacking: int) -> UserError:
    """Return the error for a store that lacks items and cannot be written."""
    return UserError(
        f"{folder}: the feature cache is read-only here and lacks at least {lacking} items of this data; "
        "give paths.cache=FOLDER, a folder that can be written (such as a copy of it)"
    )


def _split(keys: Sequence[bytes], size: int) -> Iterator[Sequence[bytes]]:
    for start in range(0, len(keys), size):
        yield keys[start : start + size]
