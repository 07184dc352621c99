"""The views that a model of ``transformers`` has of a photo: the whole of it, and tiles at higher resolution."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from PIL import Image

from explain.sample.inputs import ONE_TILED_IMAGE
from explain.sample.maps import cropped_box
from explain.sample.traced import WHOLE, Box, View
from explain.trace import TraceError
from explain.traced import Traced


def seen_box(model: Any, processor: Any, size: tuple[int, int]) -> Box:
    """Return the part of a photo of a width and height that remains after a processor's centre crop, in its pixels.

    Of an image that is also read as tiles, nothing is cropped.
    """
    tiled = model.config.model_type in ONE_TILED_IMAGE
    images = getattr(processor, "image_processor", processor)
    edge = _side(getattr(images, "size", None), "shortest_edge")
    crop = getattr(images, "crop_size", None)
    if getattr(images, "do_center_crop", False) and edge and crop and not tiled:
        return cropped_box(size, edge, (_side(crop, "width") or edge, _side(crop, "height") or edge))
    return 0.0, 0.0, float(size[0]), float(size[1])


def _side(size: Any, name: str) -> int | None:
    value = (
        size.get(name) if isinstance(size, Mapping) else getattr(size, name, size if isinstance(size, int) else None)
    )
    return None if value is None else int(value)


def views_of(
    model: Any, processor: Any, inputs: Mapping[str, Any], photos: Sequence[Image.Image], traced: Traced
) -> list[View]:
    """Return the photo and the place of each image (or tile) that the model read, in the order of ``traced.images``.

    Raises:
        TraceError: The places of a photo's tiles are not known.
    """
    kind = model.config.model_type
    if kind == "mllama":
        return _canvas_tiles(model, inputs, photos)
    count = 1 if traced.images is None else int(traced.images.max()) + 1
    if kind in ONE_TILED_IMAGE:
        return _padded_tiles(model, inputs, photos[0].size)
    if kind in ("idefics3", "smolvlm"):
        rows_and_cols = processor.image_processor([list(photos)], return_row_col_info=True)
        found = _even_tiles(list(zip(rows_and_cols["rows"][0], rows_and_cols["cols"][0], strict=True)))
        if len(found) == count:
            return found
    if kind == "internvl" and count > len(photos):
        found = _even_tiles(_internvl_shapes(model, processor, photos))
        if len(found) == count:
            return found
    if count == len(photos):
        return [View(number) for number in range(count)]
    raise TraceError(
        f"{type(model).__name__} read {len(photos)} images as {count} tiles whose places are not known: turn the "
        "processor's tiles off"
    )


def _padded_tiles(model: Any, inputs: Mapping[str, Any], size: tuple[int, int]) -> list[View]:
    """Return the views of LLaVA-Next: the squashed image, and tiles of the image padded to the best resolution."""
    from transformers.image_processing_utils import select_best_resolution

    width, height = size
    side = model.config.vision_config.image_size
    high, wide = select_best_resolution((height, width), model.config.image_grid_pinpoints)
    scale = min(wide / width, high / height)
    across, down = min(width * scale, wide), min(height * scale, high)  # the photo on the canvas, in its middle
    left, top = (wide - across) / 2, (high - down) / 2
    tiles = [
        View(0, ((x - left) / across, (y - top) / down, (x + side - left) / across, (y + side - top) / down))
        for y in range(0, high, side)
        for x in range(0, wide, side)
    ]
    return [View(0), *tiles]


def _even_tiles(shapes: Sequence[tuple[int, int]]) -> list[View]:
    """Return the views of photos that are cut into rows and columns of tiles, followed by the whole photo.

    Idefics3 gives 0 rows and columns to a photo that is not cut.
    """
    views: list[View] = []
    for number, (rows, cols) in enumerate(shapes):
        views += [
            View(number, (col / cols, row / rows, (col + 1) / cols, (row + 1) / rows))
            for row in range(rows)
            for col in range(cols)
        ]
        views.append(View(number, WHOLE))
    return views


def _internvl_shapes(model: Any, processor: Any, photos: Sequence[Image.Image]) -> list[tuple[int, int]]:
    """Return the rows and columns of tiles of each photo of an InternVL."""
    from transformers.models.got_ocr2.image_processing_got_ocr2 import get_optimal_tiled_canvas

    images, (height, width) = processor.image_processor, model.config.vision_config.image_size
    least, most = images.min_patches, images.max_patches
    found = [get_optimal_tiled_canvas((p.height, p.width), (height, width), least, most) for p in photos]
    return [(0, 0) if cols * rows == 1 else (rows, cols) for cols, rows in found]


def _canvas_tiles(model: Any, inputs: Mapping[str, Any], photos: Sequence[Image.Image]) -> list[View]:
    """Return the views of Mllama: tiles of a canvas, on which the photo is in the upper left corner."""
    config = model.config.vision_config
    side, most = config.image_size, inputs["pixel_values"].shape[2]
    views: list[View] = []
    for number, (photo, ratio) in enumerate(zip(photos, inputs["aspect_ratio_ids"][0].tolist(), strict=True)):
        rows, cols = config.supported_aspect_ratios[ratio - 1]
        fitted = (min(max(photo.width, side), cols * side), min(max(photo.height, side), rows * side))
        scale = min(fitted[0] / photo.width, fitted[1] / photo.height)
        width, height = side / (photo.width * scale), side / (photo.height * scale)  # of a tile, in photos
        views += [
            View(number, (col * width, row * height, (col + 1) * width, (row + 1) * height))
            for row in range(rows)
            for col in range(cols)
        ]
        views += [View(number)] * (most - rows * cols)  # tiles without pixels
    return views
