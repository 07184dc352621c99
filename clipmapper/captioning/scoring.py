"""Scoring anyone's captions: COCO's result file against a file of reference captions."""

from __future__ import annotations

import reprlib
from pathlib import Path

from clipmapper.data.caption_files import CaptionData, read_coco_captions, read_karpathy
from clipmapper.data.json_files import read_json
from clipmapper.errors import UserError
from clipmapper.metrics.captions import CaptionScores, score_captions


def score_caption_files(predictions: Path, references: Path, split: str) -> CaptionScores:
    """Scores ``[{image_id, caption}]`` against COCO's caption file, or a split of Karpathy's.

    Raises ``UserError`` where a file is missing or malformed, where the two are not about the same images, or where an
    image has no reference.
    """
    return score_captions(read_results(predictions), _references(references, split).references())


def read_results(path: Path) -> dict[int, str]:
    """COCO's result file, by image id; raises ``UserError`` where an entry is malformed or an image occurs twice."""
    content = read_json(path)
    if not isinstance(content, list):
        raise UserError(f'{path}: not a result file; give a list [{{"image_id": 1, "caption": "…"}}]')
    captions: dict[int, str] = {}
    for number, entry in enumerate(content):
        image_id, caption = (entry.get(k) if isinstance(entry, dict) else None for k in ("image_id", "caption"))
        if type(image_id) is not int or not isinstance(caption, str):
            raise UserError(
                f'{path}: [{number}] is {reprlib.repr(entry)}; give {{"image_id": a whole number, "caption": a text}}'
            )
        if image_id in captions:
            raise UserError(f"{path}: [{number}]: image {image_id} occurs twice; keep one caption of it")
        captions[image_id] = caption
    return captions


def _references(path: Path, split: str) -> CaptionData:
    """The two formats are told apart by where their captions are."""
    content, nowhere = read_json(path), Path()  # no image is opened
    if isinstance(content, dict) and "annotations" not in content and "images" in content:
        return read_karpathy(path, nowhere, split)
    return read_coco_captions(path, nowhere)
