"""What is written about explained samples: the file of scores, and the photo under a heat map."""

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
LONGEST = 1200  # pixels of a photo's longer side: more than a figure prints of it


def seen_box(size: tuple[int, int], preprocessing: Mapping[str, Any]) -> Box:
    """The part of a photo that the encoder sees: left, top, right, bottom in pixels of the photo.

    CLIP's preprocessing scales the short side to the encoder's S and keeps the S × S pixels in the middle; whole pixels
    are rounded as torchvision's ``Resize`` and ``CenterCrop`` do.

    Args:
        size: Width and height of the photo.
        preprocessing: open_clip's settings: ``size``, an int or (rows, cols), and ``resize_mode``.

    Raises:
        UserError: the encoder is preprocessed in another way.
    """
    wanted, mode = preprocessing["size"], preprocessing.get("resize_mode", "shortest")
    rows, cols = (wanted, wanted) if isinstance(wanted, int) else wanted
    width, height = size
    if mode == "squash":
        return 0, 0, width, height
    if mode != "shortest" or rows != cols:
        raise UserError(f"photos of an encoder with resize_mode={mode} and {rows} × {cols} pixels can't be pictured")
    left, right = _kept(width, min(size), rows)
    top, bottom = _kept(height, min(size), rows)
    return left, top, right, bottom


def _kept(length: int, short: int, side: int) -> tuple[float, float]:
    """What is kept of one side of a photo whose short side is made ``side`` long."""
    resized = int(side * length / short)
    start = round((resized - side) / 2)
    return start * length / resized, min(length, (start + side) * length / resized)


def small_photo(image: Image.Image, box: Box) -> Photo:
    """The photo, no larger than a figure has use for."""
    small = image.copy()
    small.thumbnail((LONGEST, LONGEST))
    x, y = small.width / image.width, small.height / image.height
    left, top, right, bottom = box
    return Photo(small, (left * x, top * y, min(small.width, right * x), min(small.height, bottom * y)))


@contextmanager
def score_file(path: Path, schema: pa.Schema) -> Iterator[Callable[[Iterable[Mapping[str, Any]]], None]]:
    """A function that adds rows to a Parquet file.

    The file is there at the end, also at one by an error, with every row that was added until then.
    """
    partial = path.with_name(f".{path.name}.partial")
    writer = pq.ParquetWriter(partial, schema)
    try:
        yield lambda rows: writer.write_table(pa.Table.from_pylist(list(rows), schema))
    finally:
        writer.close()
        partial.replace(path)
