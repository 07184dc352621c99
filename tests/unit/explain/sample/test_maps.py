"""Maps on a photo's grid: views are added by area, and padding is left out."""

import numpy as np
import pytest
import sample_models as samples
import torch
from PIL import Image

import explain
from explain.sample.maps import _photo_map, cropped_box
from explain.sample.traced import View
from explain.traced import grid_boxes


def boxes(rows, cols):
    return grid_boxes((rows, cols), (4, 4), torch.device("cpu")).double()


def test_a_base_view_and_its_tiles_are_added_by_area():
    """Two tiles of 2 × 2 patches side by side, and the whole in 2 × 2 patches, each over two cells."""
    views = [View(0), View(0, (0, 0, 0.5, 1)), View(0, (0.5, 0, 1, 1))]
    numbers = torch.tensor([0] * 4 + [1] * 4 + [2] * 4)
    scores = torch.tensor([4.0, 8, 0, 2, 1, 2, 3, 4, 5, 6, 7, 8]).double()
    found = _photo_map(0, views, numbers, boxes(2, 2).repeat(3, 1), scores)
    assert found.tolist() == [[1 + 2, 2 + 2, 5 + 4, 6 + 4], [3 + 0, 4 + 0, 7 + 1, 8 + 1]]


def test_what_lies_in_the_padding_is_left_out():
    views = [View(0, (0, -0.5, 1, 1.5))]  # the photo is the middle half of the height
    scores = torch.tensor([100.0, 100, 1, 2, 3, 4, 100, 100]).double()
    found = _photo_map(0, views, torch.zeros(8).long(), boxes(4, 2), scores)
    assert found == pytest.approx(np.array([[1, 2], [3, 4]]))


@pytest.mark.parametrize(
    ("size", "box"), [((40, 20), (10, 0, 30, 20)), ((20, 40), (0, 10, 20, 30)), ((20, 20), (0, 0, 20, 20))]
)
def test_the_centre_crop(size, box):
    assert cropped_box(size, 12, (12, 12)) == pytest.approx(box)


def test_a_crop_of_less_than_the_short_side():
    assert cropped_box((40, 20), 16, (8, 8)) == pytest.approx((15, 5, 25, 15))


@pytest.mark.parametrize(("name", "shape"), [("idefics3", (8, 12)), ("llava_next", (3, 4)), ("internvl", (8, 8))])
def test_tiles_of_a_photo_become_one_map(name, shape):
    """The shapes count patches of tiles.

    Idefics3 has 2 × 3 tiles of 4 × 4 patches, InternVL 2 × 2. LLaVA-Next has 18 × 12 pixels of photo in cells of 4 × 4.
    """
    model, processor = getattr(samples, name)()
    explained = explain.explain(model, processor, samples.photo(), samples.QUESTION, target="red")
    scores = explained.traced.explain(explain.explainers.Weighted())["image"]
    assert explained.image.shape == shape
    assert 0 < explained.image.sum() <= float(scores.sum()) * (1 + 1e-4)
    if name != "llava_next":  # nothing is padded
        assert explained.image.sum() == pytest.approx(float(scores.sum()), rel=1e-4)


@pytest.mark.parametrize("name", ["idefics3", "internvl"])
def test_tiles_are_where_the_processor_cut_them(name):
    """Each tile of a photo that becomes brighter from place to place is as bright as its place."""
    model, processor = getattr(samples, name)()
    rows, cols = (2, 3) if name == "idefics3" else (1, 2)
    grey = np.arange(rows * cols).reshape(rows, cols).repeat(16, 0).repeat(16, 1) * 40
    image = Image.fromarray(grey[:, :, None].repeat(3, 2).astype(np.uint8))
    inputs = processor(images=[image], text=["<image>"], return_tensors="pt")
    explained = explain.explain(model, processor, image, samples.QUESTION, target="red")
    frames, views = inputs["pixel_values"].flatten(0, -4), explained.sample.views
    assert len(frames) == len(views) == rows * cols + 1
    assert views[-1].box == (0, 0, 1, 1)
    images = processor.image_processor
    for frame, view in zip(frames[:-1], views[:-1], strict=True):
        left, top, right, bottom = (edge * size for edge, size in zip(view.box, image.size * 2, strict=True))
        want = grey[round(top) : round(bottom), round(left) : round(right)].mean() / 255
        assert float(frame[0].mean()) * images.image_std[0] + images.image_mean[0] == pytest.approx(want, abs=0.02)
