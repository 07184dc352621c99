"""Positions of heat maps over the photo, checked by the pixels of the figure."""

import numpy as np
import pytest
from figure_checks import BOX, GRID, HEIGHT, WHITE, WIDTH, cut, make_sample, one_hot, pictures, random_explanations
from PIL import Image

from explain.figures import Explanation, draw, save


@pytest.mark.parametrize("overlay", ["bilinear", "patches"])
@pytest.mark.parametrize("hot", [(0, 0), (1, 2), (2, 3)])
def test_a_patch_is_drawn_at_its_position_in_the_photo(overlay, hot):
    """The photo is white, so the darkest pixel is the one with the highest score."""
    figure = draw(make_sample(Explanation("e", one_hot(*hot), [0, 0])), overlay)
    pixels = cut(figure, pictures(figure)[1]).sum(2)
    shape = np.array(pixels.shape)
    pixels[:, : int(0.21 * shape[1])] = pixels[:, int(0.79 * shape[1]) :] = np.inf  # the outline of the box
    pixels[:4] = pixels[-4:] = np.inf
    y, x = (np.mean(np.nonzero(pixels == pixels.min()), axis=1) + 0.5) / shape * (HEIGHT, WIDTH)
    row, column = hot
    assert 20 + column * 15 < x < 20 + (column + 1) * 15
    assert row * 20 < y < (row + 1) * 20


def test_a_patch_covers_exactly_its_pixels():
    """A patch's colour covers the same pixels as a black block at its position in the photo, up to one pixel."""
    black = WHITE.copy()
    black[20:40, 50:65] = 0
    heat = draw(make_sample(Explanation("e", one_hot(1, 2), [0, 0])), "patches")
    block = draw(make_sample(Explanation("e", one_hot(1, 2), [0, 0]), image=black))
    coloured = np.ptp(cut(heat, pictures(heat)[1]), axis=2) > 20
    dark = cut(block, pictures(block)[0]).mean(2) < 128
    assert coloured.shape == dark.shape
    for axis in (0, 1):
        found, expected = (np.flatnonzero(mask.any(axis))[[0, -1]] for mask in (coloured, dark))
        assert np.abs(found - expected).max() <= 1
    assert np.abs(coloured.mean() - 15 * 20 / (WIDTH * HEIGHT)) < 0.003


@pytest.mark.parametrize("overlay", ["bilinear", "patches"])
def test_nothing_is_coloured_outside_the_box(overlay):
    figure = draw(make_sample(Explanation("e", np.ones(GRID), [0, 0])), overlay)
    pixels = cut(figure, pictures(figure)[1])
    coloured = np.ptp(pixels, axis=2).mean(0) > 20
    edges = np.flatnonzero(coloured)[[0, -1]] / len(coloured) * WIDTH
    assert edges == pytest.approx([20, 80], abs=0.6)
    left, right, bottom, top = pictures(figure)[1].images[1].get_extent()
    assert (left, top, right, bottom) == BOX


def test_the_photo_is_unchanged_on_the_left_and_visible_under_the_heat():
    image = np.random.default_rng(0).integers(0, 256, (4, 4, 3)).astype(np.uint8)
    photo = {"image": image, "box": (0, 0, 4, 4)}
    figure = draw(make_sample(Explanation("e", np.ones((1, 1)), [0, 0]), **photo))
    unchanged, heat = (cut(figure, axes) for axes in pictures(figure))
    step = len(unchanged) / 4
    centres = (np.arange(4) * step + step / 2).astype(int)
    np.testing.assert_allclose(unchanged[np.ix_(centres, centres)], image, atol=1)
    grey = np.asarray(Image.fromarray(image).convert("L"), float)
    assert np.corrcoef(heat[np.ix_(centres, centres)].sum(2).ravel(), grey.ravel())[0, 1] > 0.98


def test_images_keep_the_shape_of_the_photo():
    for height, width in ((60, 100), (100, 60), (300, 20)):
        photo = {"image": np.zeros((height, width, 3), np.uint8), "box": (0, 0, width, height)}
        figure = draw(make_sample(*random_explanations(2), **photo))
        for axes in pictures(figure):
            size = axes.get_position().size * figure.get_size_inches()
            assert size[1] / size[0] == pytest.approx(height / width)


def test_a_pil_image_of_any_mode_is_drawn_like_its_rgb_array(tmp_path):
    image = Image.effect_noise((WIDTH, HEIGHT), 50)
    array = np.asarray(image.convert("RGB"))
    files = [
        save(draw(make_sample(*random_explanations(1), image=i)), tmp_path / str(k), ["png"])[0]
        for k, i in enumerate((image, array))
    ]
    assert files[0].read_bytes() == files[1].read_bytes()
