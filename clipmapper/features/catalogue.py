"""The catalogue of a store: the shards of its folder, and where each item is."""

from __future__ import annotations

import sys
from contextlib import suppress
from pathlib import Path

import numpy as np

from clipmapper.features.shard import SUFFIX, DamagedShard, Shard


class Catalogue:
    """The shards of a store's folder.

    Args:
        folder: The folder, which need not exist.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        self.shards: list[Shard] = []
        self._known: set[str] = set()
        self._keys = np.empty((0, 2), np.uint64)  # of all shards, sorted
        self._places = np.empty((0, 2), np.int32)  # shard and number of the item, in the order of the keys

    @property
    def name(self) -> str:
        """Name of the store, which its shards contain."""
        return self.folder.name

    def refresh(self) -> None:
        """Open the shards that other processes have added since the last call; a damaged one is named and removed."""
        try:
            found = sorted(path for path in self.folder.iterdir() if path.name.endswith(SUFFIX))
        except FileNotFoundError:
            return
        before = len(self.shards)
        for path in found:
            if path.name.startswith("shard-") and path.name not in self._known:
                self._known.add(path.name)
                try:
                    self.shards.append(Shard(path, self.name))
                except FileNotFoundError:  # removed meanwhile
                    pass
                except DamagedShard as error:
                    self._remove(path, error)
                except OSError as error:
                    print(f"feature cache: {path} cannot be read ({error.strerror}); it is not used", file=sys.stderr)
        if len(self.shards) != before:
            self._sort()

    def find(self, keys: np.ndarray) -> np.ndarray:
        """Return the shard and the number in it of every key, int32 [n, 2]; -1 for a key that no shard has.

        Args:
            keys: uint64 [n, 2].
        """
        found = np.full((len(keys), 2), -1, np.int32)
        open_ = np.arange(len(keys))
        places = np.searchsorted(self._keys[:, 0], keys[:, 0])
        while len(open_):  # several times only if the first halves of two keys are equal
            inside = places < len(self._keys)
            open_, places = open_[inside], places[inside]
            at = self._keys[places]
            same = (at == keys[open_]).all(1)
            found[open_[same]] = self._places[places[same]]
            again = (at[:, 0] == keys[open_, 0]) & ~same
            open_, places = open_[again], places[again] + 1
        return found

    def has(self, keys: np.ndarray) -> np.ndarray:
        """Return which keys are in a shard, bool [n]."""
        return self.find(keys)[:, 0] >= 0

    def drop(self, shard: Shard, error: DamagedShard) -> None:
        """Forget a damaged shard and remove its file."""
        self.shards = [each for each in self.shards if each is not shard]
        self._sort()
        self._remove(shard.path, error)

    def _remove(self, path: Path, error: DamagedShard) -> None:
        print(f"feature cache is damaged, its items are computed again: {path}: {error}", file=sys.stderr)
        with suppress(OSError):  # in a read-only folder it stays
            path.unlink()

    def _sort(self) -> None:
        if not self.shards:
            self._keys, self._places = np.empty((0, 2), np.uint64), np.empty((0, 2), np.int32)
            return
        keys = np.concatenate([shard.keys for shard in self.shards])
        counts = [len(shard.keys) for shard in self.shards]
        numbers = np.concatenate([np.arange(count, dtype=np.int32) for count in counts])
        order = np.argsort(keys[:, 0], kind="stable")
        self._keys = np.ascontiguousarray(keys[order])
        self._places = np.stack([np.repeat(np.arange(len(counts), dtype=np.int32), counts), numbers], 1)[order]
