"""The stamp of a picture: its config and its scores with a hash of both, in the text chunks of the PNG file.

Scores differ in their last digits between machines and numbers of threads, and a number on the border between two
rounded values would change any hash of rounded scores. A recomputed score therefore counts as the stored one if it is
within a tolerance of it (:func:`settled`), and the hash is that of the stored scores.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from PIL import Image
from PIL.PngImagePlugin import PngInfo

DIGITS = 4  # decimals of a stored score; all stored scores are at most about 1
TOLERANCE = 0.002  # largest difference between a stored and a recomputed score that counts as none
CONFIG, SCORES, HASH = "config", "scores", "hash"


@dataclass(frozen=True)
class Stamp:
    """The config and the scores of a picture, as JSON values."""

    config: Any
    scores: Any

    @property
    def hash(self) -> str:
        """SHA-256 of both."""
        return hashlib.sha256(_json([self.config, self.scores]).encode()).hexdigest()


def write_png(figure: Figure, path: Path, stamp: Stamp, palette: bool = False) -> None:
    """Write a figure with its stamp.

    Args:
        figure: The figure.
        path: The file.
        stamp: The stamp.
        palette: Whether 256 colours are enough, as for curves, whose file is then three times smaller.
    """
    rendered = BytesIO()
    figure.savefig(rendered, format="png", dpi=figure.dpi)
    image = Image.open(rendered).convert("RGB")
    write_image(image.quantize(256, Image.Quantize.MAXCOVERAGE, kmeans=1) if palette else image, path, stamp)


def write_image(image: Image.Image, path: Path, stamp: Stamp) -> None:
    """Write an image with its stamp."""
    info = PngInfo()
    for key, text in ((CONFIG, _json(stamp.config)), (SCORES, _json(stamp.scores)), (HASH, stamp.hash)):
        info.add_text(key, text)
    image.save(path, pnginfo=info, optimize=True)


def read_stamp(path: Path) -> tuple[Stamp, str]:
    """Return the stamp of a picture and the hash in its file."""
    with Image.open(path) as image:
        texts: dict[str, str] = image.text  # type: ignore[attr-defined]
    return Stamp(json.loads(texts[CONFIG]), json.loads(texts[SCORES])), texts[HASH]


def rounded(value: Any) -> Any:
    """Return nested dicts and lists with all floats rounded to ``DIGITS``."""
    if isinstance(value, dict):
        return {str(key): rounded(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [rounded(each) for each in value]
    return round(float(value), DIGITS) + 0.0 if isinstance(value, float) else value


def settled(found: Any, stored: Any) -> Any:
    """Return recomputed scores, with the stored number in place of every number that is within the tolerance of it."""
    if isinstance(found, dict) and isinstance(stored, dict):
        return {key: settled(each, stored.get(key)) for key, each in found.items()}
    if isinstance(found, list) and isinstance(stored, list) and len(found) == len(stored):
        return [settled(one, other) for one, other in zip(found, stored, strict=True)]
    both = isinstance(found, float) and isinstance(stored, float)
    return stored if both and abs(found - stored) <= TOLERANCE else found


def _json(value: Any) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"))
