"""Decoding: images of all modes and formats become upright 8-bit RGB, and broken files give a one-line error."""

from __future__ import annotations

import struct
import zlib
from contextlib import suppress
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageFile

from clipmapper.data.images import BadImage, EncodedImage, FileImage, image_in, load_rgb
from clipmapper.errors import UserError
from explain.sample.image import MAX_PIXELS, MAX_RATIO, SHORT_SIDE, opened

WHITE = (255, 255, 255)


def encode(image: Image.Image, kind: str, **options: Any) -> bytes:
    stream = BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def decode(encoded: bytes) -> Image.Image:
    return load_rgb(EncodedImage("photo", lambda: encoded))


def noise() -> Image.Image:
    pixels = np.random.default_rng(0).integers(0, 256, (100, 200, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def palette() -> Image.Image:
    image = Image.new("P", (2, 2), 0)
    image.putpalette([10, 20, 30, 255, 0, 0])
    return image


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF", "PPM"])
def test_lossless_formats_keep_every_pixel(kind: str) -> None:
    image = decode(encode(noise(), kind))
    assert image.mode == "RGB"
    np.testing.assert_array_equal(np.asarray(image), np.asarray(noise()))


@pytest.mark.parametrize(
    ("image", "kind", "options", "expected"),
    [
        (Image.new("L", (2, 2), 99), "PNG", {}, (99, 99, 99)),
        (Image.new("1", (2, 2), 1), "PNG", {}, WHITE),
        (palette(), "PNG", {}, (10, 20, 30)),
        (palette(), "PNG", {"transparency": 0}, WHITE),
        (palette(), "GIF", {"transparency": 0}, WHITE),
        (Image.new("RGB", (2, 2), (1, 2, 3)), "PNG", {"transparency": (1, 2, 3)}, WHITE),
        (Image.new("RGBA", (2, 2), (255, 0, 0, 0)), "PNG", {}, WHITE),
        (Image.new("RGBA", (2, 2), (255, 0, 0, 255)), "PNG", {}, (255, 0, 0)),
        (Image.new("RGBA", (2, 2), (255, 0, 0, 51)), "PNG", {}, (255, 204, 204)),
        (Image.new("LA", (2, 2), (0, 128)), "PNG", {}, (127, 127, 127)),
        (Image.new("CMYK", (2, 2), (255, 0, 0, 0)), "TIFF", {}, (0, 255, 255)),
    ],
)
def test_all_modes_become_rgb(
    image: Image.Image, kind: str, options: dict[str, Any], expected: tuple[int, ...]
) -> None:
    decoded = decode(encode(image, kind, **options))
    assert decoded.mode == "RGB"
    assert decoded.getpixel((0, 0)) == expected


def test_a_cmyk_jpeg_becomes_rgb() -> None:
    decoded = decode(encode(Image.new("CMYK", (16, 16), (255, 0, 0, 0)), "JPEG"))
    np.testing.assert_allclose(np.asarray(decoded)[8, 8], (0, 255, 255), atol=3)


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "PPM"])
def test_sixteen_bit_greyscale_is_scaled_and_not_clipped(kind: str) -> None:
    values = np.arange(0, 65536, 257, dtype=np.uint16).reshape(16, 16)
    decoded = decode(encode(Image.fromarray(values), kind))
    np.testing.assert_array_equal(np.asarray(decoded)[..., 0].ravel(), np.arange(256))


def test_sixteen_bits_are_rounded() -> None:
    values = np.array([[128, 129, 65406, 65407]], dtype=np.uint16)  # a step of 257 in 16 bits is a step of 1 in 8 bits
    assert np.asarray(decode(encode(Image.fromarray(values), "PNG")))[0, :, 0].tolist() == [0, 1, 254, 255]


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP"])
def test_animations_give_their_first_frame(kind: str) -> None:
    red, blue = (Image.new("RGB", (8, 8), color) for color in ("red", "blue"))
    decoded = decode(encode(red, kind, save_all=True, append_images=[blue]))
    np.testing.assert_allclose(np.asarray(decoded)[4, 4], (255, 0, 0), atol=3)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_exif_orientation_is_applied(kind: str) -> None:
    left_black = Image.new("RGB", (40, 20), "white")
    left_black.paste("black", (0, 0, 20, 20))
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: the left side of the stored image is the top
    decoded = decode(encode(left_black, kind, exif=exif))
    assert decoded.size == (20, 40)
    assert np.asarray(decoded)[5].mean() < 20
    assert np.asarray(decoded)[35].mean() > 235


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "WEBP", "TIFF", "BMP"])
@pytest.mark.parametrize("share", [0.05, 0.5, 0.95])
def test_a_cut_off_file_is_an_error(kind: str, share: float) -> None:
    encoded = encode(noise(), kind)
    with pytest.raises(BadImage, match=r"^photo: .*; replace it with an intact copy"):
        decode(encoded[: int(len(encoded) * share)])


@pytest.mark.filterwarnings("ignore")
def test_damaged_bytes_never_raise_anything_else() -> None:
    rng = np.random.default_rng(1)
    for kind in ("JPEG", "PNG", "GIF", "WEBP", "TIFF", "BMP", "ICO", "TGA"):
        intact = np.frombuffer(encode(noise(), kind), dtype=np.uint8)
        for _ in range(15):
            damaged = intact.copy()
            damaged[rng.integers(0, min(400, len(intact)), 8)] = rng.integers(0, 256, 8)
            with suppress(BadImage):
                assert decode(damaged.tobytes()).mode == "RGB"


