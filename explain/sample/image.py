"""Images in 8-bit RGB: the rule for their orientation, transparency and range, and the sizes that they may have."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

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
    """Return an image in 8-bit RGB (:func:`as_rgb`).

    Raises:
        ValueError: The file is missing, damaged or no image, the image is too large (:func:`check_size`), or the object
            is of another kind.
    """
    if isinstance(picture, Image.Image):
        return _converted(picture, "the image")
    if not isinstance(picture, str | Path):
        raise ValueError(f"image is a {type(picture).__name__}: give a file or a PIL image, or a list of them")
    if Path(picture).exists() and not Path(picture).is_file():
        raise ValueError(f"{picture}: cannot be read as an image, since it is no regular file")
    try:
        file = open_encoded(Path(picture).read_bytes())
    except FileNotFoundError as error:
        raise ValueError(f"{picture}: no such image") from error
    except ValueError as error:
        raise ValueError(f"{picture}: {' '.join(str(error).split())}") from error
    except Exception as error:  # for a damaged header, as below
        raise ValueError(f"{picture}: cannot be read as an image") from error
    return _converted(file, str(picture))


def _converted(image: Image.Image, name: str) -> Image.Image:
    try:
        return as_rgb(image)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from error
    except Exception as error:  # for damaged bytes, decoders raise OSError, SyntaxError, KeyError, struct.error …
        raise ValueError(f"{name}: cannot be read as an image") from error


def open_encoded(encoded: bytes) -> Image.Image:
    """Return an image whose header is read.

    Raises:
        ValueError: It has more than ``MAX_PIXELS``, or is PostScript, which Pillow gives to another program to run.
        Exception: Pillow cannot read it; for a damaged header, its decoders raise many kinds.
    """
    if encoded.startswith((b"%!PS", b"\xc5\xd0\xd3\xc6")):
        raise ValueError("PostScript is a program and not read as an image, save it as PNG")
    try:
        verify_png(encoded)
        return Image.open(BytesIO(encoded))
    except Image.DecompressionBombError:
        raise ValueError(f"has more than {MAX_PIXELS} pixels, scale it down") from None


def verify_png(encoded: bytes) -> None:
    """Compare the checksums in a PNG file, which Pillow does not do when it decodes; other formats have none.

    Raises:
        SyntaxError: A checksum differs.
    """
    if encoded.startswith(b"\x89PNG"):
        with Image.open(BytesIO(encoded)) as image:
            image.verify()


def as_rgb(image: Image.Image) -> Image.Image:
    """Return an image in 8-bit RGB, by one rule for every image that is explained.

    The first frame is taken, the EXIF orientation is applied, and transparent pixels are drawn over white. 16-bit
    greyscale is scaled to 8 bits (Pillow's own conversion clips at 255).

    Raises:
        ValueError: The image is too large (:func:`check_size`), or has pixels without a known range.
    """
    check_size(*image.size)  # of an image file, only the header has been read so far
    upright = ImageOps.exif_transpose(image)
    if upright.mode.startswith("I"):
        upright = _to_eight_bits(upright)
    if upright.mode == "F":
        raise ValueError("floating-point pixels have no known range, save them as 8 or 16 bits")
    if "transparency" in upright.info or upright.mode in ("RGBA", "LA", "PA"):
        opaque = Image.new("RGBA", upright.size, "white")
        opaque.alpha_composite(upright.convert("RGBA"))
        upright = opaque
    return upright.convert("RGB")


def _to_eight_bits(image: Image.Image) -> Image.Image:
    """Convert 16-bit greyscale, which Pillow opens in mode I;16 (PNG, TIFF) or in the 32-bit mode I (such as PGM)."""
    pixels = np.asarray(image).astype(np.int32)
    if pixels.min() < 0 or pixels.max() > 65535:
        raise ValueError("32-bit pixels have no known range, save them as 8 or 16 bits")
    return Image.fromarray(((pixels * 255 + 32767) // 65535).astype(np.uint8))
