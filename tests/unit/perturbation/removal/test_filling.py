"""Removed cells of an image are filled as described; ROAD's equations are solved as a dense loop solves them."""

from __future__ import annotations

from typing import get_args

import numpy as np
import pytest
from PIL import Image, ImageFilter
from slow_fills import solved_by_a_loop

from clipmapper.errors import UserError
from perturbation.config import FILLS
from perturbation.pairs.units import cells
from perturbation.removal.filling import NOISE, Fill, Filler, imputed


def picture(size: tuple[int, int] = (12, 8), seed: int = 0) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def array(image: Image.Image) -> np.ndarray:
    return np.asarray(image, dtype=np.float64) / 255


@pytest.mark.parametrize("seed", range(3))
def test_removed_pixels_are_imputed_from_their_neighbours(seed: int) -> None:
    rng = np.random.default_rng(seed)
    pixels, removed = rng.random((6, 7, 3)), rng.random((6, 7)) < 0.6
    removed[0, 0] = seed == 0  # a corner has three neighbours
    np.testing.assert_allclose(imputed(pixels, removed), solved_by_a_loop(pixels, removed), atol=1e-10)


def test_an_image_without_kept_pixels_has_its_mean_colour() -> None:
    pixels = np.random.default_rng(0).random((3, 4, 3))
    found = imputed(pixels, np.ones((3, 4), dtype=np.bool_))
    np.testing.assert_allclose(found, np.broadcast_to(pixels.mean((0, 1)), found.shape))
    np.testing.assert_array_equal(imputed(pixels, np.zeros((3, 4), dtype=np.bool_)), pixels)


@pytest.mark.parametrize("how", ["mean", "zero", "blur", "noise", "noisy_linear"])
def test_kept_cells_are_unchanged(how: str) -> None:
    image, boxes = array(picture()), cells((2, 3), (0, 0, 12, 8))
    filler = Filler(image, boxes, how, "0/5")  # type: ignore[arg-type]
    kept = np.array([True, False, True, True, False, True])
    found = filler.without(kept)
    for (left, top, right, bottom), keep in zip(boxes, kept, strict=True):
        cell = slice(top, bottom), slice(left, right)
        assert np.array_equal(found[cell], image[cell]) == keep
    np.testing.assert_array_equal(found, Filler(image, boxes, how, "0/5").without(kept))  # type: ignore[arg-type]


def test_what_is_seen_in_removed_cells() -> None:
    image, boxes, nothing = picture(), cells((1, 2), (0, 0, 12, 8)), np.zeros(2, dtype=np.bool_)
    seen = {how: Filler(array(image), boxes, how, "0/0").without(nothing) for how in ("mean", "zero", "blur", "noise")}  # type: ignore[arg-type]
    mean = np.broadcast_to(array(image).mean((0, 1)), seen["mean"].shape)
    np.testing.assert_allclose(seen["mean"], mean)
    assert not seen["zero"].any()
    np.testing.assert_allclose(seen["blur"], array(image.filter(ImageFilter.GaussianBlur(8))))
    other = Filler(array(image), boxes, "noise", "0/1").without(nothing)
    assert abs(seen["noise"].mean() - 0.5) < 0.1
    assert not np.array_equal(seen["noise"], other)


def test_noise_of_imputed_cells_is_small() -> None:
    flat = array(Image.new("RGB", (40, 30), (100, 150, 200)))
    kept = np.array([True, False])
    found = Filler(flat, cells((1, 2), (0, 0, 40, 30)), "noisy_linear", "0/0").without(kept) - flat
    assert not found[:, :20].any()
    assert found[:, 20:].std() == pytest.approx(NOISE, rel=0.1)


def test_a_large_image_is_imputed_at_a_smaller_size() -> None:
    ramp = np.broadcast_to(np.linspace(0, 255, 900)[None, :, None], (60, 900, 3)).astype(np.uint8)
    kept = np.array([True, False, True])
    found = Filler(ramp / 255, cells((1, 3), (0, 0, 900, 60)), "noisy_linear", "0/0").without(kept)
    middle = found[:, 300:600].mean((0, 2))
    np.testing.assert_allclose(middle, ramp[0, 300:600, 0] / 255, atol=0.03)  # a ramp is its own mean of neighbours


def test_an_unknown_way_is_one_line() -> None:
    with pytest.raises(UserError, match="removal of cells: grey is not one of: mean, zero, blur, noise, noisy_linear"):
        Filler(array(picture()), cells((1, 1), (0, 0, 12, 8)), "grey", "0/0")  # type: ignore[arg-type]


def test_configs_know_every_way_to_fill() -> None:
    assert get_args(Fill) == FILLS


@pytest.mark.parametrize("how", FILLS)
def test_eight_bit_images_are_the_rounded_colours(how: Fill) -> None:
    colours = np.random.default_rng(0).integers(0, 256, (12, 15, 3)) / 255
    filler = Filler(colours, cells((3, 5), (0, 0, 15, 12)), how, "x")
    for kept in (np.arange(15) % 3 > 0, np.zeros(15, np.bool_), np.ones(15, np.bool_)):
        found = np.asarray(filler.image_without(kept))
        np.testing.assert_array_equal(found, np.rint(255 * filler.without(kept)))
