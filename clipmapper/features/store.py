"""The features of the items of one dataset, in its order, read from the shards of a store."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from clipmapper.errors import UserError
from clipmapper.features.catalogue import Catalogue
from clipmapper.features.shard import DamagedShard, Shard, as_keys, bytes_of, write_shard
from clipmapper.nn import Tokens
from clipmapper.storage.sharing import make_folder


class FeatureStore:
    """The features of n items.

    Args:
        catalogue: The shards, which have all items.
        keys: Keys of the items, uint64 [n, 2].
        again: Encodes the items that the shards lack, after a damaged shard was removed.
        empty: Precision and number of channels of a store without items.
    """

    def __init__(
        self,
        catalogue: Catalogue,
        keys: np.ndarray,
        again: Callable[[], None],
        empty: tuple[torch.dtype, int] = (torch.float32, 0),
    ):
        self._catalogue, self._keys, self._again = catalogue, keys, again
        self._locate()
        first = catalogue.shards[0] if catalogue.shards else None
        #: Precision of the features.
        self.dtype: torch.dtype = empty[0] if first is None else first.dtype
        #: Number of channels D of a row.
        self.width: int = empty[1] if first is None else first.width

    @classmethod
    def written(cls, folder: Path, items: Sequence[Tensor]) -> FeatureStore:
        """Write items, [rows, D] each, to a new folder, and return them as a store.

        Raises:
            OSError: The folder cannot be written.
        """
        keys = [number.to_bytes(16, "little") for number in range(len(items))]
        write_shard(make_folder(folder), folder.name, keys, items)
        catalogue = Catalogue(folder)
        catalogue.refresh()

        def again() -> None:
            raise UserError(f"{folder}: features are damaged and there is no encoder to compute them again")

        return cls(catalogue, as_keys(keys), again)

    @property
    def lengths(self) -> np.ndarray:
        """Number of rows of every item, int64 [n]."""
        return self._lengths

    def gather(self, items: np.ndarray) -> Tokens:
        """Return the tokens of ``items`` [B] as a padded batch in the precision in which they are stored."""
        while True:
            try:
                return self._gather(items)
            except _Damaged as error:
                self._catalogue.drop(error.shard, error.reason)
                self._again()
                self._locate()

    def _gather(self, items: np.ndarray) -> Tokens:
        lengths = self._lengths[items]
        longest = int(lengths.max())
        steps = torch.arange(longest)
        valid = steps < torch.from_numpy(lengths)[:, None]
        whole = bool((lengths == longest).all())
        shape = len(items), longest, self.width
        features = (torch.empty if whole else torch.zeros)(shape, dtype=self.dtype)
        out, size = bytes_of(features), longest * self.width * features.element_size()
        for k, (shard, number) in enumerate(self._places[items].tolist()):
            found = self._shards[shard]
            try:
                found.read(number, out[k * size : k * size + found.size(number)])
            except DamagedShard as error:
                raise _Damaged(found, error) from error
        return Tokens(features, valid, steps.expand(shape[:2]))

    def _locate(self) -> None:
        self._shards = self._catalogue.shards
        self._places = self._catalogue.find(self._keys)
        assert (self._places[:, 0] >= 0).all(), "an item is in no shard"
        self._lengths = np.zeros(len(self._keys), np.int64)
        for number, shard in enumerate(self._shards):
            mine = self._places[:, 0] == number
            self._lengths[mine] = np.diff(shard.offsets)[self._places[mine, 1]]


class _Damaged(Exception):
    def __init__(self, shard: Shard, reason: DamagedShard):
        self.shard, self.reason = shard, reason


@dataclass(frozen=True)
class FrozenFeatures:
    """The features of images or texts."""

    store: FeatureStore
    #: Number of each item in the store, by image id or text.
    place: Mapping[Any, int]
    #: Names of the images that could not be read, by image id.
    missing: Mapping[int, str]
    #: Hash of what the features were computed from: of the ids and contents of all items.
    content: str = ""