def png_header(width: int, height: int) -> bytes:
    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(bytes(100))) + chunk(b"IEND", b"")


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize(
    ("encoded", "reason"),
    [
        (b"", "the file is empty"),
        (b"<html>not found</html>", "not an image that Pillow can read"),
        (png_header(10_000, 10_000), "10000×10000 pixels are more than"),
        (png_header(60_000, 60_000), "has more than 89478485 pixels, scale it down"),
        (encode(Image.new("RGB", (9, 9)), "EPS"), "PostScript is a program and not read as an image, save it as PNG"),
        (encode(Image.new("F", (2, 2), 0.5), "TIFF"), "floating-point pixels have no known range"),
        (encode(Image.new("I", (2, 2), 70_000), "TIFF"), "32-bit pixels have no known range"),
        (encode(Image.new("I", (2, 2), -1), "TIFF"), "32-bit pixels have no known range"),
    ],
)
def test_an_undecodable_image_is_an_error(encoded: bytes, reason: str) -> None:
    with pytest.raises(BadImage, match=rf"^photo: .*{reason}.*; replace it") as caught:
        decode(encoded)
    assert "\n" not in str(caught.value)
    assert "0x" not in str(caught.value)


@pytest.mark.parametrize("size", [(1, 60_000), (60_000, 1), (2, 891)])
def test_an_image_that_scaling_would_make_huge_is_refused_before_it_is_decoded(
    tmp_path: Path, size: tuple[int, int]
) -> None:
    """The pixels are missing: an error of another kind would be raised if they were decoded."""
    with pytest.raises(BadImage, match=rf"^photo: of {size[0]}×{size[1]} pixels, one side is .*crop it.*; replace it"):
        decode(png_header(*size))
    path = tmp_path / "thin.png"
    path.write_bytes(png_header(*size))
    with pytest.raises(ValueError, match=rf"thin\.png: of {size[0]}×{size[1]} pixels, one side is .*crop it") as caught:
        opened(path)
    assert "\n" not in str(caught.value)
    with pytest.raises(ValueError, match=r"^the image: of .*crop it"):
        opened(Image.new("L", size))


def test_the_largest_ratio_is_accepted_and_its_scaled_image_is_bounded() -> None:
    for size in ((2, 2 * MAX_RATIO), (MAX_RATIO, 1)):
        assert decode(encode(Image.new("RGB", size), "PNG")).size == size
        assert opened(Image.new("L", size)).size == size
    assert SHORT_SIDE * SHORT_SIDE * MAX_RATIO <= MAX_PIXELS


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_a_decompression_bomb_is_one_line_in_explain_too(tmp_path: Path) -> None:
    for size in ((60_000, 60_000), (10_000, 10_000)):
        (tmp_path / "bomb.png").write_bytes(png_header(*size))
        with pytest.raises(ValueError, match=r"bomb\.png: .*pixels.* scale it down$"):
            opened(tmp_path / "bomb.png")


@pytest.mark.parametrize("name", ["a.jpg", "a/b.jpg", "..a.jpg", "a..jpg", "…/é.jpg", "~/a.jpg", "C:\\a.jpg"])
def test_a_file_name_below_the_folder_is_its_image(tmp_path: Path, name: str) -> None:
    assert image_in(tmp_path, name, "c.json") == FileImage(tmp_path / name)


@pytest.mark.parametrize(
    "name", ["../a.jpg", "a/../../b.jpg", "a/../b.jpg", "..", "/etc/passwd", "//a", "", " ", "a\0b"]
)
def test_a_file_name_that_leads_out_of_the_folder_is_one_line(name: str) -> None:
    with pytest.raises(UserError, match=r'^c\.json: images\[3\]: "file_name": ') as caught:
        image_in(Path("images"), name, 'c.json: images[3]: "file_name"')
    assert "\n" not in str(caught.value)


def test_links_in_the_image_folder_are_followed(tmp_path: Path) -> None:
    noise().save(tmp_path / "real.png")
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "link.png").symlink_to(tmp_path / "real.png")
    assert load_rgb(image_in(tmp_path / "images", "link.png", "c.json")).size == (200, 100)


def test_a_null_character_in_a_path_is_one_line() -> None:
    with pytest.raises(BadImage, match=r"cannot be read \(.*null"):
        FileImage(Path("a\0b.png")).read()


def test_image_files_are_read(tmp_path: Path) -> None:
    path = tmp_path / "ünï.png"
    noise().save(path)
    source = FileImage(path)
    assert source.name == str(path)
    assert load_rgb(source).size == (200, 100)
    for missing in (tmp_path / "none.png", tmp_path):
        with pytest.raises(BadImage, match=str(missing)):
            load_rgb(FileImage(missing))
    assert issubclass(BadImage, UserError)


def test_pillows_global_settings_do_not_change() -> None:
    before = (ImageFile.LOAD_TRUNCATED_IMAGES, Image.MAX_IMAGE_PIXELS)
    decode(encode(noise(), "JPEG"))
    with pytest.raises(BadImage):
        decode(encode(noise(), "JPEG")[:2000])
    assert before == (ImageFile.LOAD_TRUNCATED_IMAGES, Image.MAX_IMAGE_PIXELS)


def test_real_photos_are_decoded(real_mini: Path) -> None:
    paths = sorted(real_mini.glob("images/*/*.jpg"))
    stored = []
    for path in paths[::8]:
        with Image.open(path) as image:
            stored.append(image.size)
    decoded = [load_rgb(FileImage(path)) for path in paths[::8]]
    assert [image.size for image in decoded] == stored
    assert {image.mode for image in decoded} == {"RGB"}
