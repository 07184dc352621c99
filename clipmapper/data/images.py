"""Encoded images, and their decoding to 8-bit RGB with one clear error for every image that cannot be decoded."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from PIL import Image, UnidentifiedImageError

from clipmapper.data.records import ImageSource
from clipmapper.errors import UserError
from clipmapper.files import read_bytes
from explain.sample.image import as_rgb, open_encoded


class BadImage(UserError):
    """Error for an image that is missing or cannot be decoded; the message has its name, the reason and a fix."""


@dataclass(frozen=True, slots=True, init=False)
class FileImage:
    """An image file, which is not accessed before it is read."""

    #: Its path as text: objects of ``pathlib`` would take most of the time and memory of large datasets.
    name: str

    def __init__(self, path: Path | str):
        object.__setattr__(self, "name", str(path))

    @property
    def path(self) -> Path:
        """Its path."""
        return Path(self.name)

    def read(self) -> bytes:
        """Return the bytes of the file.

        Raises:
            BadImage: The file is missing or unreadable.
        """
        try:
            return read_bytes(self.path, "image")
        except FileNotFoundError:
            raise BadImage(f"{self.path}: no such image; put the file there or correct the image folder") from None
        except OSError as error:
            raise BadImage(f"{self.path}: cannot be read ({error.strerror}); give a readable image file") from error
        except UserError as error:  # no regular file, or too large
            raise BadImage(str(error)) from None
        except ValueError as error:  # a null character in the path
            raise BadImage(f"{str(self.path)!r}: cannot be read ({error}); correct the path") from error


def image_in(folder: Path, name: str, at: str) -> FileImage:
    """Return the image of a file name that a data file gives.

    Links in the folder are followed, since only the user can have made them.

    Args:
        folder: The folder of the images.
        name: The file name, with ``/`` between folders.
        at: Its place in the data file, for the message.

    Raises:
        UserError: The name leads out of the folder, or is no file name.
    """
    if not name.strip() or "\0" in name:
        raise UserError(f"{at}: {name!r} is no file name; correct it or remove the entry")
    if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts:
        raise UserError(f"{at}: {name!r} leads out of the image folder {folder}; give a name below that folder")
    return FileImage(folder / name)


@dataclass(frozen=True, slots=True)
class EncodedImage:
    """An encoded image that is stored in a container, such as a cell of a Parquet file."""

    #: Name of the image in messages.
    name: str
    #: Function that returns the encoded bytes.
    get: Callable[[], bytes]
    #: The file that holds it, and its name in this file; None if no file stands for its content.
    place: tuple[str, str] | None = None

    def read(self) -> bytes:
        """Return the encoded bytes; errors of ``get`` are raised unchanged."""
        return self.get()


def load_rgb(source: ImageSource) -> Image.Image:
    """Decode an image to 8-bit RGB (:func:`~explain.sample.image.as_rgb`).

    Raises:
        BadImage: The image is missing, empty, cut off, too large (:func:`~explain.sample.image.check_size`), not an
            image, or has pixels without a known range.
    """
    encoded = source.read()
    if not encoded:
        raise _bad_image(source, "the file is empty")
    try:
        with open_encoded(encoded) as image:
            return as_rgb(image)
    except UnidentifiedImageError as error:  # the original message contains a memory address
        raise _bad_image(source, "not an image that Pillow can read") from error
    except Exception as error:  # for damaged bytes, decoders raise OSError, SyntaxError, KeyError, struct.error …
        raise _bad_image(source, " ".join(str(error).split()) or type(error).__name__) from error


def _bad_image(source: ImageSource, reason: str) -> BadImage:
    return BadImage(f"{source.name}: {reason}; replace it with an intact copy, or leave it out")
