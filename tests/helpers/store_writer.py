"""A process that fills a store together with others: items of known features, whose encoding is logged.

``python store_writer.py FOLDER NUMBER WRITERS ROUNDS`` fills one store for each round, at the same time as the other
writers, and verifies all items of it.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from clipmapper.features.catalogue import Catalogue
from clipmapper.features.filling import Filling
from clipmapper.features.shard import as_keys
from clipmapper.features.store import FeatureStore

ITEMS = {number.to_bytes(16, "big"): number for number in range(40)}


def fill(folder: Path, log: Path, window: int = 5, pause: float = 0.0, order: int = 1) -> None:
    """Fill a store in parts of ``window`` items; each encoded item is a line of the log."""
    catalogue = Catalogue(folder)
    catalogue.refresh()

    def encode(items: Mapping[bytes, int]) -> Iterator[tuple[bytes, Tensor]]:
        for key, number in items.items():
            with log.open("a") as file:
                file.write(f"{number}\n")
            if pause:
                time.sleep(pause)
            yield key, torch.full((2, 3), float(number))

    filling = Filling(catalogue, encode, "float16", lambda count=1, note=None: None, window)
    keys = list(ITEMS)[::order]
    filling.run({key: ITEMS[key] for key in keys[k : k + window]} for k in range(0, len(keys), window))
    store = FeatureStore(catalogue, as_keys(list(ITEMS)), lambda: None)
    found = store.gather(np.arange(len(ITEMS))).features
    assert torch.equal(found[:, 0, 0], torch.arange(len(ITEMS)).half()), found[:, 0, 0]


def main() -> None:
    """Fill the stores of all rounds."""
    root, number, writers, rounds = Path(sys.argv[1]), *map(int, sys.argv[2:])
    for count in range(rounds):
        (root / f"ready-{count}-{number}").touch()
        while len(list(root.glob(f"ready-{count}-*"))) < writers:
            time.sleep(0.002)
        fill(root / f"round-{count}", root / f"log-{count}-{number}", order=1 if number % 2 else -1)


if __name__ == "__main__":
    main()
