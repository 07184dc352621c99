"""Benchmark of encoding: how much of the time a device encodes images instead of waiting for them to be read."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import open_clip
from PIL import Image
from torch import Tensor

from clipmapper.benchmarks.timing import side_by_side
from clipmapper.data.images import FileImage, load_rgb
from clipmapper.features.at_once import ON_CPU
from clipmapper.features.images import READERS, read_ahead

BATCHES, ROUNDS = 16, 3
SIMULATED = 0.040  # seconds in which the simulated device encodes a batch
SIZE = 640, 480  # of an image, as in COCO


def encoding() -> dict[str, float]:
    """Return busy shares, 0 to 1: the time of encoding alone, divided by that with reading, by name.

    The images are JPEG files, which are decoded, resized to 224 × 224 and normalised by the threads that features use.
    A simulated device sleeps for a fixed time instead of encoding a batch.
    """
    preprocess = open_clip.transform.image_transform(224, is_train=False)
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(READERS) as readers:
        files = photos(Path(folder), BATCHES * ON_CPU)
        batches = [files[start : start + ON_CPU] for start in range(0, len(files), ON_CPU)]

        def start(batch: Sequence[Path]) -> Iterable[Tensor]:
            return readers.map(lambda path: preprocess(load_rgb(FileImage(path))), batch)

        ways: dict[str, Callable[[], None]] = {
            "alone": lambda: _encode(batches),
            "ahead": lambda: _encode(read_ahead(batches, start)),
            "in turns": lambda: _encode(list(start(batch)) for batch in batches),
        }
        seconds = side_by_side(ways, ROUNDS)
    name = f"simulated device, {SIMULATED * 1e3:.0f} ms a batch, {ON_CPU} JPEG images of {SIZE[0]} × {SIZE[1]}"
    return {
        f"{name}: busy share, images read ahead": seconds["alone"] / seconds["ahead"],
        f"{name}: busy share, each batch read before it is encoded": seconds["alone"] / seconds["in turns"],
    }


def _encode(batches: Iterable[object]) -> None:
    for _ in batches:
        time.sleep(SIMULATED)


def photos(folder: Path, count: int) -> list[Path]:
    """Write JPEG files of noise, 640 × 480, and return their paths."""
    folder.mkdir(exist_ok=True)
    rng = np.random.default_rng(0)
    paths = [folder / f"{number}.jpg" for number in range(count)]
    for path in paths:
        coarse = rng.integers(0, 255, (SIZE[1] // 16, SIZE[0] // 16, 3), np.uint8)
        Image.fromarray(coarse).resize(SIZE).save(path, quality=90)
    return paths
