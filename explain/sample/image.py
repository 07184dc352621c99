"""Images that are given to ``explain.explain``, and the sizes that every image may have."""

from __future__ import annotations

from pathlib import Path

from PIL import Image

Picture = str | Path | Image.Image

MAX_PIXELS = 89_478_485  # above this size (256 MiB as RGB), Pillow warns about a decompression bomb
SHORT_SIDE = 448  # pixels to which encoders scale the short side of an image, at most with few exceptions
MAX_RATIO = MAX_PIXELS // SHORT_SIDE**2  # of the sides, so that a scaled image has at most MAX_PIXELS


def check_size(width: int, height: int) -> None:
    """Check the size of an image, before it is decoded and scaled.

    CLIP's preprocessing scales the short side to that of the encoder, whatever the long side becomes: an image of
    1 × 60,000 pixels becomes one of 224 × 13,440,000. So the size of the scaled image is limited too.

    Raises:
        ValueError: The image, or the image with a short side of ``SHORT_SIDE``, has more than ``MAX_PIXELS``.
    """
    if width * height > MAX_PIXELS:
        raise ValueError(f"{width}×{height} pixels are more than {MAX_PIXELS}, scale it down")
    if max(width, height) > MAX_RATIO * min(width, height):
        raise ValueError(
            f"of {width}×{height} pixels, one side is more than {MAX_RATIO} times the other, so that scaling its short "
            "side to that of an encoder would take gigabytes, crop it or add a border"
        )


def opened(picture: Picture) -> Image.Image:
    """Return an image in RGB.

    Raises:
        ValueError: The file is missing or no image, the image is too large (:func:`check_size`), or the object is of
            another kind.
    """
    if isinstance(picture, Image.Image):
        return _checked(picture, "the image")
    if not isinstance(picture, str | Path):
        raise ValueError(f"image is a {type(picture).__name__}: give a file or a PIL image, or a list of them")
    if Path(picture).exists() and not Path(picture).is_file():
        raise ValueError(f"{picture}: cannot be read as an image, since it is no regular file")
    try:
        with Image.open(picture) as file:
            return _checked(file, str(picture))
    except FileNotFoundError as error:
        raise ValueError(f"{picture}: no such image") from error
    except OSError as error:
        raise ValueError(f"{picture}: cannot be read as an image") from error
    except Image.DecompressionBombError as error:
        raise ValueError(f"{picture}: has more than {MAX_PIXELS} pixels, scale it down") from error


def _checked(image: Image.Image, name: str) -> Image.Image:
    try:
        check_size(*image.size)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from error
    return image.convert("RGB")
