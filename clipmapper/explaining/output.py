"""Output for explained samples: the files of a run, and the photo under a heat map."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from clipmapper.errors import UserError
from clipmapper.explaining.familiarity import Finding
from clipmapper.files import finite, write_json
from clipmapper.storage.checksums import sealed
from explain.figures.photo import Box, Photo
from explain.sample.maps import cropped_box

# Names in the run folder.
PICTURES, SCORES, CONTENTS, WARNINGS = "pictures", "scores.parquet", "pictures.jsonl", "warnings.json"
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
    return cropped_box(size, rows, (rows, rows))


def small_photo(image: Image.Image, box: Box) -> Photo:
    """Return the photo with its box, reduced to the size that a figure can show."""
    small = image.copy()
    small.thumbnail((LONGEST, LONGEST))
    x, y = small.width / image.width, small.height / image.height
    left, top, right, bottom = box
    return Photo(small, (left * x, top * y, min(small.width, right * x), min(small.height, bottom * y)))


@contextmanager
def result_files(run: Path, schema: pa.Schema) -> Iterator[Callable[[Iterable[Mapping[str, Any]], Any], None]]:
    """Provide a function that adds a sample's rows to the file of scores, and the content of its figure.

    Each content is one line of JSON. The files get their final names when the context ends, also after an error, with
    all samples added so far.

    Args:
        run: The run folder.
        schema: Schema of the file of scores.
    """
    names = (SCORES, CONTENTS)
    scores, contents = (run / f".{name}.partial" for name in names)
    with pq.ParquetWriter(scores, schema) as writer, contents.open("w", encoding="utf-8") as lines:

        def write(rows: Iterable[Mapping[str, Any]], content: Any) -> None:
            writer.write_table(pa.Table.from_pylist(list(rows), schema))
            lines.write(f"{json.dumps(sealed(finite(content)), allow_nan=False)}\n")

        try:
            yield write
        finally:
            writer.close()
            lines.close()
            for path, name in zip((scores, contents), names, strict=True):
                path.replace(run / name)


class Warnings:
    """The warnings about the samples of a run: printed on stderr, and kept for the files of the run folder."""

    def __init__(self) -> None:
        self.entries: list[dict[str, Any]] = []
        self._of: dict[int, list[str]] = {}

    def add(self, ids: Mapping[str, int], finding: Finding) -> None:
        """Print a sample's warnings, and keep what was found about it; ``ids`` has the sample's own id first."""
        name, number = next(iter(ids.items()))
        for line in finding.warnings:
            print(f"warning: {name.removesuffix('_id')} {number}: {line}", file=sys.stderr)
        found = {"unknown_words": finding.unknown_words, "image_distance": finding.image_distance}
        self.entries.append({**ids, **found, "warnings": finding.warnings})
        self._of[number] = finding.warnings

    def of(self, number: int) -> list[str]:
        """Return the warnings about the sample with this id."""
        return self._of[number]


@contextmanager
def warning_file(run: Path) -> Iterator[Warnings]:
    """Provide the warnings of a run, which are written to the run folder when the context ends, also after an error."""
    warnings = Warnings()
    try:
        yield warnings
    finally:
        write_json(run / WARNINGS, warnings.entries)
