"""Output for explained samples: the file of scores, and the photo under a heat map."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from clipmapper.errors import UserError
from explain.figures.photo import Box, Photo

SCORES = "scores.parquet"
LONGEST = 1200  # pixels of a photo's longer side, which is more than a figure shows


def seen_box(size: tuple[int, int], preprocessing: Mapping[str, Any]) -> Box:
    """Return the part of a photo that the encoder sees: left, top, right, bottom in pixels of the photo.

    CLIP's preprocessing scales the short side to the encoder's size S and keeps the central S × S pixels. Sizes are
    rounded to whole pixels as by torchvision's ``Resize`` and ``CenterCrop``.

    Args:
        size: Width and height of the photo.
        preprocessing: open_clip's settings: ``size``, an int or (rows, cols), and ``resize_mode``.

    Raises:
        UserError: The encoder's preprocessing is of another kind.
    """
    side, mode = preprocessing["size"], preprocessing.get("resize_mode", "shortest")
    rows, cols = (side, side) if isinstance(side, int) else side
    width, height = size
    if mode == "squash":
        return 0, 0, width, height
    if mode != "shortest" or rows != cols:
        raise UserError(f"photos of an encoder with resize_mode={mode} and {rows} × {cols} pixels can't be drawn")
    left, right = _visible_range(width, min(size), rows)
    top, bottom = _visible_range(height, min(size), rows)
    return left, top, right, bottom


def _visible_range(length: int, short: int, side: int) -> tuple[float, float]:
    """Return start and end of one side's part that is kept when the short side is resized to ``side`` and cropped."""
    resized = int(side * length / short)
    start = round((resized - side) / 2)
    return start * length / resized, min(length, (start + side) * length / resized)


def small_photo(image: Image.Image, box: Box) -> Photo:
    """Return the photo with its box, reduced to the size that a figure can show."""
    small = image.copy()
    small.thumbnail((LONGEST, LONGEST))
    x, y = small.width / image.width, small.height / image.height
    left, top, right, bottom = box
    return Photo(small, (left * x, top * y, min(small.width, right * x), min(small.height, bottom * y)))


@contextmanager
def score_file(path: Path, schema: pa.Schema) -> Iterator[Callable[[Iterable[Mapping[str, Any]]], None]]:
    """Provide a function that adds rows to a Parquet file.

    The file gets its final name when the context ends, also after an error, with all rows added so far.
    """
    partial = path.with_name(f".{path.name}.partial")
    writer = pq.ParquetWriter(partial, schema)
    try:
        yield lambda rows: writer.write_table(pa.Table.from_pylist(list(rows), schema))
    finally:
        writer.close()
        partial.replace(path)
